package v1

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestUpdateEverySlot reads the number as most other languages do, as a float64, and writes it again.
func TestUpdateEverySlot(t *testing.T) {
	written, err := json.Marshal(UpdateStatus{Admitted: UpdateEverySlot})
	if err != nil {
		t.Fatal(err)
	}
	var read map[string]any
	if err := json.Unmarshal(written, &read); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(int64(read["admitted"].(float64)))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(written), `"admitted":`+string(again)) {
		t.Errorf("written as %s, read as %s", written, again)
	}
}
