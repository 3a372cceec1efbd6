package store

import (
	"encoding/binary"
	"iter"
	"net/netip"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// TasksOfNetwork yields the tasks that hold addresses of a network in the order of their IDs: until they are observed to have
// ended.
func (s *Snapshot) TasksOfNetwork(network string) iter.Seq[*v1.Task] {
	return s.index.network.tasks.members(network)
}

// ServicesOfNetwork yields the services whose VIPs name the network in the order of their IDs.
func (s *Snapshot) ServicesOfNetwork(network string) iter.Seq[*v1.Service] {
	return s.index.network.services.members(network)
}

// ServicesWithoutVIP yields those of ServicesOfNetwork that wait for an address there.
func (s *Snapshot) ServicesWithoutVIP(network string) iter.Seq[*v1.Service] {
	return s.index.network.waiting.members(network)
}

// AddressHolders yields who holds an address of a network: one where all is well.
func (s *Snapshot) AddressHolders(network string, a netip.Addr) iter.Seq[Holder] {
	return func(yield func(Holder) bool) {
		a = a.Unmap()
		in, ok := s.index.network.taken.groups.tree.Get(takenGroup(network, a.Is6()))
		if !ok {
			return
		}
		key := addressKey(a)
		in.members.Ascend(key, func(id string, h Holder) bool { return strings.HasPrefix(id, key) && yield(h) })
	}
}

// AddressesTaken counts the addresses of a network, of one IP version, that somebody holds.
func (s *Snapshot) AddressesTaken(network string, v6 bool) int {
	in, ok := s.index.network.taken.groups.tree.Get(takenGroup(network, v6))
	if !ok {
		return 0
	}
	return in.members.Len()
}

// NextFreeAddress is the first address from the given one on that nobody holds on the network. It may be beyond all subnets, and is
// not valid where there are no more addresses. It takes as long as there are taken ones between.
func (s *Snapshot) NextFreeAddress(network string, from netip.Addr) netip.Addr {
	next := from.Unmap()
	in, ok := s.index.network.taken.groups.tree.Get(takenGroup(network, next.Is6()))
	if !ok {
		return next
	}
	in.members.Ascend(addressKey(next), func(id string, _ Holder) bool {
		switch a := netip.AddrFrom16([16]byte([]byte(id[:16]))).Unmap(); {
		case a == next:
			next = next.Next()
		case next.Less(a):
			return false
		}
		return next.IsValid() // or another holder of the one before
	})
	return next
}

// Contests yields the addresses that have more than one holder: none where all is well.
func (s *Snapshot) Contests() iter.Seq[Contest] {
	return func(yield func(Contest) bool) {
		s.index.network.contested.tree.Scan(func(_ string, c Contest) bool { return yield(c) })
	}
}

// Contested tells whether an address of a network has more than one holder.
func (s *Snapshot) Contested(network string, a netip.Addr) bool {
	contested := s.index.network.contested.tree
	if contested.Len() == 0 {
		return false
	}
	a = a.Unmap()
	_, is := contested.Get(takenGroup(network, a.Is6()) + addressKey(a))
	return is
}

// ServicesPublishing yields the services that publish a port in whatever mode, in the order of their IDs.
func (s *Snapshot) ServicesPublishing(protocol v1.Protocol, port uint16) iter.Seq[*v1.Service] {
	return func(yield func(*v1.Service) bool) {
		key := portKey(protocol, port)
		s.index.network.ports.tree.Ascend(key, func(k, id string) bool {
			if !strings.HasPrefix(k, key) {
				return false
			}
			o, ok := Get(s, v1.Services, id)
			return !ok || yield(o)
		})
	}
}

// NetworksWithVNI yields the IDs of the networks that have a VNI: one at most where all is well.
func (s *Snapshot) NetworksWithVNI(vni uint32) iter.Seq[string] {
	return func(yield func(string) bool) {
		key := vniKey(vni)
		s.index.network.vnis.tree.Ascend(key, func(k, id string) bool { return strings.HasPrefix(k, key) && yield(id) })
	}
}

// NextFreeVNI is the first VNI from the given one on that no network has.
func (s *Snapshot) NextFreeVNI(from uint32) uint32 {
	next := from
	s.index.network.vnis.tree.Ascend(vniKey(from), func(k, _ string) bool {
		vni := binary.BigEndian.Uint32([]byte(k[:4]))
		if vni > next {
			return false
		}
		next = vni + 1
		return true
	})
	return next
}

// Subnets yields the ranges that networks have, by their beginnings in ascending order.
func (s *Snapshot) Subnets() iter.Seq[CutRange] {
	return func(yield func(CutRange) bool) {
		s.index.network.subnets.tree.Scan(func(_ string, r CutRange) bool { return yield(r) })
	}
}
