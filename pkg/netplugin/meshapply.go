package netplugin

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ensureRouterTables makes the router's tables, with the tasks that have no way out, and the targets of connections by way of other nodes.
func (l *Linux) ensureRouterTables(want *desired) error {
	l.have.internal, l.have.targets = want.internal, want.targets
	for _, s := range l.routerSides(want.base) {
		if err := l.ensureRouterTable(want, s); err != nil {
			return err
		}
	}
	if !l.six && kernelSix() == nil {
		if err := l.router.removeTables(want.side(1)); err != nil {
			return err
		}
	}
	return l.removeStrangeTables(l.router, gatewayTables)
}

func (l *Linux) ensureRouterTable(want *desired, s side) error {
	if err := l.ensureZones(s, want.wire.up()); err != nil {
		return err
	}
	c, err := l.router.firewall()
	if err != nil {
		return err
	}
	t := s.newTransaction(c)
	chains := routerChains(s)
	_, ok, err := readTable(c, s, nil, chains)
	if err != nil {
		return fmt.Errorf("read table %s of %s: %w", tableName, l.router.name, err)
	}
	sets := []*nftables.Set{internalSet(t.table, s), sealedSet(t.table, s)}
	members := []map[string]bool{s.keys(want.internal), s.sealKeys(l.have.sealed)}
	if want.wire.up() {
		sets, members = append(sets, targetSet(t.table, s)), append(members, s.targetKeys(want.targets))
	}
	have := make([]map[string]bool, len(sets))
	for i, s := range sets {
		readable := false
		have[i], readable = readSet(c, s)
		ok = ok && readable
	}
	if !ok {
		t.replaceTable(sets, chains)
		clear(have)
	}
	for i, s := range sets {
		t.members(s, have[i], members[i])
	}
	if err := t.commit(); err != nil {
		return fmt.Errorf("make table %s in %s: %w", tableName, l.router.name, err)
	}
	return nil
}

func (s side) targetKeys(all map[target]bool) map[string]bool {
	keys := map[string]bool{}
	for t := range all {
		a := s.of(netip.AddrFrom4([4]byte(t[:4])))
		keys[string(a.AsSlice())+string(t[4:])] = true
	}
	return keys
}

// changeTargets lets connections by way of other nodes lead elsewhere than before.
func (l *Linux) changeTargets(want map[target]bool) error {
	return changeRouterSet(l, "targets", targetSet, side.targetKeys, &l.have.targets, want)
}

// changeRouterSet makes the elements of a set in the router's tables those of want, in all at once, if they are not what it has.
func changeRouterSet[T comparable](l *Linux, what string, set func(*nftables.Table, side) *nftables.Set, keys func(side, map[T]bool) map[string]bool,
	have *map[T]bool, want map[T]bool) error {
	if maps.Equal(*have, want) {
		return nil
	}
	c, err := l.router.firewall()
	if err != nil {
		return err
	}
	var all transactions
	for _, s := range l.routerSides(l.have.base) {
		t := s.newTransaction(c)
		t.members(set(t.table, s), keys(s, *have), keys(s, want))
		all = append(all, t)
	}
	if err := all.commit(); err != nil {
		return fmt.Errorf("change %s in table %s of %s: %w", what, tableName, l.router.name, err)
	}
	*have = want
	return nil
}

// admit lets in the packets of nodes that are new, and strangers' nowhere where something is to listen. What is old stays beside it.
func (l *Linux) admit(want *desired) error {
	addresses := maps.Clone(want.underlays)
	maps.Copy(addresses, l.have.underlays)
	if err := l.changePeers(l.have.underlays, addresses); err != nil {
		return err
	}
	l.have.underlays = addresses
	wires := maps.Clone(want.wires)
	maps.Copy(wires, l.have.wires)
	return l.changeWires(wires)
}

// reach makes the way to nodes and backends that are new, before any port leads there. What is old stays beside it.
func (l *Linux) reach(want *desired) error {
	if err := errors.Join(l.changeInternal(want.internal), l.changeSealed(besides(l.have.sealed, want.sealed))); err != nil {
		return err
	}
	if !want.wire.up() {
		return nil
	}
	both := l.have.targets
	if !maps.Equal(both, want.targets) {
		both = maps.Clone(both)
		maps.Copy(both, want.targets)
	}
	if err := l.changeTargets(both); err != nil {
		return err
	}
	for node, p := range want.peers {
		if l.have.peers[node] == p {
			continue
		}
		if err := l.router.setForward(l.vx, vtepMAC(p.Node), p.Underlay); err != nil {
			return err
		}
		for _, s := range l.routerSides(want.base) {
			if err := errors.Join(l.router.setNeighbour(l.vx, p.hop(s.v), vtepMAC(node)), l.router.addRoute(s.peerRoute(p, l.vx))); err != nil {
				return err
			}
		}
	}
	return nil
}

// leave removes the way to nodes and backends that are gone, after no port leads there any more, and their connections.
func (l *Linux) leave(want *desired) error {
	errs := []error{l.changePeers(l.have.underlays, want.underlays), l.changeWires(want.wires), l.changeSealed(want.sealed)}
	l.have.underlays = want.underlays
	if !want.wire.up() {
		return errors.Join(errs...)
	}
	errs = append(errs, l.changeTargets(want.targets))
	for node, old := range l.have.peers {
		now, stays := want.peers[node]
		if now == old {
			continue
		}
		// Another node may have its block by now, and with that its next hop: those were replaced.
		_, taken := slices.BinarySearchFunc(want.blocks, old.Gateway, netip.Prefix.Compare)
		for _, s := range l.routerSides(want.base) {
			if !taken {
				errs = append(errs, l.router.removeRoute(s.peerRoute(old, l.vx)))
			}
			if s.v == 0 && !taken || s.v == 1 && !stays {
				errs = append(errs, l.router.removeNeighbour(l.vx, old.hop(s.v)))
			}
		}
		if !stays {
			errs = append(errs, l.router.leaveNode(l.vx, vtepMAC(node)))
		}
	}
	l.have.peers = want.peers
	return errors.Join(errs...)
}

// leaveNode forgets the connections by way of a node, and then the way to it, by which a next start would see that there was one.
func (n *namespace) leaveNode(vx int, mac net.HardwareAddr) error {
	if len(mac) == 6 && bytes.Equal(mac[:2], vtepMAC(0)[:2]) {
		if err := n.forgetMark(binary.BigEndian.Uint32(mac[2:])); err != nil {
			return err
		}
	}
	return n.dropForward(vx, mac)
}

// What the netlink package does not name; see linux/netfilter/nfnetlink_conntrack.h.
const ctaMarkMask = 21

// forgetMark removes the connections that have a mark, by one message for each IP version.
func (n *namespace) forgetMark(mark uint32) error {
	for v := range overlayFamilies {
		req := nl.NewNetlinkRequest(subsystemTracking<<8|nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK)
		req.AddData(&nl.Nfgenmsg{NfgenFamily: uint8(family(v)), Version: nl.NFNETLINK_V0})
		req.AddData(nl.NewRtAttr(nl.CTA_MARK, nl.BEUint32Attr(mark)))
		req.AddData(nl.NewRtAttr(ctaMarkMask, nl.BEUint32Attr(^uint32(0))))
		if err := n.request(unix.NETLINK_NETFILTER, req); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("forget connections by way of node %d in %s: %w", mark&^markBit, n.name, err)
		}
	}
	return nil
}
