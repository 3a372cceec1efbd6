package sim

import (
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// maxMachines bounds how many join.
const maxMachines = 6

// joins has another machine join.
func (w *World) joins() *machine {
	if len(w.machines) >= maxMachines {
		return nil
	}
	m := newMachine(w, len(w.machines))
	w.trace("%s joins", m.id)
	w.stats.Joins++
	w.machines = append(w.machines, m)
	m.boot()
	return m
}

// depends has a service wait for another.
func (w *World) depends(name string, s *v1.ServiceSpec) {
	on := map[string]v1.Dependency{
		"db":  {Service: "web", Condition: v1.DependsStarted},
		"job": {Service: []string{"web", "db"}[w.rng.IntN(2)], Condition: v1.DependsHealthy},
		"web": {Service: "sum", Condition: v1.DependsCompleted},
	}[name]
	if on.Service != "" && w.chance(0.2) {
		on.Optional = w.chance(0.3)
		s.DependsOn = []v1.Dependency{on}
	}
}

// independent takes away what a service waits for in vain.
func (w *World) independent(s *v1.ServiceSpec) {
	for _, d := range s.DependsOn {
		if w.named(d.Service) == nil {
			s.DependsOn = nil
			return
		}
	}
}

// order checks that no service gets its first node before what it depends on is there, by what it was decided on.
func (c *checks) order(w *World, s *store.Snapshot, ops []store.Op) {
	for _, op := range ops {
		d, ok := op.Value.(*v1.TaskDesired)
		if !ok || d.Placement == nil || placedOnce(s, d.Service) {
			continue
		}
		o, ok := store.Get(s, v1.Services, d.Service)
		if !ok {
			continue
		}
		for _, on := range o.Spec.DependsOn {
			w.stats.Ordered++
			if what := unmet(s, on); what != "" {
				w.fail("%s is placed, and waits for %s: %s", nameOf(d), on.Service, what)
			}
		}
	}
}

func placedOnce(s *store.Snapshot, service string) bool {
	for t := range s.TasksOfService(service) {
		if v1.TaskNode(t) != "" {
			return true
		}
	}
	return false
}

func unmet(s *store.Snapshot, on v1.Dependency) string {
	id, there := s.ByName(v1.KindService, on.Service)
	if !there {
		if on.Optional {
			return ""
		}
		return "it is not there"
	}
	o, _ := store.Get(s, v1.Services, id)
	met := make(map[uint64]bool)
	for t := range s.TasksOfService(id) {
		if d := t.Desired; d.State < v1.TaskRemove && (!v1.Job(o) || d.Iteration == o.Meta.Generation) && on.Meets(t) {
			met[d.Slot] = true
		}
	}
	if o.Spec.Replicas != nil && uint64(len(met)) < *o.Spec.Replicas || v1.Global(o) && len(met) == 0 {
		return "it has not come to it"
	}
	return ""
}

// moved checks what was decided about tasks that move to a node that came: the old one stops once the new one runs, and no more move at a
// time than may.
func (c *checks) moved(w *World, s *store.Snapshot, ops []store.Op) {
	for _, op := range ops {
		d, ok := op.Value.(*v1.TaskDesired)
		if !ok {
			continue
		}
		t, was := store.Get(s, v1.Tasks, op.ID)
		switch {
		case !was && d.Move != nil:
			w.stats.Balanced++
			c.fewShare(w, s, ops, d.Service)
		case was && t.Desired.State < v1.TaskShutdown && d.State == v1.TaskShutdown && strings.HasPrefix(d.Reason, "moved to balance"):
			runs := false
			for _, other := range slotOf(s, d) {
				runs = runs || other != t && v1.Live(other) && v1.Observed(other) == v1.TaskRunning
			}
			if !runs {
				w.fail("%s stops to balance the service, and nothing runs in its stead", nameOf(d))
			}
		}
	}
}

func (c *checks) fewShare(w *World, s *store.Snapshot, ops []store.Op, service string) {
	after, _, err := s.With(s.Revision()+1, ops)
	if err != nil {
		w.fail("decided what cannot be: %v", err)
		return
	}
	o, ok := store.Get(after, v1.Services, service)
	if !ok || *o.Spec.Update.Parallelism == 0 {
		return
	}
	moving := 0
	for t := range after.TasksOfService(service) {
		if t.Desired.Move != nil && v1.Live(t) {
			moving++
		}
	}
	if moving > int(*o.Spec.Update.Parallelism) {
		w.fail("%d slots of %s move at once; at most %d may", moving, o.Meta.Name, *o.Spec.Update.Parallelism)
	}
}

// joinCalmly has a machine join when all is well. What rebalances has to give it its share, and must not have fewer containers that run than it
// should for a moment.
func (w *World) joinCalmly() {
	w.watchAll()
	m := w.joins()
	if m == nil {
		return
	}
	w.play(quietFor)
	for began := w.now; w.failure == nil && (w.uneven(m) != "" || w.amiss() != ""); w.play(quietFor) {
		if w.now-began > settleWithin {
			w.fail("%v after %s joined: %s %s", w.now-began, m.id, w.uneven(m), w.amiss())
			return
		}
	}
	if w.failure == nil {
		w.rests()
	}
}

// uneven is a service that has not given a machine its share, or "". Where a task was placed when the clock of another leader showed more
// than the machine came at, there is no telling.
func (w *World) uneven(m *machine) string {
	n, ok := store.Get(w.current(), v1.Nodes, m.id)
	if !ok || n.Desired == nil || n.Desired.Since.IsZero() {
		return m.id + " does not take tasks"
	}
	for _, s := range w.services() {
		p := s.Spec.Task.Placement
		policy := s.Spec.Task.RestartPolicy
		if !v1.MayRebalance(s) || len(p.Constraints) > 0 || p.MaxReplicas > 0 || hostPort(s.Spec) || w.crowded(s.Spec) || policy.Condition != v1.RestartAny {
			continue
		}
		counts, earlier := make(map[string]int), true
		for t := range w.current().TasksOfService(s.Meta.ID) {
			if v1.Live(t) && v1.TaskNode(t) != "" {
				counts[v1.TaskNode(t)]++
				earlier = earlier && (v1.TaskNode(t) == m.id || t.Desired.Placement.At.Before(n.Desired.Since))
			}
		}
		for id, n := range counts {
			if earlier && n > counts[m.id]+1 {
				return s.Meta.Name + " has more on " + id
			}
		}
	}
	return ""
}
