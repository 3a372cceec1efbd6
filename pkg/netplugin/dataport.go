package netplugin

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The data port is that of the traffic between nodes, which nothing signs. Only packets of known nodes come in by it, and only the
// kernel's own VXLAN goes out by it to other nodes: no program of this machine, and nothing that it forwards, whose source may
// become the machine's. The kernel's packets belong to no socket that a program has, by which they are told.

// setPeers is the set of the peers' underlay addresses.
const setPeers = "peers"

func dataTable() *nftables.Table {
	return &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
}

func peerSet(t *nftables.Table, w underlay) *nftables.Set {
	s := &nftables.Set{Table: t, Name: setPeers, KeyType: nftables.TypeIPAddr}
	if !w.addr.Is4() {
		s.KeyType = nftables.TypeIP6Addr
	}
	return s
}

// setWires is the set of the UDP ports of encrypted networks. Their packets are known by their keys, but nobody else needs to send any.
const setWires = "wires"

func wireSet(t *nftables.Table) *nftables.Set {
	return &nftables.Set{Table: t, Name: setWires, KeyType: nftables.TypeInetService}
}

// portKeys are ports as elements of a set.
func portKeys(all map[uint16]bool) map[string]bool {
	keys := map[string]bool{}
	for port := range all {
		keys[string(binaryutil.BigEndian.PutUint16(port))] = true
	}
	return keys
}

// toWires is true for a packet to the port of an encrypted network.
func toWires() []expr.Any {
	return join(transport(unix.IPPROTO_UDP), []expr.Any{
		&expr.Payload{DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: setWires},
	})
}

// dataChains are the chains of the data port's table.
func dataChains(w underlay) []chain {
	port := join(transport(unix.IPPROTO_UDP), destinationPort(w.port))
	fromPeer, toPeer := join(port, w.peer(true)), join(port, w.peer(false))
	wires := toWires()
	wireFromPeer, wireToPeer := join(wires, w.peer(true)), join(wires, w.peer(false))
	untracked := []expr.Any{&expr.Notrack{}}
	return []chain{
		// Nothing translates it, and there is no need to keep its connections.
		{name: "raw_prerouting", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookPrerouting, prio: nftables.ChainPriorityRaw, rules: []rule{
			{"untracked from nodes", join(fromPeer, w.own(), untracked)},
			{"encrypted untracked from nodes", join(wireFromPeer, w.own(), untracked)},
		}},
		{name: "raw_output", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookOutput, prio: nftables.ChainPriorityRaw, rules: []rule{
			{"untracked to nodes", join(toPeer, untracked)},
			{"encrypted untracked to nodes", join(wireToPeer, untracked)},
		}},
		// VXLAN's socket takes what comes to any address of the machine.
		{name: "input", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookInput, prio: nftables.ChainPriorityFilter, rules: []rule{
			// Who sends with a peer's address on this machine does it by the loopback.
			{"from nodes elsewhere", join(inLink("lo", false), fromPeer, w.own(), accept())},
			{"from nobody else", join(port, drop())},
			{"encrypted from nodes", join(wireFromPeer, w.own(), accept())},
			{"encrypted from nobody else", join(wires, drop())},
		}},
		{name: "output", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookOutput, prio: nftables.ChainPriorityFilter, rules: []rule{
			{"from no program", join(toPeer, ofProgram(), drop())},
		}},
		{name: "forward", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookForward, prio: nftables.ChainPriorityFilter, rules: []rule{
			{"from nobody behind this machine", join(toPeer, drop())},
		}},
	}
}

// peer is true for a packet from a peer, or to one.
func (u underlay) peer(from bool) []expr.Any {
	return append(u.load(from), &expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: setPeers})
}

// own is true for a packet to this machine's underlay address.
func (u underlay) own() []expr.Any {
	return append(u.load(false), &expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: u.addr.AsSlice()})
}

// load gets a packet's source or destination, if it is of the underlay's IP version.
func (u underlay) load(source bool) []expr.Any {
	version, offset, size := byte(unix.NFPROTO_IPV4), uint32(12), uint32(4)
	if !u.addr.Is4() {
		version, offset, size = unix.NFPROTO_IPV6, 8, 16
	}
	if !source {
		offset += size
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{version}},
		&expr.Payload{DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size},
	}
}

// ofProgram is true for a packet of a socket that a program has: only that has a user.
func ofProgram() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeySKUID, Register: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, Data: binaryutil.NativeEndian.PutUint32(^uint32(0))}, // nobody's number
	}
}

// ensureDataPort makes the data port's table, or removes it where nothing of ours listens there.
func (l *Linux) ensureDataPort(want *desired) error {
	if !want.guard.up() {
		return errors.Join(l.removeMesh(), l.removeDataPort())
	}
	c, err := l.host.firewall()
	if err != nil {
		return err
	}
	t := &transaction{Conn: c, table: dataTable()}
	sets := []*nftables.Set{peerSet(t.table, want.guard), wireSet(t.table)}
	wanted := []map[string]bool{addressKeys(want.underlays), portKeys(want.wires)}
	found, err := chainsOf(c, t.table)
	if err != nil {
		return fmt.Errorf("read table %s of family inet of %s: %w", tableName, l.host.name, err)
	}
	ok, err := sameChains(c, found, dataChains(want.guard))
	if err != nil {
		return err
	}
	have := make([]map[string]bool, len(sets))
	for i, s := range sets {
		readable := false
		have[i], readable = readSet(c, s)
		ok = ok && readable
	}
	if !ok {
		t.replaceTable(sets, dataChains(want.guard))
		clear(have)
	}
	for i, s := range sets {
		t.members(s, have[i], wanted[i])
	}
	if err := t.commit(); err != nil {
		return fmt.Errorf("make table %s of family inet in %s: %w", tableName, l.host.name, err)
	}
	return nil
}

// removeDataPort removes the data port's table if there is one.
func (l *Linux) removeDataPort() error {
	c, err := l.host.firewall()
	if err != nil {
		return err
	}
	tables, err := c.ListTablesOfFamily(dataTable().Family)
	if err != nil {
		return fmt.Errorf("list tables of %s: %w", l.host.name, err)
	}
	for _, one := range tables {
		if one.Name == tableName {
			t := &transaction{Conn: c, table: dataTable()}
			t.removeTable()
			return t.commit()
		}
	}
	return nil
}

// changePeers lets in packets of other nodes than before.
func (l *Linux) changePeers(have, want map[netip.Addr]bool) error {
	if maps.Equal(have, want) {
		return nil
	}
	c, err := l.host.firewall()
	if err != nil {
		return err
	}
	t := &transaction{Conn: c, table: dataTable()}
	t.members(peerSet(t.table, l.have.guard), addressKeys(have), addressKeys(want))
	if err := t.commit(); err != nil {
		return fmt.Errorf("change the known nodes in table %s of family inet of %s: %w", tableName, l.host.name, err)
	}
	return nil
}

// addressKeys are addresses as elements of a set.
func addressKeys(all map[netip.Addr]bool) map[string]bool {
	keys := map[string]bool{}
	for a := range all {
		keys[string(a.AsSlice())] = true
	}
	return keys
}
