package service

import (
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// TestKeysInADrain has a task that begins to run, and an earlier one of its slot: the service is woken where that one may stop
// now, however many there were between them, and else not, for a large service begins with many tasks.
func TestKeysInADrain(t *testing.T) {
	for _, test := range []struct {
		name            string
		earlier, newest uint64
		availability    v1.NodeAvailability
		desired         v1.TaskState
		want            bool
	}{
		{"the one before is on a drained node", 1, 2, v1.AvailabilityDrain, v1.TaskRunning, true},
		{"one long before is on a drained node", 2, 40, v1.AvailabilityDrain, v1.TaskRunning, true},
		{"one among a few is on a drained node", 2, 7, v1.AvailabilityDrain, v1.TaskRunning, true},
		{"it is to stop already", 1, 2, v1.AvailabilityDrain, v1.TaskShutdown, false},
		{"its node is not drained", 1, 2, v1.AvailabilityActive, v1.TaskRunning, false},
		{"there was none", 0, 1, v1.AvailabilityDrain, v1.TaskRunning, false},
	} {
		status := &v1.TaskStatus{State: v1.TaskRunning}
		before := &v1.Task{Meta: v1.Meta{ID: v1.TaskID("web", "3", test.newest)},
			Desired: &v1.TaskDesired{Service: "web", Slot: 3, Attempt: test.newest, State: v1.TaskRunning, Placement: &v1.TaskPlacement{Node: "n2"}}}
		after := *before
		after.Status = status
		ops := []store.Op{{Kind: v1.KindNode, ID: "n1", Value: &v1.NodeSpec{Availability: test.availability}, Meta: &v1.Meta{}, If: store.Absent()}}
		if test.earlier > 0 {
			id := v1.TaskID("web", "3", test.earlier)
			ops = append(ops, store.Op{Kind: v1.KindTask, ID: id, Section: v1.SectionDesired, Meta: &v1.Meta{}, If: store.Absent(),
				Value: &v1.TaskDesired{Service: "web", Slot: 3, Attempt: test.earlier, State: test.desired, Placement: &v1.TaskPlacement{Node: "n1"}}},
				store.Op{Kind: v1.KindTask, ID: id, Section: v1.SectionStatus, Value: status})
		}
		s, _, err := store.NewSnapshot().With(1, ops)
		if err != nil {
			t.Fatal(err)
		}
		keys := Rule{}.Keys(s, store.Change{Kind: v1.KindTask, ID: after.Meta.ID, Old: before, New: &after})
		if got := len(keys) == 1 && keys[0] == "web"; got != test.want {
			t.Errorf("%s: the service is woken: %v, want %v", test.name, got, test.want)
		}
	}
}
