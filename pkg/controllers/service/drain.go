package service

import (
	"slices"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/reconcile"
)

// A task that runs on a drained node goes on until another runs in its stead, which is started beside it on another node: a
// drain takes nothing away from a service that fits elsewhere. So many slots of a service move at a time as its update may;
// all there is to know of it is which tasks are there. But a drain ends: a task that no node takes is stopped once the others
// have moved, and so is one whose replacements fail. Stopping it earlier would never help, for what it holds on its node
// nobody is given.

// drainFailures is how many replacements of a slot may fail in a row, with the restart delay between them, before the node
// gives the old task up all the same.
const drainFailures = 3

// leaver is a slot with a task that runs on a drained node.
type leaver struct {
	*slot
	old *v1.Task
	// live are the slot's other live tasks, next of them the one that is to take over; nil is none yet.
	live []*v1.Task
	next *v1.Task
}

// leaves tells whether a task is one that waits for another to take over. A slot that a rollout is moving stop-first is that
// rollout's: the user asked for it.
func (v *view) leaves(s *slot, t *v1.Task) bool {
	if !v1.Live(t) || v1.Observed(t) != v1.TaskRunning || v.contested && reconcile.Displaced(v.snapshot, t) != "" {
		return false
	}
	n, placed := v.nodeOf(t)
	return placed && !n.lost && n.drained && (s.number > v.admitted || v.startFirst() || v.clean(t))
}

// relieved tells whether a slot no longer needs its task on a drained node: another runs, or did until it was done.
func (l *leaver) relieved() bool {
	return slices.ContainsFunc(l.live, func(t *v1.Task) bool { return v1.Observed(t) == v1.TaskRunning }) ||
		slices.ContainsFunc(l.tasks, func(t *v1.Task) bool {
			return t.Desired.Attempt > l.old.Desired.Attempt && v1.Observed(t) == v1.TaskComplete
		})
}

// stuck tells whether the scheduler found no node for the task that is to take over.
func (l *leaver) stuck() bool {
	return l.next != nil && v1.WaitsForNode(l.next) && l.next.Desired.Pending != ""
}

// failing tells whether so many replacements failed that the drain goes on without.
func (l *leaver) failing() bool { return failures(l.next) >= failures(l.old)+drainFailures }

func failures(t *v1.Task) uint32 {
	if t == nil || t.Desired.Restarts == nil {
		return 0
	}
	return t.Desired.Restarts.Failures
}

// drain decides the slots with tasks on drained nodes, in their order.
func (v *view) drain() {
	moving := 0
	full := make(map[string]bool) // revisions that no node takes any more of
	for i := range v.leavers {
		l := &v.leavers[i]
		l.next = v.successor(l)
		switch {
		case l.stuck():
			full[l.next.Desired.Revision] = true
		case l.next != nil && !l.failing() && !v.now.Before(l.next.Desired.StartAfter):
			moving++
		}
	}
	var fixed []*leaver // those that cannot move
	for i := range v.leavers {
		l := &v.leavers[i]
		switch {
		case l.stuck(), l.next == nil && full[v.nextRevision(l.slot)]:
			fixed = append(fixed, l)
		case l.next != nil && l.failing():
			v.giveUp(l)
		case l.next != nil || v.parallelism() > 0 && moving >= v.parallelism():
			v.keepOnly(l.slot, l.live, l.old, l.next)
		case v.begin(l):
			moving++
		}
	}
	for _, l := range fixed {
		if moving > 0 {
			v.keepOnly(l.slot, l.live, l.old, l.next)
		} else {
			v.giveUp(l)
		}
	}
}

// successor is the task that is to take over in a slot: one that runs what the slot may have.
func (v *view) successor(l *leaver) *v1.Task {
	if l.number > v.admitted {
		return v.best(l.live)
	}
	return v.best(slices.DeleteFunc(slices.Clone(l.live), func(t *v1.Task) bool { return !v.clean(t) }))
}

// begin makes the task that is to take over, and tells whether there is to be one.
func (v *view) begin(l *leaver) bool {
	v.keepOnly(l.slot, l.live, l.old)
	if v.replace(l.slot, []*v1.Task{l.old}) {
		return true
	}
	v.stop(l.old, v1.TaskShutdown, reasonDrained)
	return false
}

// giveUp stops the old task though nothing has taken over.
func (v *view) giveUp(l *leaver) {
	v.stop(l.old, v1.TaskShutdown, reasonDrained)
	v.keepOnly(l.slot, l.live, l.next)
	if l.next == nil {
		v.replace(l.slot, nil)
	}
}

// parallelism is how many slots move at a time; 0 is all.
func (v *view) parallelism() int {
	if u := v.service.Spec.Update; u != nil && u.Parallelism != nil {
		return int(min(*u.Parallelism, 1<<31))
	}
	return 1
}
