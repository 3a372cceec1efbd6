package agent

import (
	"context"
	"maps"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// backup is what a swarm remembers.
type backup struct {
	revision int64
	tasks    map[string]*v1.Task
	status   map[string]v1.TaskStatus
}

func (s *swarm) backup() backup {
	s.mu.Lock()
	defer s.mu.Unlock()
	return backup{s.revision, maps.Clone(s.tasks), maps.Clone(s.status)}
}

// restore ends the session, has the swarm remember what it did, and lets the next session begin.
func (l *lab) restore(b backup) {
	l.swarm.leave(true)
	settle(time.Minute)
	l.swarm.mu.Lock()
	l.swarm.revision, l.swarm.tasks, l.swarm.status, l.swarm.history = b.revision, b.tasks, b.status, map[string][]v1.TaskState{}
	l.swarm.mu.Unlock()
	l.swarm.leave(false)
	settle(time.Minute)
}

func (l *lab) wantContainers(ids ...string) {
	l.t.Helper()
	states, err := l.fake.List(context.Background())
	if err != nil || len(states) != len(ids) {
		l.t.Fatalf("containers are %+v, %v, want those of %v", states, err, ids)
	}
	for i, s := range states {
		if s.ID != ids[i] || s.Status != engine.Running {
			l.t.Errorf("container %+v, want that of %s to run", s, ids[i])
		}
	}
}

// A restored store takes a task for running that has ended since, as its manager was told. It is told again, else nobody would
// ever replace the task; and it is not started again.
func TestEndIsToldToARestoredStore(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(*lab)
		want v1.TaskState
	}{
		"stopped":   {func(l *lab) { l.swarm.desire("t1", v1.TaskShutdown) }, v1.TaskShutdown},
		"failed":    {func(l *lab) { l.fake.Kill("t1", 1) }, v1.TaskFailed},
		"forgotten": {func(l *lab) { l.swarm.remove("t1") }, v1.TaskFailed},
		"restarted": {func(l *lab) {
			l.swarm.desire("t1", v1.TaskShutdown)
			settle(time.Minute)
			l.stop()
			l.start(nil)
		}, v1.TaskShutdown},
		"half stopped": {func(l *lab) {
			l.fake.Lose(context.DeadlineExceeded)
			l.swarm.desire("t1", v1.TaskShutdown)
			settle(time.Second)
			l.fake.Lose(nil)
		}, v1.TaskShutdown},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
				web := l.swarm.service("web", nil)
				l.swarm.assign("t1", web, v1.TaskRunning)
				l.start(nil)
				settle(time.Second)
				before := l.swarm.backup()
				c.end(l)
				l.swarm.assign("t2", web, v1.TaskRunning)
				settle(time.Minute)
				l.wantContainers("t2")
				l.restore(before)
				l.wantHistory("t1", c.want)
				l.wantContainers()
				if starts := l.fake.Calls(engine.FakeStart); starts != 2 {
					t.Errorf("started %d times", starts)
				}
			})
		})
	}
}

// What a restored store does not know of a task that goes on is told again too.
func TestRunningIsToldToARestoredStore(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		l.swarm.assign("t1", l.swarm.service("web", nil), v1.TaskRunning)
		before := l.swarm.backup()
		l.start(nil)
		settle(time.Second)
		l.restore(before)
		l.wantHistory("t1", v1.TaskRunning)
		before = l.swarm.backup()
		at := before.status["t1"]
		at.Address = "100.64.9.9"
		before.status["t1"] = at
		l.restore(before)
		if status := l.want("t1", v1.TaskRunning); status.Address == at.Address {
			t.Errorf("status is %+v", status)
		}
		l.wantContainers("t1")
	})
}

// What the managers know already is not told again by every session.
func TestSessionRepeatsNothing(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		web := l.swarm.service("web", nil)
		l.swarm.assign("t1", web, v1.TaskRunning)
		l.swarm.assign("t2", web, v1.TaskRunning)
		l.start(nil)
		settle(time.Second)
		l.swarm.desire("t2", v1.TaskShutdown)
		settle(time.Minute)
		reports := l.swarm.reports
		l.restore(l.swarm.backup())
		if l.swarm.reports != reports {
			t.Errorf("%d reports with nothing new", l.swarm.reports-reports)
		}
	})
}

// A restored swarm counts attempts once more: its task is not the one of the same ID that an agent still has from before, which may run
// something else.
func TestOtherTaskOfTheSameID(t *testing.T) {
	for name, end := range map[string]bool{"runs": false, "ended": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
				web := l.swarm.service("web", nil)
				before := l.swarm.backup()
				l.swarm.assign("t2", web, v1.TaskRunning)
				l.start(nil)
				settle(time.Second)
				if end {
					l.swarm.desire("t2", v1.TaskShutdown)
					settle(time.Minute)
				}
				other := &v1.Task{Meta: v1.Meta{ID: "t2", CreatedAt: time.Unix(1e9, 0)}, Desired: &v1.TaskDesired{Service: "web",
					ServiceName: "web", Slot: 1, Attempt: 2, Revision: l.swarm.service("other", nil), State: v1.TaskRunning}}
				before.tasks["t2"] = other
				l.restore(before)
				l.wantHistory("t2", v1.TaskShutdown)
				l.wantContainers()
				l.swarm.remove("t2")
				settle(time.Minute)
				l.wantClean()
			})
		})
	}
}
