// Package service decides what tasks a service consists of: how many slots, which task in each, when a task that ended is
// replaced, and which tasks are to stop.
//
// It owns the desired section of tasks, all but the placement, and creates the revisions that tasks refer to. It never
// chooses a node, never decides when a slot moves to a new revision (rollout does, and this rule obeys), and never
// removes an object (gc does).
//
// Reading order: service.go (a service), view.go (what is there), replicated.go (which slots), slot.go (which tasks in a
// slot), restart.go (when again).
package service

import (
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
// and when a node that it has tasks on is lost, drained or described anew. That a task runs is news with start-first only,
// where the one before it may stop then.
func (Rule) Keys(s *store.Snapshot, c store.Change) []string {
	switch c.Kind {
	case v1.KindService:
		return []string{c.ID}
	case v1.KindServiceRevision:
		if c.New == nil {
			return []string{c.Old.(*v1.ServiceRevision).Spec.Service}
		}
	case v1.KindTask:
		if t, ok := reconcile.TaskOf(c); ok && (t.Decided() || t.Ended() || t.Ran() && startsFirst(s, t.Service())) {
			return []string{t.Service()}
		}
	case v1.KindNode:
		if _, _, changed := reconcile.NodeOf(c); changed {
			return reconcile.ServicesOn(s, c.ID)
		}
	}
	return nil
}

func startsFirst(s *store.Snapshot, service string) bool {
	o, ok := store.Get(s, v1.Services, service)
	return ok && o.Spec.Update != nil && o.Spec.Update.Order == v1.StartFirst
}

// Decide implements reconcile.Rule.
func (Rule) Decide(now time.Time, s *store.Snapshot, key string) reconcile.Plan {
	service, ok := store.Get(s, v1.Services, key)
	if !ok || !service.Meta.Deleting.IsZero() {
		return removeAll(now, s, key)
	}
	slots, known := modes[service.Spec.Mode]
	if !known {
		return reconcile.Plan{} // a mode that validation refuses
	}
	v := look(now, s, service)
	v.ensureRevision()
	keep, drop := slots(v)
	for _, slot := range drop {
		for _, t := range slot.tasks {
			v.stop(t, v1.TaskRemove, "")
		}
	}
	for _, slot := range keep {
		v.decideSlot(slot)
	}
	return v.plan
}

// modes say which slots there should be, by the mode of the service: those to keep or to make, and those to give up.
var modes = map[v1.ServiceMode]func(*view) (keep, drop []*slot){
	"":                replicated,
	v1.ModeReplicated: replicated,
}

// removeAll gives up all tasks of a service that is being deleted, or is gone.
func removeAll(now time.Time, s *store.Snapshot, service string) reconcile.Plan {
	v := view{now: now}
	for t := range s.TasksOfService(service) {
		v.stop(t, v1.TaskRemove, "")
	}
	return v.plan
}
