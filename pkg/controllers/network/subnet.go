package network

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// subnetsFor are the subnets that a network is to have: those of its spec, and one cut for each IP version that is wanted and has
// none. Others may have the same: networks are apart whatever their addresses. problem says why it cannot have them.
func subnetsFor(s *store.Snapshot, n *v1.Network) (subnets []v1.SubnetSpec, problem string) {
	is := settingsOf(s)
	var has4, has6 bool
	for _, given := range n.Spec.Subnets {
		p, err := netip.ParsePrefix(given.Subnet)
		if err != nil {
			return nil, fmt.Sprintf("%q is not a subnet", given.Subnet)
		}
		if p.Overlaps(is.gateway) {
			return nil, fmt.Sprintf("the subnet %s overlaps the gateway pool %s, through which every task is reached from outside: make "+
				"the network again with another subnet", p, is.gateway)
		}
		has4, has6 = has4 || p.Addr().Is4(), has6 || p.Addr().Is6()
		if given.Gateway == "" {
			given.Gateway = p.Masked().Addr().Next().String()
		}
		subnets = append(subnets, given)
	}
	if !has4 {
		p := cut(s, is)
		if !p.IsValid() {
			return nil, fmt.Sprintf("no subnet of /%d is free in %s: remove networks that are not needed, or make the network again "+
				"with a subnet", is.size, poolNames(is.pools))
		}
		subnets = append(subnets, subnetSpec(p))
	}
	if n.Spec.IPv6 && !has6 {
		subnets = append(subnets, subnetSpec(cutUnique(s, n.Meta.ID)))
	}
	return subnets, ""
}

func subnetSpec(p netip.Prefix) v1.SubnetSpec {
	return v1.SubnetSpec{Subnet: p.String(), Gateway: p.Addr().Next().String()}
}

func poolNames(pools []netip.Prefix) string {
	if len(pools) == 0 {
		return "the swarm's address pool"
	}
	names := make([]string, len(pools))
	for i, p := range pools {
		names[i] = p.String()
	}
	return strings.Join(names, ", ")
}

// cut is the first subnet of the pools that overlaps none of another network, the user's included: a task may be on both. It is
// not valid where there is none.
func cut(s *store.Snapshot, is settings) netip.Prefix {
	for _, pool := range is.pools {
		next := netip.PrefixFrom(pool.Addr(), is.size)
		for next.IsValid() {
			free := next
			for _, view := range []*store.Snapshot{s, s.Stored()} { // also none that is given up and not yet written so
				free = sweep(view, pool, free)
			}
			if free.IsValid() && free.Overlaps(is.gateway) {
				free = after(free, is.gateway, pool)
			}
			if free == next {
				return free
			}
			next = free
		}
	}
	return netip.Prefix{}
}

// sweep is the first block from a block of the pool on that overlaps no subnet. Subnets come by their beginnings, and the block only
// moves up: none that was passed can overlap it later.
func sweep(s *store.Snapshot, pool, block netip.Prefix) netip.Prefix {
	for r := range s.Subnets() {
		if !block.IsValid() || r.Prefix.Addr().Is4() && last(block).Less(r.Prefix.Addr()) {
			break
		}
		if r.Prefix.Overlaps(block) {
			block = after(block, r.Prefix, pool)
		}
	}
	return block
}

// after is the first block of the same size that is beyond both a block and a prefix that overlaps it; not valid beyond the pool.
func after(block, p, pool netip.Prefix) netip.Prefix {
	end := last(block)
	if end.Less(last(p)) {
		end = last(p)
	}
	if next := end.Next(); next.IsValid() && pool.Contains(next) {
		return netip.PrefixFrom(next, block.Bits())
	}
	return netip.Prefix{}
}

// last is the last address of a prefix.
func last(p netip.Prefix) netip.Addr {
	if p.Addr().Is4() {
		b := p.Masked().Addr().As4()
		fill(b[:], p.Bits())
		return netip.AddrFrom4(b)
	}
	b := p.Masked().Addr().As16()
	fill(b[:], p.Bits())
	return netip.AddrFrom16(b)
}

// fill sets all bits from the given one on.
func fill(b []byte, from int) {
	for i := from; i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
}

// uniqueBits is the length of the subnets of IP version 6 that are cut.
const uniqueBits = 64

// cutUnique is a subnet of the unique local addresses (RFC 4193) that follows from the network's ID. It is drawn from 2^56, and
// drawn again where somebody has it.
func cutUnique(s *store.Snapshot, id string) netip.Prefix {
	for try := 0; ; try++ {
		sum := sha256.Sum256([]byte("unique\x00" + id + "\x00" + strconv.Itoa(try)))
		b := [16]byte{0xfd}
		copy(b[1:8], sum[:])
		if p := netip.PrefixFrom(netip.AddrFrom16(b), uniqueBits); !taken(s, p) && !taken(s.Stored(), p) {
			return p
		}
	}
}

func taken(s *store.Snapshot, p netip.Prefix) bool {
	for r := range s.Subnets() {
		if r.Prefix.Overlaps(p) {
			return true
		}
	}
	return false
}
