package network

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"net/netip"
	"slices"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/store"
)

// pool is the addresses of a network in one decision.
type pool struct {
	id, name string
	ranges   []*span
}

// span is what of a subnet may be given.
type span struct {
	snapshot *store.Snapshot
	network  string
	subnet   netip.Prefix
	gateway  netip.Addr
	within   netip.Prefix // the part of it that addresses are given from, which may be all
	low      netip.Addr   // the first that may be given
	size     uint64       // how many there are from it, the gateway perhaps among them
	// next leads from an address that cannot be given to a later one that perhaps can. Following it makes it shorter, so that to
	// give all addresses takes hardly more than a look at each.
	next map[netip.Addr]netip.Addr
	full bool
}

func newPool(s *store.Snapshot, n *v1.Network) *pool {
	p := &pool{id: n.Meta.ID, name: nameOf(n)}
	for _, subnet := range n.Desired.Subnets {
		if r := newSpan(s, n.Meta.ID, subnet); r != nil {
			p.ranges = append(p.ranges, r)
		}
	}
	return p
}

// newSpan leaves out the subnet's first address, which is that of the network, and in IP version 4 its last, which is that of all.
func newSpan(s *store.Snapshot, network string, spec v1.SubnetSpec) *span {
	subnet, err := netip.ParsePrefix(spec.Subnet)
	if err != nil {
		return nil
	}
	subnet = subnet.Masked()
	r := &span{snapshot: s, network: network, subnet: subnet, next: make(map[netip.Addr]netip.Addr)}
	r.gateway, _ = netip.ParseAddr(spec.Gateway)
	within := subnet
	if p, err := netip.ParsePrefix(spec.IPRange); err == nil && subnet.Contains(p.Addr()) && p.Bits() >= subnet.Bits() {
		within = p.Masked()
	}
	r.within = within
	high := last(within)
	if r.low = within.Addr(); r.low == subnet.Addr() {
		r.low = r.low.Next()
	}
	if subnet.Addr().Is4() && high == last(subnet) {
		high = high.Prev()
	}
	switch {
	case high.Less(r.low):
		r.full = true
	case within.Addr().BitLen()-within.Bits() >= 64:
		r.size = math.MaxUint64 - 1 // more than anybody has
	default:
		r.size = low64(high) - low64(r.low) + 1
	}
	return r
}

func low64(a netip.Addr) uint64 {
	b := a.As16()
	return binary.BigEndian.Uint64(b[8:])
}

// plus is the address so many after the first; the subnet is as long as that.
func (r *span) plus(n uint64) netip.Addr {
	b := r.low.As16()
	binary.BigEndian.PutUint64(b[8:], binary.BigEndian.Uint64(b[8:])+n)
	return netip.AddrFrom16(b).Unmap()
}

// usable tells whether an address may be given to somebody.
func (r *span) usable(a netip.Addr) bool {
	return r.subnet.Contains(a) && !a.Less(r.low) && low64(a)-low64(r.low) < r.size && a != r.gateway
}

// give gives a free address to a holder, the same whoever decides: the first from where the holder's ID leads. So addresses rest before
// they are given again, for most holders lead elsewhere. ok is false where none is free.
func (r *span) give(holder string) (a netip.Addr, ok bool) {
	if r.full {
		return a, false
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(r.network + "\x00" + holder))
	a = r.free(r.plus(h.Sum64() % r.size))
	if !r.inside(a) {
		a = r.free(r.low)
	}
	if !r.inside(a) {
		r.full = true
		return a, false
	}
	r.next[a] = a.Next()
	return a, true
}

// inside tells whether an address that is not before the first is in the span.
func (r *span) inside(a netip.Addr) bool {
	return a.IsValid() && low64(a)-low64(r.low) < r.size && r.subnet.Contains(a)
}

// free is the first address from the given one on that nobody holds, in what was decided so far and in what is stored, and that was
// not given in this decision. It may be beyond the span.
func (r *span) free(from netip.Addr) netip.Addr {
	a := from
	for r.inside(a) {
		next, known := r.next[a]
		switch {
		case known:
			a = next
			continue
		case a == r.gateway:
			next = a.Next()
		default:
			next = r.snapshot.NextFreeAddress(r.network, a)
			if stored := r.snapshot.Stored(); next.IsValid() && stored != r.snapshot {
				next = stored.NextFreeAddress(r.network, next)
			}
		}
		if next == a {
			break
		}
		r.next[a] = next
		a = next
	}
	for from != a && r.inside(from) { // the way there is shorter the next time
		from, r.next[from] = r.next[from], a
	}
	return a
}

// room tells whether there is an address for one more, and gives none.
func (p *pool) room() bool {
	return len(p.ranges) > 0 && !slices.ContainsFunc(p.ranges, (*span).spent)
}

// spent tells whether it has no address left.
func (r *span) spent() bool { return r.full || !r.inside(r.free(r.low)) }

// exhausted says that a network has no free address, with numbers.
func (p *pool) exhausted() string {
	var parts []string
	for _, r := range p.ranges {
		if !r.spent() {
			continue
		}
		all := r.size
		if r.gateway.IsValid() && !r.gateway.Less(r.low) && r.inside(r.gateway) {
			all--
		}
		parts = append(parts, fmt.Sprintf("%s: all %d are in use", r.within, all))
	}
	return fmt.Sprintf("network %s has no free address (%s)", p.name, strings.Join(parts, "; "))
}

// addresses are a holder's on the network: those that it has, where it may keep them, else others. ok is false where none is free.
func (d *decision) addresses(p *pool, h store.Holder, have []v1.NetworkAddress) (on v1.NetworkAddress, ok bool) {
	i := slices.IndexFunc(have, func(n v1.NetworkAddress) bool { return n.Network == p.id })
	if i >= 0 && d.mayKeep(p, h, have[i]) {
		return have[i], true
	}
	on.Network = p.id
	for _, r := range p.ranges {
		a, ok := r.give(h.ID)
		if !ok {
			return v1.NetworkAddress{Network: p.id, Addresses: []string{}}, false
		}
		on.Addresses = append(on.Addresses, netip.PrefixFrom(a, r.subnet.Bits()).String())
	}
	return on, len(p.ranges) > 0
}

// mayKeep tells whether what a holder has on a network is right: an address of each of its subnets that nobody has a better claim
// to.
func (d *decision) mayKeep(p *pool, h store.Holder, on v1.NetworkAddress) bool {
	if len(on.Addresses) != len(p.ranges) || len(on.Addresses) == 0 {
		return false
	}
	for i, r := range p.ranges {
		a, err := netip.ParsePrefix(on.Addresses[i])
		if err != nil || a.Bits() != r.subnet.Bits() || !r.usable(a.Addr()) || !reconcile.Prevails(d.snapshot, h, p.id, a.Addr()) {
			return false
		}
	}
	return true
}
