// Package gc decides what may go: tasks that are to be removed and cannot run any more, tasks beyond the history limit,
// service revisions that nobody needs, services that are being deleted once their last task is gone, attachments that ended a day ago, and
// contents of stacks' files that nothing refers to any more (versions.go).
//
// Its rules are the only ones that remove objects. It never stops a task: others decide that, and gc waits until it has ended.
package gc

import (
	"cmp"
	"slices"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/store"
)

// keptRevisions is how many revisions of a service are kept for rollback, whether or not tasks run them.
const keptRevisions = 10

// orphanAfter is how long a task that is to be removed waits for a node that is down, as in Docker Swarm.
const orphanAfter = 24 * time.Hour

// Rule is the gc rule.
type Rule struct{}

// Name implements reconcile.Rule.
func (Rule) Name() string { return "gc" }

// Keys implements reconcile.Rule.
func (Rule) Keys(s *store.Snapshot, c store.Change) []string {
	switch c.Kind {
	case v1.KindService, v1.KindAttachment:
		return []string{c.ID}
	case v1.KindServiceRevision:
		if r, ok := c.New.(*v1.ServiceRevision); ok {
			return []string{r.Spec.Service}
		}
	case v1.KindCluster:
		return reconcile.AllKeys(s) // the history limit
	case v1.KindTask:
		if t, ok := reconcile.TaskOf(c); ok && (t.Decided() || t.Ended()) {
			return []string{t.Service()}
		}
	case v1.KindNode:
		if _, _, changed := reconcile.NodeOf(c); changed {
			return reconcile.ServicesOn(s, c.ID)
		}
	}
	return nil
}

// Decide implements reconcile.Rule.
func (Rule) Decide(now time.Time, s *store.Snapshot, key string) reconcile.Plan {
	service, ok := store.Get(s, v1.Services, key)
	a, attached := store.Get(s, v1.Attachments, key)
	d := &decision{now: now, snapshot: s, key: key, service: service, limit: historyLimit(s)}
	if ok && service.Meta.Deleting.IsZero() {
		d.history()
		d.revisions()
		return d.plan
	}
	if attached {
		d.attachment(a)
		return d.plan
	}
	d.delete()
	return d.plan
}

type decision struct {
	now      time.Time
	snapshot *store.Snapshot
	key      string
	service  *v1.Service // nil where it is gone
	limit    int
	plan     reconcile.Plan
}

// historyLimit is how many tasks of a slot are kept; negative is all.
func historyLimit(s *store.Snapshot) int {
	if c, ok := store.Get(s, v1.Clusters, v1.ClusterName); ok && c.Spec.TaskHistoryLimit != nil {
		return int(*c.Spec.TaskHistoryLimit)
	}
	return v1.DefaultTaskHistoryLimit
}

// history removes what is over in the slots of a service that stays.
func (d *decision) history() {
	slots := d.stopped()
	attempts := uint64(0)
	for _, tasks := range slots {
		attempts = max(attempts, d.trim(tasks))
	}
	desired := v1.ServiceDesired{}
	if d.service.Desired != nil {
		desired = *d.service.Desired
	}
	if attempts > desired.Attempts {
		desired.Attempts = attempts
		d.plan.Ops = append(d.plan.Ops, reconcile.SetService(d.service, &desired))
	}
}

// stopped are the tasks of the slots that have one that is to stop, each slot's by ascending attempt.
func (d *decision) stopped() [][]*v1.Task {
	concerned := make(map[uint64]int)
	for t := range d.snapshot.TasksOfService(d.key) {
		if t.Desired.State > v1.TaskComplete {
			concerned[t.Desired.Slot]++
		}
	}
	if len(concerned) == 0 {
		return nil
	}
	var tasks []*v1.Task
	for t := range d.snapshot.TasksOfService(d.key) {
		if concerned[t.Desired.Slot] > 0 {
			tasks = append(tasks, t)
		}
	}
	slices.SortFunc(tasks, func(a, b *v1.Task) int {
		return cmp.Or(cmp.Compare(a.Desired.Slot, b.Desired.Slot), cmp.Compare(a.Desired.Attempt, b.Desired.Attempt))
	})
	var slots [][]*v1.Task
	for start, end := 0, 0; start < len(tasks); start = end {
		for end = start; end < len(tasks) && tasks[end].Desired.Slot == tasks[start].Desired.Slot; end++ {
		}
		slots = append(slots, tasks[start:end])
	}
	return slots
}

// trim removes what is over in one slot. The newest task stays until all others can go with it, so that the attempts of a
// slot never go back; where it goes, its attempt is returned, to be remembered.
func (d *decision) trim(tasks []*v1.Task) (last uint64) {
	newest := tasks[len(tasks)-1]
	kept := 0
	for _, t := range tasks {
		if t.Desired.State <= v1.TaskComplete {
			kept++ // it stays in any case
		}
	}
	var remove []*v1.Task
	for _, t := range slices.Backward(tasks) {
		switch {
		case t.Desired.State == v1.TaskRemove, t.Desired.State > v1.TaskComplete && !v1.Observed(t).Terminal():
			// The latter are kept for as long as something of them may run: how they ended nobody will ever say.
			if d.over(t) {
				remove = append(remove, t)
			}
		case t.Desired.State <= v1.TaskComplete:
		case kept < max(d.limit, 1) || d.limit < 0 || !d.over(t):
			kept++
		default:
			remove = append(remove, t)
		}
	}
	for _, t := range slices.Backward(remove) {
		if t != newest {
			d.remove(t)
		} else if len(remove) == len(tasks) {
			d.remove(t)
			last = t.Desired.Attempt
		}
	}
	return last
}

// over tells whether nothing of a task that is to stop can run any more.
func (d *decision) over(t *v1.Task) bool {
	if v1.Observed(t).Terminal() {
		return true // or never placed
	}
	node, ok := store.Get(d.snapshot, v1.Nodes, v1.TaskNode(t))
	if !ok {
		return true
	}
	if !v1.NodeLost(node) {
		return false
	}
	orphaned := node.Desired.Down.Add(orphanAfter)
	if d.now.Before(orphaned) {
		d.plan.Again = reconcile.Sooner(d.plan.Again, orphaned)
		return false
	}
	return true
}

func (d *decision) remove(t *v1.Task) {
	d.plan.Ops = append(d.plan.Ops, store.Op{Kind: v1.KindTask, ID: t.Meta.ID, Section: v1.SectionDesired,
		If: store.AtRevision(t.Meta.Revisions[v1.SectionDesired])})
}

// revisions removes those that no task runs, but the newest.
func (d *decision) revisions() {
	all := slices.Collect(d.snapshot.RevisionsOfService(d.key))
	if len(all) <= keptRevisions {
		return
	}
	slices.SortFunc(all, func(a, b *v1.ServiceRevision) int {
		return cmp.Or(cmp.Compare(b.Spec.Number, a.Spec.Number), cmp.Compare(a.Meta.ID, b.Meta.ID))
	})
	needed := map[string]bool{v1.RevisionID(d.service): true, v1.RevisionID(v1.Effective(d.service)): true}
	if desired := d.service.Desired; desired != nil && desired.Update != nil {
		needed[desired.Update.Revision], needed[desired.Update.Previous] = true, true
		for _, id := range desired.Update.Good {
			needed[id] = true
		}
	}
	for t := range d.snapshot.TasksOfService(d.key) {
		needed[t.Desired.Revision] = true
	}
	for _, r := range all[keptRevisions:] {
		if !needed[r.Meta.ID] {
			d.removeRevision(r)
		}
	}
}

func (d *decision) removeRevision(r *v1.ServiceRevision) {
	d.plan.Ops = append(d.plan.Ops, store.Op{Kind: v1.KindServiceRevision, ID: r.Meta.ID, Section: v1.SectionSpec,
		If: store.AtRevision(r.Meta.Revisions[v1.SectionSpec])})
}

// delete removes what is left of a service that is being deleted, or is gone: its tasks as they end, and after the last of
// them its revisions, the claim on its name if it still has that, and itself.
func (d *decision) delete() {
	left := false
	for t := range d.snapshot.TasksOfService(d.key) {
		if t.Desired.State == v1.TaskRemove && d.over(t) {
			d.remove(t)
		} else {
			left = true
		}
	}
	if left {
		return
	}
	for r := range d.snapshot.RevisionsOfService(d.key) {
		d.removeRevision(r)
	}
	if d.service == nil {
		return
	}
	d.plan.Ops = append(d.plan.Ops, removeNamed(d.snapshot, v1.KindService, &d.service.Meta)...)
}

// removeNamed removes an object, and the claim on its name if it still has that.
func removeNamed(s *store.Snapshot, k v1.Kind, m *v1.Meta) (ops []store.Op) {
	claim, ok := store.Get(s, v1.Claims, v1.NameClaim(k, m.Name))
	if ok && claim.Spec.Holder == m.ID {
		ops = append(ops, store.Op{Kind: v1.KindClaim, ID: claim.Meta.ID, Section: v1.SectionSpec,
			If: store.AtRevision(claim.Meta.Revisions[v1.SectionSpec])})
	}
	return append(ops, store.Op{Kind: k, ID: m.ID, Section: v1.SectionSpec, If: store.AtRevision(m.Revisions[v1.SectionSpec])})
}
