package service

import (
	"slices"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/store"
)

// A task that the scheduler would rather have on a node that came moves there as one leaves a drained node: another starts beside it, and
// once that runs, healthy where it has a health check, the old one stops. Nothing has to move, though: where a rollout, a drain or the user
// wants something else, where the node does not take the new task, or that fails, the move is dropped and the old task goes on. What
// is known of a move is in the task that is to take over (TaskDesired.Move): one that has taken over is a task as any other.

// moveWithin is how long a task that is to take over may take, where the progress deadline of updates says nothing else.
const moveWithin = 10 * time.Minute

// mover is a slot with a task that may move.
type mover struct {
	*slot
	old *v1.Task
}

// takesOver decides a slot with a task that is to take over from one that runs, and tells whether it has one.
func (v *view) takesOver(s *slot, live []*v1.Task) bool {
	if !v1.MayRebalance(v.service) {
		return false
	}
	moves := func(t *v1.Task) bool { return t.Desired.Move != nil }
	next := v.best(slices.DeleteFunc(slices.Clone(live), func(t *v1.Task) bool { return !moves(t) }))
	old := v.best(slices.DeleteFunc(slices.Clone(live), moves))
	if old == nil || v1.Observed(old) != v1.TaskRunning || next == nil {
		if old != nil && len(live) == 1 && old.Desired.Better != "" {
			v.movers = append(v.movers, mover{s, old})
		}
		return false
	}
	switch {
	case v1.Observed(next) == v1.TaskRunning:
		v.stop(old, v1.TaskShutdown, reasonMoved)
		v.keepOnly(s, slices.DeleteFunc(slices.Clone(live), func(t *v1.Task) bool { return t == old }), next)
	case v1.WaitsForNode(next) && next.Desired.Pending != "":
		v.stop(next, v1.TaskShutdown, reasonNotMoved+": "+next.Desired.Pending)
		v.keepOnly(s, slices.DeleteFunc(slices.Clone(live), func(t *v1.Task) bool { return t == next }), old)
	case v.overdue(next):
		v.stop(next, v1.TaskShutdown, reasonNotMoved+" in time")
		v.keepOnly(s, slices.DeleteFunc(slices.Clone(live), func(t *v1.Task) bool { return t == next }), old)
	default:
		v.moving++
		v.keepOnly(s, live, old, next)
	}
	return true
}

// overdue tells whether a task that is to take over has taken too long.
func (v *view) overdue(next *v1.Task) bool {
	within := moveWithin
	if u := v.service.Spec.Update; u != nil && u.ProgressDeadline != nil && *u.ProgressDeadline > 0 {
		within = time.Duration(*u.ProgressDeadline)
	}
	until := next.Meta.CreatedAt.Add(within)
	if v.now.Before(until) {
		v.plan.Again = reconcile.Sooner(v.plan.Again, until)
		return false
	}
	return true
}

// rebalance begins moves, no more at a time than slots may in an update, and none while a drain moves others or the last that was
// dropped is too fresh.
func (v *view) rebalance() {
	if len(v.movers) == 0 || len(v.leavers) > 0 {
		return
	}
	if until := v.dropped(); v.now.Before(until) {
		v.plan.Again = reconcile.Sooner(v.plan.Again, until)
		return
	}
	for _, m := range v.movers {
		if p := v.parallelism(); p > 0 && v.moving >= p {
			return
		}
		to, there := store.Get(v.snapshot, v1.Nodes, m.old.Desired.Better)
		if !there || !v1.TakesTasks(to) || v.blocked(m.slot, []*v1.Task{m.old}) {
			continue
		}
		m.move = &v1.TaskMove{Node: to.Meta.ID, Tries: v.tries(m.slot, to) + 1}
		if v.replace(m.slot, []*v1.Task{m.old}) {
			v.moving++
		}
	}
}

// tries is how many moves of a slot to a node were dropped since that came.
func (v *view) tries(s *slot, to *v1.Node) uint32 {
	for _, t := range slices.Backward(s.tasks) {
		if m := t.Desired.Move; v1.MoveDropped(t) && m.Node == to.Meta.ID && t.Desired.Revision == v.target && !t.Meta.CreatedAt.Before(to.Desired.Since) {
			return m.Tries
		}
	}
	return 0
}

// dropped is until when no move begins, after one was dropped: the restart delay, which doubles.
func (v *view) dropped() (until time.Time) {
	for _, s := range v.slots {
		for _, t := range s.tasks {
			if !v1.MoveDropped(t) {
				continue
			}
			if at := t.Meta.UpdatedAt.Add(backoff(firstDelay(v.policy(t)), t.Desired.Move.Tries)); at.After(until) {
				until = at
			}
		}
	}
	return until
}
