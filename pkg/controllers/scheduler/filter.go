package scheduler

import (
	"fmt"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// filter is one condition on nodes.
type filter interface {
	// fits tells whether a node can take one more task.
	fits(n *node) bool
	// why says, in Docker's words, that this many nodes cannot.
	why(nodes int) string
}

// filtersFor are the filters that a task has to pass, in order. Those that no node can fail are left out.
func filtersFor(spec *v1.ServiceRevisionSpec) []filter {
	filters := []filter{ready{}}
	needs := needsOf(spec)
	if needs.cpus > 0 || needs.memory > 0 || len(needs.generic) > 0 {
		filters = append(filters, resources{needs.cpus, needs.memory, needs.generic})
	}
	p := spec.Task.Placement
	if p != nil && len(p.Constraints) > 0 {
		filters = append(filters, constraints(v1.Constraints(&spec.Task)))
	}
	if p != nil && len(p.Platforms) > 0 {
		filters = append(filters, platforms(p.Platforms))
	}
	if len(needs.ports) > 0 {
		filters = append(filters, ports(needs.ports))
	}
	if p != nil && p.MaxReplicas > 0 {
		filters = append(filters, maxReplicas(p.MaxReplicas))
	}
	return filters
}

// firstNo is the index of the first filter that a node fails, or -1.
func firstNo(filters []filter, n *node) int {
	for i, f := range filters {
		if !f.fits(n) {
			return i
		}
	}
	return -1
}

// onNodes counts nodes in a reason.
func onNodes(reason string, nodes int) string {
	if nodes == 1 {
		return reason + " on 1 node"
	}
	return fmt.Sprintf("%s on %d nodes", reason, nodes)
}

// ready wants a node that is there and takes new tasks.
type ready struct{}

func (ready) fits(n *node) bool { return v1.TakesTasks(n.Node) }

func (ready) why(nodes int) string {
	if nodes == 1 {
		return "1 node not available for new tasks"
	}
	return fmt.Sprintf("%d nodes not available for new tasks", nodes)
}

// resources wants what is reserved to be free.
type resources struct {
	cpus    v1.CPUs
	memory  v1.Bytes
	generic []v1.GenericResource
}

func (r resources) fits(n *node) bool {
	have := n.Status.Description.Resources
	_, enough := n.load.Generic.Take(have.Generic, r.generic)
	return enough && n.load.CPUs+r.cpus <= have.CPUs && n.load.Memory+r.memory <= have.Memory
}

func (resources) why(nodes int) string { return onNodes("insufficient resources", nodes) }

// constraints want what the user wants.
type constraints []v1.Constraint

func (c constraints) fits(n *node) bool { return v1.Satisfies(n.Node, c) }

func (constraints) why(nodes int) string {
	return onNodes("scheduling constraints not satisfied", nodes)
}

// platforms want a machine that the image runs on.
type platforms []v1.Platform

func (p platforms) fits(n *node) bool {
	have := n.Status.Description.Platform
	for _, want := range p {
		if (want.OS == "" || strings.EqualFold(want.OS, have.OS)) && (want.Architecture == "" ||
			strings.EqualFold(v1.NormalArchitecture(want.Architecture), v1.NormalArchitecture(have.Architecture))) {
			return true
		}
	}
	return false
}

func (platforms) why(nodes int) string { return onNodes("unsupported platform", nodes) }

// ports want host mode ports that no other task holds.
type ports []string

func (p ports) fits(n *node) bool {
	for _, port := range p {
		if n.load.HostPorts[port] > 0 {
			return false
		}
	}
	return true
}

func (ports) why(nodes int) string { return onNodes("host-mode port already in use", nodes) }

// maxReplicas wants fewer tasks of the service than that.
type maxReplicas uint64

func (m maxReplicas) fits(n *node) bool { return uint64(n.ours) < uint64(m) }

func (maxReplicas) why(int) string { return "max replicas per node limit exceed" }
