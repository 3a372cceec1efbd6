package netplugin

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Replies that have an ingress's mark are routed by a table of their own, whose one route leads to the VXLAN device. The next hop is
// no machine's: the link address that it stands for is overwritten in each packet.
const (
	replyTable    = 100
	replyPriority = 100 // of the rule, after that of local addresses
)

var (
	replyHop = netip.MustParseAddr("169.254.77.3")
	replyMAC = net.HardwareAddr{0x02, 0x53, 0x00, 0x00, 0x00, 0x04}
)

// replyHop is the next hop of replies, which stands for none of the nodes.
func (s side) replyHop() netip.Addr {
	if s.v == 1 {
		return nextHop(0, s.v)
	}
	return replyHop
}

// ensureMesh makes the router's way to other nodes, or removes it where there are none. The router's table is there before: nothing
// comes in that it would keep out.
func (l *Linux) ensureMesh(want *desired) error {
	if !want.wire.up() {
		return errors.Join(l.removeMesh(), l.syncReplyRules(false))
	}
	l.underlay = want.wire
	vx, err := l.ensureVXLAN(l.router, meshLink, meshNumber, vtepMAC(want.wire.node), l.tunnelMTU)
	if err != nil {
		return err
	}
	l.vx = vx.Attrs().Index
	err = l.router.within(func() error {
		// What comes from other nodes has any source, and the way back to it is another.
		return setSysctls(append(linkSettings(meshLink, l.six), setting{name: "net.ipv4.conf." + meshLink + ".rp_filter", value: "0"})...)
	})
	if err != nil {
		return err
	}
	if err := errors.Join(l.syncPeerNeighbours(want), l.syncForwarding(want)); err != nil {
		return err
	}
	if err := l.syncReplyRules(true); err != nil {
		return err
	}
	return l.ensureEgress()
}

// measure finds what fits into the links' packets.
func (l *Linux) measure(want *desired) (err error) {
	out, err := l.host.uplink()
	if err != nil {
		return err
	}
	under, err := l.host.underlayLink(want.underlay.addr)
	if err != nil {
		return err
	}
	l.below = map[uint32]int{}
	for _, one := range []netlink.Link{out, under} {
		if one != nil {
			l.below[uint32(one.Attrs().Index)] = mtuOf(one)
		}
	}
	below := mtuOf(under)
	l.mtu = mtuOf(out)
	l.tunnelMTU = below - want.underlay.overhead()
	l.taskMTU = l.mtu
	if !want.wire.up() {
		return nil
	}
	if l.tunnelMTU < leastMTU {
		return fmt.Errorf("the MTU of the link with underlay address %s is %d: tasks' packets to other nodes need %d at least", want.wire.addr, below, leastMTU+want.wire.overhead())
	}
	l.taskMTU = min(l.mtu, l.tunnelMTU)
	return nil
}

// removeMesh removes the VXLAN device and all that hangs on it.
func (l *Linux) removeMesh() error {
	l.vx = 0
	vx, err := l.router.LinkByName(meshLink)
	if err == nil {
		err = l.router.LinkDel(vx)
	}
	var none netlink.LinkNotFoundError
	if err != nil && !errors.As(err, &none) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove link %s in %s: %w", meshLink, l.router.name, err)
	}
	c, err := l.router.firewall()
	if err != nil {
		return err
	}
	tables, err := c.ListTablesOfFamily(egressTable().Family)
	if err != nil {
		return fmt.Errorf("list tables of %s: %w", l.router.name, err)
	}
	if len(tables) == 0 {
		return nil
	}
	t := &transaction{Conn: c, table: egressTable()}
	t.removeTable()
	return t.commit()
}

// ensureEgress makes the table that gives replies the ingress's link address.
func (l *Linux) ensureEgress() error {
	c, err := l.router.firewall()
	if err != nil {
		return err
	}
	want := []chain{egressChain(l.vx)}
	found, err := chainsOf(c, egressTable())
	if err != nil {
		return fmt.Errorf("read table %s of family netdev of %s: %w", tableName, l.router.name, err)
	}
	if ok, err := sameChains(c, found, want); ok || err != nil {
		return err
	}
	t := &transaction{Conn: c, table: egressTable(), device: meshLink}
	t.replaceTable(nil, want)
	if err := t.commit(); err != nil {
		return fmt.Errorf("make table %s of family netdev in %s, which needs Linux 5.16 or later: %w", tableName, l.router.name, err)
	}
	return nil
}

// meshRoutes are the router's routes to other nodes.
func meshRoutes(sides []side, peers map[uint32]Peer, vx int) []route {
	var all []route
	for p := range maps.Values(peers) {
		for _, s := range sides {
			all = append(all, s.peerRoute(p, vx))
		}
	}
	return all
}

func (s side) peerRoute(p Peer, vx int) route {
	return route{dst: s.ofPrefix(p.Gateway), link: vx, via: p.hop(s.v)}
}

// syncPeerNeighbours makes the permanent neighbours of the VXLAN device the peers and the one that replies are routed to.
func (l *Linux) syncPeerNeighbours(want *desired) error {
	have, err := l.router.neighboursOf(l.vx, unix.AF_UNSPEC)
	if err != nil {
		return err
	}
	wanted := map[neighbour]net.HardwareAddr{}
	for _, s := range l.routerSides(want.base) {
		wanted[neighbour{l.vx, s.replyHop(), replyMAC.String()}] = replyMAC
		for p := range maps.Values(want.peers) {
			mac := vtepMAC(p.Node)
			wanted[neighbour{l.vx, p.hop(s.v), mac.String()}] = mac
		}
	}
	var errs []error
	for n := range have {
		if _, stays := wanted[n]; !stays {
			errs = append(errs, l.router.removeNeighbour(l.vx, n.addr))
		}
	}
	for n, mac := range wanted {
		if !have[n] {
			errs = append(errs, l.router.setNeighbour(l.vx, n.addr, mac))
		}
	}
	return errors.Join(errs...)
}

// syncForwarding makes the VXLAN device send to the peers, each by its link address, and to nobody else.
func (l *Linux) syncForwarding(want *desired) error {
	list, err := dump(func() ([]netlink.Neigh, error) { return l.router.NeighList(l.vx, unix.AF_BRIDGE) })
	if err != nil {
		return fmt.Errorf("list forwarding entries of link %s in %s: %w", meshLink, l.router.name, err)
	}
	known := map[string]bool{}
	var errs []error
	for p := range maps.Values(want.peers) {
		mac := vtepMAC(p.Node)
		known[mac.String()] = true
		errs = append(errs, l.router.setForward(l.vx, mac, p.Underlay)) // the port and the VNI of what is there are not in the list
	}
	for _, one := range list {
		if !known[one.HardwareAddr.String()] {
			errs = append(errs, l.router.leaveNode(l.vx, one.HardwareAddr))
		}
	}
	return errors.Join(errs...)
}

// syncReplyRules makes, or removes, the rule and the route of replies, of each IP version that tasks have.
func (l *Linux) syncReplyRules(wanted bool) error {
	for v := range overlayFamilies {
		if v == 1 && kernelSix() != nil {
			continue
		}
		with := wanted && (v == 0 || l.six)
		if err := errors.Join(l.syncReplyRoute(v, with), l.syncReplyRule(v, with)); err != nil {
			return err
		}
	}
	return nil
}

// syncReplyRoute makes the one route of the replies' table, or leaves none.
func (l *Linux) syncReplyRoute(v int, wanted bool) error {
	s := base{}.side(v)
	want := route{dst: s.anywhere(), link: l.vx, via: s.replyHop()}.message()
	want.Table = replyTable
	list, err := dump(func() ([]netlink.Route, error) {
		return l.router.RouteListFiltered(s.family(), &netlink.Route{Table: replyTable}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return fmt.Errorf("list routes of table %d in %s: %w", replyTable, l.router.name, err)
	}
	there := false
	for _, one := range list {
		if wanted && (one.Dst == nil || prefixOf(one.Dst) == s.anywhere()) && one.LinkIndex == l.vx && one.Gw.Equal(want.Gw) && one.Type == unix.RTN_UNICAST {
			there = true
			continue
		}
		if err := l.router.RouteDel(&one); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("remove route %s of table %d in %s: %w", prefixOf(one.Dst), replyTable, l.router.name, err)
		}
	}
	if there || !wanted {
		return nil
	}
	if err := l.router.RouteReplace(want); err != nil {
		return fmt.Errorf("add route of replies to table %d in %s: %w", replyTable, l.router.name, err)
	}
	return nil
}

// syncReplyRule makes the router's rules those that every namespace has, and that of replies if there is to be one.
func (l *Linux) syncReplyRule(v int, wanted bool) error {
	return l.router.syncRules(family(v), replyRules(v, wanted)...)
}

// replyRules are the rule of replies of an IP version, or none.
func replyRules(v int, wanted bool) []netlink.Rule {
	if !wanted {
		return nil
	}
	r, mask := netlink.NewRule(), uint32(markBit)
	r.Family, r.Table, r.Priority, r.Mark, r.Mask = family(v), replyTable, replyPriority, markBit, &mask
	return []netlink.Rule{*r}
}
