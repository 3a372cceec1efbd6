package netplugin

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/google/nftables/binaryutil"
)

// balance is what an overlay router's tables have.
type balance struct {
	list    []VIP                       // in order, each with its backends in order
	slots   map[netip.Addr][]netip.Addr // the backends of a VIP by index, in the order that changes left them in
	counts  [2]map[int]int              // by IP version, see version: how many VIPs have a number of backends; see count
	hairpin map[netip.Addr]netip.Addr   // a task's address here, and the gateway that it sees itself come from
}

func newBalance() balance {
	return balance{slots: map[netip.Addr][]netip.Addr{}, counts: [2]map[int]int{{}, {}}, hairpin: map[netip.Addr]netip.Addr{}}
}

// version is 0 for IPv4 and 1 for IPv6.
func version(a netip.Addr) int {
	if a.Is6() {
		return 1
	}
	return 0
}

// edit is the change of one VIP. Nil slots are of one that is not there; one without backends has empty ones.
type edit struct {
	vip      netip.Addr
	old, now []netip.Addr
}

// edits are what makes the VIPs those of want. A backend that comes or goes changes two slots at most.
func (b balance) edits(want []VIP) (all []edit) {
	changed := apart(b.list, want, sameVIP)
	differences(b.list[changed.from:changed.have], want[changed.from:changed.want], func(a, b VIP) int { return a.Address.Compare(b.Address) }, func(a, b VIP) bool { return slices.Equal(a.Backends, b.Backends) },
		func(v VIP) { all = append(all, edit{vip: v.Address, old: b.slots[v.Address]}) },
		func(v VIP) { all = append(all, edit{vip: v.Address, now: append([]netip.Addr{}, v.Backends...)}) },
		func(old, now VIP) {
			slots := b.slots[old.Address]
			all = append(all, edit{vip: old.Address, old: slots, now: reslot(slots, old.Backends, now.Backends)})
		})
	return all
}

// reslot puts what comes where something goes, then at the end; what is left to fill is filled from the end. Both lists are in
// order, and the slots have those of have.
func reslot(slots, have, want []netip.Addr) []netip.Addr {
	var gone, added []netip.Addr
	differences(have, want, netip.Addr.Compare, func(a, b netip.Addr) bool { return true },
		func(a netip.Addr) { gone = append(gone, a) }, func(a netip.Addr) { added = append(added, a) }, nil)
	next := append(make([]netip.Addr, 0, len(slots)+len(added)), slots...)
	var free []int
	if len(gone) > 0 {
		for i, a := range next {
			if _, is := slices.BinarySearchFunc(gone, a, netip.Addr.Compare); is {
				free = append(free, i)
			}
		}
	}
	n := min(len(free), len(added))
	for i, a := range added[:n] {
		next[free[i]] = a
	}
	next = append(next, added[n:]...)
	free = free[n:]
	for len(free) > 0 {
		end := len(next) - 1
		if free[len(free)-1] == end { // the last one is itself to go
			free = free[:len(free)-1]
		} else {
			next[free[0]] = next[end]
			free = free[1:]
		}
		next = next[:end]
	}
	return next
}

// apply takes the edits for done, and the VIPs for those of want.
func (b *balance) apply(all []edit, want []VIP) {
	for _, e := range all {
		counts := b.counts[version(e.vip)]
		count(counts, e.old, -1)
		count(counts, e.now, 1)
		if e.now == nil {
			delete(b.slots, e.vip)
		} else {
			b.slots[e.vip] = e.now
		}
	}
	b.list = want
}

// count counts a VIP whose number of backends has no chain but where it is needed.
func count(counts map[int]int, slots []netip.Addr, by int) {
	n := len(slots)
	if n <= standingPicks {
		return
	}
	if counts[n] += by; counts[n] == 0 {
		delete(counts, n)
	}
}

// newCounts are the numbers of backends after the edits that VIPs of an IP version have, where none had before, and those that none
// has any more.
func (b balance) newCounts(all []edit, v int) (come, gone []int) {
	before, after := b.counts[v], maps.Clone(b.counts[v])
	for _, e := range all {
		if version(e.vip) == v {
			count(after, e.old, -1)
			count(after, e.now, 1)
		}
	}
	for n := range after {
		if before[n] == 0 {
			come = append(come, n)
		}
	}
	for n := range before {
		if after[n] == 0 {
			gone = append(gone, n)
		}
	}
	slices.Sort(come)
	slices.Sort(gone)
	return come, gone
}

// elements are those to remove and to add for an edit.
func (e edit) elements() (remove, add []element) {
	if e.old != nil && (e.now == nil || len(e.old) != len(e.now)) {
		remove = append(remove, vipElement(e.vip, len(e.old)))
	}
	if e.now != nil && (e.old == nil || len(e.old) != len(e.now)) {
		add = append(add, vipElement(e.vip, len(e.now)))
	}
	for i := range max(len(e.old), len(e.now)) {
		both := i < len(e.old) && i < len(e.now)
		if both && e.old[i] == e.now[i] {
			continue
		}
		if i < len(e.old) {
			remove = append(remove, backendElement(e.vip, i, e.old[i]))
		}
		if i < len(e.now) {
			add = append(add, backendElement(e.vip, i, e.now[i]))
		}
	}
	return remove, add
}

// markOf is what a packet to a VIP of so many backends is marked with until it is sent to one of them.
func markOf(backends int) uint32 {
	if backends == 0 {
		return noBackends
	}
	return uint32(backends)
}

// noBackends is the mark of packets to VIPs that have none.
const noBackends = ^uint32(0)

func vipElement(vip netip.Addr, backends int) element {
	return element{in: mapVIPs, key: string(vip.AsSlice()), val: native(markOf(backends))}
}

func backendElement(vip netip.Addr, index int, to netip.Addr) element {
	return element{in: mapBackends, key: string(vip.AsSlice()) + native(uint32(index)), val: string(to.AsSlice())}
}

func dispatchElement(backends int) element {
	if backends == 0 {
		return element{in: mapDispatch, key: native(noBackends), val: refuseName}
	}
	return element{in: mapDispatch, key: native(markOf(backends)), val: pickName(backends)}
}

func hairpinElement(task, gateway netip.Addr) element {
	return element{in: mapHairpin, key: string(task.AsSlice()) + string(task.AsSlice()), val: string(gateway.AsSlice())}
}

func native(n uint32) string { return string(binaryutil.NativeEndian.PutUint32(n)) }
