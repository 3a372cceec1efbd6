package v1

import (
	"fmt"
	"strings"
	"testing"
)

// TestTaskStates: the states are Docker Swarm's, by name, number and order, and from complete on nothing runs any more.
func TestTaskStates(t *testing.T) {
	const want = "new=0 pending=64 assigned=192 accepted=256 preparing=320 ready=384 starting=448 running=512 " +
		"complete=576. shutdown=640. failed=704. rejected=768. remove=800. orphaned=832."
	var got []string
	for number := range TaskState(1000) {
		name := number.String()
		if strings.HasPrefix(name, "state(") {
			continue
		}
		if read, ok := ParseTaskState(name); !ok || read != number {
			t.Errorf("%s is read as %d", name, read)
		}
		if name = fmt.Sprintf("%s=%d", name, number); number.Terminal() {
			name += "."
		}
		got = append(got, name)
	}
	if all := strings.Join(got, " "); all != want {
		t.Errorf("got  %s\nwant %s", all, want)
	}
	var s TaskState
	if err := s.UnmarshalText([]byte("allocated")); err == nil || s != TaskNew {
		t.Errorf("a state that there is not: %s, %v", s, err)
	}
}
