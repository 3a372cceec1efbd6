package netplugin

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// The gateway network beyond this machine. A published port leads to a backend wherever it is, by one translation on the machine
// that the client came to, the ingress, and with the client's address. The backend's router sends the reply back by way of the
// ingress, which alone can undo the translation: the sender's link address tells it which that is, and a connection's mark keeps it.

const (
	// meshLink is the VXLAN device in the router, and meshNumber its number on the wire.
	meshLink   = "vx"
	meshNumber = 1
	// markBit is set in the marks that are an ingress's, and in no other's.
	markBit = 1 << 31
	// lastNode is the highest index of a node: the zones of connections have 16 bits.
	lastNode = 1<<16 - 1
)

// face is the address by which containers see the machine itself: that which other nodes know where it is of the IP version, else
// what goes with it.
func (b base) face(v int) netip.Addr {
	four := hostAddress
	switch {
	case b.wire.addr.IsValid() && version(b.wire.addr) == v:
		return b.wire.addr
	case b.wire.addr.Is4():
		four = b.wire.addr
	}
	if v == 1 {
		return b.sixth(four)
	}
	return four
}

// swarm are the gateway addresses that this machine has to do with: those of all nodes if it reaches them, else its own.
func (b base) swarm() netip.Prefix {
	if b.wire.up() {
		return b.pool.Masked()
	}
	return b.block
}

// hop is a peer's address as a next hop, which is never on the wire: its router's own or, of IPv6, the one that it has in networks.
func (p Peer) hop(v int) netip.Addr {
	if v == 1 {
		return nextHop(p.Node, v)
	}
	return base{block: p.Gateway}.gateway()
}

// addPeers reads the other nodes. Of two that contradict each other the one with the lower index stays.
func (d *desired) addPeers(c Config) (errs []error) {
	w := underlayOf(c)
	if !w.up() || len(c.Peers)+len(c.Overlays) == 0 {
		return nil
	}
	d.guard = w
	if len(c.Peers) == 0 {
		return nil
	}
	d.wire = w
	if err := d.checkUnderlay(w.addr); err != nil {
		errs, d.wire = append(errs, &PeerError{w.node, fmt.Errorf("this node reaches no other: its underlay address %s: %w", w.addr, err)}), underlay{}
	} else if w.node == 0 || w.node > lastNode {
		errs, d.wire = append(errs, &PeerError{w.node, fmt.Errorf("this node reaches no other's gateway block: its index must be from 1 to %d", lastNode)}), underlay{}
	}
	seen := map[uint32]bool{0: true, w.node: true}
	for _, p := range slices.SortedStableFunc(slices.Values(c.Peers), func(a, b Peer) int { return cmp.Compare(a.Node, b.Node) }) {
		p.Underlay = p.Underlay.Unmap()
		err := d.letIn(p, seen)
		// One without a block has no part in the gateway network.
		if err == nil && d.wire.up() && p.Gateway != (netip.Prefix{}) {
			err = d.addPeer(p)
		}
		if err != nil {
			errs = append(errs, &PeerError{p.Node, err})
		}
	}
	slices.SortFunc(d.without, netip.Prefix.Compare)
	if len(d.peers) == 0 {
		d.wire = underlay{}
	}
	return errs
}

// letIn has a node's packets come in by the data port, those of networks too.
func (d *desired) letIn(p Peer, seen map[uint32]bool) error {
	if seen[p.Node] {
		return errors.New("its index is 0, or another node's too")
	}
	if err := d.checkUnderlay(p.Underlay); err != nil {
		return fmt.Errorf("underlay address %s: %w", p.Underlay, err)
	}
	if p.Underlay.Is4() != d.guard.addr.Is4() {
		return fmt.Errorf("underlay address %s is not of the same IP version as this node's %s", p.Underlay, d.guard.addr)
	}
	if d.underlays[p.Underlay] || p.Underlay == d.guard.addr {
		return fmt.Errorf("underlay address %s is another node's too", p.Underlay)
	}
	seen[p.Node] = true
	d.underlays[p.Underlay] = true
	return nil
}

// addPeer makes a node's block reachable.
func (d *desired) addPeer(p Peer) error {
	if p.Node > lastNode {
		return fmt.Errorf("its index must be from 1 to %d", lastNode)
	}
	if !p.Gateway.IsValid() || !p.Gateway.Addr().Is4() || p.Gateway.Bits() > 30 || p.Gateway != p.Gateway.Masked() {
		return fmt.Errorf("gateway block %s: it must be an IPv4 network of at least 4 addresses", p.Gateway)
	}
	if !d.pool.Contains(p.Gateway.Addr()) || d.pool.Bits() > p.Gateway.Bits() {
		return fmt.Errorf("gateway block %s is not within the pool %s", p.Gateway, d.pool)
	}
	i, _ := slices.BinarySearchFunc(d.blocks, p.Gateway, netip.Prefix.Compare)
	for _, other := range d.blocks[max(i-1, 0):min(i+1, len(d.blocks))] {
		if p.Gateway.Overlaps(other) {
			return fmt.Errorf("gateway block %s has addresses of another node's %s", p.Gateway, other)
		}
	}
	d.blocks = slices.Insert(d.blocks, i, p.Gateway)
	if !p.IPv6 {
		d.without = append(d.without, p.Gateway)
	}
	d.peers[p.Node] = p
	return nil
}

// checkUnderlay refuses what cannot be a machine's address.
func (d *desired) checkUnderlay(a netip.Addr) error {
	switch {
	case !a.IsValid():
		return errors.New("there is none")
	case a.IsUnspecified(), a.IsLoopback(), a.IsMulticast(), a.Zone() != "":
		return errors.New("it must be an address that other machines reach")
	case d.pool.Contains(a):
		return fmt.Errorf("it must not be in the pool of gateway addresses %s", d.pool)
	}
	return nil
}

// reachable tells whether a backend's address is in this node's block or a peer's.
func (d *desired) reachable(a netip.Addr) bool { return within(d.blocks, a) }

// within tells whether an address is in one of some blocks, which are in order.
func within(blocks []netip.Prefix, a netip.Addr) bool {
	i, exact := slices.BinarySearchFunc(blocks, a, func(p netip.Prefix, a netip.Addr) int { return p.Addr().Compare(a) })
	return exact || i > 0 && blocks[i-1].Contains(a)
}

// target is what connections by way of other nodes may lead to: an address, a protocol and a port, as the router's set has it.
type target [12]byte

func newTarget(protocol uint8, b netip.AddrPort) (t target) {
	a := b.Addr().As4()
	copy(t[:4], a[:])
	t[4] = protocol
	binary.BigEndian.PutUint16(t[8:], b.Port())
	return t
}

func (d *desired) addTargets(protocol uint8, backends []netip.AddrPort) {
	if !d.wire.up() {
		return
	}
	for _, b := range backends {
		if d.block.Contains(b.Addr()) {
			d.targets[newTarget(protocol, b)] = true
		}
	}
}

// up tells whether traffic with other nodes can come and go.
func (u underlay) up() bool { return u.addr.IsValid() }
