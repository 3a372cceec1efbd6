package agent

import (
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTaskRunsAndStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, engine.FakeOptions{})
		web := l.swarm.service("web", nil)
		l.swarm.assign("t1", web, v1.TaskRunning)
		l.start(nil)
		defer l.stop()
		settle(time.Second)
		status := l.want("t1", v1.TaskRunning)
		if status.Address != "100.64.7.2" || status.Container == nil || status.Container.PID == 0 || status.Message != "started" {
			t.Errorf("status is %+v", status)
		}
		l.wantHistory("t1", v1.TaskRunning)
		l.swarm.desire("t1", v1.TaskShutdown)
		settle(time.Second)
		status = l.want("t1", v1.TaskShutdown)
		if status.Container.ExitCode == nil || *status.Container.ExitCode != 143 {
			t.Errorf("container status is %+v", status.Container)
		}
		l.wantHistory("t1", v1.TaskRunning, v1.TaskShutdown)
		l.wantClean()
		l.swarm.remove("t1")
		settle(time.Second)
		if len(l.agent.tasks) != 0 {
			t.Errorf("the agent still remembers %v", l.agent.tasks)
		}
	})
}
