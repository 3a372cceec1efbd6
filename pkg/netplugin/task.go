package netplugin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// tasksDir is where the namespaces of tasks are mounted, by task ID.
func (l *Linux) tasksDir() string { return filepath.Join(l.dir, "netns") }

// taskSettings are those of every task's namespace before its own, as Docker has them: any port may be bound, ping needs no
// privilege, and there is no IPv6 but on the loopback.
var taskSettings = []setting{
	{name: "net.ipv6.conf.default.disable_ipv6", value: "1", optional: true},
	{name: "net.ipv4.ip_unprivileged_port_start", value: "0"},
	{name: "net.ipv4.ping_group_range", value: "0 2147483647"},
}

// settings are a task's own.
func (t TaskLink) settings() []setting {
	var all []setting
	for name, value := range t.Sysctls {
		all = append(all, setting{name: name, value: value})
	}
	slices.SortFunc(all, func(a, b setting) int { return len(a.name) - len(b.name) })
	return all
}

// link makes the links of tasks, several at a time, and the namespaces of those that have none. It returns those that were
// made.
func (l *Linux) link(ctx context.Context, want *desired, tasks []TaskLink) (made []TaskLink, err error) {
	queue := make(chan TaskLink, len(tasks))
	for _, t := range tasks {
		queue <- t
	}
	close(queue)
	var mu sync.Mutex
	var wg sync.WaitGroup
	var errs []error
	for range min(len(tasks), 2*runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			stay := onThread(func() error {
				for t := range queue {
					if ctx.Err() != nil {
						return ctx.Err()
					}
					err := l.linkTask(want, t)
					mu.Lock()
					if err == nil {
						made = append(made, t)
					} else {
						errs = append(errs, &TaskError{t.ID, err})
					}
					mu.Unlock()
				}
				return nil
			})
			mu.Lock()
			errs = append(errs, stay)
			mu.Unlock()
		})
	}
	wg.Wait()
	return made, errors.Join(errs...)
}

// linkTask makes one task's links, or that to the gateway network where it has a namespace already. The namespace is mounted last: where one is mounted its
// settings are made, and what a crash leaves unmounted goes with the process.
func (l *Linux) linkTask(want *desired, t TaskLink) error {
	if t.guest() {
		return l.linkGuest(want, t)
	}
	path := l.Namespace(t.ID)
	inside := &namespace{name: "task " + t.ID}
	there := pinned(path)
	var err error
	if there {
		if inside, err = openNamespace(inside.name, path); err == nil {
			err = netns.Set(inside.fd)
		}
	} else {
		err = inside.unshare()
	}
	if err != nil {
		return err
	}
	defer inside.close()
	if there {
		if err := inside.removeOldLink(); err != nil {
			return err
		}
		return l.reconnect(want.base, t, inside)
	}
	if err := setSysctls(taskSettings...); err != nil {
		return err
	}
	if err := l.connectAll(want, t, inside); err != nil {
		return err
	}
	if err := errors.Join(setSysctls(t.settings()...), pinThread(path)); err != nil {
		return errors.Join(err, l.cut(t.Address), l.detach(t))
	}
	return nil
}

// connectAll makes the links of a task that comes, or none. The calling thread must be in its namespace.
func (l *Linux) connectAll(want *desired, t TaskLink, inside *namespace) error {
	err := l.connect(want.base, t, inside)
	if err == nil {
		err = l.attach(want, t, inside)
	}
	if err != nil {
		return errors.Join(err, l.cut(t.Address), l.detach(t))
	}
	return nil
}

// reconnect makes the link to the gateway network of a task that is there already. Those to its overlays do not depend on it: see attachTasks.
func (l *Linux) reconnect(b base, t TaskLink, inside *namespace) error {
	err := l.connect(b, t, inside)
	if err != nil {
		err = errors.Join(err, l.cut(t.Address))
	}
	return err
}

// removeOldLink removes the link that a task had to a router that is no more, or to another address, and what belonged to that.
func (n *namespace) removeOldLink() error { return errors.Join(n.removeLink(taskLink), n.removeHome()) }

// removeLink removes a link if it is there.
func (n *namespace) removeLink(name string) error {
	old, err := n.LinkByName(name)
	if err == nil {
		err = n.LinkDel(old)
	}
	var none netlink.LinkNotFoundError
	if err == nil || errors.As(err, &none) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return fmt.Errorf("remove old link %s in %s: %w", name, n.name, err)
}

// unshare puts the calling thread into a new namespace and opens that.
func (n *namespace) unshare() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make network namespace: %w", err)
	}
	var err error
	if n.fd, err = netns.GetFromPath(threadNetNS); err != nil {
		return fmt.Errorf("open new network namespace: %w", err)
	}
	if n.Handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		_ = n.fd.Close()
		return fmt.Errorf("open route socket in new network namespace: %w", err)
	}
	return nil
}

// connect makes a task's link between its open namespace and the router, where there is none yet.
func (l *Linux) connect(b base, t TaskLink, inside *namespace) error {
	l.router.sweeper.await(t.Address)
	pair := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: t.gatewayEnd(), PeerHardwareAddr: taskMAC(t.Address), PeerNamespace: netlink.NsFd(inside.fd)}
	pair.Name, pair.HardwareAddr, pair.MTU, pair.Flags = linkName(t.Address), taskSideMAC, l.taskMTU, net.FlagUp
	if err := l.router.LinkAdd(pair); err != nil {
		if err := inside.inTheWay(pair.PeerName, err); err != nil {
			return err
		}
		return fmt.Errorf("make link %s in %s with %s in %s: %w", pair.Name, l.router.name, pair.PeerName, inside.name, err)
	}
	eth, err := inside.LinkByName(pair.PeerName)
	if err != nil {
		return fmt.Errorf("find link %s in %s: %w", pair.PeerName, inside.name, err)
	}
	sides := t.sides(l.routerSides(b))
	if t.guest() {
		err = inside.welcome(b, t, eth)
	} else {
		err = inside.furnish(b, t, eth, sides)
	}
	if err != nil {
		return err
	}
	if err := l.router.LinkSetAlias(pair, t.ID); err != nil {
		return fmt.Errorf("set alias of link %s in %s: %w", pair.Name, l.router.name, err)
	}
	for _, s := range sides {
		if err := l.router.setNeighbour(pair.Index, s.of(t.Address), taskMAC(t.Address)); err != nil {
			return err
		}
		if err := l.router.addRoute(route{dst: host(s.of(t.Address)), link: pair.Index}); err != nil {
			return err
		}
	}
	return l.router.settle(pair)
}

// addSide gives a task's end what it has of an IP version. The calling thread must be in the task's namespace.
func (n *namespace) addSide(s side, t TaskLink, eth netlink.Link) error {
	if s.v == 1 {
		if err := setSysctls(sixSettings(taskLink)...); err != nil {
			return err
		}
	}
	if err := n.addAddress(eth, host(s.of(t.Address))); err != nil {
		return err
	}
	if err := n.setNeighbour(eth.Attrs().Index, s.gateway, taskSideMAC); err != nil {
		return err
	}
	if err := n.addRoute(s.taskRoute(eth.Attrs().Index)); err != nil {
		return err
	}
	return n.addHome(s, t, eth)
}

// repairSide puts right what is missing of it. What else a task that may do so has added to its link is its own business: nothing else
// has a way back through the router.
func (n *namespace) repairSide(s side, t TaskLink, eth netlink.Link) error {
	if s.v == 1 {
		if err := n.within(func() error { return setSysctls(sixSettings(taskLink)...) }); err != nil {
			return err
		}
	}
	if err := errors.Join(n.removeDeaf(eth, s.of(t.Address)), n.ensureAddress(eth, host(s.of(t.Address)))); err != nil {
		return err
	}
	if err := n.ensureNeighbour(eth.Attrs().Index, s.gateway, taskSideMAC); err != nil {
		return err
	}
	have, err := n.routesOf(eth.Attrs().Index, s.family())
	if err != nil {
		return err
	}
	if want := s.taskRoute(eth.Attrs().Index); !have[want] {
		if err := n.addRoute(want); err != nil {
			return err
		}
	}
	return n.repairHome(s, t, eth)
}

// furnish gives a task's end, in the namespace that was made for it, its addresses and its ways. The calling thread must be in it.
func (n *namespace) furnish(b base, t TaskLink, eth netlink.Link, sides []side) error {
	lo := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: "lo", Index: 1}}
	for _, up := range []netlink.Link{lo, eth} {
		if err := n.LinkSetUp(up); err != nil {
			return fmt.Errorf("bring up link %s in %s: %w", up.Attrs().Name, n.name, err)
		}
	}
	for _, s := range sides {
		if err := n.addSide(s, t, eth); err != nil {
			return err
		}
	}
	return errors.Join(setSysctls(resolverSettings...), n.ensureResolverRoute(b, t.Address, eth.Attrs().Index))
}

// taskRoute is a task's way out.
func (s side) taskRoute(eth int) route { return route{dst: s.anywhere(), link: eth, via: s.gateway} }

// cut removes the link of an address, if there is one.
func (l *Linux) cut(a netip.Addr) error {
	link, err := l.router.LinkByName(linkName(a))
	if err == nil {
		err = l.router.LinkDel(link)
	}
	var none netlink.LinkNotFoundError
	if err == nil || errors.As(err, &none) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return fmt.Errorf("remove link %s in %s: %w", linkName(a), l.router.name, err)
}

// cutAll removes links of the router at once.
func (l *Linux) cutAll(links []netlink.Link) error { return l.router.cutAll(links) }

// cutAll removes links of the namespace at once.
func (n *namespace) cutAll(links []netlink.Link) error {
	if len(links) == 0 {
		return nil
	}
	for _, one := range links {
		if err := n.LinkSetGroup(one, goingGroup); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("mark link %s in %s for removal: %w", one.Attrs().Name, n.name, err)
		}
	}
	if err := n.request(unix.NETLINK_ROUTE, removeMarkedMessage()); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove %d links in %s: %w", len(links), n.name, err)
	}
	return nil
}

// repairInside puts right what is missing of a task's link within its namespace. ok tells that the link is the other end of
// the router's; where it is not, it must be made anew. An error is the task's own: what is in the way may be its doing.
func (l *Linux) repairInside(b base, t TaskLink, outer netlink.Link) (ok bool, err error) {
	inside, err := openNamespace("task "+t.ID, l.Namespace(t.ID))
	if err != nil {
		return false, err
	}
	defer inside.close()
	eth, err := inside.LinkByIndex(outer.Attrs().ParentIndex)
	if err != nil || eth.Attrs().Name != t.gatewayEnd() || eth.Attrs().ParentIndex != outer.Attrs().Index {
		return false, nil
	}
	if t.guest() {
		inside.foreign = true // what stands in the way there is the guest's matter: it is linked anew, and told alone why it cannot be
		return errors.Join(inside.syncLink(eth, taskMAC(t.Address), l.taskMTU), inside.removeDeaf(eth, t.Address), inside.welcome(b, t, eth)) == nil, nil
	}
	if err := inside.repairLoopback(t); err != nil {
		return false, err
	}
	if err := inside.syncLink(eth, taskMAC(t.Address), l.taskMTU); err != nil {
		return false, err
	}
	for _, s := range t.sides(l.routerSides(b)) {
		if err := inside.repairSide(s, t, eth); err != nil {
			return false, err
		}
	}
	err = errors.Join(inside.within(func() error { return setSysctls(resolverSettings...) }), inside.ensureResolverRoute(b, t.Address, eth.Attrs().Index))
	return err == nil, err
}
