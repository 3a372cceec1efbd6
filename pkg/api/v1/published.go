package v1

import "slices"

// The ports that are chosen from where a service asks for any port of the routing mesh; Docker Swarm's.
const (
	FirstChosenPort = 30000
	LastChosenPort  = 32767
)

// AnyPort tells whether a port's number is chosen by the rules: in the mesh all nodes answer on the same one. In host mode it is
// each node's choice.
func AnyPort(p PortConfig) bool { return p.Published == 0 && p.Mode != PublishHost }

// PublishedPorts are the ports that a service publishes, in the order of its spec, with the numbers that were chosen; 0 where
// that is still to be done.
func PublishedPorts(s *Service) []PortConfig {
	if s = Effective(s); s.Spec == nil || s.Spec.Endpoint == nil {
		return nil
	}
	ports := s.Spec.Endpoint.Ports
	if s.Desired == nil || len(s.Desired.Ports) == 0 {
		return ports
	}
	filled := slices.Clone(ports)
	chosen := slices.DeleteFunc(slices.Clone(s.Desired.Ports), func(p PortConfig) bool {
		return p.Published < FirstChosenPort || p.Published > LastChosenPort || slices.Contains(ports, p)
	})
	for i, p := range filled {
		if !AnyPort(p) {
			continue
		}
		if j := slices.IndexFunc(chosen, func(c PortConfig) bool { return sameTarget(p, c) }); j >= 0 {
			filled[i].Published = chosen[j].Published
			chosen = slices.Delete(chosen, j, j+1)
		}
	}
	return filled
}

// sameTarget tells whether two ports are the same but for their number.
func sameTarget(a, b PortConfig) bool {
	a.Published, b.Published = 0, 0
	return a == b
}

// WaitsForPorts tells whether a number of a port that the service publishes is still to be chosen.
func WaitsForPorts(s *Service) bool { return slices.ContainsFunc(PublishedPorts(s), AnyPort) }

// HasAddresses tells whether a task has addresses on as many networks as its revision asks for. It must not be placed before.
func HasAddresses(t *Task, spec *TaskSpec) bool {
	return len(t.Desired.Networks) == len(spec.Networks) &&
		!slices.ContainsFunc(t.Desired.Networks, func(n NetworkAddress) bool { return len(n.Addresses) == 0 })
}

// HoldsAddresses tells whether a task holds addresses on networks: until it is observed to have ended, also while its node is
// lost.
func HoldsAddresses(t *Task) bool {
	return t != nil && len(t.Desired.Networks) > 0 && !Observed(t).Terminal()
}
