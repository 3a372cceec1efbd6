package rollout

import (
	"cmp"
	"slices"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// slot is what a rollout needs to know of a slot.
type slot struct {
	number uint64
	newest uint64 // attempt
	latest *v1.Task
	// newestCurrent: the newest task runs what the spec asks for, or did when it ended. tried: of those that ended by
	// themselves, it is of this rollout.
	newestCurrent, tried bool
	// crowded: the newest task did not fit beside the one before it.
	crowded bool
	// clean: a task that runs what the spec asks for is there, or its replacement is due. stale: one that does not is.
	clean, stale bool
	// settled: it runs, or one of this rollout has ended by itself: either way the slot is no longer on its way.
	settled bool
}

// dirty tells whether the slot is out of date. A slot whose new task failed is not, though the old one may still run
// beside it: the restart policy says what becomes of it.
func (s *slot) dirty() bool {
	switch {
	case s.clean:
		return false
	case s.stale:
		return !s.tried
	}
	return !s.newestCurrent
}

// moves tells whether the slot is on its way. One whose newest task runs what is wanted, has ended and is followed by none, as the restart
// policy has it, is where it will stay.
func (s *slot) moves() bool {
	if s.dirty() {
		return true
	}
	over := !s.clean && !s.stale && v1.Observed(s.latest).Terminal()
	return !s.settled && !over
}

// survey looks at the slots that have tasks, and at what failed since the rollout began.
func (r *rollout) survey(before *v1.UpdateStatus) {
	service := r.service
	since := r.now.Add(time.Nanosecond) // no task is of a rollout that is yet to begin
	if before != nil && !r.begins(before) {
		since = before.StartedAt
	}
	revisions := newRevisions(r.snapshot, service, r.target)
	at := make(map[uint64]int)
	for t := range r.snapshot.TasksOfService(service.Meta.ID) {
		d := t.Desired
		if d.State >= v1.TaskRemove || d.Slot == 0 || v1.Global(service) && !revisions.moves(d.Node) {
			continue
		}
		i, seen := at[d.Slot]
		if !seen {
			i = len(r.slots)
			at[d.Slot] = i
			r.slots = append(r.slots, slot{number: d.Slot})
		}
		r.add(&r.slots[i], t, revisions, since)
	}
	slices.SortFunc(r.slots, func(a, b slot) int { return cmp.Compare(a.number, b.number) })
	slices.Sort(r.failed)
	slices.SortFunc(r.unfit, func(a, b *v1.Task) int { return cmp.Compare(a.Meta.ID, b.Meta.ID) })
}

// add puts a task into its slot.
func (r *rollout) add(s *slot, t *v1.Task, revisions *revisions, since time.Time) {
	d := t.Desired
	current, wanted := revisions.current(d.Revision), d.State <= v1.TaskComplete
	state := v1.Observed(t)
	ended := state == v1.TaskFailed || state == v1.TaskRejected || state == v1.TaskComplete
	refit := d.Revision == r.target && !d.RefitAt.IsZero() && !d.RefitAt.Before(since)
	ofThis := current && d.Revision == r.target && !t.Meta.CreatedAt.Before(since) || refit
	if d.Attempt >= s.newest {
		s.newest, s.latest, s.tried = d.Attempt, t, ended && ofThis
		s.newestCurrent = current && (!wanted || revisions.clean(t))
		s.crowded = current && d.Behind != "" && !t.Meta.CreatedAt.Before(since)
	}
	if wanted && d.Revision != r.target {
		r.former[d.Revision]++
	}
	if !current {
		s.stale = s.stale || wanted
		return
	}
	if ended && ofThis {
		s.settled = true
	}
	if !wanted {
		return
	}
	if ended && ofThis && r.early(t) {
		r.failed = append(r.failed, t.Meta.ID) // not counted yet: the service rule stops it in the same step
	}
	unfit := v1.Unfit(t) != ""
	if !revisions.clean(t) || unfit && !refit { // that it failed before this rollout began says nothing of now
		s.stale = true
		return
	}
	if unfit && !ended {
		r.unfit = append(r.unfit, t)
	}
	s.clean = true
	s.settled = s.settled || state == v1.TaskRunning && !v1.Refitting(t)
}

// early tells whether a task ended before it had run for as long as it is monitored, or had other secrets and configs for as long. Where
// the agent does not say, it counts: a rollout that pauses once too often is better than one that goes on.
func (r *rollout) early(t *v1.Task) bool {
	if at := t.Desired.RefitAt; !at.IsZero() && t.Status.At.Sub(at) <= r.config.monitor {
		return true
	}
	return t.Status.Ran == nil || time.Duration(*t.Status.Ran) <= r.config.monitor
}

// revisions tell which tasks are up to date.
type revisions struct {
	snapshot *store.Snapshot
	service  *v1.Service
	target   string
	wanted   []v1.Constraint
	same     map[string]difference
}

func newRevisions(s *store.Snapshot, service *v1.Service, target string) *revisions {
	return &revisions{s, service, target, v1.Constraints(&service.Spec.Task), map[string]difference{target: {current: true}}}
}

// moves tells whether a global service's task on a node can become another one there.
func (r *revisions) moves(node string) bool {
	n, ok := store.Get(r.snapshot, v1.Nodes, node)
	return ok && !v1.NodePaused(n) && v1.Hosts(n, r.wanted)
}

// difference is how a revision compares with what the spec asks for.
type difference struct {
	// current: it differs in its placement, and in files that change under tasks, at most. others: in such files.
	current, others bool
}

func (r *revisions) of(id string) difference {
	d, seen := r.same[id]
	if !seen {
		if found, ok := store.Get(r.snapshot, v1.ServiceRevisions, id); ok {
			d = difference{v1.SameButPlacement(found.Spec, r.service.Spec), !v1.SameFiles(found.Spec, r.service.Spec)}
		}
		r.same[id] = d
	}
	return d
}

// current tells whether tasks of a revision need no replacement, wherever they run.
func (r *revisions) current(id string) bool { return r.of(id).current }

// clean tells whether a task of a current revision is also where the spec wants it, and was told of its secrets and configs.
func (r *revisions) clean(t *v1.Task) bool {
	if t.Desired.Revision == r.target {
		return true
	}
	node, ok := store.Get(r.snapshot, v1.Nodes, v1.TaskNode(t))
	return ok && !r.of(t.Desired.Revision).others && !v1.NodeLost(node) && v1.Satisfies(node, r.wanted)
}
