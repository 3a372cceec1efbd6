package netplugin

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
)

// versions are those that the network has subnets of.
func (p *plan) versions() (all []int) {
	for v := range overlayFamilies {
		if p.has(v == 1) {
			all = append(all, v)
		}
	}
	return all
}

// balanceVIPs makes the router's maps lead to the backends of the network's VIPs, each IP version's in one transaction.
func (o *overlay) balanceVIPs(w *wanted, hairpin map[netip.Addr]netip.Addr) error {
	edits := o.balance.edits(w.vips)
	same := maps.Equal(o.balance.hairpin, hairpin)
	if len(edits) == 0 && same {
		o.balance.list = w.vips
		return nil
	}
	for _, v := range w.versions() {
		if !same || slices.ContainsFunc(edits, func(e edit) bool { return version(e.vip) == v }) {
			if err := o.editTable(v, edits, hairpin); err != nil {
				return err
			}
		}
	}
	o.balance.apply(edits, w.vips)
	o.balance.hairpin = hairpin
	return o.handOver(w, edits)
}

// hairpins are the addresses of the tasks that are linked and stay, and their gateways.
func (o *overlay) hairpins(w *wanted, refused map[string]bool) map[netip.Addr]netip.Addr {
	all := map[netip.Addr]netip.Addr{}
	for id, m := range o.members {
		if _, wanted := w.members[id]; !wanted && !refused[id] {
			continue
		}
		for _, a := range m.addresses {
			if s, err := w.subnet(a); err == nil {
				all[a] = s.Gateway
			}
		}
	}
	return all
}

// editTable commits the part of an IP version.
func (o *overlay) editTable(v int, edits []edit, hairpin map[netip.Addr]netip.Addr) error {
	c, err := o.space.firewall()
	if err != nil {
		return err
	}
	f := overlayFamilies[v]
	t := f.newTransaction(c)
	var remove, add []element
	come, gone := o.balance.newCounts(edits, v)
	for _, n := range come {
		t.addChain(f.pick(n))
		add = append(add, dispatchElement(n))
	}
	for _, n := range gone {
		remove = append(remove, dispatchElement(n))
	}
	for _, e := range edits {
		if version(e.vip) == v {
			r, a := e.elements()
			remove, add = append(remove, r...), append(add, a...)
		}
	}
	r, a := hairpinChanges(v, o.balance.hairpin, hairpin)
	t.elements(t.SetDeleteElements, append(remove, r...))
	t.elements(t.SetAddElements, append(add, a...))
	for _, n := range gone {
		old := &nftables.Chain{Name: pickName(n), Table: t.table}
		t.FlushChain(old)
		t.DelChain(old)
	}
	if err := t.commit(); err != nil {
		return fmt.Errorf("change services in table %s of %s: %w", tableName, o.space.name, err)
	}
	return nil
}

func hairpinChanges(v int, have, want map[netip.Addr]netip.Addr) (remove, add []element) {
	for a, gateway := range have {
		if version(a) == v && want[a] != gateway {
			remove = append(remove, hairpinElement(a, gateway))
		}
	}
	for a, gateway := range want {
		if version(a) == v && have[a] != gateway {
			add = append(add, hairpinElement(a, gateway))
		}
	}
	return remove, add
}

// ensureOverlayTables adopts the router's tables where they are as they should be, whatever VIPs they have, and replaces them where
// not, with the VIPs that are wanted.
func (o *overlay) ensureOverlayTables(w *wanted) error {
	c, err := o.space.firewall()
	if err != nil {
		return err
	}
	o.balance = newBalance()
	for v, f := range overlayFamilies {
		if !w.has(v == 1) {
			if err := removeOther(c, f); err != nil {
				return fmt.Errorf("remove table %s of %s: %w", tableName, o.space.name, err)
			}
			continue
		}
		have, err := f.read(c)
		if err != nil {
			return fmt.Errorf("read table %s of %s: %w", tableName, o.space.name, err)
		}
		if have == nil {
			have = &balance{slots: map[netip.Addr][]netip.Addr{}}
			for _, one := range w.vips {
				if version(one.Address) == v {
					have.slots[one.Address] = append([]netip.Addr{}, one.Backends...)
				}
			}
			if err := f.replace(c, have.slots); err != nil {
				return fmt.Errorf("make table %s in %s: %w", tableName, o.space.name, err)
			}
		}
		o.balance.adopt(have)
	}
	slices.SortFunc(o.balance.list, func(a, b VIP) int { return a.Address.Compare(b.Address) })
	return nil
}

// adopt takes over what one table has.
func (b *balance) adopt(have *balance) {
	for vip, slots := range have.slots {
		b.slots[vip] = slots
		count(b.counts[version(vip)], slots, 1)
		b.list = append(b.list, VIP{vip, slices.SortedFunc(slices.Values(slots), netip.Addr.Compare)})
	}
	maps.Copy(b.hairpin, have.hairpin)
}

// removeOther removes the table of an IP version that the network does not have.
func removeOther(c *nftables.Conn, f overlayFamily) error {
	tables, err := c.ListTablesOfFamily(f.table)
	if err != nil || !slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == tableName }) {
		return err
	}
	t := f.newTransaction(c)
	t.removeTable()
	return t.commit()
}

// replace makes the table anew, in one transaction with the one that was.
func (f overlayFamily) replace(c *nftables.Conn, slots map[netip.Addr][]netip.Addr) error {
	t := f.newTransaction(c)
	t.replaceTable(t.maps, f.chains())
	counts := map[int]int{}
	var all []element
	for n := range standingPicks + 1 {
		all = append(all, dispatchElement(n))
	}
	for vip, backends := range slots {
		count(counts, backends, 1)
		_, add := edit{vip: vip, now: backends}.elements()
		all = append(all, add...)
	}
	for n := range counts {
		t.addChain(f.pick(n))
		all = append(all, dispatchElement(n))
	}
	t.elements(t.SetAddElements, all)
	return t.commit()
}

// read reads the table. The result is nil where it is not as it should be.
func (f overlayFamily) read(c *nftables.Conn) (*balance, error) {
	found, err := chainsOf(c, &nftables.Table{Name: tableName, Family: f.table})
	if err != nil || len(found) == 0 {
		return nil, err
	}
	elements := f.readMaps(c)
	if elements == nil {
		return nil, nil
	}
	have := f.parse(elements)
	if have == nil {
		return nil, nil
	}
	chains := f.chains()
	counts := map[int]int{}
	for _, slots := range have.slots {
		count(counts, slots, 1)
	}
	for n := range counts {
		chains = append(chains, f.pick(n))
	}
	if len(found) != len(chains) || !sameDispatch(elements[mapDispatch], counts) {
		return nil, nil
	}
	for _, want := range chains {
		if same, err := sameChain(c, found[want.name], want); err != nil || !same {
			return nil, err
		}
	}
	return have, nil
}

// readMaps reads the elements of the maps. The result is nil where one of them is not as it should be.
func (f overlayFamily) readMaps(c *nftables.Conn) map[string][]nftables.SetElement {
	table := &nftables.Table{Name: tableName, Family: f.table}
	elements := map[string][]nftables.SetElement{}
	for _, want := range f.maps(table) {
		s, err := c.GetSetByName(table, want.Name)
		if err != nil || !s.IsMap || want.Name != mapDispatch && s.KeyType.GetNFTMagic() != want.KeyType.GetNFTMagic() {
			return nil
		}
		if elements[want.Name], err = c.GetSetElements(s); err != nil {
			return nil
		}
		for _, e := range elements[want.Name] {
			if len(e.Key) != int(want.KeyType.Bytes) || want.Name != mapDispatch && len(e.Val) != int(want.DataType.Bytes) {
				return nil
			}
		}
	}
	return elements
}

// parse makes out what the maps say. The result is nil where they do not hold together: every VIP has each of its indexes, and there is
// no other.
func (f overlayFamily) parse(elements map[string][]nftables.SetElement) *balance {
	have := newBalance()
	left := len(elements[mapBackends])
	for _, e := range elements[mapVIPs] {
		n := binaryutil.NativeEndian.Uint32(e.Val)
		if n == noBackends {
			n = 0
		}
		if int(n) > left {
			return nil
		}
		left -= int(n)
		vip, _ := netip.AddrFromSlice(e.Key)
		have.slots[vip] = make([]netip.Addr, n)
	}
	if left != 0 {
		return nil
	}
	for _, e := range elements[mapBackends] {
		vip, _ := netip.AddrFromSlice(e.Key[:f.size])
		index, slots := int(binaryutil.NativeEndian.Uint32(e.Key[f.size:])), have.slots[vip]
		if index >= len(slots) {
			return nil
		}
		slots[index], _ = netip.AddrFromSlice(e.Val)
	}
	for _, e := range elements[mapHairpin] {
		task, _ := netip.AddrFromSlice(e.Key[:f.size])
		gateway, _ := netip.AddrFromSlice(e.Val)
		if !bytes.Equal(e.Key[:f.size], e.Key[f.size:]) {
			return nil
		}
		have.hairpin[task] = gateway
	}
	return &have
}

// sameDispatch tells whether each number of backends, and no other, leads to its chain.
func sameDispatch(have []nftables.SetElement, counts map[int]int) bool {
	for _, e := range have {
		name := refuseName
		if n := binary.NativeEndian.Uint32(e.Key); n != noBackends {
			if n > standingPicks && counts[int(n)] == 0 {
				return false
			}
			name = pickName(int(n))
		}
		if !bytes.Contains(e.Val, []byte(name+"\x00")) {
			return false
		}
	}
	return len(have) == len(counts)+standingPicks+1
}
