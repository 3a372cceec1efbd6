package netplugin

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// unnoticed is the damage of which the kernel tells nobody, and of neighbours in tasks' namespaces, which nobody is to be told of.
var unnoticed = map[string]bool{
	"router unmounted":      true,
	"own neighbour deleted": true,
}

// repair has damage repaired: at once where it is noticed, as all of it must be but what is unnoticed.
func (b *lab) repair(t *testing.T, name string, c Config) {
	t.Helper()
	if got := b.disturbed(time.Second); got == unnoticed[name] {
		t.Errorf("noticed: %v", got)
	}
	if unnoticed[name] {
		b.linux.Resync()
	}
	b.apply(c)
	b.disturbed(time.Millisecond) // by damage that was done in several steps
}

// calm sees that nothing which was done is taken for somebody else's.
func (b *lab) calm(t *testing.T) {
	t.Helper()
	if b.disturbed(60 * time.Millisecond) {
		t.Error("an Apply's own changes are taken for somebody else's")
	}
}

func (b *lab) disturbed(within time.Duration) bool {
	select {
	case <-b.linux.Disturbed():
		return true
	case <-time.After(within):
		return false
	}
}

// TestRepairsAreCounted: what an Apply mends of what others did is counted by its kind, and nothing that it was asked to change.
func TestRepairsAreCounted(t *testing.T) {
	b := newLab(t)
	counted := map[string]int{}
	b.linux.repaired = func(kind string, n int) { counted[kind] += n }
	b.apply(testConfig(1))
	b.apply(testConfig(2))
	b.linux.Resync()
	b.apply(testConfig(3))
	b.linux.Resync()
	b.apply(testConfig(3))
	if len(counted) > 0 {
		t.Errorf("repairs where nothing was broken: %v", counted)
	}
	cutOff(t, b.linux.router, testAddr(1))
	if !b.disturbed(time.Second) {
		t.Error("a route that was deleted is not noticed")
	}
	b.apply(testConfig(3))
	if diff := cmp.Diff(map[string]int{kindRoute: 1}, counted); diff != "" {
		t.Errorf("counted (-want +got):\n%s", diff)
	}
	must(t, b.host.within(func() error { return setSysctls(setting{name: ipForward, value: "0"}) }))
	if !b.disturbed(time.Second) {
		t.Error("that the machine does not forward any more is not noticed")
	}
	b.apply(testConfig(3))
	if counted[kindSetting] != 1 {
		t.Errorf("a setting that was put back is counted as %v", counted)
	}
	b.calm(t)
}

// TestInsideTasks: what somebody does to a task's links is noticed, but not what a task does that may change them itself, however much it is:
// that is put right when all is read back. Nothing of a task that is gone is noticed.
func TestInsideTasks(t *testing.T) {
	b := newLab(t)
	c := testConfig(3)
	c.Tasks[1].Administers = true
	b.apply(c)
	b.calm(t)
	within := func(task string) *namespace { // closed at once: the Apply's socket there is to be this process's only one
		t.Helper()
		inside, err := openNamespace("task "+task, b.linux.Namespace(task))
		must(t, err)
		return inside
	}
	wayOut := func(task string) {
		t.Helper()
		inside := within(task)
		defer inside.close()
		eth, err := inside.LinkByName(taskLink)
		must(t, err)
		must(t, inside.removeRoute(b.linux.have.base.side(0).taskRoute(eth.Attrs().Index)))
	}
	hasWayOut := func(task string) bool {
		t.Helper()
		inside := within(task)
		defer inside.close()
		eth, err := inside.LinkByName(taskLink)
		must(t, err)
		have, err := inside.routesOf(eth.Attrs().Index, unix.AF_INET)
		must(t, err)
		return have[b.linux.have.base.side(0).taskRoute(eth.Attrs().Index)]
	}
	own := within(c.Tasks[1].ID)
	lo, err := own.LinkByName("lo")
	must(t, err)
	for range 5000 {
		must(t, own.addRoute(route{dst: netip.MustParsePrefix("198.51.100.0/24"), link: lo.Attrs().Index}))
		must(t, own.removeRoute(route{dst: netip.MustParsePrefix("198.51.100.0/24"), link: lo.Attrs().Index}))
	}
	own.close()
	wayOut(c.Tasks[1].ID)
	b.calm(t)
	wayOut(c.Tasks[0].ID)
	if !b.disturbed(time.Second) {
		t.Error("a route that was deleted in a task's namespace is not noticed")
	}
	b.apply(c)
	for _, task := range c.Tasks[:2] {
		if !hasWayOut(task.ID) {
			t.Errorf("task %s has no way out", task.ID)
		}
	}
	b.apply(testConfig(0)) // with the links of the others, which go a moment later
	b.calm(t)
	b.apply(c)
	b.calm(t)
	wayOut(c.Tasks[2].ID)
	if !b.disturbed(time.Second) {
		t.Error("nor is it in one that was made later")
	}
}

// cutOff deletes the route to an address.
func cutOff(t *testing.T, n *namespace, a netip.Addr) {
	t.Helper()
	routes, err := n.routes(0)
	must(t, err)
	for r := range routes {
		if r.dst == host(a) {
			must(t, n.removeRoute(r))
			return
		}
	}
	t.Fatalf("there is no route to %s", a)
}

// TestOthersAreLetBe: what is done to links, routes and tables that are not ours disturbs nobody, however much it is.
func TestOthersAreLetBe(t *testing.T) {
	b := newLab(t)
	b.apply(testConfig(1))
	c, err := b.host.firewall()
	must(t, err)
	for i := range 500 {
		name := fmt.Sprintf("other%d", i%7)
		must(t, b.host.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name, MTU: 1400}}))
		one, err := b.host.LinkByName(name)
		must(t, err)
		must(t, b.host.LinkSetUp(one))
		must(t, b.host.addAddress(one, netip.MustParsePrefix("192.0.2.1/24")))
		must(t, b.host.addRoute(route{dst: netip.MustParsePrefix("198.51.100.0/24"), link: one.Attrs().Index}))
		must(t, b.host.RouteReplace(&netlink.Route{Dst: ipNet(netip.MustParsePrefix("198.51.100.0/24")), Type: unix.RTN_BLACKHOLE}))
		must(t, b.host.setNeighbour(one.Attrs().Index, netip.MustParseAddr("192.0.2.2"), taskSideMAC))
		other := c.AddTable(&nftables.Table{Name: name, Family: nftables.TableFamilyIPv4})
		must(t, c.Flush())
		c.DelTable(other)
		must(t, c.Flush())
		must(t, b.host.RouteDel(&netlink.Route{Dst: ipNet(netip.MustParsePrefix("198.51.100.0/24")), Type: unix.RTN_BLACKHOLE}))
		must(t, b.host.LinkDel(one))
	}
	b.calm(t)
}

// TestForgottenGroupsAreNobodys: the kernel forgets the neighbours of multicast groups some time after a link reported them.
func TestForgottenGroupsAreNobodys(t *testing.T) {
	s := scene{inner: true}
	for state, want := range map[uint16]string{netlink.NUD_NOARP: "", netlink.NUD_PERMANENT: kindNeighbour, netlink.NUD_FAILED: kindNeighbour} {
		m := &syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: unix.RTM_DELNEIGH}, Data: make([]byte, 12)}
		binary.NativeEndian.PutUint16(m.Data[8:], state)
		if got := s.judgeNeighbour(m); got != want {
			t.Errorf("a neighbour that goes, of state %#x, is %q, want %q", state, got, want)
		}
	}
}

// TestWatcherFails: a watcher that the kernel refuses what it asks for leaves no socket open, and the Apply after its end begins anew.
func TestWatcherFails(t *testing.T) {
	b := newLab(t)
	b.apply(testConfig(1))
	before := netlinkSockets(t)
	w := b.linux.watch
	broken, err := os.Open(os.DevNull)
	must(t, err)
	must(t, unix.Dup3(int(broken.Fd()), w.poll, unix.O_CLOEXEC)) // the wait under way goes on at what was there before
	must(t, broken.Close())
	for space, o := range w.spaces {
		if space != b.linux.host {
			o.close()
			delete(w.spaces, space)
		}
	}
	closed := netlinkSockets(t)
	if closed >= before {
		t.Fatalf("%d sockets of %d are open still", closed, before)
	}
	for i := range 5 {
		b.linux.Resync()
		b.apply(testConfig(1))
		if b.linux.watch == w && netlinkSockets(t) > closed {
			t.Fatalf("Apply %d left a socket open that is not listened to", i)
		}
	}
	setDown(t, b.host, hostLink) // which ends the wait
	<-w.done
	b.linux.Resync()
	b.apply(testConfig(1))
	if n := netlinkSockets(t); n != before {
		t.Errorf("%d netlink sockets are open, %d before", n, before)
	}
	b.disturbed(time.Millisecond)
	cutOff(t, b.linux.router, testAddr(0))
	if !b.disturbed(time.Second) {
		t.Error("nothing is noticed any more")
	}
}

// netlinkSockets counts what this process has open that hears what the kernel tells.
func netlinkSockets(t *testing.T) (n int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, fd := range fds {
		number, err := strconv.Atoi(fd.Name())
		must(t, err)
		if domain, err := unix.GetsockoptInt(number, unix.SOL_SOCKET, unix.SO_DOMAIN); err == nil && domain == unix.AF_NETLINK {
			n++
		}
	}
	return n
}

// stranger is set in a process that a test starts to do something as somebody else: what it does, and where.
const stranger = "SWARMD_TEST_STRANGER"

// TestStranger is that process, and passes where it is none.
func TestStranger(t *testing.T) {
	deed, path, is := strings.Cut(os.Getenv(stranger), " ")
	if !is {
		return
	}
	n, err := openNamespace("it", path)
	must(t, err)
	defer n.close()
	strangeDeeds[deed](t, n)
}

// strangeDeeds are what a stranger may do in a namespace.
var strangeDeeds = map[string]func(t *testing.T, n *namespace){
	"cut-off": func(t *testing.T, n *namespace) { cutOff(t, n, testAddr(0)) },
	"way-out": func(t *testing.T, n *namespace) {
		eth, err := n.LinkByName(taskLink)
		must(t, err)
		must(t, n.removeRoute(route{dst: side{}.anywhere(), link: eth.Attrs().Index, via: base{block: testBlock}.gateway()}))
	},
	"link": func(t *testing.T, n *namespace) {
		eth, err := n.LinkByName(taskLink)
		must(t, err)
		must(t, n.LinkDel(eth))
	},
	"neighbours": func(t *testing.T, n *namespace) {
		all, err := n.NeighList(0, 0)
		must(t, err)
		for _, one := range all {
			must(t, n.NeighDel(&one))
		}
	},
}

// TestOthersWhileApplying: what another process does while Apply runs is noticed as well, and what Apply does itself is not.
func TestOthersWhileApplying(t *testing.T) {
	b := newLab(t)
	b.apply(testConfig(2))
	b.linux.mu.Lock() // as an Apply does
	cutOff(t, b.linux.router, testAddr(1))
	b.linux.settleWatch()
	b.linux.mu.Unlock()
	b.calm(t)
	task := b.linux.Namespace("t0")
	for _, one := range []struct{ deed, path string }{
		{"cut-off", b.linux.routerPath()}, {"neighbours", b.linux.routerPath()}, {"way-out", task}, {"link", task},
	} {
		b.linux.mu.Lock()
		child := exec.Command(os.Args[0], "-test.run=^TestStranger$")
		child.Env = append(os.Environ(), stranger+"="+one.deed+" "+one.path)
		if out, err := child.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		b.linux.settleWatch()
		b.linux.mu.Unlock()
		if !b.disturbed(time.Second) {
			t.Errorf("%s in %s by another process while Apply ran is not noticed", one.deed, one.path)
			b.linux.Resync()
		}
		b.apply(testConfig(2))
	}
	b.calm(t)
}
