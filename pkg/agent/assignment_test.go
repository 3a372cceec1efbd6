package agent

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

func TestOlderAssignmentRefused(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		web := l.swarm.service("web", nil)
		l.swarm.assign("t1", web, v1.TaskRunning)
		l.start(nil)
		settle(time.Second)
		l.swarm.send(v1.Assignment{Revision: 1, Removed: []string{"t1"}})
		settle(time.Minute)
		l.want("t1", v1.TaskRunning)
		if states, _ := l.fake.List(context.Background()); len(states) != 1 {
			t.Errorf("containers are %+v", states)
		}
		// What a task runs never changes, so it is taken from an old message too.
		extra := &v1.ServiceRevision{Meta: v1.Meta{ID: "extra"}, Spec: &v1.ServiceRevisionSpec{Service: "web"}}
		extra.Spec.Task.Container.Image = "other:1"
		l.swarm.send(v1.Assignment{Revision: 1, Services: []*v1.ServiceRevision{extra}})
		task := &v1.Task{Meta: v1.Meta{ID: "t2"}, Desired: &v1.TaskDesired{Service: "web", Revision: "extra", State: v1.TaskRunning}}
		l.swarm.tasks["t2"] = task
		l.swarm.send(v1.Assignment{Revision: 99, Tasks: []*v1.Task{task}})
		settle(time.Second)
		l.want("t2", v1.TaskRunning)
	})
}

// TestRevisionsAreForgotten has many services come and go, and one stay, in one session.
func TestRevisionsAreForgotten(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		l.swarm.assign("stays", l.swarm.service("web", nil), v1.TaskRunning)
		l.start(nil)
		for i := range 500 {
			id := fmt.Sprintf("t%d", i)
			l.swarm.assign(id, l.swarm.service("batch", nil), v1.TaskRunning)
			settle(time.Second)
			l.swarm.remove(id)
			settle(time.Second)
		}
		if n := len(l.agent.revisions); n > fewRevisions+1 || l.agent.revisions["web-0"] == nil {
			t.Errorf("%d revisions are kept, that of the task that stays among them: %v", n, l.agent.revisions["web-0"] != nil)
		}
	})
}

// A manager whose store was restored from a backup begins again at an older revision. Refusing that would leave the node
// deaf until the store has caught up.
func TestRestoredStoreIsFollowed(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		web := l.swarm.service("web", nil)
		l.swarm.assign("t1", web, v1.TaskRunning)
		l.start(nil)
		settle(time.Second)
		task := &v1.Task{Meta: v1.Meta{ID: "t2"}, Desired: &v1.TaskDesired{Service: "web", Revision: web, State: v1.TaskRunning}}
		l.swarm.tasks["t2"] = task
		l.swarm.send(v1.Assignment{Revision: 1, Complete: true, Tasks: []*v1.Task{task}})
		settle(time.Minute)
		l.want("t2", v1.TaskRunning)
		if states, _ := l.fake.List(context.Background()); len(states) != 1 || states[0].ID != "t2" {
			t.Errorf("containers are %+v, want that of t2 alone", states)
		}
	})
}

func TestDesiredNeverGoesBack(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		l.swarm.assign("t1", l.swarm.service("web", nil), v1.TaskRunning)
		l.start(nil)
		settle(time.Second)
		l.swarm.desire("t1", v1.TaskShutdown)
		l.swarm.desire("t1", v1.TaskRunning)
		settle(time.Minute)
		l.want("t1", v1.TaskShutdown)
		if starts := l.fake.Calls(engine.FakeStart); starts != 1 {
			t.Errorf("started %d times", starts)
		}
	})
}

// A task that was dropped and comes back while it stops does not stay half stopped.
func TestDroppedTaskComesBack(t *testing.T) {
	bubble(t, engine.FakeOptions{Process: func(engine.Container) engine.FakeProcess { return engine.FakeProcess{Deaf: true} }}, func(t *testing.T, l *lab) {
		web := l.swarm.service("web", nil)
		l.swarm.assign("t1", web, v1.TaskRunning)
		l.start(nil)
		settle(time.Second)
		l.swarm.remove("t1")
		settle(time.Second)
		l.swarm.assign("t1", web, v1.TaskRunning)
		settle(time.Minute)
		l.want("t1", v1.TaskShutdown)
		l.wantClean()
	})
}

func TestRevisionComesAfterTheTask(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		late := &v1.ServiceRevision{Meta: v1.Meta{ID: "late"}, Spec: &v1.ServiceRevisionSpec{Service: "web"}}
		late.Spec.Task.Container.Image = "hello:1"
		task := &v1.Task{Meta: v1.Meta{ID: "t1"}, Desired: &v1.TaskDesired{Service: "web", Revision: "late", State: v1.TaskRunning}}
		l.swarm.tasks["t1"] = task
		l.start(nil)
		settle(time.Second)
		if status := l.want("t1", v1.TaskAccepted); !strings.Contains(status.Err, "late") {
			t.Errorf("status is %+v", status)
		}
		l.swarm.send(v1.Assignment{Revision: 50, Services: []*v1.ServiceRevision{late}})
		settle(time.Second)
		l.want("t1", v1.TaskRunning)
	})
}

// A manager that knows how a task ended tells an agent that lost its state, which then does not run it again.
func TestEndedTaskIsNotRunAgain(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		web := l.swarm.service("web", nil)
		l.swarm.assign("t1", web, v1.TaskRunning)
		l.swarm.assign("t2", web, v1.TaskRunning)
		l.swarm.tasks["t1"].Status = &v1.TaskStatus{State: v1.TaskFailed}
		l.swarm.tasks["t2"].Status = &v1.TaskStatus{State: v1.TaskRunning}
		l.start(nil)
		settle(time.Second)
		if status := l.want("t2", v1.TaskFailed); status.Err != errLost {
			t.Errorf("status is %+v", status)
		}
		if starts := l.fake.Calls(engine.FakeStart); starts != 0 || len(l.swarm.history["t1"]) != 0 {
			t.Errorf("started %d times, reported %v", starts, l.swarm.history["t1"])
		}
	})
}

func TestBrokenMessages(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		l.start(nil)
		settle(time.Second)
		l.swarm.send(v1.Assignment{Revision: 1, Tasks: []*v1.Task{nil, {}, {Meta: v1.Meta{ID: "x"}}, {Desired: &v1.TaskDesired{}}},
			Services: []*v1.ServiceRevision{nil, {}}, Node: &v1.Node{}, GatewayPool: "nonsense", Removed: []string{"", "unknown"},
			Streams: []v1.StreamRequest{{}}})
		l.swarm.assign("t1", l.swarm.service("web", nil), v1.TaskRunning)
		settle(time.Second)
		l.want("t1", v1.TaskRunning)
	})
}

// Whatever comes, in whatever order, the machine ends up as the manager wants it.
func TestStorm(t *testing.T) {
	for seed := range uint64(8) {
		random := rand.New(rand.NewPCG(seed, 1))
		var mu sync.Mutex // the fake calls from many goroutines
		chance := func(n int) bool { mu.Lock(); defer mu.Unlock(); return random.IntN(n) == 0 }
		o := engine.FakeOptions{
			Delay: func(engine.FakeOp, string) time.Duration {
				mu.Lock()
				defer mu.Unlock()
				return time.Duration(random.IntN(300)) * time.Millisecond
			},
			Fail: func(op engine.FakeOp, _ string) error {
				if chance(10) {
					return fmt.Errorf("%s does not feel like it", op)
				}
				return nil
			},
		}
		bubble(t, o, func(t *testing.T, l *lab) { storm(t, l, chance) })
	}
}

func storm(t *testing.T, l *lab, chance func(int) bool) {
	revisions := []string{l.swarm.service("web", published(v1.PortConfig{Published: 80, Target: 80})), l.swarm.service("db", nil)}
	l.start(nil)
	for i := range 120 {
		l.swarm.assign(fmt.Sprintf("t%03d", i), revisions[i%2], v1.TaskRunning)
		victim := fmt.Sprintf("t%03d", i/2)
		switch {
		case chance(4):
			l.fake.Kill(victim, 1)
		case chance(4) && l.swarm.tasks[victim] != nil:
			l.swarm.desire(victim, v1.TaskShutdown)
		case chance(5) && l.swarm.tasks[victim] != nil:
			l.swarm.remove(victim)
		case chance(20):
			l.fake.Lose(errors.New("gone"))
		case chance(20):
			l.swarm.leave(true)
		case chance(15):
			l.stop()
			l.start(nil)
		}
		if chance(3) {
			settle(200 * time.Millisecond)
			l.fake.Lose(nil)
			l.swarm.leave(false)
		}
	}
	l.fake.Lose(nil)
	l.swarm.leave(false)
	settle(10 * time.Minute)
	running := map[string]bool{}
	for id, task := range l.swarm.tasks {
		status := l.swarm.status[id]
		if running[id] = status.State == v1.TaskRunning; !running[id] {
			delete(running, id)
		}
		if !status.State.Terminal() && (status.State != v1.TaskRunning || task.Desired.State != v1.TaskRunning) {
			t.Errorf("task %s is %+v, desired %s", id, status, task.Desired.State)
		}
	}
	have := map[string]bool{}
	states, _ := l.agent.o.Runtime.(*engine.Fake).List(context.Background())
	for states == nil {
		states, _ = l.fake.List(context.Background())
	}
	for _, s := range states {
		have[s.ID] = s.Status == engine.Running
	}
	if diff := cmp.Diff(running, have); diff != "" {
		t.Errorf("containers (-want +got):\n%s", diff)
	}
	if links := l.net.config().Tasks; len(links) != len(running) {
		t.Errorf("%d links of %d tasks", len(links), len(running))
	}
}

func TestReportsAreCutWhenRefused(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		l.swarm.reject = func(r v1.StatusReport) error {
			for _, task := range r.Tasks {
				if task.ID == "poison" {
					return errors.New("bad request")
				}
			}
			return nil
		}
		web := l.swarm.service("web", nil)
		for i := range 50 {
			l.swarm.assign(fmt.Sprint("t", i), web, v1.TaskRunning)
		}
		l.swarm.assign("poison", web, v1.TaskRunning)
		l.start(nil)
		settle(10 * time.Minute)
		for i := range 50 {
			l.want(fmt.Sprint("t", i), v1.TaskRunning)
		}
	})
}

func TestStreams(t *testing.T) {
	output := []v1.LogRecord{{Line: []byte("one")}, {Line: []byte("two"), Stream: "stderr"}}
	o := engine.FakeOptions{
		Process: func(engine.Container) engine.FakeProcess { return engine.FakeProcess{Output: output} },
		Delay: func(op engine.FakeOp, _ string) time.Duration {
			if op == engine.FakeStart {
				return time.Minute
			}
			return 0
		},
	}
	bubble(t, o, func(t *testing.T, l *lab) {
		all := v1.LogOptions{Stdout: true, Stderr: true, Tail: -1}
		follow := all
		follow.Follow = true
		l.swarm.assign("t1", l.swarm.service("web", nil), v1.TaskRunning)
		l.start(nil)
		settle(time.Second)
		l.swarm.send(v1.Assignment{Streams: []v1.StreamRequest{{ID: "early", Task: "t1", Logs: follow}, {ID: "nobody", Task: "t9", Logs: all}}})
		settle(2 * time.Minute)
		l.swarm.send(v1.Assignment{Streams: []v1.StreamRequest{{ID: "all", Task: "t1", Logs: all}, {ID: "all", Task: "t1", Logs: all},
			{ID: "errors", Task: "t1", Logs: v1.LogOptions{Stderr: true, Tail: -1}}}})
		settle(time.Second)
		l.fake.Write("t1", v1.LogRecord{Line: []byte("three")})
		l.swarm.desire("t1", v1.TaskShutdown)
		settle(time.Minute)
		want := map[string][]string{"early": {"one", "two", "three"}, "all": {"one", "two"}, "errors": {"two"}}
		if diff := cmp.Diff(want, l.swarm.streams); diff != "" {
			t.Errorf("streams (-want +got):\n%s", diff)
		}
		if len(l.agent.streams) != 0 {
			t.Errorf("streams are left: %v", l.agent.streams)
		}
	})
}

func TestTooManyStreams(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		var mu sync.Mutex
		open, refusals := 0, 0
		l.swarm.streamed = func(_ string, records iter.Seq2[v1.LogRecord, error]) error {
			mu.Lock()
			open++
			mu.Unlock()
			for _, err := range records {
				if errors.Is(err, errStreams) {
					mu.Lock()
					refusals++
					mu.Unlock()
				}
			}
			return nil
		}
		l.swarm.assign("t1", l.swarm.service("web", nil), v1.TaskRunning)
		l.start(nil)
		settle(time.Second)
		l.fake.Write("t1", v1.LogRecord{Line: []byte("x")})
		m := v1.Assignment{}
		for i := range maxStreams + 10 {
			m.Streams = append(m.Streams, v1.StreamRequest{ID: fmt.Sprint(i), Task: "t1", Logs: v1.LogOptions{Stdout: true, Follow: true, Tail: -1}})
		}
		l.swarm.send(m)
		settle(time.Second)
		if open != maxStreams+10 || refusals != 10 {
			t.Errorf("%d streams, %d of them refused", open, refusals)
		}
	})
}

// A manager that lags behind the one that assigned a task does not make the agent lose its status.
func TestUnknownTaskIsReportedAgain(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		l.swarm.assign("t1", l.swarm.service("web", nil), v1.TaskRunning)
		l.start(nil)
		l.swarm.mu.Lock()
		task := l.swarm.tasks["t1"]
		l.swarm.reject = func(v1.StatusReport) error { delete(l.swarm.tasks, "t1"); return nil }
		l.swarm.mu.Unlock()
		settle(time.Second)
		l.swarm.mu.Lock()
		l.swarm.reject, l.swarm.tasks["t1"] = nil, task
		l.swarm.mu.Unlock()
		settle(10 * time.Second)
		l.want("t1", v1.TaskRunning)
	})
}
