package store

import (
	"iter"
	"slices"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// peerIndex finds what nodes have to be told of others beside what networkIndex knows: services by what they call their networks,
// those that publish ports on every node, and nodes by their address.
type peerIndex struct {
	services grouped[*v1.Service] // by IDs and names of networks
	ingress  grouped[*v1.Service] // in one group
	nodes    grouped[*v1.Node]    // by their data address
}

func newPeerIndex() peerIndex {
	return peerIndex{newGrouped[*v1.Service](), newGrouped[*v1.Service](), newGrouped[*v1.Node]()}
}

func (x *peerIndex) shared() peerIndex {
	return peerIndex{x.services.shared(), x.ingress.shared(), x.nodes.shared()}
}

// changeNode replaces a node.
func (x *peerIndex) changeNode(was, is *v1.Node) {
	before, after := v1.DataAddress(was), v1.DataAddress(is)
	if before != "" && before != after {
		x.nodes.remove(before, was.Meta.ID)
	}
	if after != "" {
		x.nodes.set(after, is.Meta.ID, is)
	}
}

// NodesAt yields the nodes whose v1.DataAddress is the address, in the order of their IDs.
func (s *Snapshot) NodesAt(address string) iter.Seq[*v1.Node] {
	return s.index.peers.nodes.members(address)
}

// changeService replaces a service.
func (x *peerIndex) changeService(was, is *v1.Service) {
	before, after := NetworkRefs(was), NetworkRefs(is)
	for _, ref := range before {
		if !slices.Contains(after, ref) {
			x.services.remove(ref, was.Meta.ID)
		}
	}
	for _, ref := range after {
		x.services.set(ref, is.Meta.ID, is)
	}
	if PublishesIngress(is) {
		x.ingress.set("", is.Meta.ID, is)
	} else if PublishesIngress(was) {
		x.ingress.remove("", was.Meta.ID)
	}
}

// NetworkRefs are the networks that a service has an address on, by ID, and those that its spec names, by ID or name.
func NetworkRefs(s *v1.Service) []string {
	if s == nil {
		return nil
	}
	var refs []string
	if s.Desired != nil {
		for _, v := range s.Desired.VIPs {
			refs = append(refs, v.Network)
		}
	}
	if s = v1.Effective(s); s.Spec != nil {
		for _, n := range s.Spec.Task.Networks {
			if !slices.Contains(refs, n.Target) {
				refs = append(refs, n.Target)
			}
		}
	}
	return refs
}

// PublishesIngress tells whether a service publishes a port on every node.
func PublishesIngress(s *v1.Service) bool {
	s = v1.Effective(s)
	return s != nil && s.Spec != nil && s.Spec.Endpoint != nil &&
		slices.ContainsFunc(s.Spec.Endpoint.Ports, func(p v1.PortConfig) bool { return p.Mode != v1.PublishHost })
}

// ServicesReferring yields the services whose NetworkRefs have the ID, or the name, of a network, in the order of their IDs.
func (s *Snapshot) ServicesReferring(network string) iter.Seq[*v1.Service] {
	return s.index.peers.services.members(network)
}

// IngressServices yields the services that publish a port on every node, in the order of their IDs.
func (s *Snapshot) IngressServices() iter.Seq[*v1.Service] { return s.index.peers.ingress.members("") }
