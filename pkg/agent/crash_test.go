package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// story is what happens to a node in the crash tests, with the time that each chapter takes.
func story(l *lab) []func() {
	web := l.swarm.service("web", func(s *v1.ServiceRevisionSpec) {
		s.Endpoint = &v1.EndpointSpec{Ports: []v1.PortConfig{{Published: 8080, Target: 80, Protocol: v1.TCP}}}
	})
	job := l.swarm.service("job", nil)
	flaky := l.swarm.service("flaky", func(s *v1.ServiceRevisionSpec) { s.Task.Container.Image = "flaky:1" })
	return []func(){
		func() {
			l.swarm.assign("flaky", flaky, v1.TaskRunning)
			l.swarm.assign("stays", web, v1.TaskRunning)
			l.swarm.assign("stops", web, v1.TaskRunning)
			l.swarm.assign("fails", job, v1.TaskRunning)
			l.swarm.assign("waits", web, v1.TaskReady)
		},
		func() { l.fake.Kill("fails", 3) },
		func() { l.swarm.desire("stops", v1.TaskShutdown) },
		func() { l.swarm.desire("waits", v1.TaskRunning) },
		func() { l.swarm.desire("fails", v1.TaskRemove) },
		func() { l.swarm.remove("fails"); l.swarm.remove("stops"); l.swarm.remove("flaky") },
	}
}

// The agent dies at every point there is, one after the other, and each time the next one comes to the same end, with no
// process started twice.
func TestCrashAnywhere(t *testing.T) {
	points := 0
	for crashAt := 1; ; crashAt++ {
		reached := ""
		synctest.Test(t, func(t *testing.T) { reached = crashOnce(t, crashAt) })
		if reached == "" {
			break
		}
		points++
		if t.Failed() {
			t.Fatalf("after a crash %s, at point %d", reached, crashAt)
		}
	}
	if points < 50 {
		t.Errorf("only %d points to crash at", points)
	}
	t.Logf("crashed at %d points", points)
}

// crashOnce lives through the story with a crash at one point, and says at which.
func crashOnce(t *testing.T, crashAt int) (reached string) {
	var mu sync.Mutex
	starts, seen, pulled := map[string]int{}, 0, false
	l := newLab(t, engine.FakeOptions{Process: func(c engine.Container) engine.FakeProcess {
		mu.Lock()
		defer mu.Unlock()
		starts[c.ID]++
		return engine.FakeProcess{}
	}, Fail: func(op engine.FakeOp, id string) error {
		mu.Lock()
		defer mu.Unlock()
		if id == "flaky:1" && !pulled { // an agent that forgot this would run the task that it said was rejected
			pulled = true
			return engine.ErrNotFound
		}
		return nil
	}})
	hook := func(point string) bool {
		mu.Lock()
		defer mu.Unlock()
		if seen++; seen == crashAt {
			reached = point
		}
		return seen == crashAt
	}
	l.start(hook)
	for _, chapter := range story(l) {
		chapter()
		settle(2 * time.Second)
		if l.agent.crashed.Load() {
			l.stop()
			l.start(nil)
			settle(2 * time.Second)
		}
	}
	l.want("stays", v1.TaskRunning)
	l.want("waits", v1.TaskRunning)
	l.want("stops", v1.TaskShutdown)
	if status := l.want("fails", v1.TaskFailed); status.Err != "task: non-zero exit (3)" {
		t.Errorf("status is %+v", status)
	}
	for id, n := range starts {
		if n != 1 {
			t.Errorf("task %s was started %d times", id, n)
		}
	}
	c := l.net.config()
	if len(c.Tasks) != 2 || len(c.Published) != 1 || len(c.Published[0].Backends) != 2 {
		t.Errorf("network is %+v", c)
	}
	if states, _ := l.fake.List(context.Background()); len(states) != 2 {
		t.Errorf("containers are %+v", states)
	}
	if len(l.agent.tasks) != 2 || len(l.swarm.backward) > 0 {
		t.Errorf("tasks are %v, reports that go back: %v", l.agent.tasks, l.swarm.backward)
	}
	l.stop()
	return reached
}

// What is on the machine, and what was told, is in the state file first.
func TestStateIsWrittenAhead(t *testing.T) {
	var l *lab
	onDisk := func(id string) (savedTask, bool) {
		s, err := read(l.dir)
		if err != nil {
			return savedTask{}, false
		}
		for _, st := range s.Tasks {
			if st.Task.Meta.ID == id {
				return st, true
			}
		}
		return savedTask{}, false
	}
	check := func(op engine.FakeOp, id string) error {
		st, ok := onDisk(id)
		if op == engine.FakeCreate && !ok || op == engine.FakeSignal && st.StopAt.IsZero() || op == engine.FakeRemove && !st.Status.State.Terminal() {
			t.Errorf("%s of %s, of which the state file says %+v", op, id, st)
		}
		return nil
	}
	bubble(t, engine.FakeOptions{Fail: check}, func(t *testing.T, lab *lab) {
		l = lab
		l.swarm.reject = func(r v1.StatusReport) error {
			for _, told := range r.Tasks {
				if st, _ := onDisk(told.ID); told.Status.State.Terminal() && st.Status.State != told.Status.State {
					t.Errorf("%s is told to be %s, the state file says %+v", told.ID, told.Status.State, st.Status)
				}
			}
			return nil
		}
		web := l.swarm.service("web", nil)
		bad := l.swarm.service("bad", env("A={{"))
		l.start(func(point string) bool {
			if point == "before save" {
				time.Sleep(time.Second) // a slow disk
			}
			return false
		})
		for i := range 20 {
			l.swarm.assign(fmt.Sprint("t", i), web, v1.TaskRunning)
			l.swarm.assign(fmt.Sprint("b", i), bad, v1.TaskRunning)
			settle(time.Duration(i) * time.Millisecond)
		}
		settle(10 * time.Second)
		for i := range 20 {
			if i%2 == 0 {
				l.swarm.desire(fmt.Sprint("t", i), v1.TaskShutdown)
			} else {
				l.fake.Kill(fmt.Sprint("t", i), i)
			}
		}
		settle(time.Minute)
		l.want("t18", v1.TaskShutdown)
		l.want("t19", v1.TaskFailed)
		l.want("b19", v1.TaskRejected)
		l.wantClean()
	})
}

func TestManagerAwayForAnHour(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		web := l.swarm.service("web", nil)
		never := l.swarm.service("never", func(s *v1.ServiceRevisionSpec) {
			s.Task.RestartPolicy = &v1.RestartPolicy{Condition: v1.RestartNone}
		})
		for i := range 3 {
			l.swarm.assign(fmt.Sprint("t", i), web, v1.TaskRunning)
		}
		l.swarm.assign("n1", never, v1.TaskRunning)
		l.swarm.assign("n2", never, v1.TaskRunning)
		l.start(nil)
		settle(time.Second)
		pid := l.want("t0", v1.TaskRunning).Container.PID
		l.swarm.leave(true)
		settle(20 * time.Minute)
		l.stop()
		l.fake.Kill("t1", 2)
		l.fake.Kill("n1", 2)
		l.start(nil) // with nobody to ask
		settle(20 * time.Minute)
		l.fake.Kill("t2", 0)
		l.fake.Kill("n2", 0)
		settle(20 * time.Minute)
		if c := l.net.config(); len(c.Tasks) != 3 {
			t.Errorf("links are %+v", c.Tasks)
		}
		if sessions := l.swarm.sessions; sessions < 3600 || sessions > 7300 {
			t.Errorf("tried %d times in an hour", sessions)
		}
		l.swarm.leave(false)
		settle(10 * time.Second)
		if now := l.want("t0", v1.TaskRunning).Container.PID; now != pid {
			t.Errorf("process %d became %d", pid, now)
		}
		if status := l.want("t1", v1.TaskRunning); status.Alone == nil || status.Alone.Count != 1 || status.Alone.Last != "exit code 2" {
			t.Errorf("status of a task that was started again: %+v", status)
		}
		l.want("t2", v1.TaskRunning)
		if status := l.want("n1", v1.TaskFailed); *status.Container.ExitCode != 2 || status.Alone != nil {
			t.Errorf("status of a task that is not to be started again: %+v", status)
		}
		l.want("n2", v1.TaskComplete)
	})
}

func TestStateFileUnreadable(t *testing.T) {
	for name, damage := range map[string]func(path string){
		"gone":      func(path string) { os.Remove(path) },
		"empty":     func(path string) { os.Truncate(path, 0) },
		"cut short": func(path string) { os.Truncate(path, 500) },
		"changed": func(path string) {
			data, _ := os.ReadFile(path)
			data[len(data)/2] ^= 1
			os.WriteFile(path, data, 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
				web := l.swarm.service("web", func(s *v1.ServiceRevisionSpec) {
					s.Endpoint = &v1.EndpointSpec{Ports: []v1.PortConfig{{Published: 80, Target: 80}}}
				})
				l.swarm.assign("t1", web, v1.TaskRunning)
				l.swarm.assign("t2", web, v1.TaskRunning)
				l.start(nil)
				settle(2 * time.Second)
				pid := l.want("t1", v1.TaskRunning).Container.PID
				l.stop()
				damage(filepath.Join(l.dir, stateName))
				l.swarm.leave(true)
				before := l.net.config()
				l.start(nil)
				settle(time.Minute)
				if c := l.net.config(); len(c.Tasks) != len(before.Tasks) || len(c.Published) != 1 {
					t.Errorf("the network was changed by an agent that knows nothing: %+v", c)
				}
				if states, _ := l.fake.List(context.Background()); len(states) != 2 || states[0].Status != engine.Running {
					t.Errorf("containers were touched by an agent that knows nothing: %+v", states)
				}
				l.swarm.remove("t2")
				l.swarm.leave(false)
				settle(time.Minute)
				if got := l.want("t1", v1.TaskRunning).Container.PID; got != pid {
					t.Errorf("process %d became %d", pid, got)
				}
				if states, _ := l.fake.List(context.Background()); len(states) != 1 {
					t.Errorf("containers are %+v", states)
				}
				if c := l.net.config(); len(c.Tasks) != 1 || len(c.Published) != 1 || len(c.Published[0].Backends) != 1 {
					t.Errorf("network is %+v", c)
				}
			})
		})
	}
}

func TestDiskFull(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		web := l.swarm.service("web", nil)
		l.start(nil)
		settle(time.Second)
		dir := l.agent.o.Dir
		os.RemoveAll(dir)
		os.WriteFile(dir, nil, 0o600) // nothing can be written below it now
		l.swarm.assign("t1", web, v1.TaskRunning)
		settle(time.Second)
		if status := l.want("t1", v1.TaskPreparing); status.Err == "" {
			t.Errorf("status is %+v", status)
		}
		os.Remove(dir)
		os.Mkdir(dir, 0o700)
		settle(time.Minute)
		l.want("t1", v1.TaskRunning)
		if s, err := read(dir); err != nil || len(s.Tasks) != 1 || s.Tasks[0].Status.State != v1.TaskRunning {
			t.Errorf("state file is %+v: %v", s, err)
		}
	})
}

func TestOtherNodesStateFile(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		if err := write(l.dir, stateName, &saved{Format: stateFormat, NodeID: "another", Revision: 1 << 40}); err != nil {
			t.Fatal(err)
		}
		l.swarm.assign("t1", l.swarm.service("web", nil), v1.TaskRunning)
		l.start(nil)
		settle(time.Second)
		l.want("t1", v1.TaskRunning)
	})
}

func TestMachineRestarts(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		web := l.swarm.service("web", nil)
		l.swarm.assign("runs", web, v1.TaskRunning)
		l.swarm.assign("stopping", web, v1.TaskRunning)
		l.start(nil)
		settle(2 * time.Second)
		l.stop()
		l.fake.Vanish()
		clear(l.net.links)
		l.boot = "second"
		l.swarm.desire("stopping", v1.TaskShutdown)
		l.start(nil)
		settle(time.Second)
		if status := l.want("runs", v1.TaskFailed); status.Err != errLost || status.Ran != nil {
			t.Errorf("status is %+v", status)
		}
		l.wantClean()
	})
}

// TestHowLongItRan: of a container that ended while nobody saw it, nobody claims to know; alone, it counts as if it had ended now.
func TestHowLongItRan(t *testing.T) {
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		ended engine.State
		lost  bool
		now   time.Duration // since it began
		ran   *v1.Duration
		long  bool
	}{
		"a second":                 {ended: engine.State{Ended: began.Add(time.Second)}, now: time.Hour, ran: duration(time.Second)},
		"a minute":                 {ended: engine.State{Ended: began.Add(time.Minute)}, now: time.Hour, ran: duration(time.Minute), long: true},
		"unseen, for a second":     {now: time.Second},
		"unseen, for an hour":      {now: time.Hour, long: true},
		"not there, for a second":  {ended: engine.State{Ended: began.Add(time.Second)}, lost: true, now: time.Second},
		"not there, after an hour": {ended: engine.State{Ended: began.Add(time.Hour)}, lost: true, now: time.Hour, long: true},
	} {
		c.ended.Started = began
		task := &task{status: v1.TaskStatus{State: v1.TaskRunning, At: began}, ended: &c.ended, lost: c.lost}
		if ran := task.ran(); (ran == nil) != (c.ran == nil) || ran != nil && *ran != *c.ran {
			t.Errorf("%s: it ran for %v, want %v", name, ran, c.ran)
		}
		if long := task.ranLong(time.Second, began.Add(c.now)); long != c.long {
			t.Errorf("%s: it ran long: %t", name, long)
		}
	}
}

// A runtime that forgets that a container ran must not make the agent start it again.
func TestMachineRestartsBeforeTheStartWasSaved(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		l.swarm.assign("t1", l.swarm.service("web", nil), v1.TaskReady)
		l.start(nil)
		settle(2 * time.Second)
		l.stop()
		l.boot = "second"
		l.swarm.desire("t1", v1.TaskRunning)
		l.start(nil)
		settle(time.Second)
		l.want("t1", v1.TaskFailed)
		if starts := l.fake.Calls(engine.FakeStart); starts != 0 {
			t.Errorf("started %d times", starts)
		}
	})
}

// A container that was made before a restart does not start before its link is there again.
func TestLinkIsMadeAgainBeforeTheStart(t *testing.T) {
	var l *lab
	check := func(op engine.FakeOp, id string) error {
		if links, _ := l.net.Addresses(context.Background()); op == engine.FakeStart && !links[id].IsValid() {
			t.Errorf("%s starts without a link", id)
		}
		return nil
	}
	bubble(t, engine.FakeOptions{Fail: check}, func(t *testing.T, lab *lab) {
		l = lab
		l.swarm.assign("t1", l.swarm.service("web", nil), v1.TaskReady)
		l.start(nil)
		settle(2 * time.Second)
		addr := l.want("t1", v1.TaskReady).Address
		l.stop()
		clear(l.net.links)
		l.net.delay = time.Second
		l.swarm.desire("t1", v1.TaskRunning)
		l.start(nil)
		settle(5 * time.Second)
		if status := l.want("t1", v1.TaskRunning); status.Address != addr {
			t.Errorf("address %s became %s", addr, status.Address)
		}
	})
}

func TestRuntimeIsLostAndBack(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		web := l.swarm.service("web", nil)
		for _, id := range []string{"runs", "ends", "stops"} {
			l.swarm.assign(id, web, v1.TaskRunning)
		}
		l.start(nil)
		settle(time.Second)
		l.fake.Kill("nobody", 0)
		l.fake.Lose(errors.New("containerd died"))
		settle(time.Second)
		l.fake.Kill("ends", 6)
		l.swarm.assign("new", web, v1.TaskRunning)
		l.swarm.desire("stops", v1.TaskShutdown)
		settle(10 * time.Minute)
		l.want("ends", v1.TaskRunning)
		l.want("new", v1.TaskAccepted)
		l.fake.Lose(nil)
		settle(10 * time.Second)
		l.want("runs", v1.TaskRunning)
		l.want("new", v1.TaskRunning)
		l.want("stops", v1.TaskShutdown)
		if status := l.want("ends", v1.TaskFailed); *status.Container.ExitCode != 6 {
			t.Errorf("status is %+v", status)
		}
	})
}

func TestRuntimeIsLostInTheMiddle(t *testing.T) {
	delay := func(op engine.FakeOp, _ string) time.Duration {
		if op == engine.FakeCreate || op == engine.FakeStart {
			return 10 * time.Second
		}
		return 0
	}
	for after := time.Second; after < 30*time.Second; after += 9 * time.Second {
		bubble(t, engine.FakeOptions{Delay: delay}, func(t *testing.T, l *lab) {
			l.swarm.assign("t1", l.swarm.service("web", nil), v1.TaskRunning)
			l.start(nil)
			settle(after)
			l.fake.Lose(errors.New("containerd died"))
			settle(time.Hour)
			l.fake.Lose(nil)
			settle(time.Minute)
			l.want("t1", v1.TaskRunning)
		})
	}
}
