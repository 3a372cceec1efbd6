package netplugin

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
)

// overlay is a network's router on this machine, and what it has.
type overlay struct {
	id     string
	space  *namespace // nil until it was first opened
	synced bool       // what is said here is what the kernel has
	failed error      // why it is not, where it could not be made
	shape  shape
	source *plan // what was last made of it, whole
	vx     netlink.Link
	vteps  []vtep
	remote []RemoteAddress
	tunnel tunnel   // of encrypted networks, with vx
	wires  *wires   // as the tunnel is set
	device *reading // of the tunnel, while an Apply that reads back is under way
	balance
	mu      sync.Mutex // of members, while tasks are linked, several at a time
	members map[string]member
	went    []netip.Addr // addresses whose links went in this Apply
}

// shape is what is looked at as a whole when it changes.
type shape struct {
	vni       uint32
	mtu       int
	encrypted bool
	key       PublicKey // this node's own, of encrypted networks
	subnets   string
}

// overlayPath is where an overlay's router is mounted.
func (l *Linux) overlayPath(id string) string { return filepath.Join(filepath.Dir(l.routerPath()), id) }

// shapeOf is what an overlay is to be. Its links take what fits into a packet between nodes.
func (l *Linux) shapeOf(w *wanted) (shape, error) {
	o := w.source
	mtu, overhead, own := l.tunnelMTU, l.underlay.overhead(), PublicKey{}
	if o.Encrypted {
		var err error
		if _, own, err = l.keys.current(time.Now()); err != nil {
			return shape{}, fmt.Errorf("this node's keys: %w", err)
		}
		mtu, overhead = l.wireMTU(), l.underlay.wireOverhead()
	}
	if o.MTU != 0 {
		mtu = min(mtu, o.MTU)
	}
	if w.has(true) && mtu < leastMTU6 {
		return shape{}, fmt.Errorf("%d bytes fit into a packet between nodes, and IPv6 needs %d: give the machines' network an MTU of %d or more", mtu, leastMTU6, leastMTU6+overhead)
	}
	return shape{o.VNI, mtu, o.Encrypted, own, fmt.Sprint(o.Subnets)}, nil
}

// cutMTU says that the network asks for larger packets than fit between nodes, or nothing.
func (w *wanted) cutMTU(s shape) string {
	if w.source.MTU <= s.mtu {
		return ""
	}
	return fmt.Sprintf("it asks for an MTU of %d, and %d bytes fit into a packet between nodes, which it has instead: make the nodes' links larger, or the network with an MTU of %d or less",
		w.source.MTU, s.mtu, s.mtu)
}

// forgetOverlays makes the next Apply look at all that the overlays' routers have, also those that are left of before a restart.
func (l *Linux) forgetOverlays() error {
	for _, o := range l.overlays {
		o.synced = false
	}
	entries, err := os.ReadDir(filepath.Dir(l.routerPath()))
	if err != nil {
		return err
	}
	names, err := l.leftProcesses()
	for _, e := range entries {
		names = append(names, e.Name())
	}
	for _, id := range names {
		if id != routerName && l.overlays[id] == nil {
			l.overlays[id] = &overlay{id: id}
		}
	}
	return err
}

// closeOverlays lets go of all routers, which stay.
func (l *Linux) closeOverlays() {
	for _, o := range l.overlays {
		o.space.close()
	}
	clear(l.overlays)
	clear(l.plans)
}

// prepareOverlays makes the routers of all overlays, and their ways to other nodes' tasks. What goes stays until nothing leads there.
func (l *Linux) prepareOverlays(want *desired) error {
	devices := readWires(func(yield func(string, *overlay) bool) {
		for id := range want.overlays {
			if o := l.overlays[id]; o != nil && !o.synced && !yield(id, o) {
				return
			}
		}
	})
	var errs []error
	for id, w := range want.overlays {
		o := l.overlays[id]
		if o == nil {
			o = &overlay{id: id}
			l.overlays[id] = o
		}
		o.device = devices[id]
		err := l.prepareOverlay(o, w, want.refused)
		o.device = nil
		byTask, alone := TaskErrors(err)
		if !alone {
			err = o.broken(err)
		}
		maps.Copy(l.have.unrepaired, byTask)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// broken notes that what the kernel has of an overlay is not known any more.
func (o *overlay) broken(err error) error {
	o.synced, o.failed = false, err
	o.space.reset()
	return &OverlayError{o.id, err}
}

func (l *Linux) prepareOverlay(o *overlay, w *wanted, refused map[string]bool) error {
	s, err := l.shapeOf(w)
	if err != nil {
		return err
	}
	if !o.synced || o.shape != s {
		if text := w.cutMTU(s); text != "" && o.shape != s {
			l.log.Warn("a network has a smaller MTU than it asks for", "network", o.id, "why", text)
		}
		o.synced = false
		err := l.resyncOverlay(o, w, s, refused)
		if _, alone := TaskErrors(err); !alone {
			return err
		}
		o.shape, o.source, o.synced, o.failed = s, nil, true, nil
		return err
	}
	if o.same(w) {
		return nil
	}
	if err := o.cutStale(w); err != nil {
		return err
	}
	return l.addRemote(o, w, s)
}

// same tells that an overlay is as it should be, as far as is known.
func (o *overlay) same(w *wanted) bool {
	return o.source == w.plan && len(o.remote) == len(w.remote) && maps.EqualFunc(o.members, w.members, member.equal)
}

// cutStale removes the links that are to be other ones, or that stand in the way of others.
func (o *overlay) cutStale(w *wanted) error {
	links := map[netip.Addr]string{}
	for id, m := range w.members {
		links[m.link] = id
	}
	stale, err := o.takeMembers(func(id string, m member) bool {
		now, wanted := w.members[id]
		if wanted {
			return !now.equal(m)
		}
		owner, taken := links[m.link]
		return taken && owner != id || slices.ContainsFunc(m.addresses, func(a netip.Addr) bool { return w.owner[a] != "" })
	})
	return errors.Join(err, o.space.cutAll(linksOf(stale)))
}

// takeMembers takes members to have no link any more, and returns those that are to go.
func (o *overlay) takeMembers(which func(id string, m member) bool) (all []doomed, err error) {
	for id, m := range o.members {
		if !which(id, m) {
			continue
		}
		one, err := o.space.LinkByName(linkName(m.link))
		if _, none := err.(netlink.LinkNotFoundError); err != nil && !none {
			return nil, fmt.Errorf("find link %s in %s: %w", linkName(m.link), o.space.name, err)
		}
		if err == nil {
			all = append(all, doomed{one, m.link, m.addresses})
		}
		delete(o.members, id)
		o.went = append(o.went, m.addresses...)
	}
	return all, nil
}

// nextHop is the address that stands for a node in a router's routes. It is on no wire: the neighbour entry makes a link address of it,
// and the forwarding entry of that one a node's address, so that a route stays right when the node's address changes. These are
// of the block that nobody may use, and link-local ones.
func nextHop(node uint32, v int) netip.Addr {
	b := [16]byte{0: 0xfe, 1: 0x80, 8: 0x53, 12: byte(node >> 24), 13: byte(node >> 16), 14: byte(node >> 8), 15: byte(node)}
	if v == 1 {
		return netip.AddrFrom16(b)
	}
	return netip.AddrFrom4([4]byte{240 | b[12], b[13], b[14], b[15]})
}

// way is the route to a task on another node.
func (o *overlay) way(r RemoteAddress) route {
	if o.tunnel != nil {
		return route{dst: host(r.Address), link: o.vx.Attrs().Index} // the device knows to which node
	}
	return route{dst: host(r.Address), link: o.vx.Attrs().Index, via: nextHop(r.Node, version(r.Address))}
}

// addRemote adds the nodes and remote addresses that are not there yet.
func (l *Linux) addRemote(o *overlay, w *wanted, s shape) error {
	var errs []error
	if o.tunnel != nil {
		want, err := l.wiresOf(w, s)
		if err == nil {
			err = l.addWires(o, want, false)
		}
		if err != nil {
			return err
		}
	}
	enter := func(v vtep) { errs = append(errs, o.enterNode(v, w.versions())) }
	differences(o.vteps, w.vteps, vtep.compare, func(a, b vtep) bool { return a == b }, func(vtep) {}, enter, func(_, now vtep) { enter(now) })
	if err := errors.Join(errs...); err != nil {
		return err
	}
	add := func(r RemoteAddress) { errs = append(errs, o.space.addRoute(o.way(r))) }
	have, want := o.changed(w)
	differences(have, want, byAddress, func(a, b RemoteAddress) bool { return a == b }, func(RemoteAddress) {}, add, func(_, now RemoteAddress) { add(now) })
	return errors.Join(errs...)
}

// changed are the parts of the remote addresses, as they are and as they should be, that differ.
func (o *overlay) changed(w *wanted) (have, want []RemoteAddress) {
	p := apart(o.remote, w.remote, equal[RemoteAddress])
	return o.remote[p.from:p.have], w.remote[p.from:p.want]
}

func byAddress(a, b RemoteAddress) int { return a.Address.Compare(b.Address) }

// enterNode makes packets to a node's next hops go to its address.
func (o *overlay) enterNode(v vtep, versions []int) error {
	if o.tunnel != nil {
		return nil // see addWires
	}
	mac := vtepMAC(v.node)
	if err := o.space.setForward(o.vx.Attrs().Index, mac, v.addr); err != nil {
		return err
	}
	for _, one := range versions {
		if err := o.space.setNeighbour(o.vx.Attrs().Index, nextHop(v.node, one), mac); err != nil {
			return err
		}
	}
	return nil
}

// removeNode undoes enterNode.
func (o *overlay) removeNode(v vtep, versions []int) error {
	if o.tunnel != nil {
		return nil // see dropWires
	}
	errs := []error{o.space.removeForward(o.vx.Attrs().Index, vtepMAC(v.node), v.addr)}
	for _, one := range versions {
		errs = append(errs, o.space.removeNeighbour(o.vx.Attrs().Index, nextHop(v.node, one)))
	}
	return errors.Join(errs...)
}

// balanceOverlays makes the services of all overlays lead where they should.
func (l *Linux) balanceOverlays(want *desired) error {
	var errs []error
	for id, w := range want.overlays {
		o := l.overlays[id]
		if !o.synced {
			continue
		}
		hairpin := o.hairpins(w, want.refused)
		if o.source == w.plan && maps.Equal(o.hairpin, hairpin) {
			continue
		}
		if err := o.balanceVIPs(w, hairpin); err != nil {
			errs = append(errs, o.broken(err))
		}
	}
	return errors.Join(errs...)
}

// finishOverlays removes what nothing leads to any more: links, ways, connections, and whole routers.
func (l *Linux) finishOverlays(want *desired) error {
	var errs []error
	for id, o := range l.overlays {
		w := want.overlays[id]
		switch {
		case w == nil && want.kept[id] != nil:
		case w == nil:
			if err := l.removeOverlay(o); err != nil {
				errs = append(errs, o.broken(err))
			}
		case o.synced && !o.same(w):
			if err := l.finish(o, w, want.refused); err != nil {
				errs = append(errs, o.broken(err))
			}
		}
		if o.went = nil; o.synced && w != nil {
			l.plans[id] = w.plan
		}
	}
	return errors.Join(errs...)
}

func (l *Linux) finish(o *overlay, w *wanted, refused map[string]bool) error {
	gone, err := o.takeMembers(func(id string, _ member) bool { _, wanted := w.members[id]; return !wanted && !refused[id] })
	if err == nil {
		err = o.space.sweep(gone, l.notSwept)
	}
	if err != nil {
		return err
	}
	lost := o.went
	var errs []error
	leave := func(r RemoteAddress) {
		lost = append(lost, r.Address)
		errs = append(errs, o.space.removeRoute(o.way(r)))
	}
	have, want := o.changed(w)
	differences(have, want, byAddress, func(a, b RemoteAddress) bool { return true }, leave, func(RemoteAddress) {}, nil)
	differences(o.vteps, w.vteps, vtep.compare, func(a, b vtep) bool { return true }, func(v vtep) { errs = append(errs, o.removeNode(v, w.versions())) }, func(vtep) {}, nil)
	if o.tunnel != nil {
		want, err := l.wiresOf(w, o.shape)
		if err == nil {
			err = o.dropWires(want)
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	o.remote, o.vteps, o.source = w.remote, w.vteps, w.plan
	return o.forgetLost(w, lost)
}

// flowsAtOnce bounds how many addresses' connections are removed with a message each, for which the kernel goes through all that
// it tracks.
const flowsAtOnce = 16

// forgetLost removes the connections with addresses that are nowhere any more.
func (o *overlay) forgetLost(w *wanted, lost []netip.Addr) error {
	there := o.present(w)
	lost = slices.DeleteFunc(lost, there)
	if len(lost) > flowsAtOnce {
		return o.forgetStrangers(w)
	}
	var all []flows
	for _, a := range lost {
		all = append(all, flows{to: a}, flows{from: a})
	}
	return o.space.forget(all)
}

// forgetStrangers removes the connections with addresses of the network that are nowhere.
func (o *overlay) forgetStrangers(w *wanted) error {
	for _, v := range w.versions() {
		filter := absent{prefixes(w.subnets), o.present(w)}
		if err := o.space.forgetEach(family(v), filter.match); err != nil {
			return fmt.Errorf("forget connections of tasks that are gone in %s: %w", o.space.name, err)
		}
	}
	return nil
}

// present tells whether an address is a task's, here or elsewhere, or the router's own.
func (o *overlay) present(w *wanted) func(netip.Addr) bool {
	here := map[netip.Addr]bool{}
	for _, s := range w.subnets {
		here[s.Gateway] = true
	}
	for _, m := range o.members {
		for _, a := range m.addresses {
			here[a] = true
		}
	}
	for a := range w.owner {
		here[a] = true
	}
	return func(a netip.Addr) bool {
		_, remote := w.find(a)
		return remote || here[a]
	}
}

// absent matches the connections of addresses in the subnets that are not present.
type absent struct {
	subnets []netip.Prefix
	present func(netip.Addr) bool
}

func (f absent) match(one flow) bool {
	return f.absent(one.sent.src.Addr()) || f.absent(one.answer.src.Addr())
}

func (f absent) absent(a netip.Addr) bool {
	return slices.ContainsFunc(f.subnets, func(p netip.Prefix) bool { return p.Contains(a) }) && !f.present(a)
}

// removeOverlay removes a router whole.
func (l *Linux) removeOverlay(o *overlay) error {
	if err := l.openOverlay(o); err != nil {
		return err
	}
	// A process keeps the namespace. Without its link it ends by itself, but some time later, and has its port until then.
	if err := l.process(o.id).end(); err != nil {
		return err
	}
	if o.space != nil {
		links, err := dump(o.space.LinkList)
		if err != nil {
			return fmt.Errorf("list links in %s: %w", o.space.name, err)
		}
		// The kernel would remove them with the namespace, but some time later.
		if err := o.space.cutAll(slices.DeleteFunc(links, func(one netlink.Link) bool { return !removable(one) })); err != nil {
			return err
		}
	}
	o.space.close()
	o.space = nil
	if err := unpin(l.overlayPath(o.id)); err != nil {
		return err
	}
	delete(l.overlays, o.id)
	delete(l.plans, o.id)
	return nil
}

// removeOverlays removes all routers, also those that are left of before a restart.
func (l *Linux) removeOverlays() error {
	if err := l.forgetOverlays(); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var errs []error
	for _, o := range l.overlays {
		errs = append(errs, l.removeOverlay(o))
	}
	return errors.Join(errs...)
}
