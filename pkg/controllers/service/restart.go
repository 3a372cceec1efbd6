package service

import (
	"slices"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// How the delay between restarts grows and is forgotten.
const (
	defaultDelay = 5 * time.Second // where the spec has none
	maxDelay     = 5 * time.Minute // unless the first delay is longer
	// secondDelay follows a first delay of nothing, which doubling would leave as it is: what cannot start would be replaced
	// for ever as fast as tasks can be made.
	secondDelay = 100 * time.Millisecond
	// A task that ran for at least longRun, and longRunDelays times the first delay, clears its slot's failures.
	longRun       = 10 * time.Second
	longRunDelays = 10
)

// again tells whether a task is to be followed by another at the same revision, by the restart policy, and fills in from
// when on the next one may run and what the slot remembers.
func (v *view) again(last *v1.Task, next *v1.TaskDesired) bool {
	policy := v.policy(last)
	state := v1.Observed(last)
	switch policy.Condition {
	case v1.RestartNone:
		return false
	case v1.RestartOnFailure:
		if state == v1.TaskComplete {
			return false
		}
	}
	var record v1.Restarts
	if last.Desired.Restarts != nil {
		record = *last.Desired.Restarts
	}
	if !fell(state) || v.lostOrDrained(last) {
		next.Restarts = v.forget(record) // not the task's fault: at once, and it does not count
		return true
	}
	if !v.mayAttempt(last, policy, record.Times) {
		return false
	}
	if policy.MaxAttempts > 0 {
		record.Times = latest(append(slices.Clone(record.Times), v.now), int(min(policy.MaxAttempts, 1000)))
	}
	delay := firstDelay(policy)
	if state == v1.TaskComplete || v.ranLong(last, delay) {
		record.Failures = 0
	}
	if state != v1.TaskComplete {
		record.Failures++
		record.Recent = latest(append(slices.Clone(record.Recent), v1.Failure{Node: v1.TaskNode(last), At: v.now}), v1.MaxRecentFailures)
		delay = backoff(delay, record.Failures)
	}
	if delay > 0 {
		next.StartAfter = v.now.Add(delay)
	}
	next.Restarts = v.forget(record)
	return true
}

// tooSoon tells whether a task ended by itself before it was to start at all, as one does that cannot be prepared. It is followed by another
// when its own delay is over: else that would end as fast, and so on without any delay.
func (v *view) tooSoon(last *v1.Task) bool {
	return fell(v1.Observed(last)) && !v.lostOrDrained(last) && v.now.Before(last.Desired.StartAfter)
}

// fell tells whether a task ended by itself.
func fell(state v1.TaskState) bool {
	return state == v1.TaskComplete || state == v1.TaskFailed || state == v1.TaskRejected
}

// lostOrDrained tells whether a task ended with its place. What becomes of a node after that was decided is not the task's: one that
// has failed for good stays so.
func (v *view) lostOrDrained(t *v1.Task) bool {
	if t.Desired.State > v1.TaskComplete {
		return slices.Contains([]string{reasonLost, reasonRemoved, reasonDrained}, t.Desired.Reason)
	}
	n, placed := v.nodeOf(t)
	return placed && (n.lost || n.drained)
}

// policy is that of the task's own revision, with the defaults filled in.
func (v *view) policy(t *v1.Task) v1.RestartPolicy {
	r := v.revision(t.Desired.Revision)
	if r.spec == nil || r.current {
		r = v.revision(v.target)
	}
	if r.spec.Task.RestartPolicy == nil {
		return v1.RestartPolicy{}
	}
	return *r.spec.Task.RestartPolicy
}

func firstDelay(p v1.RestartPolicy) time.Duration {
	if p.Delay == nil {
		return defaultDelay
	}
	return time.Duration(*p.Delay)
}

// backoff doubles the first delay with each failure in a row after the first. Where the first is nothing, doubling begins
// with secondDelay.
func backoff(first time.Duration, failures uint32) time.Duration {
	if first <= 0 && failures > 1 {
		first, failures = secondDelay, failures-1
	}
	limit, delay := max(first, maxDelay), first
	for range min(failures-1, 32) {
		delay = min(2*delay, limit)
	}
	return delay
}

// mayAttempt tells whether the policy's bound leaves room for another task. The window ends when the task was found to
// have ended, which is now or, where that was written already, then: so that the answer stays the same afterwards.
func (v *view) mayAttempt(last *v1.Task, p v1.RestartPolicy, times []time.Time) bool {
	if p.MaxAttempts == 0 {
		return true
	}
	from := v.now
	if last.Desired.State > v1.TaskComplete {
		from = last.Meta.UpdatedAt
	}
	var count uint64
	for _, t := range times {
		if p.Window <= 0 || from.Sub(t) < time.Duration(p.Window) {
			count++
		}
	}
	return count < p.MaxAttempts
}

// ranLong tells whether a task ran for long enough for its slot's failures to be forgotten. An agent that does not say
// how long it ran leaves the time since the rules last spoke about the task, which lets it run.
func (v *view) ranLong(t *v1.Task, delay time.Duration) bool {
	enough := max(longRun, longRunDelays*delay)
	if t.Status != nil && t.Status.Ran != nil {
		return time.Duration(*t.Status.Ran) >= enough
	}
	if v1.Observed(t) == v1.TaskRejected || t.Desired.State > v1.TaskComplete {
		return false
	}
	return v.now.Sub(t.Meta.UpdatedAt) >= enough
}

// forget drops failures that are too old to matter, and is nil where nothing is left.
func (v *view) forget(r v1.Restarts) *v1.Restarts {
	r.Recent = slices.DeleteFunc(slices.Clone(r.Recent), func(f v1.Failure) bool { return v.now.Sub(f.At) >= v1.FailureMemory })
	if r.Failures == 0 && len(r.Times) == 0 && len(r.Recent) == 0 {
		return nil
	}
	return &r
}

func latest[T any](list []T, most int) []T { return list[max(0, len(list)-most):] }
