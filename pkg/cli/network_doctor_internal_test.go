package cli

import (
	"bytes"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// TestDoctorNamesNodesThatLeft: a node that is in no list any more, which others have not learnt yet, is called so and not by its ID alone.
func TestDoctorNamesNodesThatLeft(t *testing.T) {
	var out bytes.Buffer
	a := &app{Options: withDefaults(Options{Out: &out})}
	d := &diagnosis{Findings: []v1.Finding{{Node: "n1", Peer: "n2", Text: "one"}, {Node: "n1", Peer: "n3", Text: "two"}}}
	if err := a.printDiagnosis(d, map[string]string{"n1": "manager1", "n2": "worker1"}); err == nil {
		t.Error("findings are no error")
	}
	if got, want := out.String(), "node manager1, to node worker1: one\nnode manager1, to node n3, which left: two\n"; got != want {
		t.Errorf("it says %q, want %q", got, want)
	}
}
