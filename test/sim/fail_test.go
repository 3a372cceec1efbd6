package sim

import (
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

// impatientRules are all rules, of which one is broken.
func impatientRules() []reconcile.Rule {
	rules := controllers.Rules()
	for i, r := range rules {
		if r.Name() == "service" {
			rules[i] = impatient{r}
		}
	}
	return rules
}

// TestTheSimCanFail takes one defence away at a time: a simulation that finds nothing then would find nothing ever.
func TestTheSimCanFail(t *testing.T) {
	const within = 1000
	for _, test := range []struct {
		name string
		o    Options
	}{
		{"a rule that does not wait for the end of the earlier task", Options{Rules: impatientRules()}},
		{"no fence, and stale snapshots", Options{Rules: controllers.Rules(), NoFence: true, NoFloor: true}},
		{"large commits written in any order", Options{Rules: controllers.Rules(), NoPhases: true}},
		{"reports written by what a server saw long ago", Options{Rules: controllers.Rules(), NoReportCondition: true}},
		{"reports taken by a server that does not know the task yet", Options{Rules: controllers.Rules(), NoReportRevision: true}},
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
			_, err := Run(Options{Seed: seed, Rules: controllers.Rules(), Trace: func(line string) { runs[i] = append(runs[i], line) }})
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
