package netplugin

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/swarmd/swarmd/pkg/tmpfs"
)

// resync reads what the kernel has, makes what all tasks share, and repairs or cuts the links of tasks, so that have is whole. Where it fails for
// single tasks alone, it is all the same.
func (l *Linux) resync(want *desired) error {
	for _, dir := range []string{l.tasksDir(), filepath.Dir(l.routerPath())} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := tmpfs.Mount(l.tasksDir(), "mode=0755,size=1m"); err != nil {
		return err
	}
	l.synced = false
	l.swept()
	var err error
	if err := l.measure(want); err != nil {
		return err
	}
	if err := l.weighSides(want.base); err != nil {
		return err
	}
	l.underlay = want.underlay
	if err := l.forgetOverlays(); err != nil {
		return err
	}
	if l.yielding.looked {
		l.yielding.led = [2]ports{l.have.ports, l.have.six.ports}
	}
	l.yielding.looked = false
	l.have = state{base: want.base, tasks: map[string]TaskLink{}, peers: want.peers, underlays: want.underlays, wires: want.wires,
		sealed: besides(l.have.sealed, want.sealed), publication: newPublication(), six: newPublication()}
	if err := l.ensureRouter(want.base); err != nil {
		return err
	}
	if err := l.ensureTables(want); err != nil {
		return err
	}
	// The data port is closed to strangers before anything listens there.
	if err := errors.Join(l.ensureDataPort(want), l.ensureMesh(want)); err != nil {
		return err
	}
	if err := errors.Join(l.enableForward(), l.enableForwardSix()); err != nil {
		return err
	}
	unrepaired := l.adopt(want)
	if _, alone := TaskErrors(unrepaired); !alone {
		return unrepaired
	}
	if err := l.forgetStrangers(want); err != nil {
		return err
	}
	if l.warnings, err = l.obstacles(want); err != nil {
		return err
	}
	l.warnings = append(l.warnings, l.strayRoutes(want)...)
	for _, w := range l.warnings {
		l.log.Warn(w)
	}
	l.synced = true
	l.have.unrepaired, _ = TaskErrors(unrepaired)
	return unrepaired
}

// ensureTables adopts our tables where they are as they should be, and replaces them where not.
func (l *Linux) ensureTables(want *desired) error {
	sides := l.hostSides(want.base)
	for _, s := range sides {
		if err := l.ensureTable(s); err != nil {
			return err
		}
	}
	if len(sides) == 1 && kernelSix() == nil {
		if err := l.host.removeTables(want.side(1)); err != nil {
			return err
		}
	}
	return l.ensureRouterTables(want)
}

// ensureTable does so with the machine's own table of an IP version.
func (l *Linux) ensureTable(s side) error {
	c, err := l.host.firewall()
	if err != nil {
		return err
	}
	t := s.newTransaction(c)
	have, ok, err := readTable(c, s, t.maps, hostChains(s))
	if err != nil {
		return fmt.Errorf("read table %s of %s: %w", tableName, l.host.name, err)
	}
	if !ok {
		t.replaceTable(append(t.maps, s.askerSets(t.table)...), hostChains(s))
		// What was published stays so, until the ports that are wanted now take its place and its flows are forgotten.
		t.addPicks(nil, have.ports)
		t.change(publication{}, have)
		if err := t.commit(); err != nil {
			return fmt.Errorf("make table %s in %s: %w", tableName, l.host.name, err)
		}
	}
	*l.have.answers(s.v) = have
	return nil
}

// removeTables removes what there is of our tables of an IP version.
func (n *namespace) removeTables(s side) error {
	c, err := n.firewall()
	if err != nil {
		return err
	}
	found, err := c.ListTablesOfFamily(s.table)
	if err != nil {
		return fmt.Errorf("list tables of %s: %w", n.name, err)
	}
	for _, one := range found {
		if one.Name != tableName && one.Name != zoneTableName {
			continue
		}
		t := &transaction{Conn: c, table: &nftables.Table{Name: one.Name, Family: s.table}}
		t.removeTable()
		if err := t.commit(); err != nil {
			return fmt.Errorf("remove table %s of %s: %w", one.Name, n.name, err)
		}
	}
	return nil
}

// removeUplink removes the links between the machine and its router.
func (l *Linux) removeUplink() error {
	gw, err := l.host.LinkByName(hostLink)
	if _, none := err.(netlink.LinkNotFoundError); none {
		return nil
	}
	if err == nil {
		err = l.host.LinkDel(gw)
	}
	return err
}

// adopt goes through the router's links and the mounted namespaces. Links that are whole, or can be made so, are taken over;
// others are cut, so that they are made anew. What nobody wants is taken over too, to be removed in its turn. What cannot be put right within a
// task's own namespace is that task's error: its link stays as it is.
func (l *Linux) adopt(want *desired) error {
	links, err := dump(l.router.LinkList)
	if err != nil {
		return fmt.Errorf("list links in %s: %w", l.router.name, err)
	}
	if err := l.router.removeStrangeRoutes(); err != nil {
		return err
	}
	sides := l.routerSides(want.base)
	have, err := l.router.routesOfAll(sides)
	if err != nil {
		return err
	}
	near, err := l.router.neighboursOf(0, unix.AF_UNSPEC)
	if err != nil {
		return err
	}
	routes := append(routerRoutes(sides, linkIndex(links, routerLink), l.hostSix), meshRoutes(sides, want.peers, l.vx)...)
	var broken []netlink.Link
	var unrepaired []error
	for _, one := range links {
		name := one.Attrs().Name
		a, ours := linkAddress(name)
		if !ours {
			if removable(one) && name != routerLink && name != meshLink {
				broken = append(broken, one)
			}
			continue
		}
		t, whole, err := l.adoptLink(want, one, a)
		if _, alone := TaskErrors(err); !alone {
			return err
		}
		unrepaired = append(unrepaired, err)
		if !whole {
			broken = append(broken, one)
			continue
		}
		l.have.tasks[t.ID] = t
		for _, s := range t.sides(sides) {
			routes = append(routes, route{dst: host(s.of(a)), link: one.Attrs().Index})
			if !near[neighbour{one.Attrs().Index, s.of(a), taskMAC(a).String()}] {
				if err := l.router.setNeighbour(one.Attrs().Index, s.of(a), taskMAC(a)); err != nil {
					return err
				}
			}
		}
	}
	if err := errors.Join(l.cutAll(broken), l.router.syncRoutes(have, routes...)); err != nil {
		return err
	}
	return errors.Join(l.pruneMounts(want), errors.Join(unrepaired...))
}

// adoptLink looks at a link of the router. whole is false where it must go. A TaskError is of a link that is taken over all the same.
func (l *Linux) adoptLink(want *desired, outer netlink.Link, a netip.Addr) (t TaskLink, whole bool, err error) {
	id := outer.Attrs().Alias
	if !isID(id) || !pinned(l.Namespace(id)) {
		return t, false, nil
	}
	if _, twice := l.have.tasks[id]; twice {
		return t, false, nil
	}
	t, wanted := want.tasks[id]
	if !wanted || t.Address != a {
		// It goes in this Apply, after the ports that lead to it, or stays as it is if its task was refused.
		t = TaskLink{ID: id, Address: a}
		if l.isGuest(id, outer) {
			t.Guest = l.Namespace(id)
		}
		return t, true, nil
	}
	// With an MTU below 1280 a link has no settings of IPv6 at all: that comes first.
	if err := l.router.syncLink(outer, taskSideMAC, l.taskMTU); err != nil {
		return t, false, err
	}
	err = l.router.within(func() error { return setSysctls(linkSettings(outer.Attrs().Name, l.six)...) })
	if err != nil {
		return t, false, err
	}
	if whole, err = l.repairInside(want.base, t, outer); err != nil {
		return t, true, &TaskError{id, err}
	}
	return t, whole, nil
}

// pruneMounts removes what is mounted for no task that is wanted or has a link.
func (l *Linux) pruneMounts(want *desired) error {
	entries, err := os.ReadDir(l.tasksDir())
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		_, linked := l.have.tasks[e.Name()]
		_, wanted := want.tasks[e.Name()]
		if !linked && !want.refused[e.Name()] && (!wanted || !pinned(l.Namespace(e.Name()))) {
			errs = append(errs, l.confineWithin(e.Name(), nil, false), unpin(l.Namespace(e.Name())))
		}
	}
	return errors.Join(errs...)
}

// forgetStrangers removes flows to and from addresses that no task has any more.
func (l *Linux) forgetStrangers(want *desired) error {
	tasks := map[netip.Addr]bool{want.gateway(): true}
	for _, ports := range []ports{want.ports, want.six.ports, want.draining, l.have.ports, l.have.six.ports} {
		for _, backends := range ports {
			for _, b := range backends {
				tasks[b.Addr()] = tasks[b.Addr()] || !want.block.Contains(b.Addr())
			}
		}
	}
	for _, t := range want.tasks {
		tasks[t.Address] = true
	}
	for _, t := range l.have.tasks { // those that go, go with their flows
		tasks[t.Address] = true
	}
	for _, s := range l.hostSides(want.base) {
		if err := l.host.forgetEach(s.family(), strangers{s, s.swarm(), tasks}.match); err != nil {
			return fmt.Errorf("forget connections of tasks that are gone: %w", err)
		}
	}
	return nil
}

func linkIndex(links []netlink.Link, name string) int {
	for _, one := range links {
		if one.Attrs().Name == name {
			return one.Attrs().Index
		}
	}
	return 0
}
