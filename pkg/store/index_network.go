package store

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/tidwall/btree"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// networkIndex finds who is on a network, who holds what of it, and who publishes a port. What it says follows from the objects
// alone, also where no rule would have made them so: then an address has two holders, and it says that.
type networkIndex struct {
	tasks     grouped[*v1.Task]                  // by network, those that hold addresses there
	services  grouped[*v1.Service]               // by network, those whose VIPs name it
	waiting   grouped[*v1.Service]               // by network, those of them that have no address there
	taken     grouped[Holder]                    // by network and IP version; the address, then the holder
	contested lazy[*btree.Map[string, Contest]]  // addresses that have more than one holder
	ports     lazy[*btree.Map[string, string]]   // protocol, port, service → service
	vnis      lazy[*btree.Map[string, string]]   // VNI, network → network
	subnets   lazy[*btree.Map[string, CutRange]] // beginning, length, network
}

// Holder is a task or a service that holds an address.
type Holder struct {
	Kind v1.Kind
	ID   string
}

// Contest is an address of a network that has more than one holder.
type Contest struct {
	Network string
	Address netip.Addr
}

// CutRange is a range of addresses that a network has.
type CutRange struct {
	Prefix  netip.Prefix
	Network string
}

func newNetworkIndex() networkIndex {
	return networkIndex{
		tasks:     newGrouped[*v1.Task](),
		services:  newGrouped[*v1.Service](),
		waiting:   newGrouped[*v1.Service](),
		taken:     newGrouped[Holder](),
		contested: lazy[*btree.Map[string, Contest]]{tree: new(btree.Map[string, Contest])},
		ports:     lazy[*btree.Map[string, string]]{tree: new(btree.Map[string, string])},
		vnis:      lazy[*btree.Map[string, string]]{tree: new(btree.Map[string, string])},
		subnets:   lazy[*btree.Map[string, CutRange]]{tree: new(btree.Map[string, CutRange])},
	}
}

func (x *networkIndex) shared() networkIndex {
	return networkIndex{x.tasks.shared(), x.services.shared(), x.waiting.shared(), x.taken.shared(), x.contested.shared(),
		x.ports.shared(), x.vnis.shared(), x.subnets.shared()}
}

// changeTask replaces a task. One that is on no network costs nothing.
func (x *networkIndex) changeTask(was, is *v1.Task) {
	wasOn, isOn := taskAddresses(was), taskAddresses(is)
	if len(wasOn) == 0 && len(isOn) == 0 {
		return
	}
	for _, n := range wasOn {
		if !names(isOn, n.Network) {
			x.tasks.remove(n.Network, was.Meta.ID)
		}
	}
	for _, n := range isOn {
		x.tasks.set(n.Network, is.Meta.ID, is)
	}
	x.changeHeld(Holder{v1.KindTask, idOf(was, is)}, wasOn, isOn)
}

// taskAddresses are those that a task holds: until it is observed to have ended, also while its node is lost.
func taskAddresses(t *v1.Task) []v1.NetworkAddress {
	if !v1.HoldsAddresses(t) {
		return nil
	}
	return t.Desired.Networks
}

// changeService replaces a service. It holds its VIPs until it is gone.
func (x *networkIndex) changeService(was, is *v1.Service) {
	wasOn, isOn := serviceAddresses(was), serviceAddresses(is)
	for _, n := range wasOn {
		if !names(isOn, n.Network) {
			x.services.remove(n.Network, was.Meta.ID)
		}
		if len(n.Addresses) == 0 {
			x.waiting.remove(n.Network, was.Meta.ID)
		}
	}
	for _, n := range isOn {
		x.services.set(n.Network, is.Meta.ID, is)
		if len(n.Addresses) == 0 {
			x.waiting.set(n.Network, is.Meta.ID, is)
		}
	}
	x.changeHeld(Holder{v1.KindService, idOf(was, is)}, wasOn, isOn)
	x.changePorts(was, is)
}

func serviceAddresses(s *v1.Service) []v1.NetworkAddress {
	if s == nil || s.Desired == nil {
		return nil
	}
	return s.Desired.VIPs
}

func names(list []v1.NetworkAddress, network string) bool {
	return slices.ContainsFunc(list, func(n v1.NetworkAddress) bool { return n.Network == network })
}

func idOf[S, D, T any](was, is *v1.Resource[S, D, T]) string {
	if is != nil {
		return is.Meta.ID
	}
	return was.Meta.ID
}

// changeHeld replaces what a holder holds. Mostly that is what it held before.
func (x *networkIndex) changeHeld(h Holder, was, is []v1.NetworkAddress) {
	if slices.EqualFunc(was, is, sameAddresses) {
		return
	}
	for _, n := range was {
		eachAddress(n, func(a netip.Addr) { x.release(n.Network, a, h) })
	}
	for _, n := range is {
		eachAddress(n, func(a netip.Addr) { x.take(n.Network, a, h) })
	}
}

func sameAddresses(a, b v1.NetworkAddress) bool {
	return a.Network == b.Network && slices.Equal(a.Addresses, b.Addresses)
}

// eachAddress passes over what is no address.
func eachAddress(n v1.NetworkAddress, do func(netip.Addr)) {
	for _, text := range n.Addresses {
		if p, err := netip.ParsePrefix(text); err == nil {
			do(p.Addr().Unmap())
		}
	}
}

func (x *networkIndex) take(network string, a netip.Addr, h Holder) {
	group, key := takenGroup(network, a.Is6()), addressKey(a)
	members := x.taken.edit(group)
	if _, twice := members.Set(key+string(h.Kind)+"/"+h.ID, h); twice {
		return // the same holder has it twice
	}
	if several(members, key) {
		x.contested.edit().Set(group+key, Contest{network, a})
	}
}

func (x *networkIndex) release(network string, a netip.Addr, h Holder) {
	group, key := takenGroup(network, a.Is6()), addressKey(a)
	x.taken.remove(group, key+string(h.Kind)+"/"+h.ID)
	if _, ok := x.contested.tree.Get(group + key); !ok {
		return
	}
	if in, ok := x.taken.groups.tree.Get(group); !ok || !several(in.members, key) {
		x.contested.edit().Delete(group + key)
	}
}

// several tells whether an address has more than one holder.
func several(members *btree.Map[string, Holder], key string) bool {
	n := 0
	members.Ascend(key, func(id string, _ Holder) bool {
		if id[:len(key)] == key {
			n++
		}
		return id[:len(key)] == key && n < 2
	})
	return n > 1
}

// takenGroup is where the addresses of a network of one IP version are: what counts them, and is in their order.
func takenGroup(network string, v6 bool) string {
	if v6 {
		return network + "\x006"
	}
	return network + "\x004"
}

func addressKey(a netip.Addr) string {
	b := a.As16()
	return string(b[:])
}

// changePorts replaces what a service publishes, on whatever nodes.
func (x *networkIndex) changePorts(was, is *v1.Service) {
	before, after := portKeys(was), portKeys(is)
	if slices.Equal(before, after) {
		return
	}
	for _, key := range before {
		x.ports.edit().Delete(key)
	}
	for _, key := range after {
		x.ports.edit().Set(key, is.Meta.ID)
	}
}

func portKeys(s *v1.Service) []string {
	if s == nil || s.Spec == nil {
		return nil
	}
	var keys []string
	for _, p := range v1.PublishedPorts(s) {
		if p.Published != 0 {
			keys = append(keys, portKey(p.Protocol, p.Published)+s.Meta.ID)
		}
	}
	return keys
}

func portKey(protocol v1.Protocol, port uint16) string {
	if protocol == "" {
		protocol = v1.TCP
	}
	return string(binary.BigEndian.AppendUint16([]byte(protocol+"/"), port))
}

// changeNetwork replaces a network.
func (x *networkIndex) changeNetwork(was, is *v1.Network) {
	var before, after v1.NetworkDesired
	if was != nil && was.Desired != nil {
		before = *was.Desired
	}
	if is != nil && is.Desired != nil {
		after = *is.Desired
	}
	id := idOf(was, is)
	if before.VNI != after.VNI {
		if before.VNI != 0 {
			x.vnis.edit().Delete(vniKey(before.VNI) + id)
		}
		if after.VNI != 0 {
			x.vnis.edit().Set(vniKey(after.VNI)+id, id)
		}
	}
	if slices.Equal(before.Subnets, after.Subnets) {
		return
	}
	for _, s := range before.Subnets {
		if p, err := netip.ParsePrefix(s.Subnet); err == nil {
			x.subnets.edit().Delete(subnetKey(p) + id)
		}
	}
	for _, s := range after.Subnets {
		if p, err := netip.ParsePrefix(s.Subnet); err == nil {
			x.subnets.edit().Set(subnetKey(p)+id, CutRange{p.Masked(), id})
		}
	}
}

func vniKey(vni uint32) string { return string(binary.BigEndian.AppendUint32(nil, vni)) }

func subnetKey(p netip.Prefix) string { return addressKey(p.Masked().Addr()) + string(rune(p.Bits())) }
