// Package rollout decides when a slot of a service may move to the revision that its spec asks for: how many at once, how
// long apart, and when too much has failed to go on.
//
// It owns ServiceDesired.Update, which is all there is to know of a rollout: a new leader goes on by reading it. It never
// makes or stops a task: the service rule moves the slots that are admitted, in ascending order, and leaves the others at
// what they run. A job is not rolled out: it begins anew.
package rollout

import (
	"slices"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/store"
)

// What the user reads, in Docker's words.
const (
	messageUpdating  = "update in progress"
	messageCompleted = "update completed"
	messagePaused    = "update paused due to failure or early termination of task "
)

// Rule is the rollout rule.
type Rule struct{}

// Name implements reconcile.Rule.
func (Rule) Name() string { return "rollout" }

// Keys implements reconcile.Rule: a service is worth deciding when it changes, when a task of it ends or is decided about, when
// a node that a global one may be on changes, and, during a rollout, when a task has begun to run.
func (Rule) Keys(s *store.Snapshot, c store.Change) []string {
	if c.Kind == v1.KindService {
		return []string{c.ID}
	}
	if _, _, changed := reconcile.NodeOf(c); changed {
		var global []string
		for service := range s.GlobalServices() {
			global = append(global, service.Meta.ID)
		}
		return global
	}
	t, ok := reconcile.TaskOf(c)
	if !ok {
		return nil
	}
	if t.Decided() || t.Ended() || t.Ran() && updating(s, t.Service()) {
		return []string{t.Service()}
	}
	return nil
}

func updating(s *store.Snapshot, service string) bool {
	o, ok := store.Get(s, v1.Services, service)
	return ok && o.Desired != nil && o.Desired.Update != nil && o.Desired.Update.State == v1.UpdateUpdating
}

// Decide implements reconcile.Rule.
func (Rule) Decide(now time.Time, s *store.Snapshot, key string) reconcile.Plan {
	service, ok := store.Get(s, v1.Services, key)
	if !ok || !service.Meta.Deleting.IsZero() || v1.Job(service) {
		return reconcile.Plan{}
	}
	var before *v1.UpdateStatus
	if service.Desired != nil {
		before = service.Desired.Update
	}
	if atRest(s, service, before) {
		return reconcile.Plan{}
	}
	r := &rollout{now: now, config: configOf(service), target: v1.RevisionID(service), generation: service.Meta.Generation}
	r.survey(s, service, before)
	after := r.decide(before)
	plan := reconcile.Plan{Again: r.again}
	if after != before {
		next := v1.ServiceDesired{}
		if service.Desired != nil {
			next = *service.Desired
		}
		next.Update = after
		plan.Ops = []store.Op{reconcile.SetService(service, &next)}
	}
	return plan
}

// atRest tells, without grouping the tasks of a large service into slots, that there is nothing to roll out: no rollout is
// under way, and every task runs what the spec asks for.
func atRest(s *store.Snapshot, service *v1.Service, before *v1.UpdateStatus) bool {
	target := v1.RevisionID(service)
	if before != nil && (before.State != v1.UpdateCompleted || before.Revision != target) {
		return false
	}
	for t := range s.TasksOfService(service.Meta.ID) {
		if t.Desired.Revision != target && t.Desired.State < v1.TaskRemove {
			return false
		}
	}
	return true
}

// rollout is one decision.
type rollout struct {
	now        time.Time
	config     config
	target     string
	generation uint64
	slots      []slot   // with tasks, ascending
	failed     []string // tasks whose failure was not counted yet
	again      time.Time
}

// config is the service's UpdateConfig with defaults filled in.
type config struct {
	parallelism     uint64 // 0 is all
	delay, monitor  time.Duration
	maxFailureRatio float64
	onward          bool // whatever fails
}

// Defaults of an UpdateConfig, where validation did not fill them in.
const (
	defaultParallelism = 1
	defaultMonitor     = 5 * time.Second
)

func configOf(s *v1.Service) config {
	c := config{parallelism: defaultParallelism, monitor: defaultMonitor}
	u := s.Spec.Update
	if u == nil {
		return c
	}
	if u.Parallelism != nil {
		c.parallelism = *u.Parallelism
	}
	if u.Monitor != nil {
		c.monitor = time.Duration(*u.Monitor)
	}
	c.delay, c.maxFailureRatio = time.Duration(u.Delay), u.MaxFailureRatio
	c.onward = u.FailureAction == v1.FailureContinue
	if c.delay >= c.monitor {
		c.monitor = c.delay + time.Second // as Docker does: the last slot is watched as long as those before it
	}
	return c
}

// decide is the rollout's next state: the same pointer where nothing changes.
func (r *rollout) decide(before *v1.UpdateStatus) *v1.UpdateStatus {
	switch {
	case before == nil, r.begins(before):
		return r.begin()
	case before.State != v1.UpdateUpdating:
		return before
	}
	next := *before
	if r.count(&next) {
		return &next
	}
	if r.advance(&next) || next.Failures != before.Failures {
		return &next
	}
	return before
}

// begins tells whether a rollout starts over: the spec asks for something else, the user resumes what is paused, or
// slots are out of date after all.
func (r *rollout) begins(before *v1.UpdateStatus) bool {
	switch {
	case before.Revision != r.target:
		return true
	case before.State == v1.UpdatePaused:
		return r.generation != before.Generation
	}
	return before.State == v1.UpdateCompleted && r.dirty(0) > 0
}

// begin starts a rollout to the target, if any slot is out of date.
func (r *rollout) begin() *v1.UpdateStatus {
	dirty := r.dirty(0)
	if dirty == 0 {
		return nil
	}
	next := &v1.UpdateStatus{State: v1.UpdateUpdating, Revision: r.target, StartedAt: r.now, Message: messageUpdating,
		Generation: r.generation, Dirty: dirty}
	r.advance(next)
	return next
}

// count adds what failed, and pauses where that is too much.
func (r *rollout) count(u *v1.UpdateStatus) (paused bool) {
	if r.config.onward || len(r.failed) == 0 {
		return false
	}
	for _, id := range r.failed {
		if slices.Contains(u.Failed, id) {
			continue // counted, but what the service rule wants of it was never written
		}
		u.Failures++
		u.Failed = append(slices.Clip(u.Failed), id)
		if float64(u.Failures)/float64(max(u.Dirty, 1)) > r.config.maxFailureRatio {
			u.State, u.Message, paused = v1.UpdatePaused, messagePaused+id, true
			break
		}
	}
	u.Failed = u.Failed[max(0, len(u.Failed)-v1.MaxUpdateFailed):]
	return paused
}

// advance admits slots, or completes the rollout, as far as that may be now, and tells whether it changed anything.
func (r *rollout) advance(u *v1.UpdateStatus) bool {
	moving := r.moving(u.Admitted)
	waiting := r.dirty(u.Admitted)
	if waiting > 0 && moving == 0 && u.Admitted > 0 && r.config.delay > 0 || waiting == 0 {
		return r.pause(u, moving, waiting)
	}
	room := waiting
	switch {
	case r.config.parallelism == 0:
	case r.config.delay > 0 && moving > 0:
		room = 0 // with a delay, slots move in groups
	default:
		room = r.config.parallelism - min(moving, r.config.parallelism)
	}
	return r.admit(u, room)
}

// pause waits between groups of slots, and after the last.
func (r *rollout) pause(u *v1.UpdateStatus, moving, waiting uint64) (changed bool) {
	if moving > 0 {
		return false
	}
	if u.SettledAt.IsZero() {
		u.SettledAt, changed = r.now, true
	}
	wait := r.config.delay
	if waiting == 0 {
		wait = r.config.monitor
		if r.config.onward {
			wait = 0
		}
	}
	if until := u.SettledAt.Add(wait); r.now.Before(until) {
		r.again = until
		return changed
	}
	if waiting > 0 {
		room := r.config.parallelism
		if room == 0 {
			room = waiting
		}
		return r.admit(u, room)
	}
	u.State, u.CompletedAt, u.Message, u.Admitted = v1.UpdateCompleted, r.now, messageCompleted, v1.UpdateEverySlot
	return true
}

// admit lets that many more slots move.
func (r *rollout) admit(u *v1.UpdateStatus, room uint64) bool {
	if room == 0 {
		return false
	}
	u.AdmittedAt, u.SettledAt = r.now, time.Time{}
	if r.config.parallelism == 0 {
		u.Admitted = v1.UpdateEverySlot
		return true
	}
	from := u.Admitted
	for i := range r.slots {
		if s := &r.slots[i]; room > 0 && s.number > from && s.dirty() {
			u.Admitted = s.number
			room--
		}
	}
	return true
}

// dirty counts the slots above a number that are out of date.
func (r *rollout) dirty(above uint64) (n uint64) {
	for i := range r.slots {
		if s := &r.slots[i]; s.number > above && s.dirty() {
			n++
		}
	}
	return n
}

// moving counts the slots up to a number that are on their way.
func (r *rollout) moving(upTo uint64) (n uint64) {
	for i := range r.slots {
		if s := &r.slots[i]; s.number <= upTo && (s.dirty() || !s.settled) {
			n++
		}
	}
	return n
}
