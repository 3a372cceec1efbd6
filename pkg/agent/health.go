package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// A task with a health check is starting until its first success, and gets no traffic before. Once it has failed so often in a row as
// its check allows, nothing leads to the task any more, and it is stopped as one that is told to stop, but has failed. What counts is
// in the status: a process of the agent that takes over a task that runs takes it to have been healthy, and counts failures anew.

// What a health check leaves out, as in Docker.
const (
	checkInterval  = 30 * time.Second
	checkTimeout   = 30 * time.Second
	checkStartEach = 5 * time.Second
	checkRetries   = 3
	// maxChecks are made at once. One that has to wait is late, and fails by nothing but its own time.
	maxChecks = 32
)

// health is what is known of a task's health. Only the loop touches it.
type health struct {
	check   *v1.Healthcheck
	started time.Time // its container
	passed  bool      // a check succeeded
	failed  int       // checks in a row that count
	at      time.Time // no check before
	busy    bool      // queued, or with a worker
	lost    time.Time // when it was found unhealthy
}

// starting tells whether failures do not count yet.
func (h *health) starting(at time.Time) bool {
	return !h.passed && at.Before(h.started.Add(time.Duration(h.check.StartPeriod)))
}

func (h *health) interval(now time.Time) time.Duration {
	if h.starting(now) {
		return cmp.Or(time.Duration(h.check.StartInterval), checkStartEach)
	}
	return cmp.Or(time.Duration(h.check.Interval), checkInterval)
}

func (h *health) timeout() time.Duration { return cmp.Or(time.Duration(h.check.Timeout), checkTimeout) }

// unproven tells whether the task waits for its first success.
func (t *task) unproven() bool { return t.health != nil && !t.health.passed }

// watchHealth begins to check a container that runs. One that was taken over and had passed has.
func (a *Agent) watchHealth(t *task, s engine.State, passed bool) {
	if s.Healthcheck == nil || s.Status != engine.Running || t.health != nil {
		return
	}
	now := a.o.Now()
	t.health = &health{check: s.Healthcheck, started: s.Started, passed: passed}
	if t.health.started.IsZero() {
		t.health.started = now
	}
	if !passed {
		a.observe(t, v1.TaskStarting, "waiting for the health check", "")
	}
	a.checkAfter(t, t.health.interval(now))
}

func (a *Agent) checkAfter(t *task, d time.Duration) {
	t.health.at = a.o.Now().Add(d)
	a.timers.add(t.health.at, t.id)
}

// checkable tells whether a task's health matters.
func (t *task) checkable() bool {
	return t.health != nil && t.ended == nil && !t.stop() && !t.status.Unhealthy && t.phase >= phaseStarted && t.phase <= phaseRunning
}

// checkHealth has a task checked if that is due.
func (a *Agent) checkHealth(t *task) {
	if t.checkable() && !t.health.busy && !a.o.Now().Before(t.health.at) {
		t.health.busy = true
		a.checks.push(t, false)
	}
}

// dispatchChecks gives workers to the checks that wait for one.
func (a *Agent) dispatchChecks() {
	for q := &a.checks; q.running < q.limit && a.engineUp; {
		t := q.pop()
		if t == nil {
			return
		}
		if !t.checkable() {
			if t.health != nil {
				t.health.busy = false
			}
			continue
		}
		a.check(t)
	}
}

// errLate is the cause of a check that has not ended in time.
var errLate = errors.New("timed out")

// check makes one check.
func (a *Agent) check(t *task) {
	h, probe, began := t.health, a.probeOf(t.id, t.health.check), a.o.Now()
	a.checks.running++
	a.workers.Go(func() {
		if a.at("before check") {
			return
		}
		ctx, cancel := context.WithTimeoutCause(a.ctx, h.timeout(), errLate)
		defer cancel()
		err := probe(ctx)
		if err != nil && errors.Is(context.Cause(ctx), errLate) {
			err = fmt.Errorf("%w after %s", errLate, h.timeout())
		}
		if a.at("after check") {
			return
		}
		a.post(func() {
			a.checks.running--
			h.busy = false
			if t.health == h && t.checkable() && a.ctx.Err() == nil {
				a.checked(t, began, err)
				a.advance(t)
			}
		})
	})
}

// checked takes note of a check's result.
func (a *Agent) checked(t *task, began time.Time, err error) {
	h := t.health
	var unasked *unaskedError
	switch {
	case err == nil:
		h.passed, h.failed = true, 0
	case errors.As(err, &unasked):
		a.log.Warn("cannot check a task's health; trying again", "task.id", t.id, "err", err)
	default:
		if !h.starting(began) {
			h.failed++
		}
		a.log.Debug("health check failed", "task.id", t.id, "failures", h.failed, "err", err)
		if h.failed >= cmp.Or(h.check.Retries, checkRetries) {
			a.unhealthy(t, err)
			return
		}
		if !h.passed {
			a.observe(t, v1.TaskStarting, t.status.Message, "health check failed: "+err.Error())
		}
	}
	a.checkAfter(t, h.interval(a.o.Now()))
}

// unhealthy is when a task's health check has failed for good.
func (a *Agent) unhealthy(t *task, err error) {
	t.health.lost, t.status.Unhealthy = a.o.Now(), true
	times := fmt.Sprintf("%d times in a row", t.health.failed)
	if t.health.failed == 1 {
		times = "once"
	}
	a.log.Info("task is unhealthy", "task.id", t.id, "failures", t.health.failed, "err", err)
	a.observe(t, t.status.State, "unhealthy", fmt.Sprintf("task: unhealthy container: health check failed %s: %s", times, err))
	t.saved = a.dirty()
}

// stopsSince is since when a task is to stop.
func (t *task) stopsSince() time.Time {
	if t.stopAt.IsZero() && t.health != nil {
		return t.health.lost
	}
	return t.stopAt
}
