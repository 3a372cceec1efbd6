package netplugin

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// A guest is a network namespace of somebody's own that is put on networks. It gets links of ours, and of what else is in it nothing is
// changed: no link, route or setting that we did not make. It has no way out by us, but to the resolver: its way out is its own.

// ErrNoGuest is of a namespace that will never be a guest: there is none at the path, or it is the machine's own, a router's, a task's, or one
// that is a guest already.
var ErrNoGuest = errors.New("cannot be attached")

// guestLink is the name of a guest's end on the gateway network; those on overlays are guestLink1 and so on.
const guestLink = "swarm"

// nsGetType asks a namespace's file what it is a namespace of, see ioctl_ns(2).
const nsGetType = 0xb703

// guest tells whether the task's namespace is somebody's own.
func (t TaskLink) guest() bool { return t.Guest != "" }

// gatewayEnd is the name of a task's end of its link to the gateway network.
func (t TaskLink) gatewayEnd() string {
	if t.guest() {
		return guestLink + "0"
	}
	return taskLink
}

// linkGuest makes a guest's links. Its namespace is mounted where those of tasks are, so that it is the same one for as long as we have
// links there, whatever its path leads to by then.
func (l *Linux) linkGuest(want *desired, t TaskLink) error {
	path := l.Namespace(t.ID)
	there := pinned(path)
	if !there {
		if err := l.pinGuest(t.Guest, path); err != nil {
			return err
		}
	}
	err := l.joinGuest(want, t, !there)
	if err != nil && !there { // one that was linked before is to be again, and stays confined until then
		err = errors.Join(err, l.confineWithin(t.ID, nil, false), unpin(path))
	}
	return err
}

// joinGuest makes a guest's links, and of one that is there already only that to the gateway network: attachTasks makes the others. Only where it
// comes, its own routes are in the way: those that are added later have to put up with ours.
func (l *Linux) joinGuest(want *desired, t TaskLink, comes bool) error {
	inside, err := openNamespace("attachment "+t.ID, l.Namespace(t.ID))
	if err != nil {
		return err
	}
	defer inside.close()
	inside.foreign = true
	if err := netns.Set(inside.fd); err != nil {
		return fmt.Errorf("enter network namespace of %s: %w", inside.name, err)
	}
	if !comes {
		return l.reconnect(want.base, t, inside)
	}
	for _, a := range t.Networks {
		if w := want.overlays[a.Overlay]; w.source.Encrypted {
			if err := inside.shadowed(w); err != nil {
				return err
			}
		}
	}
	return l.connectAll(want, t, inside)
}

// shadowed is what keeps a guest from an encrypted network: a route of its own into it would not count any more, or instead of ours.
func (n *namespace) shadowed(w *wanted) error {
	for v := range overlayFamilies {
		all, err := dump(func() ([]netlink.Route, error) {
			return n.RouteListFiltered(family(v), &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return fmt.Errorf("list routes in %s: %w", n.name, err)
		}
		for _, r := range all {
			to := prefixOf(r.Dst)
			if r.Table != unix.RT_TABLE_MAIN && r.Table != guestTable && r.Table != unix.RT_TABLE_LOCAL {
				continue
			}
			if slices.ContainsFunc(w.subnets, func(s Subnet) bool { return s.Prefix.Contains(to.Addr()) && to.Bits() >= s.Prefix.Bits() }) {
				return fmt.Errorf("there is another route to %s in the network namespace: remove that first", to)
			}
		}
	}
	return nil
}

// isGuest tells whether a link of the gateway's router leads to a guest, by the name that its other end has.
func (l *Linux) isGuest(task string, outer netlink.Link) bool {
	inside, err := openNamespace("task "+task, l.Namespace(task))
	if err != nil {
		return false
	}
	defer inside.close()
	end, err := inside.LinkByIndex(outer.Attrs().ParentIndex)
	return err == nil && end.Attrs().Name == TaskLink{Guest: l.Namespace(task)}.gatewayEnd()
}

// inTheWay is what keeps a link from being made in a guest, where that is another one of the name.
func (n *namespace) inTheWay(name string, err error) error {
	if !n.foreign || !errors.Is(err, unix.EEXIST) {
		return nil
	}
	return fmt.Errorf("there is another link %s in the network namespace: rename that first", name)
}

// leaveGuest returns once nothing of ours is in a guest any more: its namespace stays, and whoever has it sees it.
func (l *Linux) leaveGuest(t TaskLink) error {
	for _, n := range l.routers() {
		n.sweeper.await(t.Address)
	}
	return l.confineWithin(t.ID, nil, false)
}

// pinGuest mounts the network namespace at a path that somebody named at one of ours. It is opened once, and what was looked at is what is
// mounted, whatever the path leads to by then.
func (l *Linux) pinGuest(from, to string) error {
	l.pinning.Lock()
	defer l.pinning.Unlock()
	fd, err := openGuest(from)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	whose, err := l.ownerOf(fd)
	if err != nil {
		return err
	}
	if whose != "" {
		return fmt.Errorf("%s %w: it is the network namespace of %s", from, ErrNoGuest, whose)
	}
	f, err := os.OpenFile(to, os.O_CREATE|os.O_RDONLY, 0o444)
	if err != nil {
		return err
	}
	_ = f.Close()
	if err := unix.Mount(fdPath(fd), to, "", unix.MS_BIND, ""); err != nil {
		_ = os.Remove(to)
		return fmt.Errorf("mount network namespace %s at %s: %w", from, to, err)
	}
	return nil
}

func fdPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// openGuest opens a network namespace. What is at the path is looked at before it is opened: to open a device, or a pipe, may have effects.
func openGuest(path string) (int, error) {
	handle, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("%s %w: %w", path, ErrNoGuest, err)
	}
	defer func() { _ = unix.Close(handle) }()
	var s unix.Statfs_t
	if err := unix.Fstatfs(handle, &s); err != nil {
		return -1, fmt.Errorf("look at %s: %w", path, err)
	}
	if s.Type != nsfs {
		return -1, fmt.Errorf("%s %w: there is no namespace, want one that \"ip netns\" made, or /proc/PID/ns/net", path, ErrNoGuest)
	}
	fd, err := unix.Open(fdPath(handle), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", path, err)
	}
	kind, err := unix.IoctlRetInt(fd, nsGetType)
	if err == nil && kind != unix.CLONE_NEWNET {
		err = fmt.Errorf("%s %w: it is a namespace, but not a network namespace", path, ErrNoGuest)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// ownerOf tells whose a network namespace is that must not be a guest, "" where nobody's.
func (l *Linux) ownerOf(fd int) (string, error) {
	var guest unix.Stat_t
	if err := unix.Fstat(fd, &guest); err != nil {
		return "", fmt.Errorf("look at a network namespace: %w", err)
	}
	is := func(o *unix.Stat_t) bool { return o.Dev == guest.Dev && o.Ino == guest.Ino }
	var other unix.Stat_t
	if unix.Fstat(int(l.host.fd), &other) == nil && is(&other) || unix.Stat("/proc/1/ns/net", &other) == nil && is(&other) {
		return "the machine itself", nil
	}
	for _, dir := range []struct{ path, whose string }{{filepath.Dir(l.routerPath()), "a router of the swarm's"}, {l.tasksDir(), "a task, or of an attachment that is there already"}} {
		entries, err := os.ReadDir(dir.path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
		for _, e := range entries {
			if unix.Stat(filepath.Join(dir.path, e.Name()), &other) == nil && is(&other) {
				return dir.whose, nil
			}
		}
	}
	return "", nil
}

// welcome gives a guest's end on the gateway network what it takes to ask for names.
func (n *namespace) welcome(b base, t TaskLink, eth netlink.Link) error {
	if err := n.within(func() error { return setSysctls(guestSettings...) }); err != nil {
		return err
	}
	if err := n.syncLink(eth, taskMAC(t.Address), eth.Attrs().MTU); err != nil {
		return err
	}
	if err := n.ensureAddress(eth, host(t.Address)); err != nil {
		return err
	}
	if err := n.ensureNeighbour(eth.Attrs().Index, b.gateway(), taskSideMAC); err != nil {
		return err
	}
	have, err := n.routes(eth.Attrs().Index)
	if err != nil {
		return err
	}
	if want := guestRoute(b, t.Address, eth.Attrs().Index); !have[want] {
		return n.addRoute(want)
	}
	return nil
}

// guestSettings are those of its end on the gateway network, where there is no IPv6.
var guestSettings = []setting{{name: "net.ipv6.conf." + guestLink + "0.disable_ipv6", value: "1", optional: true}}

// guestRoute is a guest's way to the resolver.
func guestRoute(b base, a netip.Addr, eth int) route {
	return route{dst: host(Resolver.Addr()), link: eth, via: b.gateway(), src: a}
}
