package service

import (
	"cmp"
	"slices"
	"strconv"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/store"
)

// Why the rule stops a task, in TaskDesired.Reason.
const (
	reasonUnfit   = "assigned node no longer meets constraints"
	reasonLost    = "node is down"
	reasonRemoved = "node was removed"
	reasonDrained = "node is drained"
	reasonExtra   = "another task has the slot"
	reasonRoom    = "no room for its successor beside it"
	reasonAddress = "another has its address " // and which
	reasonMoved   = "moved to balance the service"
	// reasonNotMoved is that of a task that was to take over, after which the other goes on.
	reasonNotMoved = "did not take over from the task on another node"
)

// why tells why a task that is desired to run cannot stay, and "" where it can.
func (v *view) why(t *v1.Task) string {
	n, placed := v.nodeOf(t)
	switch {
	case !placed:
		return v.whyNot(t.Desired.Node)
	case n.Node == nil:
		return reasonRemoved
	case n.lost:
		return reasonLost
	case v.contested && reconcile.Displaced(v.snapshot, t) != "":
		return reasonAddress + reconcile.Displaced(v.snapshot, t)
	case n.drained:
		return reasonDrained
	case !v.fits(t, n):
		return reasonUnfit
	}
	return ""
}

// whyNot tells why a task cannot wait for the node that it was made for, if it was for one.
func (v *view) whyNot(node string) string {
	if node == "" {
		return ""
	}
	if _, there := store.Get(v.snapshot, v1.Nodes, node); !there {
		return reasonRemoved
	}
	return ""
}

// good tells whether the task runs or will, and may stay.
func (v *view) good(t *v1.Task) bool { return v1.Live(t) && v.why(t) == "" }

// decideSlot decides which tasks a slot is to have: one, and during a start-first rollout two. A slot that may move gets a
// task of the wanted revision; one that may not keeps the revision it has. A slot with a task that a drain moves is left for
// drain to decide.
func (v *view) decideSlot(s *slot) {
	live := make([]*v1.Task, 0, 2)
	var old *v1.Task
	for _, t := range s.tasks {
		switch {
		case v.good(t):
			live = append(live, t)
		case v.leaves(s, t) && (old == nil || v.better(t, old)):
			if old != nil {
				v.stop(old, v1.TaskShutdown, reasonDrained)
			}
			old = t
		case t.Desired.State <= v1.TaskComplete:
			v.stop(t, v1.TaskShutdown, cmp.Or(v.why(t), v.unmoved(t))) // it ended, or cannot stay
		}
	}
	if old != nil {
		l := leaver{slot: s, old: old, live: live}
		if !l.relieved() {
			v.leavers = append(v.leavers, l)
			return
		}
		v.stop(old, v1.TaskShutdown, reasonDrained)
	}
	if !v.takesOver(s, live) {
		v.decideLive(s, live)
	}
}

// unmoved is the reason of a task that ended before it had taken over from another.
func (v *view) unmoved(t *v1.Task) string {
	if t.Desired.Move == nil {
		return ""
	}
	return reasonNotMoved
}

// decideLive is decideSlot for a slot with so many live tasks that may stay.
func (v *view) decideLive(s *slot, live []*v1.Task) {
	keep := v.best(live)
	if s.number <= v.admitted && (!s.closed || keep == nil) {
		v.move(s, live, keep)
		return
	}
	if keep == nil {
		v.replace(s, nil)
		return
	}
	v.keepOnly(s, live, keep)
}

// move is decideSlot for a slot that may move.
func (v *view) move(s *slot, live []*v1.Task, keep *v1.Task) {
	startFirst := v.startFirst()
	clean := v.best(slices.DeleteFunc(slices.Clone(live), func(t *v1.Task) bool { return !v.clean(t) }))
	switch {
	case keep == nil:
		v.replace(s, nil)
	case clean == nil && startFirst:
		v.keepOnly(s, live, keep)
		v.replace(s, []*v1.Task{keep})
	case clean == nil:
		v.keepOnly(s, live, nil)
		v.replace(s, nil)
	case startFirst && keep != clean && v1.WaitsForNode(clean) && clean.Desired.Behind == keep.Meta.ID:
		v.stop(keep, v1.TaskShutdown, reasonRoom) // the user would wait for ever
		v.keepOnly(s, live, keep, clean)
	case startFirst && keep != clean && v1.Observed(clean) < v1.TaskRunning:
		v.keepOnly(s, live, keep, clean) // the old one stays until the new one runs
	default:
		v.keepOnly(s, live, clean)
	}
}

// startFirst tells whether the new task of a slot starts before the old one stops.
func (v *view) startFirst() bool {
	return v1.OrderNow(v.service) == v1.StartFirst
}

// keepOnly stops the live tasks but those, and lets those start that are ready and free to.
func (v *view) keepOnly(s *slot, live []*v1.Task, keep ...*v1.Task) {
	for _, t := range live {
		if slices.Contains(keep, t) {
			continue
		}
		reason := v.unmoved(t)
		if reason == "" && v.clean(t) {
			reason = reasonExtra
		}
		v.stop(t, v1.TaskShutdown, reason)
	}
	keep = slices.DeleteFunc(slices.Clone(keep), func(t *v1.Task) bool { return t == nil })
	for _, t := range keep {
		if t.Desired.State < v1.TaskRunning {
			v.start(s, t, keep)
			continue
		}
		v.refit(s, t, len(keep) == 1)
	}
}

// refit has a task that stays have the secrets and configs that the spec asks for now, where those are all that differs and its slot may
// move. Where it is alone, it has taken over.
func (v *view) refit(s *slot, t *v1.Task, alone bool) {
	d := *t.Desired
	if s.number <= v.admitted && v.unfit(t) {
		d.Revision, d.RefitAt = v.target, v.now
		if before := t.Desired.RefitAt; !d.RefitAt.After(before) {
			d.RefitAt = before.Add(1) // by which its node's answers are told apart, whatever the clock of the leader before says
		}
	}
	if alone {
		d.Move = nil
	}
	if !d.RefitAt.Equal(t.Desired.RefitAt) || d.Move != t.Desired.Move {
		v.set(t, &d)
	}
}

// unfit tells whether a task is to be told to have the secrets and configs of the spec: it has others, or has not got these, and the rollout
// was resumed since.
func (v *view) unfit(t *v1.Task) bool {
	if !v.clean(t) {
		return false
	}
	if v.revision(t.Desired.Revision).others {
		return true
	}
	d := v.service.Desired
	return v1.Unfit(t) != "" && d != nil && d.Update != nil && d.Update.Revision == v.target && t.Desired.RefitAt.Before(d.Update.StartedAt)
}

// start lets a ready task run, once its delay is over and no other task of the slot that is to stop still runs.
func (v *view) start(s *slot, t *v1.Task, keep []*v1.Task) {
	if v.now.Before(t.Desired.StartAfter) {
		v.plan.Again = reconcile.Sooner(v.plan.Again, t.Desired.StartAfter)
		return
	}
	if v.blocked(s, append(slices.Clone(keep), t)) {
		return // woken when the other ends
	}
	d := *t.Desired
	d.State = v.goal
	if len(keep) == 1 {
		d.Move = nil
	}
	v.set(t, &d)
}

// blocked tells whether a task of the slot, but those, may still run, or one of a slot that has to be empty first.
func (v *view) blocked(s *slot, but []*v1.Task) bool {
	for _, other := range s.after {
		if slices.ContainsFunc(other.tasks, func(t *v1.Task) bool { return !v.ended(t) }) {
			return true
		}
	}
	for _, t := range s.tasks {
		if !v.ended(t) && !slices.Contains(but, t) {
			return true
		}
	}
	return false
}

// replace makes the slot's next task, and tells whether there is to be one. beside are tasks that go on running next to it.
func (v *view) replace(s *slot, beside []*v1.Task) bool {
	if s.closed {
		return false
	}
	d := &v1.TaskDesired{Service: v.service.Meta.ID, ServiceName: v.service.Meta.Name, Slot: s.number, Node: s.node,
		Iteration: v.iteration, Revision: v.nextRevision(s), State: v.goal, Move: s.move}
	if last := v.newest(s); last != nil && v.sameContent(last.Desired.Revision, d.Revision) {
		if !v.again(last, d) {
			return false
		}
		if v.tooSoon(last) {
			v.plan.Again = reconcile.Sooner(v.plan.Again, last.Desired.StartAfter)
			return true
		}
	}
	if v.now.Before(d.StartAfter) || v.blocked(s, beside) {
		d.State = v1.TaskReady
		if v.now.Before(d.StartAfter) {
			v.plan.Again = reconcile.Sooner(v.plan.Again, d.StartAfter)
		}
	}
	d.Attempt = v.nextAttempt(s)
	v.create(d)
	return true
}

// nextRevision is that of the slot's next task: the wanted one where the slot may move, else the one that it had. A run ends as it began.
func (v *view) nextRevision(s *slot) string {
	if last := v.newest(s); last != nil && (s.number > v.admitted || v1.Cron(v.service)) && v.revision(last.Desired.Revision).spec != nil {
		return last.Desired.Revision
	}
	return v.target
}

// sameContent tells whether tasks of the two revisions run the same thing, so that failures of one are the other's.
func (v *view) sameContent(had, gets string) bool {
	return had == gets || gets == v.target && v.revision(had).current
}

// newest is the latest task of the slot, in this iteration, that was not given up, or nil. One that never took over does not stand for the
// slot.
func (v *view) newest(s *slot) *v1.Task {
	for _, t := range slices.Backward(s.tasks) {
		if t.Desired.State < v1.TaskRemove && t.Desired.Iteration == v.iteration && !v1.MoveDropped(t) {
			return t
		}
	}
	return nil
}

// nextAttempt is above that of every task the slot ever had: those that are gone are remembered by the service. It
// is asked whatever is there: the removal of a slot may have been cut off when the newest was gone and others were not.
func (v *view) nextAttempt(s *slot) uint64 {
	var last uint64
	if n := len(s.tasks); n > 0 {
		last = s.tasks[n-1].Desired.Attempt
	}
	if d := v.service.Desired; d != nil {
		last = max(last, d.Attempts)
	}
	return last + 1
}

func (v *view) create(d *v1.TaskDesired) {
	id := v1.TaskID(d.Service, strconv.FormatUint(d.Slot, 10), d.Attempt)
	v.plan.Ops = append(v.plan.Ops, store.Op{Kind: v1.KindTask, ID: id, Section: v1.SectionDesired, Value: d,
		Meta: &v1.Meta{ID: id, CreatedAt: v.now, UpdatedAt: v.now}, If: store.Absent()})
}
