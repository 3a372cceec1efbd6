package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bubble runs a test on a machine whose agent was started.
func bubble(t *testing.T, o engine.FakeOptions, test func(t *testing.T, l *lab)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, o)
		defer func() { l.stop() }()
		test(t, l)
		if len(l.swarm.backward) > 0 {
			t.Errorf("reports that go back: %v", l.swarm.backward)
		}
	})
}

func TestTaskRunsAndStops(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		l.swarm.assign("t1", l.swarm.service("web", nil), v1.TaskRunning)
		l.start(nil)
		settle(time.Second)
		status := l.want("t1", v1.TaskRunning)
		if status.Address != "100.64.7.2" || status.Container == nil || status.Container.PID == 0 || status.Message != "started" {
			t.Errorf("status is %+v", status)
		}
		l.swarm.desire("t1", v1.TaskShutdown)
		settle(time.Second)
		status = l.want("t1", v1.TaskShutdown)
		if code := status.Container.ExitCode; code == nil || *code != 143 || status.Ran == nil || *status.Ran != v1.Duration(time.Second) {
			t.Errorf("container status is %+v, it ran for %v", status.Container, status.Ran)
		}
		l.wantHistory("t1", v1.TaskRunning, v1.TaskShutdown)
		l.wantClean()
		l.swarm.remove("t1")
		settle(time.Second)
		if len(l.agent.tasks) != 0 {
			t.Errorf("the agent still remembers %v", l.agent.tasks)
		}
		if left, _ := os.ReadDir(filepath.Join(l.dir, "tasks")); len(left) != 0 {
			t.Errorf("files are left: %v", left)
		}
	})
}

func TestTaskEndsByItself(t *testing.T) {
	for _, c := range []struct {
		name    string
		process engine.FakeProcess
		want    v1.TaskState
		err     string
	}{
		{"success", engine.FakeProcess{RunFor: time.Minute}, v1.TaskComplete, ""},
		{"error", engine.FakeProcess{RunFor: time.Minute, ExitCode: 3}, v1.TaskFailed, "task: non-zero exit (3)"},
		{"memory", engine.FakeProcess{RunFor: time.Minute, ExitCode: 137, OOMKilled: true}, v1.TaskFailed, "task: non-zero exit (137): out of memory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, engine.FakeOptions{Process: func(engine.Container) engine.FakeProcess { return c.process }}, func(t *testing.T, l *lab) {
				l.swarm.assign("t1", l.swarm.service("web", nil), v1.TaskRunning)
				l.start(nil)
				settle(2 * time.Minute)
				status := l.want("t1", c.want)
				if status.Err != c.err || *status.Container.ExitCode != c.process.ExitCode || status.Container.OOMKilled != c.process.OOMKilled ||
					time.Duration(*status.Ran) != time.Minute {
					t.Errorf("status is %+v, container %+v", status, status.Container)
				}
				l.wantHistory("t1", v1.TaskRunning, c.want)
				l.wantClean()
			})
		})
	}
}

func TestReadyTaskWaits(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		l.swarm.assign("t1", l.swarm.service("web", nil), v1.TaskReady)
		l.start(nil)
		settle(time.Hour)
		l.want("t1", v1.TaskReady)
		if _, made := l.fake.Container("t1"); !made {
			t.Error("the container is not made yet")
		}
		l.swarm.desire("t1", v1.TaskRunning)
		settle(time.Second)
		l.wantHistory("t1", v1.TaskReady, v1.TaskRunning)
	})
}

func TestStartAfterHoldsBack(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		l.swarm.assign("t1", l.swarm.service("web", nil), v1.TaskRunning)
		l.swarm.tasks["t1"].Desired.StartAfter = time.Now().Add(time.Minute)
		l.start(nil)
		settle(59 * time.Second)
		l.want("t1", v1.TaskReady)
		settle(2 * time.Second)
		status := l.want("t1", v1.TaskRunning)
		if want := time.Now().Add(-time.Second); !status.At.Equal(want) {
			t.Errorf("runs since %s, want %s", status.At, want)
		}
	})
}

func TestStatesThatLastAreReported(t *testing.T) {
	delays := map[engine.FakeOp]time.Duration{engine.FakePull: time.Minute, engine.FakeStart: time.Second, engine.FakeCreate: time.Second}
	bubble(t, engine.FakeOptions{Delay: func(op engine.FakeOp, _ string) time.Duration { return delays[op] }}, func(t *testing.T, l *lab) {
		l.swarm.assign("t1", l.swarm.service("web", nil), v1.TaskRunning)
		l.start(nil)
		settle(2 * time.Minute)
		l.wantHistory("t1", v1.TaskPreparing, v1.TaskStarting, v1.TaskRunning)
		if l.swarm.reports != 3 {
			t.Errorf("%d reports", l.swarm.reports)
		}
	})
}

func TestStopWhilePreparing(t *testing.T) {
	for op := range map[engine.FakeOp]bool{engine.FakePull: true, engine.FakeCreate: true, engine.FakeStart: true} {
		t.Run(string(op), func(t *testing.T) {
			delay := func(o engine.FakeOp, _ string) time.Duration {
				if o == op {
					return 10 * time.Second
				}
				return 0
			}
			bubble(t, engine.FakeOptions{Delay: delay}, func(t *testing.T, l *lab) {
				l.swarm.assign("t1", l.swarm.service("web", nil), v1.TaskRunning)
				l.start(nil)
				settle(5 * time.Second)
				l.swarm.desire("t1", v1.TaskRemove)
				settle(20 * time.Second)
				l.want("t1", v1.TaskShutdown)
				l.wantClean()
			})
		})
	}
}

func TestStopSignalAndGrace(t *testing.T) {
	bubble(t, engine.FakeOptions{Process: func(engine.Container) engine.FakeProcess { return engine.FakeProcess{Deaf: true} }}, func(t *testing.T, l *lab) {
		grace := v1.Duration(30 * time.Second)
		l.swarm.assign("t1", l.swarm.service("web", func(s *v1.ServiceRevisionSpec) { s.Task.Container.StopGracePeriod = &grace }), v1.TaskRunning)
		l.swarm.assign("t2", l.swarm.service("default", nil), v1.TaskRunning)
		l.start(nil)
		settle(time.Second)
		l.swarm.desire("t1", v1.TaskShutdown)
		l.swarm.desire("t2", v1.TaskShutdown)
		settle(9 * time.Second)
		l.want("t2", v1.TaskRunning)
		settle(2 * time.Second)
		if status := l.want("t2", v1.TaskShutdown); *status.Container.ExitCode != 137 {
			t.Errorf("exit code %d", *status.Container.ExitCode)
		}
		settle(18 * time.Second)
		l.want("t1", v1.TaskRunning)
		settle(2 * time.Second)
		l.want("t1", v1.TaskShutdown)
		l.wantClean()
	})
}

func TestExitWhileStopping(t *testing.T) {
	var l *lab
	exit := func(op engine.FakeOp, id string) error {
		if op == engine.FakeSignal {
			l.fake.Kill(id, 5) // it ends on its own just before the signal gets there
		}
		return nil
	}
	bubble(t, engine.FakeOptions{Fail: exit}, func(t *testing.T, lab *lab) {
		l = lab
		l.swarm.assign("t1", l.swarm.service("web", nil), v1.TaskRunning)
		l.start(nil)
		settle(time.Second)
		l.swarm.desire("t1", v1.TaskShutdown)
		settle(time.Second)
		if status := l.want("t1", v1.TaskShutdown); *status.Container.ExitCode != 5 {
			t.Errorf("exit code %d", *status.Container.ExitCode)
		}
		l.wantClean()
	})
}

func TestExitBeforeStopIsToldTruly(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		l.swarm.assign("t1", l.swarm.service("web", nil), v1.TaskRunning)
		l.start(nil)
		settle(time.Second)
		l.stop()
		l.fake.Kill("t1", 4)
		time.Sleep(time.Second)
		l.swarm.desire("t1", v1.TaskShutdown) // the agent learns of both at once
		l.start(nil)
		settle(time.Second)
		if status := l.want("t1", v1.TaskFailed); status.Err != "task: non-zero exit (4)" {
			t.Errorf("status is %+v", status)
		}
	})
}

func TestRejectedAndFailed(t *testing.T) {
	for _, c := range []struct {
		op    engine.FakeOp
		err   error
		want  v1.TaskState
		text  string
		calls int
	}{
		{engine.FakePull, fmt.Errorf("%w: no such image hello:1", engine.ErrNotFound), v1.TaskRejected, "no such image hello:1", 1},
		{engine.FakePull, errors.New("registry is on fire"), v1.TaskRejected, "registry is on fire", maxAttempts},
		{engine.FakeCreate, fmt.Errorf("%w: no such user", engine.ErrInvalid), v1.TaskRejected, "no such user", 1},
		{engine.FakeCreate, errors.New("disk full"), v1.TaskRejected, "disk full", maxAttempts},
		{engine.FakeStart, fmt.Errorf("%w: no such command", engine.ErrInvalid), v1.TaskFailed, "starting container failed: no such command", 1},
	} {
		t.Run(string(c.op)+" "+c.err.Error(), func(t *testing.T) {
			fail := func(op engine.FakeOp, _ string) error {
				if op == c.op {
					return c.err
				}
				return nil
			}
			bubble(t, engine.FakeOptions{Fail: fail}, func(t *testing.T, l *lab) {
				l.swarm.assign("t1", l.swarm.service("web", nil), v1.TaskRunning)
				l.start(nil)
				settle(time.Minute)
				if status := l.want("t1", c.want); !strings.Contains(status.Err, c.text) || status.Ran == nil || *status.Ran != 0 {
					t.Errorf("status is %+v", status)
				}
				if calls := l.fake.Calls(c.op); calls != c.calls {
					t.Errorf("%d attempts, want %d", calls, c.calls)
				}
				l.wantClean()
			})
		})
	}
}

func TestPullFailsThenSucceeds(t *testing.T) {
	var failures sync.Map
	fail := func(op engine.FakeOp, id string) error {
		if _, again := failures.LoadOrStore(op, true); op == engine.FakePull && !again {
			return errors.New("registry cannot be reached")
		}
		return nil
	}
	bubble(t, engine.FakeOptions{Fail: fail}, func(t *testing.T, l *lab) {
		web := l.swarm.service("web", nil)
		for i := range 5 {
			l.swarm.assign(fmt.Sprint("t", i), web, v1.TaskRunning)
		}
		l.start(nil)
		settle(300 * time.Millisecond)
		if status := l.want("t0", v1.TaskPreparing); status.Err != "pulling hello:1: registry cannot be reached; trying again" {
			t.Errorf("status is %+v", status)
		}
		settle(time.Second)
		for i := range 5 {
			if status := l.want(fmt.Sprint("t", i), v1.TaskRunning); status.Err != "" {
				t.Errorf("status is %+v", status)
			}
		}
		if calls := l.fake.Calls(engine.FakePull); calls != 2 {
			t.Errorf("%d pulls, want 2 for all", calls)
		}
	})
}

func TestPullThatNobodyWaitsForIsGivenUp(t *testing.T) {
	delay := func(op engine.FakeOp, _ string) time.Duration {
		if op == engine.FakePull {
			return 20 * time.Minute
		}
		return 0
	}
	bubble(t, engine.FakeOptions{Delay: delay}, func(t *testing.T, l *lab) {
		web := l.swarm.service("web", nil)
		l.swarm.assign("t1", web, v1.TaskRunning)
		l.swarm.assign("t2", web, v1.TaskRunning)
		l.start(nil)
		settle(time.Minute)
		l.swarm.desire("t1", v1.TaskShutdown)
		settle(time.Minute)
		l.want("t1", v1.TaskShutdown)
		l.want("t2", v1.TaskPreparing)
		l.swarm.desire("t2", v1.TaskShutdown)
		settle(time.Second)
		images, _ := l.fake.Images(context.Background())
		settle(time.Hour)
		if later, _ := l.fake.Images(context.Background()); len(images) != 0 || len(later) != 0 {
			t.Errorf("the image was pulled for nobody")
		}
	})
}
