package scheduler

import (
	"cmp"
	"slices"
	"strings"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/reconcile"
)

// reasons is the sentence of why no node can take a task: for each filter how many nodes it was the first to refuse, most
// first.
func reasons(filters []filter, nodes []*node) string {
	counts := make([]int, len(filters))
	for _, n := range nodes {
		if i := firstNo(filters, n); i >= 0 {
			counts[i]++
		}
	}
	order := make([]int, 0, len(filters))
	for i, count := range counts {
		if count > 0 {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(counts[b], counts[a]) })
	parts := make([]string, len(order))
	for i, f := range order {
		parts[i] = filters[f].why(counts[f])
	}
	if len(parts) == 0 {
		return "no suitable node"
	}
	return "no suitable node (" + strings.Join(parts, "; ") + ")"
}

// explainEvery is how often the sentence of a task is written anew at most: it counts nodes, and nodes come and go by the
// thousand while a hundred thousand tasks wait.
const explainEvery = 5 * time.Second

// explain writes why tasks have no node, and whom they stand behind, where that is not written already.
func (d *decision) explain(tasks []*v1.Task, why string, behind func(*v1.Task) string) {
	for _, t := range tasks {
		who := cmp.Or(t.Desired.Behind, behind(t))
		if t.Desired.Pending == why && t.Desired.Behind == who {
			continue
		}
		if due := t.Meta.UpdatedAt.Add(explainEvery); t.Desired.Pending != "" && t.Desired.Behind == who && d.now.Before(due) {
			d.plan.Again = reconcile.Sooner(d.plan.Again, due)
			continue
		}
		next := *t.Desired
		next.Pending, next.Behind = why, who
		d.plan.Ops = append(d.plan.Ops, reconcile.SetTask(d.now, t, &next))
	}
}
