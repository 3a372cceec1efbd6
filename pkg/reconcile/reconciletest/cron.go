package reconciletest

import (
	"cmp"
	"fmt"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// cron prints where a service's schedule stands.
func (w *World) cron(name string) (string, error) {
	o, err := w.service(name)
	if err != nil {
		return "", err
	}
	if o.Desired == nil || o.Desired.Cron == nil {
		return "no schedule\n", nil
	}
	c := o.Desired.Cron
	rows := [][]string{{"RUN", "DUE", "BEGAN", "NOTE"}}
	for _, run := range c.Runs {
		note := ""
		if run.Replaced > 0 {
			note = fmt.Sprintf("replaced by %d", run.Replaced)
		}
		rows = append(rows, []string{fmt.Sprint(run.Number), at(run.Due), at(run.At), note})
	}
	next := fmt.Sprintf("next %s", at(c.Next))
	if !c.Next.IsZero() {
		next += c.Next.Format(" (Jan 2 15:04)")
	}
	lines := []string{next, cmp.Or(c.Skipped, "none was left out")}
	return strings.Join(lines, "; ") + "\n" + table(rows), nil
}

// checkRuns tells which runs of a service are at work together that must not be. What a lost node runs nobody knows, also for a moment
// after it is back.
func checkRuns(s *store.Snapshot, o *v1.Service) error {
	if !v1.Cron(o) || o.Spec.Schedule.Concurrency == v1.ConcurrencyAllow || !o.Meta.Deleting.IsZero() {
		return nil
	}
	runs := make(map[uint64]bool)
	for t := range s.TasksOfService(o.Meta.ID) {
		n, _ := store.Get(s, v1.Nodes, v1.TaskNode(t))
		if v1.TaskNode(t) == "" || v1.Observed(t).Terminal() || v1.NodeLost(n) || t.Desired.Reason == "node is down" {
			continue
		}
		if t.Desired.State == v1.TaskComplete || v1.Observed(t) >= v1.TaskStarting {
			runs[t.Desired.Slot] = true
		}
	}
	if len(runs) > 1 {
		return fmt.Errorf("%s has %d runs at work", o.Meta.Name, len(runs))
	}
	return nil
}
