package scheduler

import (
	"slices"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// A slot comes back to the node that has its volumes, for as long as that is there, not drained, and what the user's constraints allow.
// A volume that is on a file server or device of its own is anywhere.
//
// Which node that is follows from the snapshot: the one where the slot's latest task was, if it has them; or, where no other slot has
// volumes of the same names, any that has, so that a service that is made anew finds its data. In that second case, where the volumes are
// one slot's own, the task waits until it fits there; where other slots have such volumes too, it goes elsewhere rather than wait.

// volumesOf are the names of the volumes that a task of a slot has on its node; own tells whether no other slot has the same.
func volumesOf(t *v1.Task, service *v1.Service, spec *v1.ServiceRevisionSpec) (names []string, own bool) {
	own = service != nil && service.Spec.Replicas != nil && *service.Spec.Replicas <= 1
	for i := range spec.Task.Container.Mounts {
		m := &spec.Task.Container.Mounts[i]
		if m.Type != v1.MountVolume || m.Source == "" || m.Volume != nil && m.Volume.Driver != nil && m.Volume.Driver.Options["device"] != "" {
			continue
		}
		name := m.Source
		if strings.Contains(name, "{{") {
			if strings.Contains(name, ".Node") || strings.Contains(name, ".Task.ID") || strings.Contains(name, ".Task.Name") {
				continue // another on each node, or for each task
			}
			expanded, err := v1.Expand(name, slotData(t, service))
			if err != nil {
				continue // its node says so
			}
			name, own = expanded, own || strings.Contains(name, ".Task.Slot")
		}
		names = append(names, name)
	}
	return names, own && len(names) > 0
}

// slotData is what a template can refer to that is the same for all tasks of a slot.
func slotData(t *v1.Task, service *v1.Service) *v1.TemplateData {
	data := new(v1.TemplateData)
	data.Service.ID, data.Service.Name, data.Task.Slot = t.Desired.Service, t.Desired.ServiceName, v1.SlotName(t.Desired)
	if service != nil {
		data.Service.Labels = service.Meta.Labels
	}
	return data
}

// home are the nodes that have the volumes of a task's slot; none where it may go anywhere. Strict tells that it must not.
func (d *decision) home(t *v1.Task, service *v1.Service, spec *v1.ServiceRevisionSpec) (home []*node, strict bool) {
	names, own := volumesOf(t, service, spec)
	if len(names) == 0 {
		return nil, false
	}
	latest := d.latestOf(t)
	allowed := v1.Constraints(&spec.Task)
	for _, n := range d.nodes {
		if v1.NodeLost(n.Node) || v1.NodeDrained(n.Node) || !n.Meta.Deleting.IsZero() || n.Status == nil || n.Status.State != v1.NodeReady ||
			!v1.Satisfies(n.Node, allowed) {
			continue
		}
		has := holds(n, names)
		if latest != nil && v1.TaskNode(latest) == n.Meta.ID && (has || made(latest, t)) {
			return []*node{n}, own
		}
		if has && own {
			home = append(home, n)
		}
	}
	return home, own
}

// made tells whether an earlier task made the volumes of this one, though its node may not have told yet.
func made(earlier, t *v1.Task) bool {
	return earlier.Desired.Revision == t.Desired.Revision && earlier.Status != nil && earlier.Status.Container != nil
}

func holds(n *node, names []string) bool {
	for _, name := range names {
		if _, has := slices.BinarySearch(n.Status.Description.Volumes, name); !has {
			return false
		}
	}
	return true
}

// latestOf is the latest task of the same slot before this one that had a node, or nil.
func (d *decision) latestOf(t *v1.Task) *v1.Task {
	if d.latest == nil {
		d.latest = make(map[uint64]*v1.Task)
		for other := range d.snapshot.TasksOfService(d.key) {
			known := d.latest[other.Desired.Slot]
			if v1.TaskNode(other) != "" && (known == nil || other.Desired.Attempt > known.Desired.Attempt) {
				d.latest[other.Desired.Slot] = other
			}
		}
	}
	if latest := d.latest[t.Desired.Slot]; latest != nil && latest.Desired.Attempt < t.Desired.Attempt {
		return latest
	}
	return nil
}

// placeHome gives those tasks their node whose slot has volumes on one, and returns the others.
func (d *decision) placeHome(tasks []*v1.Task, service *v1.Service, spec *v1.ServiceRevisionSpec, filters []filter, needs needs) []*v1.Task {
	if !slices.ContainsFunc(spec.Task.Container.Mounts, func(m v1.Mount) bool { return m.Type == v1.MountVolume && m.Source != "" }) {
		return tasks
	}
	var others []*v1.Task
	for i, t := range tasks {
		home, strict := d.home(t, service, spec)
		var best *node
		for _, n := range home {
			if firstNo(filters, n) < 0 && (best == nil || less(n, best)) {
				best = n
			}
		}
		switch {
		case best != nil:
			d.assign(t, best, needs)
		case len(home) > 0 && strict:
			d.explain(tasks[i:i+1], reasons(filters, home)+": the volumes of this slot are there, and nowhere else", d.behind(filters))
		default:
			others = append(others, t)
		}
	}
	return others
}
