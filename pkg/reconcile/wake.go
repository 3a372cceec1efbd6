package reconcile

import (
	"maps"
	"reflect"
	"slices"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// TaskChange is a change of one task, for rules to tell whether it concerns them.
type TaskChange struct{ Old, New *v1.Task }

// TaskOf is the task that a change is of, if it is of one.
func TaskOf(c store.Change) (t TaskChange, ok bool) {
	if c.Kind != v1.KindTask {
		return t, false
	}
	t.Old, _ = c.Old.(*v1.Task)
	t.New, _ = c.New.(*v1.Task)
	return t, t.Old != nil || t.New != nil
}

// Service is the ID of the task's service.
func (t TaskChange) Service() string {
	if t.New != nil {
		return t.New.Desired.Service
	}
	return t.Old.Desired.Service
}

// Decided tells whether the task was made or removed, or its desired section written.
func (t TaskChange) Decided() bool {
	return t.Old == nil || t.New == nil || t.Old.Desired != t.New.Desired
}

// Ended tells whether the task was observed to end, or was removed.
func (t TaskChange) Ended() bool {
	return t.New == nil || v1.Observed(t.New).Terminal() && (t.Old == nil || !v1.Observed(t.Old).Terminal())
}

// Ran tells whether the task was observed to have begun to run.
func (t TaskChange) Ran() bool {
	return t.New != nil && v1.Observed(t.New) == v1.TaskRunning && (t.Old == nil || v1.Observed(t.Old) < v1.TaskRunning)
}

// Refitted tells whether its node has said what came of changing secrets and configs under the task.
func (t TaskChange) Refitted() bool {
	return t.Old != nil && t.New != nil && v1.Refitting(t.Old) && !v1.Refitting(t.New)
}

// Freed tells whether the task gave back something that it held on a node and that others may wait for.
func (t TaskChange) Freed() bool {
	if t.Old == nil || !v1.HoldsPlacement(t.Old) || t.New != nil && v1.HoldsPlacement(t.New) {
		return false
	}
	p := t.Old.Desired.Placement
	return p.CPUs > 0 || p.Memory > 0 || len(p.HostPorts) > 0 || len(p.Generic) > 0
}

// NodeOf is the node that a change is of, before and after, if it changed in something that decisions go by: not when it
// only says that it is still there.
func NodeOf(c store.Change) (before, after *v1.Node, ok bool) {
	if c.Kind != v1.KindNode {
		return nil, nil, false
	}
	before, _ = c.Old.(*v1.Node)
	after, _ = c.New.(*v1.Node)
	if before == nil || after == nil {
		return before, after, before != after
	}
	same := reflect.DeepEqual(before.Spec, after.Spec) && maps.Equal(before.Meta.Labels, after.Meta.Labels) &&
		reflect.DeepEqual(before.Desired, after.Desired) && sameNodeStatus(before.Status, after.Status)
	return before, after, !same
}

func sameNodeStatus(a, b *v1.NodeStatus) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.State == b.State && a.Addr == b.Addr && reflect.DeepEqual(a.Description, b.Description)
}

// ServicesOn are the IDs of the services with tasks on a node, sorted.
func ServicesOn(s *store.Snapshot, node string) []string {
	services := make(map[string]struct{})
	for t := range s.TasksOfNode(node) {
		services[t.Desired.Service] = struct{}{}
	}
	return slices.Sorted(maps.Keys(services))
}

// ServicesConcerned are the IDs of the services that a change of a node concerns: those with tasks there, and those that are on
// every node. Some may be there twice.
func ServicesConcerned(s *store.Snapshot, node string) []string {
	ids := ServicesOn(s, node)
	for service := range s.GlobalServices() {
		ids = append(ids, service.Meta.ID)
	}
	return ids
}

// SetTask is the operation that replaces what was decided about a task, on the condition that nobody else did meanwhile.
func SetTask(now time.Time, t *v1.Task, d *v1.TaskDesired) store.Op {
	meta := t.Meta
	meta.UpdatedAt = now
	return store.Op{Kind: v1.KindTask, ID: t.Meta.ID, Section: v1.SectionDesired, Value: d, Meta: &meta,
		If: store.AtRevision(t.Meta.Revisions[v1.SectionDesired])}
}

// SetService is the operation that replaces what was decided about a service, on the same condition.
func SetService(s *v1.Service, d *v1.ServiceDesired) store.Op {
	return store.Op{Kind: v1.KindService, ID: s.Meta.ID, Section: v1.SectionDesired, Value: d,
		If: store.AtRevision(s.Meta.Revisions[v1.SectionDesired])}
}

// Sooner is the earlier of two times at which a key is to be decided again, where zero is never.
func Sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
