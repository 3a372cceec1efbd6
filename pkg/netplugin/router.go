package netplugin

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// routerPath is where the gateway router's namespace is mounted.
func (l *Linux) routerPath() string { return filepath.Join(l.dir, "router", "gw") }

// routerSettings are the router's. New links are made with "default", so that those of tasks refuse what does not have the
// task's own source address: a packet's way back must be the link that it came by.
var routerSettings = []setting{
	{name: "net.ipv4.ip_forward", value: "1"},
	{name: "net.ipv4.conf.all.rp_filter", value: "0"},
	{name: "net.ipv4.conf.default.rp_filter", value: "1"},
	{name: "net.ipv4.conf.all.send_redirects", value: "0"},
	{name: "net.ipv4.conf.default.send_redirects", value: "0"},
	{name: "net.ipv4.conf.all.accept_local", value: "0"},
	{name: "net.ipv4.conf.all.route_localnet", value: "0"},
	// A connection that began before the router could see it has a window that the router does not know.
	{name: "net.netfilter.nf_conntrack_tcp_be_liberal", value: "1", optional: true},
}

// routerSixSettings are those of IPv6. Links make no addresses of their own, and ask nobody anything.
func routerSixSettings(six bool) []setting {
	if !six {
		return append(noSixSettings("all"), noSixSettings("default")...)
	}
	return []setting{
		{name: "net.ipv6.conf.all.addr_gen_mode", value: "1"},
		{name: "net.ipv6.conf.default.addr_gen_mode", value: "1"},
		{name: "net.ipv6.conf.all.disable_ipv6", value: "0"},
		{name: "net.ipv6.conf.default.disable_ipv6", value: "0"},
		{name: "net.ipv6.conf.all.forwarding", value: "1"},
		{name: "net.ipv6.conf.default.forwarding", value: "1"},
		{name: "net.ipv6.conf.lo.disable_ipv6", value: "0"},
	}
}

// openRouter opens the router's namespace if there is one.
func (l *Linux) openRouter() error {
	if l.router != nil || !pinned(l.routerPath()) {
		return nil
	}
	var err error
	l.router, err = openNamespace("router gw", l.routerPath())
	return err
}

// ensureRouter makes the router's namespace and the pair of links between it and the machine.
func (l *Linux) ensureRouter(b base) error {
	if l.router != nil && !pinned(l.routerPath()) { // somebody unmounted it; our handle would keep it from view
		l.router.close()
		l.router = nil
	}
	if !pinned(l.routerPath()) {
		make := func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("unshare: %w", err)
			}
			return pinThread(l.routerPath())
		}
		if err := onThread(make); err != nil {
			return fmt.Errorf("make network namespace of router gw: %w", err)
		}
	}
	if err := l.openRouter(); err != nil {
		return err
	}
	if err := l.router.within(func() error { return setSysctls(append(routerSettings, routerSixSettings(l.six)...)...) }); err != nil {
		return fmt.Errorf("router gw: %w", err)
	}
	lo, err := l.router.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find link lo in router gw: %w", err)
	}
	if err := l.router.syncLink(lo, lo.Attrs().HardwareAddr, lo.Attrs().MTU); err != nil {
		return err
	}
	for _, s := range l.routerSides(b) {
		if err := l.router.syncAddress(lo, s.v, host(s.gateway)); err != nil {
			return err
		}
	}
	return l.ensureUplink(b)
}

// ensureUplink makes the pair of links between the machine and its router, with its addresses and the machine's route.
func (l *Linux) ensureUplink(b base) error {
	gw, up, err := l.uplinkPair()
	if err != nil {
		return err
	}
	if err := errors.Join(l.host.syncLink(gw, hostMAC, l.mtu), l.router.syncLink(up, routerMAC, l.mtu)); err != nil {
		return err
	}
	err = l.host.within(func() error {
		return setSysctls(append(linkSettings(hostLink, l.hostSix),
			setting{name: "net.ipv4.conf." + hostLink + ".route_localnet", value: "1"})...) // for 127.0.0.1:port
	})
	if err != nil {
		return err
	}
	err = l.router.within(func() error {
		// Whatever comes from the machine was routed there, from anywhere.
		return setSysctls(append(linkSettings(routerLink, l.six), setting{name: "net.ipv4.conf." + routerLink + ".rp_filter", value: "0"})...)
	})
	if err != nil {
		return err
	}
	for _, s := range l.hostSides(b) {
		if err := l.ensureUplinkSide(s, gw, up); err != nil {
			return err
		}
	}
	return nil
}

// ensureUplinkSide gives the pair of links what it has of an IP version.
func (l *Linux) ensureUplinkSide(s side, gw, up netlink.Link) error {
	here, there := s.of(hostAddress), s.of(routerAddress)
	g, u := gw.Attrs().Index, up.Attrs().Index
	addresses := []netip.Prefix{host(here)}
	if s.v == 0 {
		addresses = append(addresses, host(Resolver.Addr()))
	}
	if err := errors.Join(l.host.syncAddress(gw, s.v, addresses...), l.router.syncAddress(up, s.v, host(there))); err != nil {
		return err
	}
	if err := errors.Join(l.host.ensureNeighbour(g, there, routerMAC), l.router.ensureNeighbour(u, here, hostMAC)); err != nil {
		return err
	}
	have, err := l.host.routesOf(g, s.family())
	if err != nil {
		return err
	}
	// The block's own stays when the pool's comes, so that no packet is without.
	var routes []route
	for _, dst := range s.destinations() {
		routes = append(routes, route{dst: dst, link: g, via: there, src: here})
	}
	if err := l.host.syncRoutes(have, routes...); err != nil || s.v == 0 {
		return err
	}
	return l.host.ensureLoopbackWay(g)
}

// destinations are what is reached by the machine's router: the node's block, and all nodes'.
func (s side) destinations() []netip.Prefix {
	if all := s.swarm(); all != s.block {
		return []netip.Prefix{s.block, all}
	}
	return []netip.Prefix{s.block}
}

// hostDestinations are those of both IP versions.
func (l *Linux) hostDestinations() map[netip.Prefix]bool {
	all := map[netip.Prefix]bool{}
	for _, s := range l.hostSides(l.have.base) {
		for _, dst := range s.destinations() {
			all[dst] = true
		}
	}
	return all
}

// ensureLoopbackWay lets replies of tasks come back to [::1], from which a program of this machine may have asked: the kernel has no
// route_localnet of IPv6. It takes packets in for the loopback's address only by a link that has a route saying so, and then only
// those that connection tracking gave that address: what comes with it is dropped before anybody sees it.
func (n *namespace) ensureLoopbackWay(gw int) error {
	if err := n.RouteAdd(loopbackWay(gw)); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add route of %s by link %s in %s: %w", loopbacks[1], hostLink, n.name, err)
	}
	return nil
}

func loopbackWay(gw int) *netlink.Route {
	return &netlink.Route{Dst: ipNet(loopbacks[1]), LinkIndex: gw, Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Protocol: unix.RTPROT_STATIC, Priority: loopbackMetric}
}

// hasLoopbackWay tells whether it is there.
func (n *namespace) hasLoopbackWay() (bool, error) {
	gw, err := n.LinkByName(hostLink)
	if err != nil {
		return false, fmt.Errorf("find link %s: %w", hostLink, err)
	}
	found, err := dump(func() ([]netlink.Route, error) {
		return n.RouteListFiltered(unix.AF_INET6, loopbackWay(gw.Attrs().Index), netlink.RT_FILTER_TABLE|netlink.RT_FILTER_OIF)
	})
	if err != nil {
		return false, fmt.Errorf("list routes in %s: %w", n.name, err)
	}
	return slices.ContainsFunc(found, func(r netlink.Route) bool { return prefixOf(r.Dst) == loopbacks[1] }), nil
}

// loopbackMetric has the machine itself go on to use its loopback.
const loopbackMetric = 4096

// routerRoutes are those of the router but the tasks'. An address of the swarm that no task here has is refused at once: its
// packets would else go in circles between the router and the machine, or leave the machine. So is what has no way out.
func routerRoutes(sides []side, up int, six bool) []route {
	var all []route
	for _, s := range sides {
		out := route{dst: s.anywhere(), link: up, via: s.of(hostAddress), src: s.gateway}
		if s.v == 1 && !six {
			out = route{dst: s.anywhere()}
		}
		all = append(all, out, route{dst: s.pool})
	}
	return all
}

// uplinkPair finds gw0 and up0, or makes them where either is not the other's end.
func (l *Linux) uplinkPair() (gw, up netlink.Link, err error) {
	gw, gwErr := l.host.LinkByName(hostLink)
	up, upErr := l.router.LinkByName(routerLink)
	if gwErr == nil && upErr == nil && gw.Attrs().ParentIndex == up.Attrs().Index && up.Attrs().ParentIndex == gw.Attrs().Index {
		return gw, up, nil
	}
	if gwErr == nil {
		if _, veth := gw.(*netlink.Veth); !veth {
			return nil, nil, fmt.Errorf("link %s in the machine's namespace is a %s, not ours: rename or remove it", hostLink, gw.Type())
		}
		gwErr = l.host.LinkDel(gw)
	}
	if upErr == nil {
		upErr = l.router.LinkDel(up)
	}
	for _, err := range []error{gwErr, upErr} { // one end goes with the other
		if _, gone := err.(netlink.LinkNotFoundError); err != nil && !gone && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EINVAL) {
			return nil, nil, fmt.Errorf("remove links %s and %s, which are not a pair: %w", hostLink, routerLink, err)
		}
	}
	pair := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: routerLink, PeerHardwareAddr: routerMAC, PeerNamespace: netlink.NsFd(l.router.fd)}
	pair.Name, pair.HardwareAddr, pair.MTU, pair.Flags = hostLink, hostMAC, l.mtu, net.FlagUp
	if err := l.host.LinkAdd(pair); err != nil {
		return nil, nil, fmt.Errorf("make links %s and %s: %w", hostLink, routerLink, err)
	}
	if gw, err = l.host.LinkByName(hostLink); err != nil {
		return nil, nil, fmt.Errorf("find link %s: %w", hostLink, err)
	}
	if up, err = l.router.LinkByName(routerLink); err != nil {
		return nil, nil, fmt.Errorf("find link %s in router gw: %w", routerLink, err)
	}
	return gw, up, nil
}

func (n *namespace) ensureNeighbour(link int, a netip.Addr, mac net.HardwareAddr) error {
	have, err := n.neighboursOf(link, familyOf(a))
	if err != nil || have[neighbour{link, a, mac.String()}] {
		return err
	}
	return n.setNeighbour(link, a, mac)
}

// uplink is the link which the default route leads to, nil if there is none.
func (n *namespace) uplink() (netlink.Link, error) {
	list, err := dump(func() ([]netlink.Route, error) {
		return n.RouteListFiltered(unix.AF_INET, &netlink.Route{Dst: nil, Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_DST|netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("list default routes: %w", err)
	}
	best, metric := 0, -1
	for _, r := range list {
		index := r.LinkIndex
		if len(r.MultiPath) > 0 {
			index = r.MultiPath[0].LinkIndex
		}
		if index != 0 && (metric < 0 || r.Priority < metric) {
			best, metric = index, r.Priority
		}
	}
	if best == 0 {
		return nil, nil
	}
	l, err := n.LinkByIndex(best)
	if err != nil {
		return nil, fmt.Errorf("find the default route's link: %w", err)
	}
	return l, nil
}
