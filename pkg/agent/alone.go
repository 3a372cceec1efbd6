package agent

import (
	"fmt"
	"slices"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// While no manager can be reached nobody replaces a task whose container has ended. Then the agent does what the service's restart
// policy would have had the managers do, with the same delays, but in place: the task stays the same and stays running. With a
// session open it only tells, and the managers decide.

const (
	// aloneAfter is how long there has to be no session before the agent takes anything into its own hands: managers are
	// restarted, and others take over.
	aloneAfter = 3 * time.Second
	// How the delay between restarts grows and is forgotten, as with the managers.
	restartDelay     = 5 * time.Second // where the policy has none
	maxRestartDelay  = 5 * time.Minute // unless the first delay is longer
	nextRestartDelay = 100 * time.Millisecond
	longRun          = 10 * time.Second
	longRunDelays    = 10
	maxRestartTimes  = 1000
)

// meet takes note that there is a session. What ended while there was none is now told, and decided by the managers.
func (a *Agent) meet(changed map[*task]bool) {
	if a.session {
		return
	}
	a.session = true
	a.lookout.silent = nil
	a.pass(nil)
	for _, t := range a.tasks {
		if t.ended != nil && t.phase < phaseEnded {
			t.again = time.Time{}
			changed[t] = true
		}
	}
}

// part takes note that there is no session any more.
func (a *Agent) part() {
	if a.session {
		a.session, a.aloneSince = false, a.o.Now()
	}
}

// again tells whether a task whose container has ended is to be started again in place, and from when on.
func (a *Agent) again(t *task, now time.Time) (from time.Time, ok bool) {
	if a.session || t.ended == nil || t.stop() || t.gone || !t.known() || t.phase < phaseStarted || t.phase >= phaseEnded {
		return time.Time{}, false
	}
	if !t.again.IsZero() {
		return t.again, true
	}
	d := t.assigned.Desired
	if d.State != v1.TaskRunning && d.State != v1.TaskComplete {
		return time.Time{}, false
	}
	delay, ok := a.policy(t, now)
	if !ok {
		return time.Time{}, false
	}
	t.again = now.Add(delay)
	if least := a.aloneSince.Add(aloneAfter); t.again.Before(least) {
		t.again = least
	}
	return t.again, true
}

// policy is what the service's restart policy says about a task whose container has ended: after which delay it is started
// again, if at all.
func (a *Agent) policy(t *task, now time.Time) (delay time.Duration, ok bool) {
	var p v1.RestartPolicy
	if t.spec().RestartPolicy != nil {
		p = *t.spec().RestartPolicy
	}
	failed := t.failed()
	job := t.assigned.Desired.State == v1.TaskComplete
	if p.Condition == v1.RestartNone || !failed && (job || p.Condition == v1.RestartOnFailure) {
		return 0, false
	}
	times, failures := t.record()
	if p.MaxAttempts > 0 {
		var count uint64
		for _, at := range times {
			if p.Window <= 0 || now.Sub(at) < time.Duration(p.Window) {
				count++
			}
		}
		if count >= p.MaxAttempts {
			return 0, false
		}
	}
	first := restartDelay
	if p.Delay != nil {
		first = time.Duration(*p.Delay)
	}
	if !failed {
		return first, true
	}
	if t.ranLong(first, now) {
		failures = 0
	}
	return backOffBy(first, failures+1), true
}

// backOffBy doubles the first delay with each failure in a row after the first, as the managers do.
func backOffBy(first time.Duration, failures uint32) time.Duration {
	if first <= 0 && failures > 1 {
		first, failures = nextRestartDelay, failures-1
	}
	limit, delay := max(first, maxRestartDelay), first
	for range min(failures-1, 32) {
		delay = min(2*delay, limit)
	}
	return delay
}

// failed tells whether a task's container ended other than by finishing.
func (t *task) failed() bool {
	return t.lost || t.ended.ExitCode != 0 || t.ended.OOMKilled || t.status.Unhealthy
}

// record is what counts against a task: the restarts and the failures in a row of those before it in its slot, and its own.
func (t *task) record() (times []time.Time, failures uint32) {
	if r := t.assigned.Desired.Restarts; r != nil {
		times, failures = r.Times, r.Failures
	}
	if own := t.status.Alone; own != nil {
		times, failures = slices.Concat(times, own.Times), own.Failures
	}
	return times, failures
}

// ranLong tells whether the container ran for long enough for failures to be forgotten. Of one that ended unseen that is the time until now,
// as with the managers.
func (t *task) ranLong(first time.Duration, now time.Time) bool {
	ended := now
	if !t.endedUnseen() {
		ended = t.ended.Ended
	}
	return ended.Sub(t.ranFrom()) >= max(longRun, longRunDelays*first)
}

// ranFrom is when the task's container started, as far as is known.
func (t *task) ranFrom() time.Time {
	from := t.status.At
	if own := t.status.Alone; own != nil && own.At.After(from) {
		from = own.At
	}
	if t.ended != nil && t.ended.Started.After(from) {
		from = t.ended.Started
	}
	return from
}

// await is when a task waits to be started again. It has no link meanwhile: no port and no name here leads to it, and agents of other
// nodes that are alone as well find that it is not there.
func (a *Agent) await(t *task) {
	a.cutOff(t)
	a.timers.add(t.again, t.id)
}

// restarted takes note that what is left of a container that has ended is gone, and goes on as if the task's image had just come.
func (a *Agent) restarted(t *task) {
	now := a.o.Now().UTC()
	own := v1.AloneRestarts{At: now, Count: 1, Last: errLost}
	switch {
	case t.status.Unhealthy:
		own.Last = t.status.Err
	case !t.lost:
		own.Last = exitText(t.ended)
	}
	if old := t.status.Alone; old != nil {
		own.Count, own.Times = old.Count+1, old.Times
	}
	first := restartDelay
	policy := t.spec().RestartPolicy
	if policy != nil && policy.Delay != nil {
		first = time.Duration(*policy.Delay)
	}
	if t.failed() {
		if own.Failures = 1; !t.ranLong(first, now) {
			_, before := t.record()
			own.Failures = before + 1
		}
	}
	if policy != nil && policy.MaxAttempts > 0 {
		times := append(slices.Clone(own.Times), now)
		own.Times = times[max(0, len(times)-int(min(policy.MaxAttempts, maxRestartTimes))):]
	}
	a.log.Info("starting a task's container again, as no manager can be reached", "task.id", t.id, "count", own.Count, "ended", own.Last)
	t.status.Alone = &own
	if t.phase = phasePulled; t.image == "" {
		t.phase = phaseNew // an earlier process pulled it: what the runtime calls the image has to be asked again
	}
	t.ended, t.again, t.lost, t.health, t.status.Unhealthy = nil, time.Time{}, false, nil, false
	a.observe(t, t.status.State, t.runningMessage(), "")
	t.saved = a.dirty()
}

// runningMessage is what the status of a task that runs says.
func (t *task) runningMessage() string {
	own := t.status.Alone
	if own == nil {
		return "started"
	}
	times := "once"
	if own.Count > 1 {
		times = fmt.Sprintf("%d times", own.Count)
	}
	return "restarted " + times + " while no manager could be reached; last: " + own.Last
}

func exitText(s *engine.State) string {
	if s.OOMKilled {
		return fmt.Sprintf("exit code %d: out of memory", s.ExitCode)
	}
	return fmt.Sprintf("exit code %d", s.ExitCode)
}
