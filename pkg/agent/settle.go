package agent

import (
	"errors"
	"fmt"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// final tells whether an error will not go away by trying again.
func final(err error) bool {
	return errors.Is(err, engine.ErrNotFound) || errors.Is(err, engine.ErrInvalid)
}

// settle writes down how a task ended: as its process did, unless it was stopped.
func (a *Agent) settle(t *task) {
	if t.attachment() != nil && !a.cutOff(t) {
		return // whoever is told that it has ended finds no links of ours in the namespace any more
	}
	s := t.ended
	if t.lost && !t.stop() && !t.status.Unhealthy {
		a.observe(t, v1.TaskStarting, "starting", "")
		a.end(t, v1.TaskFailed, t.status.Message, errLost)
		return
	}
	if s != nil && t.phase >= phaseStarted && !t.lost {
		code, c := s.ExitCode, t.container()
		c.ExitCode, c.OOMKilled = &code, s.OOMKilled
	}
	switch {
	case t.status.Unhealthy:
		a.end(t, v1.TaskFailed, "started", t.status.Err)
	case t.phase < phaseStarted || s == nil:
		a.end(t, v1.TaskShutdown, "shutdown", "")
	case t.stop() && !s.Ended.Before(t.stopAt):
		a.end(t, v1.TaskShutdown, "shutdown", "")
	case s.OOMKilled:
		a.end(t, v1.TaskFailed, "started", fmt.Sprintf("task: non-zero exit (%d): out of memory", s.ExitCode))
	case s.ExitCode != 0:
		a.end(t, v1.TaskFailed, "started", fmt.Sprintf("task: non-zero exit (%d)", s.ExitCode))
	default:
		a.end(t, v1.TaskComplete, "finished", "")
	}
}

// ran is how long a task that ended was running; nil where nobody knows when it ended.
func (t *task) ran() *v1.Duration {
	var d v1.Duration
	if t.status.State == v1.TaskRunning {
		if t.endedUnseen() {
			return nil
		}
		d = v1.Duration(max(0, t.ended.Ended.Sub(t.ranFrom())))
	}
	return &d
}

// endedUnseen tells whether nobody knows when the task's process ended, as where the machine was without power.
func (t *task) endedUnseen() bool { return t.ended == nil || t.lost || t.ended.Ended.IsZero() }

// container is the container part of a task's status, which is copied before each change because a report may be under
// way with the earlier one.
func (t *task) container() *v1.ContainerStatus {
	c := v1.ContainerStatus{ID: t.id}
	if t.status.Container != nil {
		c = *t.status.Container
	}
	t.status.Container = &c
	return &c
}

// errLost is how a task ends whose container is not there any more, or no longer runs with nobody to say how it ended.
const errLost = "task: the container was lost: the machine or its container runtime was restarted"

// exited takes note of a container's end.
func (a *Agent) exited(s engine.State) {
	t := a.tasks[s.ID]
	if s.Ended.IsZero() {
		s.Ended = a.o.Now()
	}
	switch {
	case t == nil:
		if _, known := a.strays[s.ID]; known {
			a.strays[s.ID] = s
		}
		return
	case t.phase >= phaseEnded:
		return
	case t.phase < phaseStarted && !t.busy:
		t.phase = phaseStarted
	}
	t.ended = &s
	a.advance(t)
}
