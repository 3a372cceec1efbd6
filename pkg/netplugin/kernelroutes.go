package netplugin

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The kernel makes routes of its own, for the addresses and links that there are. Somebody may make others in its name, or take its own away,
// so that nobody answers at an address that is there all the same.

// kernelMade tells whether the kernel itself makes such a route where these addresses are. Those of ours are single ones, without a subnet.
func kernelMade(r netlink.Route, addresses map[netip.Addr]bool) bool {
	if len(r.Gw) > 0 || len(r.MultiPath) > 0 || r.Encap != nil {
		return false
	}
	dst := prefixOf(r.Dst)
	a := dst.Addr()
	switch {
	case a.IsLoopback():
		return r.LinkIndex == loopbackIndex
	case a.Is6() && (a.IsMulticast() || a.IsLinkLocalUnicast()):
		return true // every link has them
	}
	return dst.IsSingleIP() && addresses[a] && (r.Type == unix.RTN_LOCAL || a.Is6())
}

// addresses lists those of a link, or of all for nil, of an IP version.
func (n *namespace) addresses(l netlink.Link, v int) ([]netlink.Addr, error) {
	all, err := dump(func() ([]netlink.Addr, error) { return n.AddrList(l, family(v)) })
	if err != nil {
		return nil, fmt.Errorf("list addresses in %s: %w", n.name, err)
	}
	return all, nil
}

// addressesOfAll are those of all links.
func (n *namespace) addressesOfAll(v int) (map[netip.Addr]bool, error) {
	list, err := n.addresses(nil, v)
	if err != nil {
		return nil, err
	}
	all := map[netip.Addr]bool{}
	for _, a := range list {
		all[prefixOf(a.IPNet).Addr()] = true
	}
	return all, nil
}

// deaf are the addresses of a link, or of all for nil, without the route by which the kernel takes in what comes for them; those of the loopback have one for
// their whole network besides.
func (n *namespace) deaf(l netlink.Link, v int) (found []netlink.Addr, err error) {
	all, err := n.addresses(l, v)
	if err != nil {
		return nil, err
	}
	routes, err := dump(func() ([]netlink.Route, error) {
		return n.RouteListFiltered(family(v), &netlink.Route{Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
	})
	if err != nil {
		return nil, fmt.Errorf("list routes in %s: %w", n.name, err)
	}
	local := map[netip.Prefix]bool{}
	for _, r := range routes {
		local[prefixOf(r.Dst)] = true
	}
	return slices.DeleteFunc(all, func(a netlink.Addr) bool {
		p := prefixOf(a.IPNet)
		return local[host(p.Addr())] && (!p.Addr().IsLoopback() || local[p.Masked()])
	}), nil
}

// removeDeaf removes those of some addresses of a link that have no such route, for who adds them again.
func (n *namespace) removeDeaf(l netlink.Link, addresses ...netip.Addr) error {
	for v := range overlayFamilies {
		if !slices.ContainsFunc(addresses, func(a netip.Addr) bool { return version(a) == v }) {
			continue
		}
		deaf, err := n.deaf(l, v)
		if err != nil {
			return err
		}
		for _, a := range deaf {
			if !slices.Contains(addresses, prefixOf(a.IPNet).Addr()) {
				continue
			}
			if err := n.AddrDel(l, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
				return fmt.Errorf("remove address %s of link %s in %s, whose route is gone: %w", a.IPNet, l.Attrs().Name, n.name, err)
			}
		}
	}
	return nil
}

// mendDeaf has the kernel make these routes anew: it makes them with the address.
func (n *namespace) mendDeaf(l netlink.Link, v int) error {
	deaf, err := n.deaf(l, v)
	if err != nil {
		return err
	}
	for _, a := range deaf {
		again := &netlink.Addr{IPNet: a.IPNet, Scope: a.Scope}
		if v == 1 {
			again.Flags = unix.IFA_F_NODAD
		}
		if err := n.AddrDel(l, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("remove address %s of link %s in %s, whose route is gone: %w", a.IPNet, l.Attrs().Name, n.name, err)
		}
		if err := n.AddrAdd(l, again); err != nil {
			return fmt.Errorf("add address %s to link %s in %s again: %w", a.IPNet, l.Attrs().Name, n.name, err)
		}
	}
	return nil
}

// What the kernel gives every loopback: its addresses, by IP version, and its MTU.
var loopback = [2]netip.Prefix{netip.MustParsePrefix("127.0.0.1/8"), netip.MustParsePrefix("::1/128")}

const loopbackMTU = 65536

// repairLoopback makes a task's loopback what the kernel made it. Who may change it has it as it likes, so long as it is up.
func (n *namespace) repairLoopback(t TaskLink) error {
	lo, err := n.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find link lo in %s: %w", n.name, err)
	}
	if t.Administers {
		return n.syncLink(lo, lo.Attrs().HardwareAddr, lo.Attrs().MTU)
	}
	if err := n.syncLink(lo, lo.Attrs().HardwareAddr, loopbackMTU); err != nil {
		return err
	}
	for _, v := range kernelVersions() {
		if v == 1 && t.withoutSix() {
			break
		}
		if v == 1 {
			if err := n.within(func() error { return setSysctls(setting{name: "net.ipv6.conf.lo.disable_ipv6", value: "0"}) }); err != nil {
				return err
			}
		}
		if err := errors.Join(n.ensureLoopback(lo, v), n.mendDeaf(lo, v)); err != nil {
			return err
		}
	}
	return nil
}

// ensureLoopback adds the loopback's address of an IP version if it is not there.
func (n *namespace) ensureLoopback(lo netlink.Link, v int) error {
	have, err := n.addresses(lo, v)
	if err != nil || slices.ContainsFunc(have, func(a netlink.Addr) bool { return prefixOf(a.IPNet) == loopback[v] }) {
		return err
	}
	always := &netlink.Addr{IPNet: ipNet(loopback[v]), Scope: unix.RT_SCOPE_HOST}
	if v == 1 {
		always.Flags = unix.IFA_F_NODAD
	}
	if err := n.AddrAdd(lo, always); err != nil {
		return fmt.Errorf("add address %s to link lo in %s: %w", loopback[v], n.name, err)
	}
	return n.settleAddress(loopback[v].Addr())
}

// withoutSix tells whether the task's own settings say something of whether there is IPv6, which is then as they say.
func (t TaskLink) withoutSix() bool {
	for name := range t.Sysctls {
		if strings.HasPrefix(name, "net.ipv6.conf.") && strings.HasSuffix(name, ".disable_ipv6") {
			return true
		}
	}
	return false
}
