package sim

import (
	"maps"
	"slices"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// drainedSince tells whether a node was drained at a revision or later.
func (c *checks) drainedSince(w *World, node string, revision int64) bool {
	if n, ok := store.Get(w.current(), v1.Nodes, node); ok && v1.NodeDrained(n) {
		return true
	}
	last, ever := c.drained[node]
	return ever && last >= revision
}

// gives tells whether a task runs on a node that is drained, and that could go on running it.
func gives(s *store.Snapshot, t *v1.Task) bool {
	n, ok := store.Get(s, v1.Nodes, v1.TaskNode(t))
	return ok && v1.NodeDrained(n) && !v1.NodeLost(n) && v1.Live(t) && v1.Observed(t) == v1.TaskRunning
}

// decided checks what was decided about nodes that are drained, on the snapshot that it was decided on: no service loses a
// task there that runs before another does in its stead, as long as another can; and no more move at a time than may.
func (c *checks) decided(w *World, s *store.Snapshot, ops []store.Op) {
	drained := false
	for n := range store.All(s, v1.Nodes) {
		drained = drained || v1.NodeDrained(n)
	}
	if !drained {
		return
	}
	after, _, err := s.With(s.Revision()+1, ops)
	if err != nil {
		w.fail("decided what cannot be: %v", err)
		return
	}
	begun := make(map[string]map[uint64]bool) // slots that move, of services of which one begins to
	for _, op := range ops {
		d, ok := op.Value.(*v1.TaskDesired)
		if !ok {
			continue
		}
		if t, was := store.Get(s, v1.Tasks, op.ID); !was {
			for _, old := range slotOf(after, d) {
				if gives(after, old) {
					w.stats.Moves++
					if begun[d.Service] == nil {
						begun[d.Service] = movers(s, after, d.Service) // a rollout may have taken some over
					}
					begun[d.Service][d.Slot] = true
				}
			}
		} else if d.State == v1.TaskShutdown && gives(s, t) && !c.mayStop(s, after, t) {
			w.fail("%s stops on %s, which is drained, and nothing runs in its stead", nameOf(d), v1.TaskNode(t))
		}
	}
	c.fewMove(w, after, begun)
}

// fewMove checks that no more slots of a service move at a time than of an update.
func (c *checks) fewMove(w *World, s *store.Snapshot, moving map[string]map[uint64]bool) {
	for _, id := range slices.Sorted(maps.Keys(moving)) {
		o, ok := store.Get(s, v1.Services, id)
		if !ok || o.Spec.Update == nil {
			continue
		}
		if most := int(*o.Spec.Update.Parallelism); most > 0 && len(moving[id]) > most {
			w.fail("%d slots of %s leave drained nodes at once; at most %d may", len(moving[id]), o.Meta.Name, most)
		}
	}
}

// slotOf are the tasks of a task's slot.
func slotOf(s *store.Snapshot, d *v1.TaskDesired) (tasks []*v1.Task) {
	for t := range s.TasksOfService(d.Service) {
		if t.Desired.Slot == d.Slot {
			tasks = append(tasks, t)
		}
	}
	return tasks
}

// mayStop tells whether a task that runs on a drained node may be stopped.
func (c *checks) mayStop(s, after *store.Snapshot, t *v1.Task) bool {
	d := t.Desired
	o, ok := store.Get(after, v1.Services, d.Service)
	o = v1.Effective(o)
	if !ok || !o.Meta.Deleting.IsZero() || v1.Global(o) || v1.Job(o) {
		return true
	}
	specs := []*v1.TaskSpec{&o.Spec.Task}
	if r, ok := store.Get(s, v1.ServiceRevisions, d.Revision); ok {
		specs = append(specs, &r.Spec.Task)
	}
	for _, spec := range specs {
		if policy := spec.RestartPolicy; policy.Condition != v1.RestartAny || policy.MaxAttempts > 0 {
			return true // it may be that there is to be no other
		}
	}
	if u := o.Desired; d.Revision != v1.RevisionID(o) && (u == nil || u.Update == nil || d.Slot <= u.Update.Admitted) {
		return true // a rollout stops it
	}
	for other := range s.TasksOfService(d.Service) {
		if v1.Live(other) && v1.WaitsForNode(other) && other.Desired.Pending != "" {
			return true // there is no room, as far as anybody knows
		}
	}
	for _, other := range slotOf(s, d) {
		n, _ := store.Get(s, v1.Nodes, v1.TaskNode(other))
		if other != t && v1.Live(other) && v1.Observed(other) == v1.TaskRunning && !v1.NodeLost(n) {
			return true
		}
	}
	failed := 0
	for _, attempt := range c.ended[c.born[t.Meta.ID].slot] {
		if attempt > d.Attempt {
			failed++
		}
	}
	for _, other := range slotOf(s, d) {
		if other.Desired.Attempt > d.Attempt && v1.Observed(other) == v1.TaskComplete {
			return true
		}
	}
	return failed >= 3
}

// movers are the slots of a service with a task that is on its way to take over from one on a drained node, those apart that
// wait for the restart delay, or for a node, or did when it was decided: while none took it, another slot might begin.
func movers(before, s *store.Snapshot, service string) map[uint64]bool {
	leaving, moving := make(map[uint64]bool), make(map[uint64]bool)
	for t := range s.TasksOfService(service) {
		if gives(s, t) {
			leaving[t.Desired.Slot] = true
		}
	}
	for t := range s.TasksOfService(service) {
		if !leaving[t.Desired.Slot] || !v1.Live(t) || v1.Observed(t) == v1.TaskRunning || !t.Desired.StartAfter.IsZero() {
			continue
		}
		if was, ok := store.Get(before, v1.Tasks, t.Meta.ID); ok && v1.WaitsForNode(was) && was.Desired.Pending != "" {
			continue
		}
		if node, ok := store.Get(s, v1.Nodes, v1.TaskNode(t)); ok && !v1.NodeLost(node) && !v1.NodeDrained(node) {
			moving[t.Desired.Slot] = true
		}
	}
	return moving
}

// drainCalmly drains a node when all is well. It has to become empty, and what fits elsewhere must not have fewer containers
// that run than it should for a moment.
func (w *World) drainCalmly() {
	m := w.machines[w.rng.IntN(len(w.machines))]
	if m.number == spare && w.fate != fateBack {
		return
	}
	w.watchAll()
	w.setAvailability(m, v1.AvailabilityDrain)
	for began := w.now; w.failure == nil && w.left(m) != ""; {
		if w.now-began > settleWithin {
			w.fail("%v after %s was drained, it still has %s", w.now-began, m.id, w.left(m))
			return
		}
		w.play(time.Second)
	}
	w.play(quietFor)
	if w.failure == nil {
		w.rests()
	}
}

// watchAll has all services watched whose tasks find another node in any case.
func (w *World) watchAll() {
	w.watched = make(map[string]int)
	for _, s := range w.services() {
		r, p := s.Spec.Task.Resources, s.Spec.Task.Placement
		if s.Meta.Deleting.IsZero() && !v1.Global(s) && !v1.Job(s) && (p == nil || len(p.Constraints) == 0 && p.MaxReplicas == 0) && !hostPort(s.Spec) && (r == nil || r.Reservations == nil) {
			w.watched[s.Meta.ID] = int(*s.Spec.Replicas)
		}
	}
}

// left is something that still runs on a machine, or "".
func (w *World) left(m *machine) string {
	left := ""
	for id, c := range m.containers {
		if name := nameOf(w.checks.born[id].desired); c.running && (left == "" || name < left) {
			left = name
		}
	}
	return left
}

// watch sees that no service that is watched has too few containers that run.
func (w *World) watch() {
	have := make(map[string]int)
	for _, m := range w.machines {
		for id, c := range m.containers {
			if c.running && !m.dead {
				have[w.checks.born[id].desired.Service]++
			}
		}
	}
	for _, s := range w.services() {
		if want, watched := w.watched[s.Meta.ID]; watched && have[s.Meta.ID] < want {
			w.fail("%s has %d containers of %d, because a node is drained, or joins", s.Meta.Name, have[s.Meta.ID], want)
			return
		}
	}
}
