package cli

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// TestDoctorNames: nodes and networks are called by their names; a node that is in no list any more, which others have not learnt yet, is called so and
// not by its ID alone.
func TestDoctorNames(t *testing.T) {
	var out bytes.Buffer
	a := &app{Options: withDefaults(Options{Out: &out})}
	d := &diagnosis{Findings: []v1.Finding{{Node: "n1", Peer: "n2", Text: "one"}, {Node: "n1", Peer: "n3", Text: "two"},
		{Node: "n1", Network: "net1", Text: "three"}}}
	if err := a.printDiagnosis(d, map[string]string{"n1": "manager1", "n2": "worker1", "net1": "back"}); err == nil {
		t.Error("findings are no error")
	}
	if got, want := out.String(), "node manager1, to node worker1: one\nnode manager1, to node n3, which left: two\nnode manager1, network back: three\n"; got != want {
		t.Errorf("it says %q, want %q", got, want)
	}
}

// TestCutOffExamination: an answer without an end is none, and is called so wherever it was cut off.
func TestCutOffExamination(t *testing.T) {
	var whole bytes.Buffer
	if err := v1.WriteFrame(&whole, v1.FrameOutput, []byte(`{"checks":3}`)); err != nil {
		t.Fatal(err)
	}
	for n := range whole.Len() + 1 {
		_, err := readExamination(&v1.FrameReader{From: bytes.NewReader(whole.Bytes()[:n])})
		if !errors.Is(err, errCutOff) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

// TestDoctorTellsCauses: what follows from a node that is down, or that cannot encrypt a network, is not told beside it, and all else is.
func TestDoctorTellsCauses(t *testing.T) {
	told := []v1.Finding{
		{Check: v1.CheckEncrypted, Node: "n1", Network: "sealed", Text: "what encrypts it on this node does not answer"},
		{Check: v1.CheckNetwork, Node: "n1", Network: "broken", Text: "it is not whole on this node"},
		{Check: v1.CheckRules, Node: "n1", Network: "back", At: "10.0.0.5,fd00::5", Text: "attachment blue cannot be put on its networks"},
		{Check: v1.CheckLink, Node: "n2", Network: "back", Peer: "n1", At: "10.0.0.6"},
		{Check: v1.CheckLink, Node: "n2", Network: "other", Peer: "n1", At: "10.0.0.5"},
		{Check: v1.CheckEncrypted, Node: "n3", Network: "other", Peer: "n1", Text: "there never was a handshake"},
		{Check: v1.CheckLink, Node: "n1", Network: "open", Peer: "n2"},
		{Check: v1.CheckLink, Node: "n2", Network: "sealed", Peer: "n3"},
		{Check: v1.CheckNode, Node: "n4", Text: "it cannot be examined: it is down"},
		{Check: v1.CheckRules, Node: "n1", Network: "sealed"},
		{Check: v1.CheckUnderlay, Node: "n2", Peer: "n1"},
	}
	follows := []v1.Finding{
		{Check: v1.CheckLink, Node: "n2", Network: "back", Peer: "n1", At: "fd00::5"},
		{Check: v1.CheckLink, Node: "n2", Network: "broken", Peer: "n1"},
		{Check: v1.CheckLink, Node: "n1", Network: "sealed", Peer: "n2"},
		{Check: v1.CheckMTU, Node: "n1", Network: "sealed", Peer: "n2"},
		{Check: v1.CheckLink, Node: "n2", Network: "sealed", Peer: "n1"},
		{Check: v1.CheckEncrypted, Node: "n2", Network: "sealed", Peer: "n1"},
		{Check: v1.CheckUnderlay, Node: "n2", Peer: "n4"},
	}
	got := causes(append(append([]v1.Finding{}, follows...), told...), map[string]bool{"n4": true})
	if diff := cmp.Diff(told, got); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}
