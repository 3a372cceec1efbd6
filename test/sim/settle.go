package sim

import (
	"fmt"
	"strings"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/store"
)

// The bounds of settling, in the swarm's own time. The longest restart delay is five minutes; clocks may be off by four
// against each other.
const (
	settleWithin = 20 * time.Minute
	nodesWithin  = 30 * time.Second
	quietFor     = 2 * time.Second
)

// spare is the machine that may stay drained, or never come back: what a service may ask for is there without it.
const spare = 1

// fate is what becomes of the spare machine once the faults are over.
type fate uint8

const (
	fateBack fate = iota
	fateDrained
	fateDead
)

// settle stops the faults, lets the user want something that is possible, and sees that the swarm becomes exactly that, and
// then does nothing more. Then it takes a node away that works, and sees that nobody notices.
func (w *World) settle() {
	w.fate = fate(w.rng.IntN(3))
	w.heal()
	if w.named("tick") != nil && w.chance(0.3) {
		w.play(3 * time.Minute) // several runs are due
	}
	w.play(nodesWithin)
	if what := w.overdue(); what != "" {
		w.fail("%s", what)
		return
	}
	for _, s := range w.services() {
		w.reconsider(s)
	}
	w.after(w.between(0, nodesWithin), func() { // later than the rest, so that this alone wakes what waits for nodes
		for i, m := range w.machines {
			if i == spare && w.fate == fateDrained {
				w.setAvailability(m, v1.AvailabilityDrain)
			} else {
				w.setAvailability(m, v1.AvailabilityActive)
			}
		}
	})
	w.play(nodesWithin)
	began := w.now
	quiet := false
	for w.failure == nil && !quiet && w.now-began < settleWithin {
		w.play(time.Second)
		if w.failure == nil && w.amiss() == "" {
			w.stats.Settled = w.now - began
			w.play(quietFor)
			quiet = w.amiss() == ""
		}
	}
	if w.failure != nil {
		return
	}
	if amiss := w.amiss(); amiss != "" {
		for t := range store.All(w.current(), v1.Tasks) {
			w.trace("left: %s is %s, to be %s, on %s", nameOf(t.Desired), v1.Observed(t), t.Desired.State, v1.TaskNode(t))
		}
		w.fail("%v after the faults stopped: %s", w.now-began, amiss)
		return
	}
	w.rests()
	if w.failure == nil && w.chance(0.5) {
		w.joinCalmly()
	}
	if w.failure == nil {
		w.drainCalmly()
	}
	if w.failure == nil {
		w.leave()
	}
}

// rests sees that the rules want nothing more.
func (w *World) rests() {
	for _, p := range w.o.Pipelines {
		engine := p.Engine(w.memory, reconcile.Options{})
		if ops, _ := engine.Step(w.time(0), w.current(), p.AllKeys(w.current())); len(ops) > 0 {
			w.fail("all is as it should be, and the rules still want: %s", describeOps(ops))
		}
	}
}

// reconsider is what the user does about a service once the faults are over: where it may come right by itself nothing, or,
// where a rollout paused, what resumes it; else something that is possible.
func (w *World) reconsider(s *v1.Service) {
	policy := s.Spec.Task.RestartPolicy
	switch {
	case !s.Meta.Deleting.IsZero():
	case v1.Job(s) || len(s.Spec.DependsOn) > 0 || w.chance(0.5) || policy.Condition != v1.RestartAny || policy.MaxAttempts > 0 || w.tooMany(s.Spec) || w.crowded(s.Spec):
		w.update(s, w.possible)
	default:
		w.resume(s.Meta.ID)
	}
	if s.Meta.Deleting.IsZero() {
		w.after(nodesWithin/2, func() { w.resume(s.Meta.ID) })
	}
}

// resume resumes a rollout that is paused, and looks again later: one may yet pause over a failure that is on its way, or for the
// restart delays that failures left behind are longer than its deadline.
func (w *World) resume(id string) {
	s, ok := store.Get(w.current(), v1.Services, id)
	if !ok || !s.Meta.Deleting.IsZero() {
		return
	}
	if d := s.Desired; d != nil && d.Update != nil && (d.Update.State == v1.UpdatePaused || d.Update.State == v1.UpdateRollbackPaused) {
		w.update(s, func(*v1.ServiceSpec) {})
	}
	w.after(nodesWithin, func() { w.resume(id) })
}

func (w *World) tooMany(s *v1.ServiceSpec) bool { return s.Replicas != nil && *s.Replicas > w.most(s) }

// wanted is how many tasks a service is to have.
func (w *World) wanted(s *v1.Service) (n int) {
	if !v1.Global(s) {
		return int(*s.Spec.Replicas)
	}
	for node := range store.All(w.current(), v1.Nodes) {
		if v1.Hosts(node, v1.Constraints(&s.Spec.Task)) {
			n++
		}
	}
	return n
}

// most is how many replicas of a service fit in any case.
func (w *World) most(s *v1.ServiceSpec) uint64 {
	switch p := s.Task.Placement; {
	case hostPort(s):
		return 1 // a host port is there once on a node, and another service may have it
	case p != nil && len(p.Constraints) > 0:
		return 1
	case p != nil && p.MaxReplicas > 0, w.fate != fateBack:
		return 2
	}
	return 3
}

// possible is what a user asks for who wants it to work: no more than fits, restarted whatever happens, and a new revision,
// so that what failed before counts no more.
func (w *World) possible(s *v1.ServiceSpec) {
	s.Task.RestartPolicy = &v1.RestartPolicy{Condition: v1.RestartAny, Delay: s.Task.RestartPolicy.Delay}
	s.Task.ForceUpdate += 100
	w.ample(s)
	w.independent(s)
	if s.Schedule != nil {
		schedule := *s.Schedule
		schedule.Suspend, s.Schedule = true, &schedule
	}
	if s.Replicas != nil {
		n := min(*s.Replicas, w.most(s))
		s.Replicas = &n
	}
}

// amiss is what is not yet as the user wants it, or "".
func (w *World) amiss() string {
	wanted := make(map[string]bool)
	for _, s := range w.services() {
		if !s.Meta.Deleting.IsZero() {
			if !w.onlyDead(s.Meta.ID) {
				return "service " + s.Meta.Name + " is still there"
			}
			continue
		}
		lacks := func() string { return w.serviceAmiss(s, wanted) }
		if v1.Job(s) {
			lacks = func() string { return w.jobAmiss(s) }
		}
		if what := lacks(); what != "" {
			return fmt.Sprintf("service %s(%.4s): %s", s.Meta.Name, s.Meta.ID, what)
		}
	}
	for t := range store.All(w.current(), v1.Tasks) {
		if _, ok := store.Get(w.current(), v1.Services, t.Desired.Service); !ok && !w.unknowable(t) {
			return "a task is left of a service that is gone: " + nameOf(t.Desired)
		}
	}
	for _, m := range w.machines {
		for id, c := range m.containers {
			if c.running && !wanted[id] && !m.dead {
				return "a container runs that nobody wants: " + nameOf(w.checks.born[id].desired) + " on " + m.id
			}
		}
	}
	return ""
}

// serviceAmiss looks at one service, and notes the containers that are to run.
func (w *World) serviceAmiss(s *v1.Service, wanted map[string]bool) string {
	running, kept := make(map[uint64]int), make(map[uint64]int)
	for t := range w.current().TasksOfService(s.Meta.ID) {
		if w.unknowable(t) {
			continue
		}
		kept[t.Desired.Slot]++
		if t.Desired.State > v1.TaskComplete {
			continue
		}
		if v1.Observed(t) != v1.TaskRunning || t.Desired.State != v1.TaskRunning {
			return fmt.Sprintf("%s is %s, to be %s %s", nameOf(t.Desired), v1.Observed(t), t.Desired.State, t.Desired.Pending)
		}
		if !w.upToDate(s, t) {
			return nameOf(t.Desired) + " runs an old revision" + updateOf(s)
		}
		if c := w.machine(v1.TaskNode(t)).containers[t.Meta.ID]; c == nil || !c.running {
			return nameOf(t.Desired) + " is told to run, and does not"
		}
		if w.fate != fateBack && v1.TaskNode(t) == w.machines[spare].id {
			return nameOf(t.Desired) + " is on a node that is drained or dead"
		}
		wanted[t.Meta.ID] = true
		running[t.Desired.Slot]++
	}
	for slot, n := range running {
		if n != 1 || slot < 1 {
			return fmt.Sprintf("slot %d has %d tasks", slot, n)
		}
	}
	if wanted := w.wanted(s); len(running) != wanted {
		return fmt.Sprintf("%d of %d replicas run", len(running), wanted)
	}
	for slot, n := range kept {
		if n > v1.DefaultTaskHistoryLimit {
			return fmt.Sprintf("slot %d has %d tasks in its history", slot, n)
		}
	}
	if what := w.networkAmiss(s); what != "" {
		return what
	}
	if d := s.Desired; d != nil && d.Update != nil && d.Update.State != v1.UpdateCompleted && d.Update.State != v1.UpdateRollbackCompleted {
		return "the rollout has not ended" + updateOf(s)
	}
	return ""
}

// upToDate tells whether a task runs what the service asks for, where it may be.
func (w *World) upToDate(s *v1.Service, t *v1.Task) bool {
	if t.Desired.Revision == v1.RevisionID(s) {
		return true
	}
	r, known := store.Get(w.current(), v1.ServiceRevisions, t.Desired.Revision)
	n, there := store.Get(w.current(), v1.Nodes, v1.TaskNode(t))
	return known && there && v1.SameButPlacement(r.Spec, s.Spec) && v1.Satisfies(n, v1.Constraints(&s.Spec.Task))
}

// unknowable tells whether a task is one to stop whose machine is dead: the swarm keeps it for a day, in case that comes
// back.
func (w *World) unknowable(t *v1.Task) bool {
	return w.fate == fateDead && v1.TaskNode(t) == w.machines[spare].id && t.Desired.State > v1.TaskComplete
}

// onlyDead tells whether all that is left of a service is unknowable.
func (w *World) onlyDead(service string) bool {
	left := false
	for t := range w.current().TasksOfService(service) {
		if !w.unknowable(t) {
			return false
		}
		left = true
	}
	return left
}

func updateOf(s *v1.Service) string {
	if s.Desired == nil || s.Desired.Update == nil {
		return ""
	}
	u := s.Desired.Update
	return strings.TrimRight(fmt.Sprintf(": %s up to %d, %s", u.State, u.Admitted, u.Message), ", ")
}

func (w *World) machine(id string) *machine {
	for _, m := range w.machines {
		if m.id == id {
			return m
		}
	}
	return nil
}
