package cli

import (
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// situation builds views: a service and tasks given as "slot.attempt state [desired]".
func situation(change func(*v1.Service), tasks ...string) view {
	n := uint64(2)
	svc := &v1.Service{Meta: v1.Meta{ID: "s", Name: "web"}, Spec: &v1.ServiceSpec{Mode: v1.ModeReplicated, Replicas: &n}}
	svc.Spec.Task.RestartPolicy = &v1.RestartPolicy{Condition: v1.RestartAny}
	if change != nil {
		change(svc)
	}
	other, elsewhere := v1.RevisionOf(svc), v1.RevisionOf(svc)
	other.Task.Container.Image = "other"
	elsewhere.Task.Placement = &v1.Placement{Constraints: []string{"node.role==worker"}}
	v := view{service: svc, tasks: map[string]*v1.Task{}, revisions: map[string]*v1.ServiceRevisionSpec{"old": other, "elsewhere": elsewhere}}
	for _, text := range tasks {
		f := strings.Fields(text)
		t := &v1.Task{Meta: v1.Meta{ID: f[0]}, Desired: &v1.TaskDesired{Service: "s", ServiceName: "web", State: v1.TaskRunning,
			Revision: v1.RevisionID(svc), Slot: uint64(f[0][0] - '0'), Attempt: uint64(f[0][2] - '0'),
			Placement: &v1.TaskPlacement{Node: "n"}}}
		state, ok := v1.ParseTaskState(f[1])
		if !ok {
			panic(f[1])
		}
		t.Status = &v1.TaskStatus{State: state}
		if failed(t) {
			t.Status.Err = "it broke"
		}
		for _, more := range f[2:] {
			switch {
			case more == "old", more == "elsewhere":
				t.Desired.Revision = more
			case more == "pending":
				t.Desired.Placement, t.Status, t.Desired.Pending = nil, nil, "no suitable node"
			case strings.HasPrefix(more, "failures="):
				t.Desired.Restarts = &v1.Restarts{Failures: uint32(more[len(more)-1] - '0')}
			case strings.HasPrefix(more, "times="):
				t.Desired.Restarts = &v1.Restarts{Times: make([]time.Time, more[len(more)-1]-'0')}
			default:
				if t.Desired.State, ok = v1.ParseTaskState(more); !ok {
					panic(more)
				}
			}
		}
		v.tasks[t.Meta.ID] = t
	}
	return v
}

func update(state v1.UpdateState) func(*v1.Service) {
	return func(s *v1.Service) {
		s.Desired = &v1.ServiceDesired{Update: &v1.UpdateStatus{State: state, Message: "why"}}
	}
}

func mode(m v1.ServiceMode) func(*v1.Service) { return func(s *v1.Service) { s.Spec.Mode = m } }

func condition(c v1.RestartCondition, attempts uint64) func(*v1.Service) {
	return func(s *v1.Service) {
		s.Spec.Task.RestartPolicy = &v1.RestartPolicy{Condition: c, MaxAttempts: attempts}
	}
}

// TestJudgeGoal: what ends well, and is not started again, is done where the command says so.
func TestJudgeGoal(t *testing.T) {
	once, job := condition(v1.RestartOnFailure, 0), mode(v1.ModeReplicatedJob)
	ended := []string{"1.1 complete shutdown", "2.1 complete shutdown"}
	for _, c := range []struct {
		name string
		view view
		goal goal
		done bool
		err  bool
	}{
		{"ended, to run", situation(once, ended...), toRun, false, true},
		{"ended, to run or end", situation(once, ended...), toRunOrEnd, true, false},
		{"ended, to end", situation(once, ended...), toEnd, true, false},
		{"one runs, to run or end", situation(once, ended[0], "2.1 running"), toRunOrEnd, true, false},
		{"one runs, to end", situation(once, ended[0], "2.1 running"), toEnd, false, false},
		{"runs, to run or end", situation(nil, "1.1 running", "2.1 running"), toRunOrEnd, true, false},
		{"ended and starts again", situation(nil, "1.1 complete", "2.1 running"), toRunOrEnd, false, false},
		{"failed for good", situation(condition(v1.RestartNone, 0), "1.1 failed shutdown", ended[1]), toRunOrEnd, false, true},
		{"a job failed for good", situation(func(s *v1.Service) { job(s); condition(v1.RestartNone, 0)(s) }, "1.1 failed shutdown"), toRun, false, true},
		{"a job that is done", situation(func(s *v1.Service) { job(s); once(s) }, "1.1 complete", "2.1 complete"), toEnd, true, false},
	} {
		c.view.goal = c.goal
		if got := judge(c.view); got.done != c.done || (got.err != nil) != c.err {
			t.Errorf("%s: done %t, error %v; want done %t, an error: %t", c.name, got.done, got.err, c.done, c.err)
		}
	}
}

func TestJudge(t *testing.T) {
	zero := func(s *v1.Service) { s.Spec.Replicas = new(uint64) }
	for _, c := range []struct {
		name            string
		view            view
		running, wanted int
		done            bool
		monitor         time.Duration
		err             string
	}{
		{"nothing yet", situation(nil), 0, 2, false, settle, ""},
		{"none wanted", situation(zero), 0, 0, true, settle, ""},
		{"one of two", situation(nil, "1.1 running", "2.1 starting"), 1, 2, false, settle, ""},
		{"both", situation(nil, "1.1 running", "2.1 running"), 2, 2, true, settle, ""},
		{"one is to stop", situation(nil, "1.1 running", "2.1 running shutdown"), 1, 2, false, settle, ""},
		{"too many still", situation(nil, "1.1 running", "2.1 running", "3.1 running"), 3, 2, false, settle, ""},
		{"too many, told to go", situation(nil, "1.1 running", "2.1 running", "3.1 running remove"), 2, 2, true, settle, ""},
		{"the old revision does not count", situation(nil, "1.1 running old", "2.1 running"), 1, 2, false, 5 * time.Second, ""},
		{"an update is watched for longer", situation(nil, "1.1 shutdown old", "1.2 running", "2.1 running"), 2, 2, true, 5 * time.Second, ""},
		{"what differs in its placement only counts", situation(nil, "1.1 running elsewhere", "2.1 running"), 2, 2, true, 5 * time.Second, ""},
		{"one that failed before is watched for longer", situation(nil, "1.1 failed shutdown", "1.2 running", "2.1 running"), 2, 2, true, 5 * time.Second, ""},
		{"fails, but is tried again", situation(nil, "1.1 failed", "2.1 running"), 1, 2, false, 5 * time.Second, ""},
		{"keeps failing", situation(nil, "1.3 failed shutdown", "1.4 ready failures=3", "2.1 running"), 1, 2, false, 5 * time.Second,
			"task web.1 keeps failing (3 times in a row): it broke"},
		{"kept failing, runs now", situation(nil, "1.3 failed shutdown", "1.4 running failures=3", "2.1 running"), 2, 2, true, 5 * time.Second, ""},
		{"is not restarted", situation(condition(v1.RestartNone, 0), "1.1 complete", "2.1 running"), 1, 2, false, settle,
			`task web.1 ended (complete), and the restart condition "none" does not start it again`},
		{"failed, is not restarted", situation(condition(v1.RestartNone, 0), "1.1 failed shutdown", "2.1 running"), 1, 2, false, 5 * time.Second,
			`task web.1 ended (failed), and the restart condition "none" does not start it again: it broke`},
		{"complete is no failure", situation(condition(v1.RestartOnFailure, 0), "1.1 complete shutdown", "2.1 running"), 1, 2, false, settle,
			`task web.1 ended (complete), and the restart condition "on-failure" does not start it again`},
		{"restarts used up", situation(condition(v1.RestartAny, 2), "1.3 failed times=2", "2.1 running"), 1, 2, false, 5 * time.Second,
			"task web.1 ended (failed), and its 2 restarts are used up: it broke"},
		{"restarts left", situation(condition(v1.RestartAny, 2), "1.2 failed times=1", "2.1 running"), 1, 2, false, 5 * time.Second, ""},
		{"rolling out", situation(update(v1.UpdateUpdating), "1.1 running", "2.1 running"), 2, 2, false, settle, ""},
		{"rolled out", situation(update(v1.UpdateCompleted), "1.1 running", "2.1 running", "1.0 shutdown old"), 2, 2, true, settle, ""},
		{"paused", situation(update(v1.UpdatePaused)), 0, 2, false, settle, "service update paused: why"},
		{"rolling back", situation(update(v1.UpdateRollbackStarted), "1.1 running", "2.1 running"), 2, 2, false, settle, ""},
		{"rolled back", situation(update(v1.UpdateRollbackCompleted)), 0, 2, false, settle, "service rolled back: why"},
		{"rollback paused", situation(update(v1.UpdateRollbackPaused)), 0, 2, false, settle, "service rollback paused: why"},
		{"global without tasks", situation(mode(v1.ModeGlobal)), 0, 0, true, 5 * time.Second, ""},
		{"global", situation(mode(v1.ModeGlobal), "1.1 running", "2.1 running", "3.1 running"), 3, 3, true, settle, ""},
		{"job", situation(mode(v1.ModeReplicatedJob), "1.1 complete", "2.1 running"), 1, 2, false, settle, ""},
		{"job done", situation(mode(v1.ModeReplicatedJob), "1.1 complete", "2.1 complete"), 2, 2, true, settle, ""},
		{"being removed", situation(func(s *v1.Service) { s.Meta.Deleting = time.Unix(1, 0) }), 0, 0, false, 0, "service web is being removed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := judge(c.view)
			if got.running != c.running || got.wanted != c.wanted || got.done != c.done || got.monitor != c.monitor || errText(got.err) != c.err {
				t.Errorf("got %d/%d done %t after %s, error %q\nwant %d/%d done %t after %s, error %q", got.running, got.wanted, got.done,
					got.monitor, errText(got.err), c.running, c.wanted, c.done, c.monitor, c.err)
			}
		})
	}
}

// TestJudgeOldNews: how an earlier rollout ended says nothing of what is being waited for now.
func TestJudgeOldNews(t *testing.T) {
	for _, state := range []v1.UpdateState{v1.UpdatePaused, v1.UpdateRollbackPaused, v1.UpdateRollbackCompleted} {
		v := situation(update(state), "1.1 running", "2.1 running")
		v.before = &v1.UpdateStatus{State: state, Message: "why"}
		if got := judge(v); got.err != nil || !got.done {
			t.Errorf("%s: done %t, error %v", state, got.done, got.err)
		}
		v.service.Desired.Update.StartedAt = time.Unix(5, 0)
		if got := judge(v); got.err == nil {
			t.Errorf("%s anew: no error", state)
		}
	}
}

func TestSlotText(t *testing.T) {
	for want, v := range map[string]view{
		"running":          situation(nil, "1.1 running"),
		"it broke":         situation(nil, "1.1 failed shutdown", "1.2 ready"),
		"no suitable node": situation(nil, "1.1 new pending"),
		"complete":         situation(nil, "1.1 complete"),
	} {
		if got, _ := judge(v).slots[0].text(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
