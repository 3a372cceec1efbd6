package scheduler

import (
	"maps"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

func nobody(*v1.Task) string { return "" }

// behind finds the task of the same slot that a task stands behind: one that runs what is older, on a node that would take the new one
// in its place. So start-first never waits for a room that only the old task could make.
func (d *decision) behind(filters []filter) func(*v1.Task) string {
	var bySlot map[uint64][]*v1.Task // made once it is asked for
	byID := make(map[string]*node, len(d.nodes))
	for _, n := range d.nodes {
		byID[n.Meta.ID] = n
	}
	return func(t *v1.Task) string {
		if bySlot == nil {
			bySlot = make(map[uint64][]*v1.Task)
			for other := range d.snapshot.TasksOfService(d.key) {
				if v1.Live(other) && v1.TaskNode(other) != "" {
					bySlot[other.Desired.Slot] = append(bySlot[other.Desired.Slot], other)
				}
			}
		}
		for _, old := range bySlot[t.Desired.Slot] {
			n := byID[v1.TaskNode(old)]
			if n == nil || old.Desired.Attempt >= t.Desired.Attempt || madeFor(t) != "" && madeFor(t) != n.Meta.ID {
				continue
			}
			if firstNo(filters, n.without(old)) < 0 {
				return old.Meta.ID
			}
		}
		return ""
	}
}

// without is the node as it is once a task of the service has left it.
func (n *node) without(t *v1.Task) *node {
	p := t.Desired.Placement
	left := *n
	left.ours--
	left.load.Tasks--
	left.load.CPUs -= p.CPUs
	left.load.Memory -= p.Memory
	if len(p.Generic) > 0 {
		left.load.Generic = maps.Clone(n.load.Generic)
		left.load.Generic.Add(p.Generic, -1)
	}
	if len(p.HostPorts) > 0 {
		left.load.HostPorts = maps.Clone(n.load.HostPorts)
		for _, port := range p.HostPorts {
			left.load.HostPorts[port]--
		}
	}
	return &left
}
