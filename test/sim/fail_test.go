package sim

import (
	"slices"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/controllers"
	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/store"
)

// impatient is a rule that lets every task that it decides about run at once: it ignores that an earlier one of the slot
// has not ended.
type impatient struct{ reconcile.Rule }

// Decide implements reconcile.Rule.
func (r impatient) Decide(now time.Time, s *store.Snapshot, key string) reconcile.Plan {
	plan := r.Rule.Decide(now, s, key)
	for i, op := range plan.Ops {
		if d, ok := op.Value.(*v1.TaskDesired); ok && op.Kind == v1.KindTask && d.State == v1.TaskReady && d.StartAfter.IsZero() {
			next := *d
			next.State = v1.TaskRunning
			plan.Ops[i].Value = &next
		}
	}
	return plan
}

// blind is a rule that decides nothing.
type blind struct{ reconcile.Rule }

// Decide implements reconcile.Rule.
func (blind) Decide(time.Time, *store.Snapshot, string) reconcile.Plan { return reconcile.Plan{} }

// hasty is a rule that stops all tasks of drained nodes at once, as Docker Swarm does.
type hasty struct{ reconcile.Rule }

// Decide implements reconcile.Rule.
func (r hasty) Decide(now time.Time, s *store.Snapshot, key string) reconcile.Plan {
	plan := r.Rule.Decide(now, s, key)
	for t := range s.TasksOfService(key) {
		n, ok := store.Get(s, v1.Nodes, v1.TaskNode(t))
		decided := slices.ContainsFunc(plan.Ops, func(op store.Op) bool { return op.ID == t.Meta.ID })
		if ok && v1.NodeDrained(n) && t.Desired.State <= v1.TaskComplete && !decided {
			next := *t.Desired
			next.State = v1.TaskShutdown
			plan.Ops = append(plan.Ops, reconcile.SetTask(now, t, &next))
		}
	}
	return plan
}

// rough is a rule that stops a task at once that another is to take over from.
type rough struct{ reconcile.Rule }

// Decide implements reconcile.Rule.
func (r rough) Decide(now time.Time, s *store.Snapshot, key string) reconcile.Plan {
	plan := r.Rule.Decide(now, s, key)
	for _, op := range slices.Clone(plan.Ops) {
		d, ok := op.Value.(*v1.TaskDesired)
		if _, was := store.Get(s, v1.Tasks, op.ID); !ok || was || d.Move == nil {
			continue
		}
		for _, old := range slotOf(s, d) {
			if v1.Live(old) {
				next := *old.Desired
				next.State, next.Reason = v1.TaskShutdown, "moved to balance the service"
				plan.Ops = append(plan.Ops, reconcile.SetTask(now, old, &next))
			}
		}
	}
	return plan
}

// timeless is a rule that looks at no schedule.
type timeless struct{ reconcile.Rule }

// Decide implements reconcile.Rule.
func (r timeless) Decide(now time.Time, s *store.Snapshot, key string) reconcile.Plan {
	if o, ok := store.Get(s, v1.Services, key); ok && v1.Cron(o) {
		return reconcile.Plan{}
	}
	return r.Rule.Decide(now, s, key)
}

// idle is a rule that leaves tasks on drained nodes where they are.
type idle struct{ reconcile.Rule }

// Decide implements reconcile.Rule.
func (r idle) Decide(now time.Time, s *store.Snapshot, key string) reconcile.Plan {
	plan := r.Rule.Decide(now, s, key)
	plan.Ops = slices.DeleteFunc(plan.Ops, func(op store.Op) bool {
		t, ok := store.Get(s, v1.Tasks, op.ID)
		if !ok || op.Kind != v1.KindTask {
			return false
		}
		n, ok := store.Get(s, v1.Nodes, v1.TaskNode(t))
		return ok && v1.NodeDrained(n) && op.Value != nil
	})
	return plan
}

// many is a rule that is told to move any number of slots at a time.
type many struct{ reconcile.Rule }

// Decide implements reconcile.Rule.
func (r many) Decide(now time.Time, s *store.Snapshot, key string) reconcile.Plan {
	if o, ok := store.Get(s, v1.Services, key); ok && o.Spec.Update != nil {
		spec, all := *o.Spec, uint64(0)
		update := *spec.Update
		update.Parallelism = &all
		spec.Update = &update
		next, _, err := s.With(s.Revision()+1, []store.Op{{Kind: v1.KindService, ID: key, Value: &spec, Meta: &o.Meta, If: store.Exists()}})
		if err != nil {
			panic(err)
		}
		s = next
	}
	return r.Rule.Decide(now, s, key)
}

// forgetful is a rule that takes what was decided for what is stored: it gives away what is given up in the same go.
type forgetful struct{ reconcile.Rule }

// Decide implements reconcile.Rule.
func (r forgetful) Decide(now time.Time, s *store.Snapshot, key string) reconcile.Plan {
	return r.Rule.Decide(now, with(s), key)
}

// greedy is a rule that gives away the addresses of tasks that are to stop.
type greedy struct{ reconcile.Rule }

// Decide implements reconcile.Rule.
func (r greedy) Decide(now time.Time, s *store.Snapshot, key string) reconcile.Plan {
	var ops []store.Op
	for t := range store.All(s, v1.Tasks) {
		if t.Desired.State > v1.TaskComplete && len(t.Desired.Networks) > 0 {
			next := *t.Desired
			next.Networks = nil
			ops = append(ops, store.Op{Kind: v1.KindTask, ID: t.Meta.ID, Section: v1.SectionDesired, Value: &next, Meta: &t.Meta})
		}
	}
	return r.Rule.Decide(now, with(s, ops...), key)
}

// rash is a rule that places tasks whether or not they have their addresses.
type rash struct{ reconcile.Rule }

// Decide implements reconcile.Rule.
func (r rash) Decide(now time.Time, s *store.Snapshot, key string) reconcile.Plan {
	var ops []store.Op
	for rev := range s.RevisionsOfService(key) {
		spec := *rev.Spec
		spec.Task.Networks = nil
		ops = append(ops, store.Op{Kind: v1.KindServiceRevision, ID: rev.Meta.ID, Value: &spec, Meta: &rev.Meta})
	}
	return r.Rule.Decide(now, with(s, ops...), key)
}

// with is a snapshot with operations, as if they had been committed.
func with(s *store.Snapshot, ops ...store.Op) *store.Snapshot {
	next, _, err := s.With(s.Revision(), ops)
	if err != nil {
		panic(err)
	}
	return next
}

// broken are all pipelines, of which one rule is broken.
func broken(name string, as func(reconcile.Rule) reconcile.Rule) []reconcile.Pipeline {
	pipelines := controllers.Pipelines()
	for _, p := range pipelines {
		for i, r := range p.Rules {
			if r.Name() == name {
				p.Rules[i] = as(r)
			}
		}
	}
	return pipelines
}

// TestTheSimCanFail takes one defence away at a time: a simulation that finds nothing then would find nothing ever.
func TestTheSimCanFail(t *testing.T) {
	const within = 1000
	for _, test := range []struct {
		name string
		o    Options
	}{
		{"a rule that does not wait for the end of the earlier task", Options{
			Pipelines: broken("service", func(r reconcile.Rule) reconcile.Rule { return impatient{r} })}},
		{"a rule that misses no node", Options{Pipelines: broken("node", func(r reconcile.Rule) reconcile.Rule { return blind{r} })}},
		{"a drain that stops everything at once", Options{Pipelines: broken("service", func(r reconcile.Rule) reconcile.Rule { return hasty{r} })}},
		{"a move that stops the old task at once", Options{Pipelines: broken("service", func(r reconcile.Rule) reconcile.Rule { return rough{r} })}},
		{"a schedule that nobody keeps", Options{Pipelines: broken("service", func(r reconcile.Rule) reconcile.Rule { return timeless{r} })}},
		{"a drain that stops nothing", Options{Pipelines: broken("service", func(r reconcile.Rule) reconcile.Rule { return idle{r} })}},
		{"a drain that moves everything at once", Options{Pipelines: broken("service", func(r reconcile.Rule) reconcile.Rule { return many{r} })}},
		{"addresses given away in the go in which they are given up", Options{
			Pipelines: broken("address", func(r reconcile.Rule) reconcile.Rule { return forgetful{r} })}},
		{"addresses given away before their tasks have stopped", Options{
			Pipelines: broken("address", func(r reconcile.Rule) reconcile.Rule { return greedy{r} })}},
		{"tasks placed without their addresses", Options{
			Pipelines: broken("scheduler", func(r reconcile.Rule) reconcile.Rule { return rash{r} })}},
		{"networks that get nothing", Options{Pipelines: broken("network", func(r reconcile.Rule) reconcile.Rule { return blind{r} })}},
		{"no fence, and stale snapshots", Options{Pipelines: controllers.Pipelines(), NoFence: true, NoFloor: true}},
		{"large commits written in any order", Options{Pipelines: controllers.Pipelines(), NoPhases: true}},
		{"reports written by what a server saw long ago", Options{Pipelines: controllers.Pipelines(), NoReportCondition: true}},
		{"reports taken by a server that does not know the task yet", Options{Pipelines: controllers.Pipelines(), NoReportRevision: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for seed := uint64(1); seed <= within; seed++ {
				test.o.Seed = seed
				if _, err := Run(test.o); err != nil {
					t.Logf("found with seed %d: %v", seed, err)
					return
				}
			}
			t.Errorf("not found in %d seeds", within)
		})
	}
}

// TestSameSeedSameRun replays seeds and compares every line.
func TestSameSeedSameRun(t *testing.T) {
	for seed := uint64(1); seed <= 20; seed++ {
		var runs [2][]string
		for i := range runs {
			_, err := Run(Options{Seed: seed, Pipelines: controllers.Pipelines(), Trace: func(line string) { runs[i] = append(runs[i], line) }})
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		if len(runs[0]) != len(runs[1]) {
			t.Fatalf("seed %d: %d lines, then %d", seed, len(runs[0]), len(runs[1]))
		}
		for i := range runs[0] {
			if runs[0][i] != runs[1][i] {
				t.Fatalf("seed %d, line %d:\n%s\n%s", seed, i, runs[0][i], runs[1][i])
			}
		}
	}
}
