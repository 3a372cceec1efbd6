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

// Rule is the rollout rule.
type Rule struct{}

// Name implements reconcile.Rule.
func (Rule) Name() string { return "rollout" }

// Keys implements reconcile.Rule: a service is worth deciding when it changes, when a task of it ends or is decided about, when
// a node that a global one may be on changes, and, during a rollout, when a task has begun to run or has other secrets and configs.
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
	if t.Decided() || t.Ended() || (t.Ran() || t.Refitted()) && updating(s, t.Service()) {
		return []string{t.Service()}
	}
	return nil
}

func updating(s *store.Snapshot, service string) bool {
	o, ok := store.Get(s, v1.Services, service)
	return ok && o.Desired != nil && o.Desired.Update != nil && active(o.Desired.Update.State)
}

// active tells whether slots move in a state, completed whether none will by themselves.
func active(s v1.UpdateState) bool { return s == v1.UpdateUpdating || s == v1.UpdateRollbackStarted }
func completed(s v1.UpdateState) bool {
	return s == v1.UpdateCompleted || s == v1.UpdateRollbackCompleted
}
func paused(s v1.UpdateState) bool { return s == v1.UpdatePaused || s == v1.UpdateRollbackPaused }

// Decide implements reconcile.Rule.
func (Rule) Decide(now time.Time, s *store.Snapshot, key string) reconcile.Plan {
	service, ok := store.Get(s, v1.Services, key)
	if !ok || !service.Meta.Deleting.IsZero() || v1.Job(service) {
		return reconcile.Plan{}
	}
	before := v1.ServiceDesired{}
	if service.Desired != nil {
		before = *service.Desired
	}
	next := before
	if before.RolledBack != nil && before.RolledBack.From != v1.RevisionID(service) {
		next.RolledBack = nil // the user asks for something else
	}
	plan := reconcile.Plan{}
	if as := v1.Effective(service); !atRest(s, as, before.Update) {
		r := newRollout(now, s, as)
		r.survey(before.Update)
		next.Update = r.decide(before.Update)
		if r.rolledBack != nil {
			next.RolledBack = r.rolledBack
		}
		plan.Again = r.again
	}
	if next.Update != before.Update || next.RolledBack != before.RolledBack {
		plan.Ops = []store.Op{reconcile.SetService(service, &next)}
	}
	return plan
}

// atRest tells, without grouping the tasks of a large service into slots, that there is nothing to roll out: no rollout is
// under way, and every task runs what the spec asks for.
func atRest(s *store.Snapshot, service *v1.Service, before *v1.UpdateStatus) bool {
	target := v1.RevisionID(service)
	if before != nil && (!completed(before.State) || before.Revision != target) {
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
	now      time.Time
	snapshot *store.Snapshot
	service  *v1.Service
	config   config
	target   string
	slots    []slot   // with tasks, ascending
	failed   []string // tasks whose failure was not counted yet
	// unfit are tasks that run, and have not got the secrets and configs that this rollout told them to have.
	unfit []*v1.Task
	// former counts the tasks of each revision that is not the target's.
	former map[string]int
	again  time.Time
	// rolledBack is set where the rollout has failed and is rolled back.
	rolledBack *v1.RolledBack
}

func newRollout(now time.Time, s *store.Snapshot, service *v1.Service) *rollout {
	return &rollout{now: now, snapshot: s, service: service, config: configOf(service, v1.RollingBack(service)),
		target: v1.RevisionID(service), former: make(map[string]int)}
}

// decide is the rollout's next state: the same pointer where nothing changes.
func (r *rollout) decide(before *v1.UpdateStatus) *v1.UpdateStatus {
	switch {
	case before == nil, r.begins(before):
		return r.begin(before)
	case !active(before.State):
		return before
	}
	next := *before
	if failed := r.count(&next); failed != "" {
		return r.fail(&next, failed)
	}
	changed := next.Failures != before.Failures
	changed = r.advance(&next) || changed
	progressed, stalled := r.progress(&next)
	switch {
	case stalled != "":
		return r.fail(&next, stalled)
	case changed || progressed || r.say(&next):
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
	case paused(before.State):
		return r.service.Meta.Generation != before.Generation
	}
	return completed(before.State) && r.dirty(0) > 0
}

// begin starts a rollout to the target, if any slot is out of date. Where none is, but a rollout was under way, it is still seen
// whether all of them run.
func (r *rollout) begin(before *v1.UpdateStatus) *v1.UpdateStatus {
	dirty := r.dirty(0)
	if dirty == 0 && before == nil {
		return nil
	}
	good := r.good(before)
	next := &v1.UpdateStatus{State: v1.UpdateUpdating, Revision: r.target, Previous: r.previous(before, good), Good: good,
		StartedAt: r.now, Message: messageUpdating, Generation: r.service.Meta.Generation, Dirty: dirty}
	back := false
	switch {
	case before != nil && before.State == v1.UpdateRollbackPaused && before.Revision == r.target:
		next.State, next.Message, back = v1.UpdateRollbackStarted, messageRollingBack, true
	case r.service.Spec.RollbackTo == r.target:
		next.State, next.Message, back = v1.UpdateRollbackStarted, messageManual, true
	}
	r.config = configOf(r.service, back)
	if before != nil && paused(before.State) && before.Revision == r.target && r.moving(before.Admitted) > 0 {
		next.Admitted, next.AdmittedAt = before.Admitted, r.now // what was on its way is so still, and counts
	}
	if dirty == 0 {
		next.Admitted, next.AdmittedAt = v1.UpdateEverySlot, r.now
		r.slots, r.failed, r.unfit = nil, nil, nil
		r.survey(next) // those of this very moment are of it
	}
	r.advance(next)
	r.progress(next)
	r.say(next)
	return next
}

// count adds what failed, and says why the rollout has where that is too much.
func (r *rollout) count(u *v1.UpdateStatus) (why string) {
	if r.config.action == v1.FailureContinue {
		return ""
	}
	tooMany := func(unfit int) bool {
		return float64(u.Failures+uint64(unfit))/float64(max(u.Dirty, 1)) > r.config.maxFailureRatio
	}
	for _, id := range r.failed {
		if slices.Contains(u.Failed, id) {
			continue // counted, but what the service rule wants of it was never written
		}
		u.Failures++
		u.Failed = append(slices.Clip(u.Failed), id)
		if tooMany(0) {
			why = failedTask + id
			break
		}
	}
	for i, t := range r.unfit { // these go on, so that they are counted as they are found
		if why == "" && tooMany(i+1) {
			why = unfitTask + t.Meta.ID + ": " + v1.Unfit(t)
		}
	}
	u.Failed = u.Failed[max(0, len(u.Failed)-v1.MaxUpdateFailed):]
	return why
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
		if r.config.action == v1.FailureContinue {
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
	r.complete(u)
	return true
}

func (r *rollout) complete(u *v1.UpdateStatus) {
	state, message := v1.UpdateCompleted, messageCompleted
	if u.State == v1.UpdateRollbackStarted {
		state, message = v1.UpdateRollbackCompleted, messageRolledBack
	}
	_, notes := withoutNotes(u.Message)
	u.State, u.CompletedAt, u.Message, u.Admitted = state, r.now, message+notes, v1.UpdateEverySlot
	u.ProgressAt, u.Moving = time.Time{}, 0
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
		if s := &r.slots[i]; s.number <= upTo && s.moves() {
			n++
		}
	}
	return n
}
