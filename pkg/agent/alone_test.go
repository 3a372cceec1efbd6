package agent

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// starts remembers when each container was started, and has those that are named end after a while with a code.
type starts struct {
	mu    sync.Mutex
	at    map[string][]time.Duration
	began time.Time
	endIn time.Duration
	code  int
	crash string // the task whose container ends
	oom   bool
}

func (s *starts) options() engine.FakeOptions {
	s.at = map[string][]time.Duration{}
	return engine.FakeOptions{Process: func(c engine.Container) engine.FakeProcess {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.began.IsZero() {
			s.began = time.Now()
		}
		s.at[c.ID] = append(s.at[c.ID], time.Since(s.began).Round(time.Second))
		if c.ID != s.crash {
			return engine.FakeProcess{}
		}
		return engine.FakeProcess{RunFor: s.endIn, ExitCode: s.code, OOMKilled: s.oom}
	}}
}

func (s *starts) of(id string) []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.at[id])
}

func restartPolicy(p v1.RestartPolicy) func(*v1.ServiceRevisionSpec) {
	return func(s *v1.ServiceRevisionSpec) { s.Task.RestartPolicy = &p }
}

func duration(d time.Duration) *v1.Duration { v := v1.Duration(d); return &v }

// TestAloneCrashLoop lets a container fail again and again while nobody can be reached: it is restarted as the managers would have
// it, with a delay that doubles to five minutes.
func TestAloneCrashLoop(t *testing.T) {
	s := &starts{crash: "t1", endIn: time.Second, code: 3}
	bubble(t, s.options(), func(t *testing.T, l *lab) {
		l.swarm.assign("t1", l.swarm.service("web", nil), v1.TaskRunning)
		l.start(nil)
		settle(900 * time.Millisecond)
		l.want("t1", v1.TaskRunning)
		l.swarm.leave(true)
		settle(30 * time.Minute)
		want := []time.Duration{0, 6, 17, 38, 79, 160, 321, 622, 923, 1224, 1525}
		for i := range want {
			want[i] *= time.Second
		}
		if diff := cmp.Diff(want, s.of("t1")); diff != "" {
			t.Errorf("starts (-want +got):\n%s", diff)
		}
		l.swarm.leave(false)
		settle(5 * time.Second) // at 1806 s, while it waits for the next start
		status := l.want("t1", v1.TaskFailed)
		if *status.Container.ExitCode != 3 || status.Alone.Count != 10 || status.Alone.Failures != 10 || *status.Ran != v1.Duration(time.Second) {
			t.Errorf("status %+v, alone %+v, ran %v", status, status.Alone, *status.Ran)
		}
		if n := len(s.of("t1")); n != 11 {
			t.Errorf("%d starts: it was started again with a manager there", n)
		}
	})
}

// TestAloneLongRunsForgetFailures: what ran long enough begins with the first delay again.
func TestAloneLongRunsForgetFailures(t *testing.T) {
	s := &starts{crash: "t1", endIn: 50 * time.Second, code: 1}
	bubble(t, s.options(), func(t *testing.T, l *lab) {
		l.swarm.assign("t1", l.swarm.service("web", nil), v1.TaskRunning)
		l.start(nil)
		settle(time.Second)
		l.swarm.leave(true)
		settle(4 * time.Minute)
		if diff := cmp.Diff([]time.Duration{0, 55 * time.Second, 110 * time.Second, 165 * time.Second, 220 * time.Second}, s.of("t1")); diff != "" {
			t.Errorf("starts (-want +got):\n%s", diff)
		}
	})
}

func TestAlonePolicies(t *testing.T) {
	for name, c := range map[string]struct {
		policy *v1.RestartPolicy
		job    bool
		code   int
		oom    bool
		before *v1.Restarts
		starts int
		state  v1.TaskState // once managers are back
	}{
		"any, which is the default":          {nil, false, 0, false, nil, 4, v1.TaskComplete},
		"none":                               {&v1.RestartPolicy{Condition: v1.RestartNone}, false, 1, false, nil, 1, v1.TaskFailed},
		"on failure":                         {&v1.RestartPolicy{Condition: v1.RestartOnFailure, Delay: duration(55 * time.Second)}, false, 1, false, nil, 2, v1.TaskRunning},
		"on failure, but it completed":       {&v1.RestartPolicy{Condition: v1.RestartOnFailure}, false, 0, false, nil, 1, v1.TaskComplete},
		"memory ran out":                     {&v1.RestartPolicy{Condition: v1.RestartOnFailure, Delay: duration(55 * time.Second)}, false, 137, true, nil, 2, v1.TaskRunning},
		"a job that completed":               {nil, true, 0, false, nil, 1, v1.TaskComplete},
		"a job that failed":                  {&v1.RestartPolicy{Delay: duration(55 * time.Second)}, true, 1, false, nil, 2, v1.TaskRunning},
		"two attempts":                       {&v1.RestartPolicy{MaxAttempts: 2, Delay: duration(time.Second)}, false, 1, false, nil, 3, v1.TaskFailed},
		"two attempts, one was made already": {&v1.RestartPolicy{MaxAttempts: 2, Delay: duration(time.Second)}, false, 1, false, &v1.Restarts{Failures: 1, Times: []time.Time{{}}}, 2, v1.TaskFailed},
		"an attempt every 25 s":              {&v1.RestartPolicy{MaxAttempts: 1, Window: v1.Duration(25 * time.Second), Delay: duration(time.Second)}, false, 0, false, nil, 2, v1.TaskComplete},
	} {
		t.Run(name, func(t *testing.T) {
			s := &starts{crash: "t1", endIn: 15 * time.Second, code: c.code, oom: c.oom}
			bubble(t, s.options(), func(t *testing.T, l *lab) {
				service := l.swarm.service("web", func(r *v1.ServiceRevisionSpec) { r.Task.RestartPolicy = c.policy })
				state := v1.TaskRunning
				if c.job {
					state = v1.TaskComplete
				}
				l.swarm.assign("t1", service, state)
				l.swarm.tasks["t1"].Desired.Restarts = c.before
				l.start(nil)
				settle(time.Second)
				l.swarm.leave(true)
				settle(74 * time.Second)
				if got := len(s.of("t1")); got != c.starts {
					t.Errorf("started %d times, want %d: %v", got, c.starts, s.of("t1"))
				}
				l.swarm.leave(false)
				settle(2 * time.Second)
				status := l.want("t1", c.state)
				if restarted := status.Alone != nil; restarted != (c.starts > 1) {
					t.Errorf("alone: %+v", status.Alone)
				}
				if c.starts > 1 && c.state == v1.TaskRunning && !strings.Contains(status.Message, "restarted once while no manager could be reached; last: exit code") {
					t.Errorf("message %q", status.Message)
				}
			})
		})
	}
}

// TestAloneForAMoment: managers that are away for less than a restart takes decide themselves.
func TestAloneForAMoment(t *testing.T) {
	s := &starts{}
	bubble(t, s.options(), func(t *testing.T, l *lab) {
		l.swarm.assign("t1", l.swarm.service("web", restartPolicy(v1.RestartPolicy{Delay: duration(0)})), v1.TaskRunning)
		l.start(nil)
		settle(time.Second)
		l.swarm.leave(true)
		settle(time.Second)
		l.fake.Kill("t1", 4)
		settle(time.Second)
		if c := l.net.config(); len(c.Tasks) != 0 {
			t.Errorf("links %+v", c)
		}
		l.swarm.leave(false)
		settle(2 * time.Second)
		if status := l.want("t1", v1.TaskFailed); *status.Container.ExitCode != 4 || status.Alone != nil {
			t.Errorf("status %+v", status)
		}
		if n := len(s.of("t1")); n != 1 {
			t.Errorf("%d starts", n)
		}
		l.swarm.desire("t1", v1.TaskShutdown)
		settle(time.Second)
		l.wantClean()
	})
}

// TestAlonePorts: no port leads to a container that has ended and waits to be started again, which has no link meanwhile.
func TestAlonePorts(t *testing.T) {
	s := &starts{}
	bubble(t, s.options(), func(t *testing.T, l *lab) {
		web := l.swarm.service("web", func(s *v1.ServiceRevisionSpec) {
			s.Endpoint = &v1.EndpointSpec{Ports: []v1.PortConfig{{Published: 80, Target: 80}}}
		})
		l.swarm.assign("t1", web, v1.TaskRunning)
		l.start(nil)
		settle(time.Second)
		address := l.want("t1", v1.TaskRunning).Address
		l.swarm.leave(true)
		settle(10 * time.Second)
		l.fake.Kill("t1", 1)
		settle(4 * time.Second)
		if c := l.net.config(); len(c.Published)+len(c.Tasks) != 0 {
			t.Errorf("while it waits: %+v", c)
		}
		settle(4 * time.Second)
		if c := l.net.config(); len(c.Published) != 1 || c.Tasks[0].Address.String() != address {
			t.Errorf("afterwards: %+v", c)
		}
	})
}

// TestAloneAndReplaced: a task that the managers replaced meanwhile is stopped as they say, wherever its restart is.
func TestAloneAndReplaced(t *testing.T) {
	for at := time.Duration(0); at < 8*time.Second; at += 250 * time.Millisecond {
		s := &starts{}
		o := s.options()
		o.Delay = func(op engine.FakeOp, _ string) time.Duration {
			if op == engine.FakeCreate || op == engine.FakeStart || op == engine.FakeRemove {
				return 400 * time.Millisecond
			}
			return 0
		}
		bubble(t, o, func(t *testing.T, l *lab) {
			l.swarm.assign("t1", l.swarm.service("web", nil), v1.TaskRunning)
			l.start(nil)
			settle(3 * time.Second)
			l.want("t1", v1.TaskRunning)
			l.swarm.leave(true)
			settle(10 * time.Second)
			l.fake.Kill("t1", 1)
			settle(at)
			l.swarm.desire("t1", v1.TaskShutdown)
			l.swarm.leave(false)
			settle(20 * time.Second)
			l.swarm.mu.Lock()
			status := l.swarm.status["t1"]
			l.swarm.mu.Unlock()
			if status.State != v1.TaskShutdown && status.State != v1.TaskFailed {
				t.Errorf("managers came back %s after the end: %+v", at, status)
			}
			if n := len(s.of("t1")); n > 2 {
				t.Errorf("managers came back %s after the end: %d starts", at, n)
			}
			l.swarm.remove("t1")
			settle(5 * time.Second)
			l.wantClean()
		})
	}
}

// TestAloneFromTheBeginning: a daemon that is locked, or on a machine that was cut off while it was off, goes on from its state file.
func TestAloneFromTheBeginning(t *testing.T) {
	for name, reboot := range map[string]bool{"agent": false, "machine": true} {
		t.Run(name, func(t *testing.T) {
			s := &starts{}
			bubble(t, s.options(), func(t *testing.T, l *lab) {
				l.swarm.assign("t1", l.swarm.service("web", nil), v1.TaskRunning)
				l.swarm.assign("t2", l.swarm.service("never", restartPolicy(v1.RestartPolicy{Condition: v1.RestartNone})), v1.TaskRunning)
				l.start(nil)
				settle(2 * time.Second)
				address := l.want("t1", v1.TaskRunning).Address
				l.stop()
				l.swarm.leave(true)
				if reboot {
					l.boot = "second"
					l.fake.Vanish()
					l.net = newNetwork()
				} else {
					l.fake.Kill("t1", 1)
					l.fake.Kill("t2", 1)
				}
				l.start(nil)
				settle(time.Minute)
				if n := len(s.of("t1")); n != 2 {
					t.Errorf("t1 was started %d times", n)
				}
				if n := len(s.of("t2")); n != 1 {
					t.Errorf("t2, that is never to be started again, was started %d times", n)
				}
				if c := l.net.config(); len(c.Tasks) == 0 || c.Tasks[0].Address.String() != address {
					t.Errorf("links %+v, had %s", c.Tasks, address)
				}
				l.swarm.leave(false)
				settle(3 * time.Second)
				if status := l.want("t1", v1.TaskRunning); status.Alone == nil || status.Alone.Count != 1 {
					t.Errorf("status %+v", status)
				}
				l.want("t2", v1.TaskFailed)
			})
		})
	}
}

// TestAloneCrashAnywhere has the agent die at every point of a restart in place, with nobody to reach: the task runs again.
func TestAloneCrashAnywhere(t *testing.T) {
	points := 0
	for crashAt := 1; ; crashAt++ {
		reached := ""
		synctest.Test(t, func(t *testing.T) {
			s := &starts{}
			l := newLab(t, s.options())
			defer func() { l.stop() }()
			l.swarm.assign("t1", l.swarm.service("web", nil), v1.TaskRunning)
			l.start(nil)
			settle(2 * time.Second)
			l.swarm.leave(true)
			l.stop()
			seen := 0
			var mu sync.Mutex
			l.start(func(point string) bool {
				mu.Lock()
				defer mu.Unlock()
				if seen++; seen == crashAt {
					reached = point
					return true
				}
				return false
			})
			settle(5 * time.Second)
			l.fake.Kill("t1", 1)
			settle(9 * time.Second)
			l.stop()
			l.start(nil)
			settle(20 * time.Second)
			if state, err := l.fake.State(t.Context(), "t1"); err != nil || state.Status != engine.Running {
				t.Errorf("the container is %+v, %v", state, err)
			}
			if n := len(s.of("t1")); n < 2 || n > 3 {
				t.Errorf("%d starts", n)
			}
			l.swarm.leave(false)
			settle(3 * time.Second)
			l.want("t1", v1.TaskRunning)
		})
		if reached == "" {
			break
		}
		points++
		if t.Failed() {
			t.Fatalf("after a crash %s, at point %d", reached, crashAt)
		}
	}
	if points < 8 {
		t.Errorf("only %d points to crash at", points)
	}
}

// TestAloneNothingGrows: an hour without managers, and with nothing that fails, is an hour in which nothing happens.
func TestAloneNothingGrows(t *testing.T) {
	writes := 0
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		for _, id := range []string{"t1", "t2", "t3"} {
			l.swarm.assign(id, l.swarm.service("web", nil), v1.TaskRunning)
		}
		l.start(func(point string) bool {
			if point == "before save" || point == "before report" {
				writes++
			}
			return false
		})
		settle(10 * time.Second)
		l.swarm.leave(true)
		settle(10 * time.Second)
		before, calls := writes, l.fake.Calls(engine.FakeCreate)+l.fake.Calls(engine.FakeStart)+l.fake.Calls(engine.FakeRemove)
		settle(time.Hour)
		if writes != before {
			t.Errorf("%d writes of the state file, or reports", writes-before)
		}
		if now := l.fake.Calls(engine.FakeCreate) + l.fake.Calls(engine.FakeStart) + l.fake.Calls(engine.FakeRemove); now != calls {
			t.Errorf("%d calls about containers", now-calls)
		}
		if a := l.agent; len(a.timers) > 0 || len(a.tasks) != 3 || len(a.reports.pending) > 0 || len(a.streams) > 0 {
			t.Errorf("%d timers, %d tasks, %d reports, %d streams", len(a.timers), len(a.tasks), len(a.reports.pending), len(a.streams))
		}
	})
}

// TestSwarmNewsArePassedOn: whoever runs the agent learns of the swarm and of the node.
func TestSwarmNewsArePassedOn(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		var told []v1.SwarmNews
		var nodes []*v1.Node
		a := New(Options{NodeID: nodeID, Runtime: l.fake, Manager: l.swarm, Log: slog.New(slog.DiscardHandler),
			Told:   func(n v1.SwarmNews) { told = append(told, n) },
			OnNode: func(n *v1.Node) { nodes = append(nodes, n) }})
		done := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { done <- a.Run(ctx) }()
		l.stop = func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		settle(time.Second)
		news := v1.SwarmNews{Managers: []v1.Peer{{NodeID: "m1", Addr: "10.0.0.1:2377"}}, Heartbeat: v1.Duration(time.Second), Issuer: "x"}
		l.swarm.send(v1.Assignment{Revision: 5, Swarm: &news})
		l.swarm.send(v1.Assignment{Revision: 6, Node: &v1.Node{Meta: v1.Meta{ID: nodeID}, Spec: &v1.NodeSpec{Role: v1.RoleManager, Index: 7}}})
		settle(time.Second)
		if diff := cmp.Diff([]v1.SwarmNews{news}, told); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
		if len(nodes) != 2 || nodes[1].Spec.Role != v1.RoleManager {
			t.Errorf("nodes: %+v", nodes)
		}
	})
}
