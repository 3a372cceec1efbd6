package apiserver

import (
	"bytes"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// TestReportsNeverChangeAnEnd: a task that completed stays complete, though "shutdown" is a later state.
func TestReportsNeverChangeAnEnd(t *testing.T) {
	for _, c := range []struct {
		known, reported v1.TaskState
		written         bool
	}{
		{v1.TaskComplete, v1.TaskShutdown, false},
		{v1.TaskShutdown, v1.TaskFailed, false},
		{v1.TaskFailed, v1.TaskFailed, true}, // more became known of the same end
		{v1.TaskRunning, v1.TaskFailed, true},
		{v1.TaskRunning, v1.TaskStarting, false},
	} {
		s, _, err := store.NewSnapshot().With(7, []store.Op{
			{Kind: v1.KindTask, ID: "t", Section: v1.SectionDesired, Meta: &v1.Meta{},
				Value: &v1.TaskDesired{Service: "s", State: v1.TaskRunning, Placement: &v1.TaskPlacement{Node: "n"}}},
			{Kind: v1.KindTask, ID: "t", Section: v1.SectionStatus, Value: &v1.TaskStatus{State: c.known}},
		})
		if err != nil {
			t.Fatal(err)
		}
		var result v1.StatusResult
		report := v1.TaskReport{ID: "t", Status: v1.TaskStatus{State: c.reported, At: time.Unix(1, 0)}}
		ops := appendReport(nil, s, "n", &report, &result, new(int))
		if written := len(ops) == 1; written != c.written {
			t.Errorf("%s, then a report of %s: written %v, want %v", c.known, c.reported, written, c.written)
		}
		if len(ops) == 1 && ops[0].If != store.AtRevision(7) {
			t.Errorf("%s, then a report of %s: written whatever was written meanwhile", c.known, c.reported)
		}
	}
}

// TestStatusGoesWithTheBeginningOnly: an agent that lost its state must learn what ended, and an ordinary message must not
// carry what the agent itself reported.
func TestStatusGoesWithTheBeginningOnly(t *testing.T) {
	task := &v1.Task{Meta: v1.Meta{ID: "t"}, Desired: &v1.TaskDesired{Service: "s"}, Status: &v1.TaskStatus{State: v1.TaskFailed}}
	for _, complete := range []bool{true, false} {
		line, err := new(encoder).append(nil, &assignment{Revision: 1, Complete: complete, Tasks: []*v1.Task{task}}, nil, new(peerChanges))
		if err != nil {
			t.Fatal(err)
		}
		if has := bytes.Contains(line, []byte(`"failed"`)); has != complete {
			t.Errorf("complete %v: the status is in the message: %v\n%s", complete, has, line)
		}
	}
}
