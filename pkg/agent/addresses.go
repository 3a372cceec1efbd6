package agent

import (
	"net/netip"
	"slices"
)

// addresses is a set of addresses that some share for a moment: one that two have is in it until both are gone. Its list is
// sorted, and never changed once it was given away: one change of ten thousand costs a copy, and no sorting.
type addresses struct {
	count   map[netip.Addr]int
	changed map[netip.Addr]struct{}
	list    []netip.Addr
}

func (s *addresses) add(a netip.Addr)    { s.change(a, +1) }
func (s *addresses) remove(a netip.Addr) { s.change(a, -1) }

func (s *addresses) change(a netip.Addr, by int) {
	if s.count == nil {
		s.count, s.changed = make(map[netip.Addr]int), make(map[netip.Addr]struct{})
	}
	if s.count[a] += by; s.count[a] <= 0 {
		delete(s.count, a)
	}
	s.changed[a] = struct{}{}
}

func (s *addresses) none() bool { return len(s.count) == 0 }

// sorted is the list as of now.
func (s *addresses) sorted() []netip.Addr {
	s.list = merge(s.list, s.changed, func(a netip.Addr) netip.Addr { return a }, func(a netip.Addr) (netip.Addr, bool) {
		return a, s.count[a] > 0
	})
	return s.list
}

// merge is a sorted list with what changed at some addresses, which it takes note of: what is there now, if anything. The old
// list stays as it was.
func merge[E any](old []E, changed map[netip.Addr]struct{}, at func(E) netip.Addr, now func(netip.Addr) (E, bool)) []E {
	if len(changed) == 0 {
		return old
	}
	keys := make([]netip.Addr, 0, len(changed))
	for a := range changed {
		keys = append(keys, a)
	}
	clear(changed)
	slices.SortFunc(keys, netip.Addr.Compare)
	next := make([]E, 0, len(old)+len(keys))
	for _, key := range keys {
		i, found := slices.BinarySearchFunc(old, key, func(e E, key netip.Addr) int { return at(e).Compare(key) })
		next = append(next, old[:i]...)
		if old = old[i:]; found {
			old = old[1:]
		}
		if e, ok := now(key); ok {
			next = append(next, e)
		}
	}
	if next = append(next, old...); len(next) == 0 {
		return nil
	}
	return next
}

// ofVersion are the addresses of a sorted list that are of an IP version: those of IPv4 come first.
func ofVersion(sorted []netip.Addr, four bool) []netip.Addr {
	i, _ := slices.BinarySearchFunc(sorted, 32, func(a netip.Addr, bits int) int {
		if a.BitLen() <= bits {
			return -1
		}
		return 1
	})
	if four {
		return sorted[:i:i]
	}
	return sorted[i:]
}

// parseAddresses are the addresses of a network, with or without their subnet's length. What is none is left out.
func parseAddresses(texts []string) []netip.Addr {
	var all []netip.Addr
	for _, text := range texts {
		if p, err := netip.ParsePrefix(text); err == nil {
			all = append(all, p.Addr())
		} else if a, err := netip.ParseAddr(text); err == nil {
			all = append(all, a)
		}
	}
	return all
}
