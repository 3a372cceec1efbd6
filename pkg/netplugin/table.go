package netplugin

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// elementsPerMessage keeps the list of elements within the 16 bits that an attribute's length has.
const elementsPerMessage = 500

// ports are the published ports as the machine's own table has them.
type ports map[portKey][]netip.AddrPort

// counts are the numbers of backends that there are, but those that always have a chain.
func (p ports) counts() map[int]bool {
	counts := map[int]bool{}
	for _, backends := range p {
		if n := len(backends); n > standingPicks {
			counts[n] = true
		}
	}
	return counts
}

// element is one of a map, by the map's name. Its value is a chain's name where the map is of those.
type element struct {
	in  string
	key string
	end string // the last of a range of keys
	val string
}

// message is the element as the kernel is told it.
func (e element) message() nftables.SetElement {
	switch e.in {
	case mapPorts, mapPlaces, mapLinks, mapDispatch:
		return nftables.SetElement{Key: []byte(e.key), KeyEnd: []byte(e.end), VerdictData: &expr.Verdict{Kind: unix.NFT_GOTO, Chain: e.val}}
	}
	return nftables.SetElement{Key: []byte(e.key), Val: []byte(e.val)}
}

// portElements are the elements of one published port.
func (p publication) portElements(s side, k portKey) []element {
	backends, there := p.ports[k]
	if !there {
		return nil
	}
	service := []byte{byte(k.protocol), 0, 0, 0, byte(k.port >> 8), byte(k.port), 0, 0}
	all := placeElements(service, p.places[k], pickName(len(backends)))
	for i, b := range backends {
		key := append(slices.Clone(service), binaryutil.NativeEndian.PutUint32(uint32(i))...)
		val := append(s.of(b.Addr()).AsSlice(), byte(b.Port()>>8), byte(b.Port()), 0, 0)
		all = append(all, element{in: mapBackends, key: string(key), val: string(val)})
	}
	return all
}

// transaction queues changes of our table in one namespace. Nothing is changed before the connection's Flush, and then all
// of it at once.
type transaction struct {
	*nftables.Conn
	table *nftables.Table
	side  side
	maps  []*nftables.Set
	// device is what the chains of a table of the family netdev are on.
	device string
	err    error
}

// replaceTable queues the table anew. One that is there goes in the same moment.
func (t *transaction) replaceTable(sets []*nftables.Set, chains []chain) {
	t.removeTable()
	t.AddTable(t.table)
	for _, s := range sets {
		t.err = errors.Join(t.err, t.AddSet(s, nil))
	}
	for _, c := range chains {
		t.addChain(c)
	}
}

// removeTable queues the table's end, also where there is none: a table is added, if need be, to be deleted.
func (t *transaction) removeTable() {
	t.AddTable(t.table)
	t.DelTable(t.table)
}

func (t *transaction) addChain(c chain) {
	added := t.AddChain(&nftables.Chain{Name: c.name, Table: t.table, Type: c.kind, Hooknum: c.hook, Priority: c.prio, Device: t.device})
	for _, r := range c.rules {
		t.AddRule(&nftables.Rule{Table: t.table, Chain: added, Exprs: r.exprs, UserData: r.tag()})
	}
}

// addPicks queues the chains of numbers of backends that were not there. They must be there before any port leads to them: a packet
// that is on its way through the rules while a transaction takes effect finds the new elements, but not the rules of new chains.
func (t *transaction) addPicks(have, want ports) (some bool) {
	haveCounts := have.counts()
	for _, n := range slices.Sorted(maps.Keys(want.counts())) {
		if !haveCounts[n] {
			t.addChain(pickChain(t.side, n))
			some = true
		}
	}
	return some
}

// change queues what makes the ports of have those of want, whose chains are there. The chains that no port leads to any more go.
func (t *transaction) change(have, want publication) {
	haveCounts, wantCounts := have.counts(), want.counts()
	remove, add := changedElements(t.side, have, want)
	t.elements(t.SetDeleteElements, remove)
	t.elements(t.SetAddElements, add)
	for _, n := range slices.Sorted(maps.Keys(haveCounts)) {
		if !wantCounts[n] {
			c := &nftables.Chain{Name: pickName(n), Table: t.table}
			t.FlushChain(c)
			t.DelChain(c)
		}
	}
}

// changedElements are those to remove and to add. One with another value is in both: the kernel has no other way.
func changedElements(s side, have, want publication) (remove, add []element) {
	var keys []portKey
	for k, backends := range want.ports {
		if !sameBackends(have.ports[k], backends) || !slices.Equal(have.places[k], want.places[k]) {
			keys = append(keys, k)
		}
	}
	for k := range have.ports {
		if _, both := want.ports[k]; !both {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, byPort)
	for _, k := range keys {
		old, next := have.portElements(s, k), want.portElements(s, k)
		remove, add = append(remove, changed(old, next)...), append(add, changed(next, old)...)
	}
	return remove, add
}

// changed are the elements that are not among the others, in their order.
func changed(all, others []element) []element {
	known := make(map[element]bool, len(others))
	for _, e := range others {
		known[e] = true
	}
	return slices.DeleteFunc(slices.Clone(all), func(e element) bool { return known[e] })
}

func (t *transaction) elements(queue func(*nftables.Set, []nftables.SetElement) error, all []element) {
	for _, s := range t.maps {
		var list []nftables.SetElement
		for _, e := range all {
			if e.in == s.Name {
				list = append(list, e.message())
			}
		}
		for part := range slices.Chunk(list, elementsPerMessage) {
			t.err = errors.Join(t.err, queue(s, part))
		}
	}
}

// commit sends what is queued.
func (t *transaction) commit() error {
	if t.err != nil {
		return t.err
	}
	return t.Flush()
}

// transactions are those of several tables in one namespace, which queue on one connection.
type transactions []*transaction

// commit sends what is queued in all of them, as one.
func (all transactions) commit() error {
	var errs []error
	for _, t := range all {
		errs = append(errs, t.err)
	}
	if err := errors.Join(errs...); err != nil || len(all) == 0 {
		return err
	}
	return all[0].Flush()
}

// readTable reads our table in a namespace. ok tells that its maps and chains are as they should be; where they are not, the
// ports are those that could be made out.
func readTable(c *nftables.Conn, s side, sets []*nftables.Set, chains []chain) (have publication, ok bool, err error) {
	table := &nftables.Table{Name: tableName, Family: s.table}
	found, err := chainsOf(c, table)
	if err != nil || len(found) == 0 {
		return newPublication(), false, err
	}
	have, ok = newPublication(), true
	if len(sets) > 0 {
		if have, ok = readPorts(c, s, table, sets); ok {
			for n := range have.counts() {
				chains = append(slices.Clone(chains), pickChain(s, n))
			}
		}
	}
	if !ok {
		return have, false, nil
	}
	ok, err = sameChains(c, found, chains)
	return have, ok, err
}

// chainsOf are a table's chains by their names; none where it was made dormant, so that they do nothing.
func chainsOf(c *nftables.Conn, table *nftables.Table) (map[string]*nftables.Chain, error) {
	tables, err := c.ListTablesOfFamily(table.Family)
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	awake := func(one *nftables.Table) bool { return one.Name == table.Name && one.Flags == 0 }
	if !slices.ContainsFunc(tables, awake) {
		return nil, nil
	}
	all, err := c.ListChainsOfTableFamily(table.Family)
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	found := map[string]*nftables.Chain{}
	for _, one := range all {
		if one.Table.Name == table.Name {
			found[one.Name] = one
		}
	}
	return found, nil
}

// sameChains tells whether a table's chains are as they should be, and no others.
func sameChains(c *nftables.Conn, have map[string]*nftables.Chain, want []chain) (bool, error) {
	if len(have) != len(want) {
		return false, nil
	}
	for _, one := range want {
		same, err := sameChain(c, have[one.name], one)
		if err != nil || !same {
			return false, err
		}
	}
	return true, nil
}

// sameChain tells whether the kernel's chain is as it should be.
func sameChain(c *nftables.Conn, have *nftables.Chain, want chain) (bool, error) {
	if !sameHook(have, want) {
		return false, nil
	}
	rules, err := c.GetRules(have.Table, have)
	if err != nil {
		return false, fmt.Errorf("list rules of chain %s: %w", have.Name, err)
	}
	return slices.EqualFunc(rules, want.rules, func(h *nftables.Rule, w rule) bool {
		return bytes.Equal(h.UserData, w.tag())
	}), nil
}

// sameHook tells whether the kernel's chain is there, and where it should be.
func sameHook(have *nftables.Chain, want chain) bool {
	if have == nil || have.Type != want.kind || (have.Hooknum == nil) != (want.hook == nil) {
		return false
	}
	return want.hook == nil || *have.Hooknum == *want.hook && *have.Priority == *want.prio && *have.Policy == nftables.ChainPolicyAccept
}

// readPorts reads the maps. ok tells that they hold together: every index that a port says it has, and no other, and a way to each
// port. A port without a way is left out.
func readPorts(c *nftables.Conn, s side, table *nftables.Table, sets []*nftables.Set) (have publication, ok bool) {
	elements, whole := map[string][]nftables.SetElement{}, true
	for _, want := range sets {
		if elements[want.Name], ok = readMap(c, table, want); !ok {
			whole = false // as an earlier version's, which has fewer maps
		}
	}
	have.ports, ok = s.backendsOf(elements[mapBackends])
	ok = ok && whole
	have.places = map[portKey][]Place{}
	ways := map[portKey]bool{}
	for _, in := range []string{mapPorts, mapPlaces, mapLinks} {
		for _, e := range elements[in] {
			k := keyOf(e)
			if !leadsTo(e, have.ports[k]) || ways[k] && have.places[k] == nil {
				ok = false // to another chain, or everywhere and here
			}
			ways[k] = true
			if in == mapPorts {
				continue
			}
			p, is := s.placeOf(in, e)
			if ok = ok && is; is {
				have.places[k] = append(have.places[k], p)
			}
		}
	}
	for k := range have.ports {
		slices.SortFunc(have.places[k], comparePlaces)
		if !ways[k] {
			ok = false
			delete(have.ports, k)
		}
	}
	return have, ok
}

// readMap reads a map, if it is the one that it should be.
func readMap(c *nftables.Conn, table *nftables.Table, want *nftables.Set) (all []nftables.SetElement, ok bool) {
	s, err := c.GetSetByName(table, want.Name)
	// Of a map of verdicts the library gives the verdict as the key's type.
	verdicts := want.DataType.GetNFTMagic() == nftables.TypeVerdict.GetNFTMagic()
	if err != nil || !s.IsMap || s.Interval != want.Interval || !verdicts && s.KeyType.GetNFTMagic() != want.KeyType.GetNFTMagic() {
		return nil, false
	}
	if all, err = c.GetSetElements(s); err != nil {
		return nil, false
	}
	for _, e := range all {
		if len(e.Key) != int(want.KeyType.Bytes) || len(e.Val) < int(want.DataType.Bytes) {
			return nil, false
		}
	}
	return all, true
}

// backendsOf are the backends of ports in their order. ok tells that no index is left out.
func (s side) backendsOf(elements []nftables.SetElement) (all ports, ok bool) {
	backends, strange := map[portKey]map[int]netip.AddrPort{}, false
	for _, e := range elements {
		k := keyOf(e)
		if backends[k] == nil {
			backends[k] = map[int]netip.AddrPort{}
		}
		own, _ := netip.AddrFromSlice(e.Val[:s.size])
		a, is := s.gatewayOf(own)
		strange = strange || !is
		backends[k][int(binaryutil.NativeEndian.Uint32(e.Key[8:]))] = netip.AddrPortFrom(a, binary.BigEndian.Uint16(e.Val[s.size:]))
	}
	all, ok = ports{}, !strange
	for k, of := range backends {
		for i := range len(of) {
			b, there := of[i]
			if !there {
				ok = false
				break
			}
			all[k] = append(all[k], b)
		}
	}
	return all, ok
}

// keyOf is the port of an element of any of the maps.
func keyOf(e nftables.SetElement) portKey {
	return portKey{uint16(e.Key[0]), binary.BigEndian.Uint16(e.Key[4:])}
}

// leadsTo tells whether an element leads to the chain of a number of backends.
func leadsTo(e nftables.SetElement, backends []netip.AddrPort) bool {
	return bytes.Contains(e.Val, []byte(pickName(len(backends))+"\x00"))
}
