package netplugin

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// attachTasks makes the links to overlays that tasks that are there do not have yet.
func (l *Linux) attachTasks(want *desired) error {
	var errs []error
	for id, t := range want.tasks {
		if l.attached(want, t) || !pinned(l.Namespace(id)) {
			continue
		}
		inside, err := openNamespace(want.whose(id), l.Namespace(id))
		if err == nil {
			err = inside.within(func() error { return l.attach(want, t, inside) })
			inside.close()
		}
		if err != nil {
			errs = append(errs, &TaskError{id, err})
		}
	}
	return errors.Join(errs...)
}

// attached tells whether a task has all its links to overlays.
func (l *Linux) attached(want *desired, t TaskLink) bool {
	for _, a := range t.Networks {
		if o := l.overlays[a.Overlay]; o == nil || !o.synced || !o.has(t.ID, want.overlays[a.Overlay].members[t.ID]) {
			return false
		}
	}
	return true
}

func (o *overlay) has(task string, want member) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	m, there := o.members[task]
	return there && m.equal(want)
}

// attach makes the links of a task to its overlays that are not there yet, as far as that goes. The calling thread must be in the task's namespace.
func (l *Linux) attach(want *desired, t TaskLink, inside *namespace) error {
	var errs []error
	for _, a := range t.Networks {
		o, w := l.overlays[a.Overlay], want.overlays[a.Overlay]
		m := w.members[t.ID]
		if o == nil || !o.synced {
			errs = append(errs, &OverlayError{a.Overlay, o.absent()})
			continue
		}
		if o.has(t.ID, m) {
			continue
		}
		if err := o.attach(w, t.ID, m, inside); err != nil {
			errs = append(errs, &OverlayError{a.Overlay, err}, o.detach(m))
			continue
		}
		o.mu.Lock()
		o.members[t.ID] = m
		o.mu.Unlock()
	}
	return errors.Join(errs...)
}

// errNoOverlay is why a task cannot be on a network that could not be made.
var errNoOverlay = errors.New("it is not there")

// absent is errNoOverlay with what the network could not be made for.
func (o *overlay) absent() error {
	if o == nil || o.failed == nil {
		return errNoOverlay
	}
	return fmt.Errorf("%w: %w", errNoOverlay, o.failed)
}

// detach removes a task's links to its overlays.
func (l *Linux) detach(t TaskLink) error {
	var errs []error
	for _, a := range t.Networks {
		o := l.overlays[a.Overlay]
		if o == nil || o.space == nil {
			continue
		}
		o.mu.Lock()
		delete(o.members, t.ID)
		o.mu.Unlock()
		errs = append(errs, o.detach(member{link: t.Address}))
	}
	return errors.Join(errs...)
}

// detach removes what attach made of a link.
func (o *overlay) detach(m member) error {
	one, err := o.space.LinkByName(linkName(m.link))
	if err == nil {
		err = o.space.LinkDel(one)
	}
	var none netlink.LinkNotFoundError
	if err == nil || errors.As(err, &none) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return fmt.Errorf("remove link %s in %s: %w", linkName(m.link), o.space.name, err)
}

func (o *overlay) attach(w *wanted, task string, m member, inside *namespace) error {
	o.space.sweeper.await(append([]netip.Addr{m.link}, m.addresses...)...)
	if err := o.detach(m); err != nil {
		return err
	}
	if inside.foreign = m.guest; !m.guest {
		if err := inside.removeLink(m.eth()); err != nil {
			return err
		}
	}
	pair := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: m.eth(), PeerHardwareAddr: taskMAC(m.link), PeerNamespace: netlink.NsFd(inside.fd)}
	pair.Name, pair.HardwareAddr, pair.MTU, pair.Flags = linkName(m.link), taskSideMAC, o.shape.mtu, net.FlagUp
	if err := o.space.LinkAdd(pair); err != nil {
		if err := inside.inTheWay(m.eth(), err); err != nil {
			return err
		}
		return fmt.Errorf("make link %s in %s with %s in %s: %w", pair.Name, o.space.name, m.eth(), inside.name, err)
	}
	eth, err := inside.LinkByName(m.eth())
	if err != nil {
		return fmt.Errorf("find link %s in %s: %w", m.eth(), inside.name, err)
	}
	if err := setSysctls(attachmentSettings(m)...); err != nil {
		return err
	}
	if err := inside.LinkSetUp(eth); err != nil {
		return fmt.Errorf("bring up link %s in %s: %w", m.eth(), inside.name, err)
	}
	if err := inside.syncAttachment(w, m, eth); err != nil {
		return err
	}
	if err := o.space.LinkSetAlias(pair, task); err != nil {
		return fmt.Errorf("set alias of link %s in %s: %w", pair.Name, o.space.name, err)
	}
	for _, a := range m.addresses {
		if err := o.space.setNeighbour(pair.Index, a, taskMAC(m.link)); err != nil {
			return err
		}
		if err := o.space.addRoute(route{dst: host(a), link: pair.Index}); err != nil {
			return err
		}
	}
	return o.space.settle(pair)
}

// attachmentSettings are those of a task's end. Without an IPv6 address of the network's it has none at all.
func attachmentSettings(m member) []setting {
	name := "net.ipv6.conf." + m.eth()
	for _, a := range m.addresses {
		if a.Is6() {
			return []setting{
				{name: name + ".addr_gen_mode", value: "1"},
				{name: name + ".accept_ra", value: "0"},
				{name: name + ".disable_ipv6", value: "0"},
			}
		}
	}
	return []setting{{name: name + ".disable_ipv6", value: "1", optional: true}}
}

// syncAttachment gives a task's end its addresses, neighbours and routes, where it has them not.
func (n *namespace) syncAttachment(w *wanted, m member, eth netlink.Link) error {
	have, err := n.addressesOf(eth, unix.AF_UNSPEC)
	if err != nil {
		return err
	}
	if err := n.removeStale(w, m, eth, have); err != nil {
		return err
	}
	table, routes := w.tableOf(m), map[route]bool{}
	for v := range overlayFamilies {
		some, err := n.routesIn(table, eth.Attrs().Index, family(v))
		if err != nil {
			return err
		}
		maps.Copy(routes, some)
	}
	for _, a := range m.addresses {
		s, err := w.subnet(a)
		if err != nil {
			return err
		}
		p := netip.PrefixFrom(a, s.Prefix.Bits())
		if _, there := have[p]; !there {
			if err := n.addTaskAddress(eth, p); err != nil {
				return err
			}
		}
		via := m.via(s)
		if err := n.ensureNeighbour(eth.Attrs().Index, via, taskSideMAC); err != nil {
			return err
		}
		for _, other := range w.subnets {
			r := route{dst: other.Prefix, link: eth.Attrs().Index, via: via, src: a}
			if other.Gateway.Is6() != a.Is6() || routes[r] {
				continue
			}
			if err := n.addRouteIn(table, r); err != nil {
				return err
			}
		}
	}
	return nil
}

// tableOf is where a task's routes to a network are.
func (w *wanted) tableOf(m member) int {
	if m.guest && w.source.Encrypted {
		return guestTable
	}
	return unix.RT_TABLE_MAIN
}

// removeStale removes what addresses of the network an end has that are not the task's, and one that the kernel made itself. What else a task
// that may do so has added is its own business.
func (n *namespace) removeStale(w *wanted, m member, eth netlink.Link, have map[netip.Prefix]netlink.Addr) error {
	for p, a := range have {
		ours := slices.ContainsFunc(w.subnets, func(s Subnet) bool { return s.Prefix.Contains(p.Addr()) })
		made := p.Addr() == linkLocalOf(taskMAC(m.link)) // by the kernel, when the MTU came to be large enough for IPv6
		if !ours && !made || slices.Contains(m.addresses, p.Addr()) {
			continue
		}
		if err := n.AddrDel(eth, &a); err != nil {
			return fmt.Errorf("remove address %s from link %s in %s: %w", p, eth.Attrs().Name, n.name, err)
		}
	}
	return nil
}

// linkLocalOf is the address that the kernel makes itself of a link's (RFC 4291, appendix A).
func linkLocalOf(mac net.HardwareAddr) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]})
}

// addTaskAddress adds an address that looks to programs as if the subnet were on the link, though it is behind the gateway.
func (n *namespace) addTaskAddress(eth netlink.Link, p netip.Prefix) error {
	flags := unix.IFA_F_NOPREFIXROUTE
	if p.Addr().Is6() {
		flags |= unix.IFA_F_NODAD // the router is the only other one on the link
	}
	if err := n.AddrAdd(eth, &netlink.Addr{IPNet: ipNet(p), Flags: flags}); err != nil {
		return fmt.Errorf("add address %s to link %s in %s: %w", p, eth.Attrs().Name, n.name, err)
	}
	return n.settleAddress(p.Addr())
}

// repairAttachment puts right what is missing of a task's end. ok tells that the link is the other end of the router's; where it is
// not, it must be made anew. An error is the task's own, as in repairInside.
func (l *Linux) repairAttachment(w *wanted, task string, m member, outer netlink.Link, mtu int) (ok bool, err error) {
	inside, err := openNamespace("task "+task, l.Namespace(task))
	if err != nil {
		return false, err
	}
	defer inside.close()
	inside.foreign = m.guest
	eth, err := inside.LinkByIndex(outer.Attrs().ParentIndex)
	if err != nil || eth.Attrs().Name != m.eth() || eth.Attrs().ParentIndex != outer.Attrs().Index {
		return false, nil
	}
	// With an MTU below 1280 a link has no settings of IPv6 at all: that comes first.
	err = inside.syncLink(eth, taskMAC(m.link), mtu)
	if err == nil {
		err = inside.within(func() error { return setSysctls(attachmentSettings(m)...) })
	}
	if err == nil {
		err = inside.removeDeaf(eth, m.addresses...)
	}
	if err == nil {
		err = inside.syncAttachment(w, m, eth)
	}
	if m.guest {
		return err == nil, nil // as in repairInside
	}
	return true, err
}
