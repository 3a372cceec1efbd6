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

// overlaySettings are those of an overlay's router. That a packet has its task's own source address is seen to by a rule, since the
// filter of the kernel's own knows IPv4 only. Its links make no addresses of their own, and ask nobody anything.
func overlaySettings(six bool) []setting {
	all := []setting{
		{name: "net.ipv4.ip_forward", value: "1"},
		{name: "net.ipv4.conf.all.rp_filter", value: "0"},
		{name: "net.ipv4.conf.default.rp_filter", value: "0"},
		{name: "net.ipv4.conf.all.send_redirects", value: "0"},
		{name: "net.ipv4.conf.default.send_redirects", value: "0"},
	}
	if !six {
		return append(all,
			setting{name: "net.ipv6.conf.all.disable_ipv6", value: "1", optional: true},
			setting{name: "net.ipv6.conf.default.disable_ipv6", value: "1", optional: true})
	}
	return append(all,
		setting{name: "net.ipv6.conf.default.addr_gen_mode", value: "1"},
		setting{name: "net.ipv6.conf.all.disable_ipv6", value: "0"},
		setting{name: "net.ipv6.conf.default.disable_ipv6", value: "0"},
		setting{name: "net.ipv6.conf.all.forwarding", value: "1"},
		setting{name: "net.ipv6.conf.default.forwarding", value: "1"})
}

// openOverlay opens the router's namespace if there is one.
func (l *Linux) openOverlay(o *overlay) error {
	path := l.overlayPath(o.id)
	if o.space != nil && !pinned(path) { // somebody unmounted it; our handle would keep it from view
		o.space.close()
		o.space = nil
	}
	if o.space != nil || !pinned(path) {
		return nil
	}
	var err error
	o.space, err = openNamespace("router of network "+o.id, path)
	return err
}

// resyncOverlay reads what an overlay's router has, adopts what is right, and makes or removes the rest, but for the links that
// tasks have not yet, and the VIPs. Where it fails for single tasks alone, all else is done.
func (l *Linux) resyncOverlay(o *overlay, w *wanted, s shape, refused map[string]bool) error {
	made, err := l.ensureOverlayRouter(o, w)
	if err != nil {
		return err
	}
	if err := l.ensureOverlayLink(o, w, s); err != nil {
		return err
	}
	o.space.sweeper.drain()
	keep, unrepaired := l.adoptMembers(o, w, s, refused)
	if _, alone := TaskErrors(unrepaired); !alone {
		return unrepaired
	}
	if !made { // nobody has been in a new one
		if err := o.space.removeStrangeRoutes(); err != nil {
			return err
		}
	}
	if err := l.syncWays(o, w, s, keep); err != nil {
		return err
	}
	if err := o.ensureOverlayTables(w); err != nil {
		return err
	}
	if !made {
		if err := l.clearStrangers(o.space); err != nil {
			return err
		}
	}
	return errors.Join(unrepaired, o.forgetStrangers(w))
}

// ensureOverlayRouter makes the namespace, with its settings and the gateways' addresses. made is whether there was none.
func (l *Linux) ensureOverlayRouter(o *overlay, w *wanted) (made bool, err error) {
	path := l.overlayPath(o.id)
	if made = !pinned(path); made {
		err := onThread(func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("unshare: %w", err)
			}
			return pinThread(path)
		})
		if err != nil {
			return made, fmt.Errorf("make network namespace: %w", err)
		}
		o.space.close()
		o.space = nil
	}
	if err := l.openOverlay(o); err != nil {
		return made, err
	}
	if err := o.space.within(func() error { return setSysctls(overlaySettings(w.has(true))...) }); err != nil {
		return made, err
	}
	lo, err := o.space.LinkByName("lo")
	if err != nil {
		return made, fmt.Errorf("find link lo in %s: %w", o.space.name, err)
	}
	if err := o.space.syncLink(lo, lo.Attrs().HardwareAddr, lo.Attrs().MTU); err != nil {
		return made, err
	}
	return made, o.syncGateways(w, lo)
}

// syncGateways makes the loopback's addresses the gateways', on which the router answers pings and tells errors.
func (o *overlay) syncGateways(w *wanted, lo netlink.Link) error {
	var gateways [2][]netip.Prefix
	for _, s := range w.subnets {
		v := version(s.Gateway)
		gateways[v] = append(gateways[v], host(s.Gateway))
	}
	for _, v := range kernelVersions() {
		if err := o.space.syncAddress(lo, v, gateways[v]...); err != nil {
			return err
		}
	}
	return nil
}

// ensureOverlayLink makes the link to other nodes, or removes it where there must be none.
func (l *Linux) ensureOverlayLink(o *overlay, w *wanted, s shape) error {
	o.vx, o.vteps, o.remote = nil, nil, nil
	if !s.encrypted || !l.underlay.usable() {
		o.tunnel, o.wires = nil, nil
		if err := l.process(o.id).end(); err != nil {
			return err
		}
	}
	if !l.underlay.usable() {
		old, err := o.space.LinkByName(overlayLink)
		if err == nil {
			err = o.space.LinkDel(old)
		}
		var none netlink.LinkNotFoundError
		if err != nil && !errors.As(err, &none) {
			return fmt.Errorf("remove link %s in %s: %w", overlayLink, o.space.name, err)
		}
		return nil
	}
	var err error
	if s.encrypted {
		err = l.ensureTunnel(o, w, s)
	} else {
		o.vx, err = l.ensureVXLAN(o.space, overlayLink, s.vni, vtepMAC(l.underlay.node), s.mtu)
	}
	if err != nil {
		return err
	}
	return o.space.within(func() error {
		// The other routers have this one's gateway address, from which they tell of addresses that are no task's.
		return setSysctls(
			setting{name: "net.ipv4.conf." + overlayLink + ".accept_local", value: "1"},
			setting{name: "net.ipv4.conf." + overlayLink + ".rp_filter", value: "0"})
	})
}

// adoptMembers goes through the router's links. Those of tasks that are whole, or can be made so, are taken over; so are, as they are,
// those of refused tasks, whose links are returned. The others are cut. What cannot be put right within a task's own namespace is that task's
// error: its link stays as it is.
func (l *Linux) adoptMembers(o *overlay, w *wanted, s shape, refused map[string]bool) (keep map[int]bool, err error) {
	links, err := dump(o.space.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links in %s: %w", o.space.name, err)
	}
	o.members, keep = map[string]member{}, map[int]bool{}
	var cut []netlink.Link
	var unrepaired []error
	for _, one := range links {
		if !removable(one) || one.Attrs().Name == overlayLink && o.vx != nil {
			continue
		}
		id := one.Attrs().Alias
		a, ours := linkAddress(one.Attrs().Name)
		m, wanted := w.members[id]
		_, twice := o.members[id]
		whole := ours && !twice && pinned(l.Namespace(id))
		switch {
		case whole && wanted && m.link == a:
			if err := o.space.syncLink(one, taskSideMAC, s.mtu); err != nil {
				return nil, err
			}
			if whole, err = l.repairAttachment(w, id, m, one, s.mtu); err != nil {
				whole, unrepaired = true, append(unrepaired, &TaskError{id, &OverlayError{o.id, err}})
			}
		case whole && refused[id]:
			keep[one.Attrs().Index] = true
			if m, err = l.memberAsIs(o, id, a, one); err != nil {
				return nil, err
			}
		default:
			whole = false
		}
		if whole {
			o.members[id] = m
		} else {
			cut = append(cut, one)
		}
	}
	return keep, errors.Join(o.space.cutAll(cut), errors.Join(unrepaired...))
}

// memberAsIs makes out what a task's link is.
func (l *Linux) memberAsIs(o *overlay, task string, a netip.Addr, outer netlink.Link) (member, error) {
	m := member{link: a}
	for v := range overlayFamilies {
		routes, err := o.space.routesOf(outer.Attrs().Index, family(v))
		if err != nil {
			return m, err
		}
		for r := range routes {
			if r.dst.IsSingleIP() {
				m.addresses = append(m.addresses, r.dst.Addr())
			}
		}
	}
	slices.SortFunc(m.addresses, netip.Addr.Compare)
	inside, err := openNamespace("task "+task, l.Namespace(task))
	if err != nil {
		return m, err
	}
	defer inside.close()
	if eth, err := inside.LinkByIndex(outer.Attrs().ParentIndex); err == nil {
		if _, err := fmt.Sscanf(eth.Attrs().Name, "eth%d", &m.index); err != nil {
			_, err = fmt.Sscanf(eth.Attrs().Name, guestLink+"%d", &m.index)
			m.guest = err == nil
		}
	}
	return m, nil
}

// syncWays makes the router's routes, neighbours and forwarding entries what they should be, but for those of the links to keep.
func (l *Linux) syncWays(o *overlay, w *wanted, s shape, keep map[int]bool) error {
	routes, near, forwards, err := o.ways(w)
	if err != nil {
		return err
	}
	if err := o.syncNeighbours(near, forwards, keep); err != nil {
		return err
	}
	if err := o.syncOverlayRoutes(routes, keep); err != nil {
		return err
	}
	if o.vx == nil {
		return nil
	}
	o.remote, o.vteps = w.remote, w.vteps
	if o.tunnel == nil {
		return nil
	}
	want, err := l.wiresOf(w, s)
	if err != nil {
		return err
	}
	return o.dropWires(want)
}

// ways are the routes, neighbours and forwarding entries that the router should have.
func (o *overlay) ways(w *wanted) (routes map[route]bool, near, forwards map[neighbour]bool, err error) {
	routes, near, forwards = map[route]bool{}, map[neighbour]bool{}, map[neighbour]bool{}
	for _, s := range w.subnets {
		routes[route{dst: s.Prefix}] = true
	}
	if o.vx != nil {
		for _, r := range w.remote {
			routes[o.way(r)] = true
		}
		for _, v := range w.vteps {
			if o.tunnel != nil {
				break
			}
			mac := vtepMAC(v.node).String()
			forwards[neighbour{o.vx.Attrs().Index, v.addr, mac}] = true
			for _, one := range w.versions() {
				near[neighbour{o.vx.Attrs().Index, nextHop(v.node, one), mac}] = true
			}
		}
	}
	for _, m := range o.members {
		one, err := o.space.LinkByName(linkName(m.link))
		if err != nil {
			return nil, nil, nil, fmt.Errorf("find link %s in %s: %w", linkName(m.link), o.space.name, err)
		}
		for _, a := range m.addresses {
			routes[route{dst: host(a), link: one.Attrs().Index}] = true
			near[neighbour{one.Attrs().Index, a, taskMAC(m.link).String()}] = true
		}
	}
	return routes, near, forwards, nil
}

func (o *overlay) syncNeighbours(near, forwards map[neighbour]bool, keep map[int]bool) error {
	have := map[neighbour]bool{}
	for v := range overlayFamilies {
		some, err := o.space.neighboursOf(0, family(v))
		if err != nil {
			return err
		}
		maps.Copy(have, some)
	}
	var errs []error
	for n := range have {
		if !near[n] && !keep[n.link] {
			errs = append(errs, o.space.removeNeighbour(n.link, n.addr))
		}
	}
	for n := range near {
		if !have[n] {
			errs = append(errs, o.space.setNeighbour(n.link, n.addr, hardware(n.mac)))
		}
	}
	if o.vx == nil || o.tunnel != nil {
		return errors.Join(errs...)
	}
	there, err := o.space.forwards(o.vx.Attrs().Index)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	known := map[string]bool{}
	for n := range forwards {
		known[n.mac] = true
		errs = append(errs, o.space.setForward(n.link, hardware(n.mac), n.addr)) // its port and VNI were not read
	}
	for n := range there {
		if !known[n.mac] {
			errs = append(errs, o.space.dropForward(n.link, hardware(n.mac)))
		}
	}
	return errors.Join(errs...)
}

func hardware(mac string) net.HardwareAddr {
	h, _ := net.ParseMAC(mac)
	return h
}

// allRoutes are those of both IP versions.
func (n *namespace) allRoutes() (map[route]bool, error) {
	have := map[route]bool{}
	for v := range overlayFamilies {
		some, err := n.routesOf(0, family(v))
		if err != nil {
			return nil, err
		}
		maps.Copy(have, some)
	}
	return have, nil
}

func (o *overlay) syncOverlayRoutes(want map[route]bool, keep map[int]bool) error {
	have, err := o.space.allRoutes()
	if err != nil {
		return err
	}
	var errs []error
	for r := range want {
		if !have[r] {
			errs = append(errs, o.space.addRoute(r))
		}
	}
	for r := range have {
		if want[r] || keep[r.link] {
			continue
		}
		// One that was replaced just now is not there any more.
		errs = append(errs, o.space.removeRoute(r))
	}
	return errors.Join(slices.DeleteFunc(errs, func(err error) bool { return err == nil })...)
}
