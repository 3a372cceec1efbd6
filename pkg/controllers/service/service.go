// Package service decides what tasks a service consists of: how many slots, which task in each, when a task that ended is
// replaced, and which tasks are to stop.
//
// It owns what the service remembers of its schedule, and the desired section of tasks, all but the addresses, the placement and what is said of that, and creates the revisions that tasks refer to. It never
// chooses a node, never decides when a slot moves to a new revision (rollout does, and this rule obeys), and never
// removes an object (gc does).
//
// Reading order: service.go (a service), view.go (what is there), replicated.go and global.go (which slots), job.go (what runs to its end), cron.go
// (when), slot.go (which tasks in a
// slot), drain.go (how they leave a node), rebalance.go (how they move to a better one), restart.go (when again), attachment.go (the one task of
// what is no service).
package service

import (
	"strconv"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/store"
)

// Rule is the service rule.
type Rule struct{}

// Name implements reconcile.Rule.
func (Rule) Name() string { return "service" }

// Keys implements reconcile.Rule: a service is worth deciding when it changes, when a task of it ends or is decided about,
// and when a node that it has tasks on, or may have to have one, is lost, drained or described anew. That a task runs is news only where the one before
// it may stop then: with start-first, in a drain, and in a move.
func (Rule) Keys(s *store.Snapshot, c store.Change) []string {
	switch c.Kind {
	case v1.KindService, v1.KindAttachment:
		return []string{c.ID}
	case v1.KindServiceRevision:
		if c.New == nil {
			return []string{c.Old.(*v1.ServiceRevision).Spec.Service}
		}
	case v1.KindTask:
		if t, ok := reconcile.TaskOf(c); ok && (t.Decided() || t.Ended() || t.Ran() && (startsFirst(s, t.Service()) || relieves(s, t.New))) {
			return []string{t.Service()}
		}
	case v1.KindNode:
		if _, _, changed := reconcile.NodeOf(c); changed {
			return reconcile.ServicesConcerned(s, c.ID)
		}
	}
	return nil
}

func startsFirst(s *store.Snapshot, service string) bool {
	o, ok := store.Get(s, v1.Services, service)
	return ok && v1.OrderNow(o) == v1.StartFirst
}

// relieves tells whether an earlier task of the slot may stop once this one runs: that moves, or is on a drained node. Of slots that had
// many tasks only the latest are looked at, and it is taken for granted.
func relieves(s *store.Snapshot, t *v1.Task) bool {
	const most = 16
	d := t.Desired
	if d.Move != nil {
		return true
	}
	for attempt := d.Attempt - 1; attempt > 0; attempt-- {
		if d.Attempt-attempt > most {
			return true
		}
		earlier, ok := store.Get(s, v1.Tasks, v1.TaskID(d.Service, strconv.FormatUint(d.Slot, 10), attempt))
		if !ok || !v1.Live(earlier) {
			continue
		}
		if n, ok := store.Get(s, v1.Nodes, v1.TaskNode(earlier)); ok && v1.NodeDrained(n) {
			return true
		}
	}
	return false
}

// Decide implements reconcile.Rule.
func (Rule) Decide(now time.Time, s *store.Snapshot, key string) reconcile.Plan {
	if a, ok := store.Get(s, v1.Attachments, key); ok {
		return attach(now, s, a)
	}
	service, ok := store.Get(s, v1.Services, key)
	if !ok || !service.Meta.Deleting.IsZero() {
		return removeAll(now, s, key)
	}
	service = v1.Effective(service)
	slots, known := modes[service.Spec.Mode]
	if !known {
		return reconcile.Plan{} // a mode that validation refuses
	}
	v := look(now, s, service)
	v.ensureRevision()
	all := slots(v)
	for _, slot := range all.drop {
		for _, t := range slot.tasks {
			v.stop(t, v1.TaskRemove, "")
		}
	}
	for _, slot := range all.rest {
		v.rest(slot)
	}
	decide := v.decideSlot
	if v1.Job(service) {
		decide = v.decideJob
	}
	for _, slot := range all.keep {
		decide(slot)
	}
	v.drain()
	v.rebalance()
	return v.plan
}

// layout is which slots there should be: those to keep or to make, those that have no task for now, and those to give up.
type layout struct{ keep, rest, drop []*slot }

// modes are the layouts, by the mode of the service.
var modes = map[v1.ServiceMode]func(*view) layout{
	"":                   replicated,
	v1.ModeReplicated:    replicated,
	v1.ModeGlobal:        global,
	v1.ModeReplicatedJob: replicatedJob,
	v1.ModeGlobalJob:     globalJob,
	v1.ModeCron:          cron,
}

// removeAll gives up all tasks of a service that is being deleted, or is gone.
func removeAll(now time.Time, s *store.Snapshot, service string) reconcile.Plan {
	v := view{now: now}
	for t := range s.TasksOfService(service) {
		v.stop(t, v1.TaskRemove, "")
	}
	return v.plan
}
