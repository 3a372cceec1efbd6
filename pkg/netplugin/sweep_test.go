package netplugin

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// holdSweeps keeps links that are to go in the namespace, as they are until the kernel removes them, until release is called.
func (b *lab) holdSweeps(n *namespace) (release func()) {
	n.sweeper.drain()
	s := newSweeper(n, b.linux.notSwept)
	s.running = true
	n.sweeper = s
	released := false
	release = func() {
		if !released && n.Handle != nil {
			released = true
			go s.run()
			s.drain()
		}
	}
	b.t.Cleanup(release)
	return release
}

// links counts those of a namespace, also those that are to go.
func links(t testing.TB, n *namespace) int {
	t.Helper()
	all, err := dump(n.LinkList)
	must(t, err)
	return len(all)
}

// refused tells whether nothing at an address answers the namespace, at once.
func refused(t testing.TB, n *namespace, to netip.Addr) {
	t.Helper()
	if server, _, err := ask(n, "tcp", at(to, 80)); err == nil {
		t.Errorf("%s still answers %s: %s", to, n.name, server)
	}
}

// TestLinksGoBehindApply: nothing goes to or comes from a task that is gone, though its links are there still, and that they go
// disturbs nobody.
func TestLinksGoBehindApply(t *testing.T) {
	f := newFleet(t, 1)
	n := f.network(1, true)
	for range 3 {
		f.task(0, n)
	}
	f.apply()
	f.serve()
	b, overlay := f.labs[0], f.labs[0].linux.overlays["net0"].space
	stays, gone := f.space(f.tasks[0]), f.space(f.tasks[1])
	one, _ := hold(t, stays, at(f.address(f.tasks[1], n, false), 80))
	other, _ := hold(t, gone, at(f.address(f.tasks[0], n, true), 80))
	kept, _ := hold(t, stays, at(f.address(f.tasks[2], n, false), 80))
	before := []int{links(t, b.linux.router), links(t, overlay)}
	release := []func(){b.holdSweeps(b.linux.router), b.holdSweeps(overlay)}
	t1 := f.tasks[1]
	f.tasks = []testTask{f.tasks[0], f.tasks[2]}
	f.apply()
	if now := []int{links(t, b.linux.router), links(t, overlay)}; !slices.Equal(now, before) {
		t.Fatalf("%d links in the routers, want those that are to go as well, %d", now, before)
	}
	for _, six := range []bool{false, true} {
		refused(t, stays, f.address(t1, n, six))
		must(t, unreached(gone, f.address(f.tasks[0], n, six)))
	}
	must(t, unreached(gone, clientAddr))
	for _, c := range []net.Conn{one, other} {
		must(t, c.SetDeadline(time.Now().Add(200*time.Millisecond)))
		_, _ = c.Write([]byte("x"))
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a connection with a task that is gone goes on")
		}
	}
	b.calm(t)
	for _, r := range release {
		r()
	}
	if now := []int{links(t, b.linux.router), links(t, overlay)}; !slices.Equal(now, []int{before[0] - 1, before[1] - 1}) {
		t.Errorf("%d links in the routers, want one less of %d", now, before)
	}
	b.calm(t)
	echo(t, kept)
	f.apply()
	if len(b.linux.router.going)+len(overlay.going) > 0 {
		t.Errorf("links that went are waited for: %v, %v", b.linux.router.going, overlay.going)
	}
	cutOff(t, overlay, f.address(f.tasks[0], n, false))
	if !b.disturbed(soon) {
		t.Error("what others do is not noticed any more")
	}
	f.apply()
}

// unreached fails if an answer comes from an address.
func unreached(n *namespace, to netip.Addr) error {
	c, err := dial(n, "udp", at(to, 80))
	if err != nil {
		return nil
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		return err
	}
	_, _ = c.Write([]byte("x"))
	if _, err := c.Read(make([]byte, 1)); err == nil {
		return errors.New("it answers")
	}
	return nil
}

// TestAddressOfALinkThatGoes: a task that has the address of one that just went, on either network, gets it once the old link is gone.
func TestAddressOfALinkThatGoes(t *testing.T) {
	f := newFleet(t, 1)
	n := f.network(1, true)
	f.task(0, n)
	for i := range 12 {
		next := testTask{id: "n" + string(rune('a'+i)), gateway: testAddr(20), nets: []int{n}, alias: "t7"}
		switch i % 3 {
		case 1:
			next.gateway = testAddr(30 + i)
		case 2:
			next.alias = "t9"
		}
		f.tasks = append(f.tasks[:1:1], next)
		f.apply()
		serveAll(t, f.space(next), next.id, 80)
		for _, six := range []bool{false, true} {
			if server, _, err := ask(f.space(f.tasks[0]), "tcp", at(f.address(next, n, six), 80)); err != nil || server != next.id {
				t.Fatalf("task %s: answered by %q, %v", next.id, server, err)
			}
		}
		f.tasks = f.tasks[:1]
		f.apply()
	}
	b := f.labs[0]
	b.calm(t)

	// And an Apply that needs the address of a link that is there waits for that.
	f.tasks = append(f.tasks[:1:1], testTask{id: "old", gateway: testAddr(20), nets: []int{n}, alias: "t7"})
	f.apply()
	release := b.holdSweeps(b.linux.overlays["net0"].space)
	f.tasks = f.tasks[:1]
	f.apply()
	f.tasks = append(f.tasks, testTask{id: "new", gateway: testAddr(21), nets: []int{n}, alias: "t7"})
	c, done := f.config(0), make(chan error, 1)
	go func() { done <- b.linux.Apply(t.Context(), c) }()
	select {
	case err := <-done:
		t.Fatalf("an address was given while a link had it: %v", err)
	case <-time.After(3 * sweepPause):
	}
	release()
	must(t, <-done)
}

// TestKilledBeforeLinksGo: what a daemon leaves that is killed before links went, the next one removes, or gives back to who has it again.
func TestKilledBeforeLinksGo(t *testing.T) {
	for _, back := range []bool{false, true} {
		f := newFleet(t, 1)
		n := f.network(1, true)
		for range 4 {
			f.task(0, n)
		}
		f.apply()
		b, all := f.labs[0], f.tasks
		b.holdSweeps(b.linux.router)
		b.holdSweeps(b.linux.overlays["net0"].space)
		f.tasks = all[:2:2]
		f.apply()
		b.kill(t)
		if back {
			f.tasks = all
		}
		f.apply()
		got := b.dump(false)
		must(t, b.linux.Teardown(t.Context()))
		f.apply()
		if diff := cmp.Diff(b.dump(false), got); diff != "" {
			t.Errorf("after a kill, tasks back %v (-fresh +got):\n%s", back, diff)
		}
	}
}

// kill is the end of a daemon that does nothing more, and the start of the next.
func (b *lab) kill(t *testing.T) {
	t.Helper()
	old := b.linux
	old.stopWatching()
	must(t, unix.Close(old.lock))
	old.lock = -1
	for _, n := range old.routers() {
		if s := n.sweeper; s != nil {
			s.waiting, s.held = nil, map[netip.Addr]int{}
		}
	}
	b.start()
	t.Cleanup(func() {
		old.host.close()
		for _, n := range old.routers() {
			if n.sweeper != nil {
				n.sweeper.running = false
			}
			n.close()
		}
	})
}

// TestSweepFails: a link that the kernel does not remove is told of, and the next Apply removes it.
func TestSweepFails(t *testing.T) {
	b := newLab(t)
	b.apply(testConfig(2))
	before := links(t, b.linux.router)
	release := b.holdSweeps(b.linux.router)
	broken, err := nl.GetNetlinkSocketAt(b.linux.router.fd, b.linux.host.fd, unix.NETLINK_ROUTE)
	must(t, err)
	broken.Close()
	b.linux.router.sweeper.sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: broken}}
	// The link of a task whose namespace stays does not go by itself.
	held := b.task("t1")
	b.apply(testConfig(1))
	release()
	b.linux.router.sweeper.sockets = nil
	if n := links(t, b.linux.router); n != before {
		t.Fatalf("%d links, want %d: none was to be removed", n, before)
	}
	if !b.disturbed(soon) {
		t.Fatal("that a link was not removed is not told")
	}
	b.apply(testConfig(1))
	if n := links(t, b.linux.router); n != before-1 {
		t.Errorf("%d links after the next Apply, want %d", n, before-1)
	}
	held.close()
	b.calm(t)
}

// TestManyLinksGo: more links than may wait, and than go at once.
func TestManyLinksGo(t *testing.T) {
	b := newLab(t)
	b.apply(testConfig(0))
	empty := links(t, b.linux.router)
	b.apply(testConfig(mostSwept/2 + 50))
	b.apply(testConfig(mostSwept/2 - 50))
	b.apply(testConfig(0))
	if n := linkCount(t, b.linux.router); n != empty {
		t.Errorf("%d links are left", n-empty)
	}
	b.calm(t)
}
