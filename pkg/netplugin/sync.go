package netplugin

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// dumpAttempts bounds how often a list is asked for again that changed while the kernel gave it.
const dumpAttempts = 10

// dump repeats a list that was interrupted by a change.
func dump[T any](list func() ([]T, error)) ([]T, error) {
	for range dumpAttempts - 1 {
		all, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
	return list()
}

// syncLink brings up a link of the namespace with the MTU and link address that it should have, and out of a bridge that took it in.
func (n *namespace) syncLink(l netlink.Link, mac net.HardwareAddr, mtu int) error {
	a := l.Attrs()
	if a.MasterIndex != 0 {
		if err := n.LinkSetNoMaster(l); err != nil {
			return fmt.Errorf("free link %s in %s, which is part of another: %w", a.Name, n.name, err)
		}
	}
	if !bytes.Equal(a.HardwareAddr, mac) {
		if err := n.LinkSetHardwareAddr(l, mac); err != nil {
			return fmt.Errorf("set address %s of link %s in %s: %w", mac, a.Name, n.name, err)
		}
	}
	if a.MTU != mtu {
		if err := n.LinkSetMTU(l, mtu); err != nil {
			return fmt.Errorf("set MTU %d of link %s in %s: %w", mtu, a.Name, n.name, err)
		}
	}
	if a.Flags&net.FlagUp == 0 {
		if err := n.LinkSetUp(l); err != nil {
			return fmt.Errorf("bring up link %s in %s: %w", a.Name, n.name, err)
		}
	}
	return nil
}

// settlePatience bounds how long a link is waited for whose other end is up.
const settlePatience = time.Second

// settle waits until the link carries packets. The kernel opens the end that came up first some time after the other one did, and
// drops what is sent meanwhile; since version 6.8 it does so at once when it is asked.
func (n *namespace) settle(l netlink.Link) error {
	for end := time.Now().Add(settlePatience); ; time.Sleep(time.Millisecond) {
		now, err := n.LinkByIndex(l.Attrs().Index)
		if err != nil {
			return fmt.Errorf("find link %s in %s: %w", l.Attrs().Name, n.name, err)
		}
		if now.Attrs().OperState == netlink.OperUp || time.Now().After(end) {
			return nil
		}
	}
}

// settleAddress waits until packets to an address of the namespace are taken in, which for IPv6 is some time after it was added.
func (n *namespace) settleAddress(a netip.Addr) error {
	for end := time.Now().Add(settlePatience); a.Is6(); time.Sleep(time.Millisecond) {
		routes, err := n.RouteGet(a.AsSlice())
		if err != nil && !errors.Is(err, unix.ENETUNREACH) && !errors.Is(err, unix.EHOSTUNREACH) {
			return fmt.Errorf("look up address %s in %s: %w", a, n.name, err)
		}
		if len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL || time.Now().After(end) {
			return nil
		}
	}
	return nil
}

// syncAddress makes the link's addresses of an IP version those, and has the kernel answer at them; the loopback's own is let be.
func (n *namespace) syncAddress(l netlink.Link, v int, want ...netip.Prefix) error {
	have, err := n.addressesOf(l, family(v))
	if err != nil {
		return err
	}
	for p, a := range have {
		if slices.Contains(want, p) || p.Addr().IsLoopback() {
			continue
		}
		if err := n.AddrDel(l, &a); err != nil {
			return fmt.Errorf("remove address %s from link %s in %s: %w", p, l.Attrs().Name, n.name, err)
		}
	}
	for _, p := range want {
		if _, there := have[p]; there {
			continue
		}
		if err := n.addAddress(l, p); err != nil {
			return err
		}
	}
	return n.mendDeaf(l, v)
}

// ensureAddress adds an address to the link if it does not have it.
func (n *namespace) ensureAddress(l netlink.Link, want netip.Prefix) error {
	have, err := n.addressesOf(l, familyOf(want.Addr()))
	if _, there := have[want]; there || err != nil {
		return err
	}
	return n.addAddress(l, want)
}

func (n *namespace) addressesOf(l netlink.Link, family int) (map[netip.Prefix]netlink.Addr, error) {
	list, err := dump(func() ([]netlink.Addr, error) { return n.AddrList(l, family) })
	if err != nil {
		return nil, fmt.Errorf("list addresses of link %s in %s: %w", l.Attrs().Name, n.name, err)
	}
	have := map[netip.Prefix]netlink.Addr{}
	for _, a := range list {
		have[prefixOf(a.IPNet)] = a
	}
	return have, nil
}

func (n *namespace) addAddress(l netlink.Link, p netip.Prefix) error {
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD // nobody else is on the link
	}
	if err := n.AddrAdd(l, a); err != nil {
		return fmt.Errorf("add address %s to link %s in %s: %w", p, l.Attrs().Name, n.name, err)
	}
	return n.settleAddress(p.Addr())
}

// neighbour is a permanent one: who has the address is known, and need not be asked.
type neighbour struct {
	link int
	addr netip.Addr
	mac  string
}

// neighboursOf lists the permanent ones of a link, or of all for 0, of an address family.
func (n *namespace) neighboursOf(link, family int) (map[neighbour]bool, error) {
	list, err := dump(func() ([]netlink.Neigh, error) { return n.NeighList(link, family) })
	if err != nil {
		return nil, fmt.Errorf("list neighbours in %s: %w", n.name, err)
	}
	have := map[neighbour]bool{}
	for _, one := range list {
		if a, ok := netip.AddrFromSlice(one.IP); ok && one.State == netlink.NUD_PERMANENT {
			have[neighbour{one.LinkIndex, a.Unmap(), one.HardwareAddr.String()}] = true
		}
	}
	return have, nil
}

func (n *namespace) setNeighbour(link int, a netip.Addr, mac net.HardwareAddr) error {
	err := n.NeighSet(&netlink.Neigh{LinkIndex: link, Family: familyOf(a), State: netlink.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: mac})
	if err != nil {
		return fmt.Errorf("enter neighbour %s at %s in %s: %w", a, mac, n.name, err)
	}
	return nil
}

func (n *namespace) removeNeighbour(link int, a netip.Addr) error {
	err := n.NeighDel(&netlink.Neigh{LinkIndex: link, Family: familyOf(a), IP: a.AsSlice()})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove neighbour %s in %s: %w", a, n.name, err)
	}
	return nil
}

// route is one of ours. It has no link if it is unreachable, and no gateway if what it leads to is on the link itself.
type route struct {
	dst  netip.Prefix
	link int
	via  netip.Addr
	src  netip.Addr
}

// routes lists those of the main table that the kernel did not make itself, only a link's unless it is 0.
func (n *namespace) routes(link int) (map[route]bool, error) { return n.routesOf(link, unix.AF_INET) }

func (n *namespace) routesOf(link, family int) (map[route]bool, error) {
	return n.routesIn(unix.RT_TABLE_MAIN, link, family)
}

// routesIn does so with another table.
func (n *namespace) routesIn(table, link, family int) (map[route]bool, error) {
	filter, mask := &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE
	if link != 0 {
		filter.LinkIndex, mask = link, mask|netlink.RT_FILTER_OIF
	}
	list, err := dump(func() ([]netlink.Route, error) { return n.RouteListFiltered(family, filter, mask) })
	if err != nil {
		return nil, fmt.Errorf("list routes in %s: %w", n.name, err)
	}
	have := map[route]bool{}
	for _, one := range list {
		if one.Protocol == unix.RTPROT_KERNEL {
			continue
		}
		r := route{dst: prefixOf(one.Dst), link: one.LinkIndex, via: addrOf(one.Gw), src: addrOf(one.Src)}
		if one.Dst == nil && family == unix.AF_INET6 {
			r.dst = anywhere6
		}
		if one.Type == unix.RTN_UNREACHABLE {
			r.link = 0
		}
		have[r] = true
	}
	return have, nil
}

// routesOfAll are those of the main table, of several IP versions.
func (n *namespace) routesOfAll(sides []side) (map[route]bool, error) {
	all := map[route]bool{}
	for _, s := range sides {
		some, err := n.routesOf(0, s.family())
		if err != nil {
			return nil, err
		}
		maps.Copy(all, some)
	}
	return all, nil
}

// addRoute adds a route, or puts it in the place of one with the same destination.
func (n *namespace) addRoute(r route) error { return n.addRouteIn(unix.RT_TABLE_MAIN, r) }

// addRouteIn does so with another table.
func (n *namespace) addRouteIn(table int, r route) error {
	set := n.RouteReplace
	if n.foreign {
		set = n.RouteAdd
	}
	m := r.message()
	m.Table = table
	err := set(m)
	if n.foreign && errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("there is another route to %s in the network namespace: remove that first", r.dst)
	}
	if n.foreign && r.via.IsValid() && errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("add route %s in %s: see whether the network namespace has %s, the network's gateway, as an address of its own: %w", r, n.name, r.via, err)
	}
	if err != nil {
		return fmt.Errorf("add route %s in %s: %w", r, n.name, err)
	}
	return nil
}

func (n *namespace) removeRoute(r route) error {
	if err := n.RouteDel(r.message()); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("remove route %s in %s: %w", r, n.name, err)
	}
	return nil
}

// syncRoutes makes the routes of have those of want.
func (n *namespace) syncRoutes(have map[route]bool, want ...route) error {
	var errs []error
	for r := range have {
		// Adding replaces what has the same destination.
		if !slices.ContainsFunc(want, func(w route) bool { return w.dst == r.dst }) {
			errs = append(errs, n.removeRoute(r))
		}
	}
	for _, r := range want {
		if !have[r] {
			errs = append(errs, n.addRoute(r))
		}
	}
	return errors.Join(errs...)
}

func (r route) message() *netlink.Route {
	m := &netlink.Route{Dst: ipNet(r.dst), LinkIndex: r.link, Table: unix.RT_TABLE_MAIN, Protocol: unix.RTPROT_STATIC}
	switch {
	case r.link == 0:
		m.Type = unix.RTN_UNREACHABLE
	case r.via.IsValid():
		m.Gw = r.via.AsSlice()
		m.SetFlag(netlink.FLAG_ONLINK)
	default:
		m.Scope = netlink.SCOPE_LINK
	}
	if r.src.IsValid() {
		m.Src = r.src.AsSlice()
	}
	return m
}

// String is the route for people.
func (r route) String() string {
	switch {
	case r.link == 0:
		return "unreachable " + r.dst.String()
	case r.via.IsValid():
		return fmt.Sprintf("%s via %s", r.dst, r.via)
	}
	return r.dst.String()
}

var (
	anywhere  = netip.MustParsePrefix("0.0.0.0/0")
	anywhere6 = netip.MustParsePrefix("::/0")
)

// addrOf is not valid for no address.
func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// prefixOf is the inverse of ipNet; nil is a default route's.
func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return anywhere
	}
	a, _ := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), ones)
}
