package netplugin

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// held is a TCP and a UDP client of a node's port 8080, and who answers them.
type held struct {
	t        testing.TB
	tcp, udp net.Conn
	server   string
}

func (f *fabric) hold(node int) *held {
	f.t.Helper()
	h := &held{t: f.t}
	var err error
	h.tcp, err = dial(f.client, "tcp", at(nodeAddr(node), 8080))
	must(f.t, err)
	f.t.Cleanup(func() { _ = h.tcp.Close() })
	h.server, _, err = answer(h.tcp)
	must(f.t, err)
	h.udp, err = dial(f.client, "udp", at(nodeAddr(node), 8080))
	must(f.t, err)
	f.t.Cleanup(func() { _ = h.udp.Close() })
	return h
}

// say sends a datagram and returns who answers.
func (h *held) say() string {
	h.t.Helper()
	_, err := h.udp.Write([]byte("x"))
	must(h.t, err)
	server, _, err := answer(h.udp)
	must(h.t, err)
	return server
}

// reset tells whether the TCP client's next packet is answered by a reset.
func (h *held) reset() bool {
	must(h.t, h.tcp.SetDeadline(deadline()))
	_, err := h.tcp.Write([]byte("hello?"))
	if err == nil {
		_, err = h.tcp.Read(make([]byte, 1))
	}
	return errors.Is(err, unix.ECONNRESET)
}

func TestRemoteBackendThatGoes(t *testing.T) {
	f := newFabric(t, 3, 1)
	port := func(protocol string, backend [2]int, draining ...[2]int) PublishedPort {
		p := spread(protocol, 8080, backend)
		p.Draining = spread(protocol, 8080, draining...).Backends
		return p
	}
	f.publish(port("tcp", [2]int{1, 0}), port("udp", [2]int{1, 0}))
	f.serve()
	h := f.hold(0)
	if h.server != "n2t0" || h.say() != "n2t0" {
		t.Fatalf("answered by %s", h.server)
	}
	// It is being stopped, and finishes what it has begun by TCP. What comes by UDP has no end, and goes to a live backend.
	f.publish(port("tcp", [2]int{2, 0}, [2]int{1, 0}), port("udp", [2]int{2, 0}, [2]int{1, 0}))
	echo(t, h.tcp)
	if got := h.say(); got != "n3t0" {
		t.Errorf("the UDP client of a draining backend is answered by %s, want n3t0", got)
	}
	if server, _, err := ask(f.client, "tcp", at(nodeAddr(0), 8080)); err != nil || server != "n3t0" {
		t.Errorf("a new connection went to %q, %v", server, err)
	}
	// Gone: a TCP client is told so at its next packet.
	f.configs[1].Tasks = nil
	f.publish(port("tcp", [2]int{2, 0}), port("udp", [2]int{2, 0}))
	if !h.reset() {
		t.Error("the TCP client of a backend that is gone was not reset")
	}
	if got := h.say(); got != "n3t0" {
		t.Errorf("the UDP client of a backend that is gone is answered by %s, want n3t0", got)
	}
}

// While the daemon does not look, a backend goes.
func TestRemoteBackendThatWentUnseen(t *testing.T) {
	f := newFabric(t, 3, 1)
	f.publish(spread("tcp", 8080, [2]int{1, 0}), spread("udp", 8080, [2]int{1, 0}))
	f.serve()
	h := f.hold(0)
	h.say()
	// The daemon dies after the change of the ports, before it had the connections forgotten.
	l := f.nodes[0].linux
	l.mu.Lock()
	must(t, l.publish(&desired{base: l.have.base}))
	l.mu.Unlock()
	f.nodes[0].restart()
	f.publish(spread("tcp", 8080, [2]int{2, 0}), spread("udp", 8080, [2]int{2, 0}))
	if n := tracked(t, f.nodes[0].host, meshAddr(1, 0)); n != 0 {
		t.Errorf("%d connections of the backend that is gone are tracked", n)
	}
	if !h.reset() {
		t.Error("the TCP client was not reset")
	}
	if got := h.say(); got != "n3t0" {
		t.Errorf("the UDP client is answered by %s, want n3t0", got)
	}
}

// markedBy counts the connections by way of a node.
func markedBy(t testing.TB, n *namespace, node uint32) (count int) {
	t.Helper()
	h, err := netlink.NewHandleAt(n.fd, unix.NETLINK_NETFILTER)
	must(t, err)
	defer h.Close()
	flows, err := dump(func() ([]*netlink.ConntrackFlow, error) {
		return h.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
	})
	must(t, err)
	for _, f := range flows {
		if f.Mark == markBit|node {
			count++
		}
	}
	return count
}

func TestNodeThatGoes(t *testing.T) {
	for _, way := range []string{"seen", "unseen"} {
		t.Run(way, func(t *testing.T) {
			f := newFabric(t, 3, 1)
			ports := []PublishedPort{spread("tcp", 8080, [2]int{1, 0}), spread("udp", 8080, [2]int{1, 0})}
			f.publish(ports...)
			f.serve()
			stays, goes := f.hold(0), f.hold(2)
			stays.say()
			goes.say()
			router := f.nodes[1].linux.router
			if a, b := markedBy(t, router, 1), markedBy(t, router, 3); a != 2 || b != 2 {
				t.Fatalf("%d and %d connections by way of nodes 1 and 3, want 2 of each", a, b)
			}
			f.configs[1].Peers = f.configs[1].Peers[:1]
			if way == "unseen" {
				f.nodes[1].restart()
			}
			f.nodes[1].apply(f.configs[1])
			router = f.nodes[1].linux.router
			if a, b := markedBy(t, router, 1), markedBy(t, router, 3); a != 2 || b != 0 {
				t.Errorf("%d and %d connections by way of nodes 1 and 3, want 2 and none", a, b)
			}
			echo(t, stays.tcp)
			if got := stays.say(); got != "n2t0" {
				t.Errorf("answered by %s", got)
			}
			// What it had is nobody's, and comes back with it.
			fresh := newFabric(t, 3, 1)
			fresh.configs[1].Peers = fresh.configs[1].Peers[:1]
			fresh.publish(ports...)
			if got, want := f.nodes[1].dump(false), fresh.nodes[1].dump(false); got != want {
				t.Errorf("the node has\n%s\nwant\n%s", got, want)
			}
			f.configs[1] = meshConfig(3, 1, 1)
			f.publish(ports...)
			if server, seen, err := ask(f.client, "tcp", at(nodeAddr(2), 8080)); err != nil || server != "n2t0" || seen.Addr() != clientAddr {
				t.Errorf("after it came back: %q saw %s, %v", server, seen, err)
			}
		})
	}
}

// A machine that joins anew has another index, and may have the address and the block of before. Two may change places.
func TestNodesThatChange(t *testing.T) {
	f := newFabric(t, 3, 1)
	ports := []PublishedPort{spread("tcp", 8080, [2]int{1, 0}, [2]int{2, 0})}
	f.publish(ports...)
	f.serve()
	works := func(what string) {
		t.Helper()
		seen := map[string]bool{}
		for i := range 60 {
			server, from, err := ask(f.client, "tcp", at(nodeAddr(i%3), 8080))
			if err != nil || from.Addr() != clientAddr {
				t.Fatalf("%s: by way of node %d: %q saw %s, %v", what, i%3+1, server, from, err)
			}
			seen[server] = true
		}
		if len(seen) != 2 {
			t.Errorf("%s: only %v answered", what, seen)
		}
	}
	works("at first")
	f.configs[2].Node = 77
	for i := range 2 {
		f.configs[i].Peers[1].Node = 77
	}
	f.apply()
	works("with another index")
	// Nodes 2 and 77 change their indexes.
	f.configs[1].Node, f.configs[2].Node = 77, 2
	f.configs[0].Peers[0].Node, f.configs[0].Peers[1].Node = 77, 2
	f.configs[1].Peers[1].Node, f.configs[2].Peers[1].Node = 2, 77
	f.apply()
	works("with indexes changed")
	for n := range f.nodes {
		got := f.nodes[n].dump(false)
		f.nodes[n].linux.Resync()
		f.apply()
		if again := f.nodes[n].dump(false); got != again {
			t.Errorf("a resync of node %d found\n%s\nand made it\n%s", n+1, got, again)
		}
	}
}

func TestFirstAndLastPeer(t *testing.T) {
	f := newFabric(t, 2, 1)
	full := f.configs[0]
	alone := full
	alone.Peers = nil
	f.configs[0] = alone
	local := spread("tcp", 8080, [2]int{0, 0})
	f.configs[0].Published = []PublishedPort{local}
	f.nodes[0].apply(f.configs[0])
	serve(t, f.nodes[0].task("n1t0"), "n1t0", 80)
	before := f.nodes[0].dump(false)
	if _, err := f.nodes[0].linux.router.LinkByName(meshLink); err == nil {
		t.Error("a machine without peers has a link to them")
	}
	c, err := dial(f.client, "tcp", at(nodeAddr(0), 8080))
	must(t, err)
	defer c.Close()
	_, _, err = answer(c)
	must(t, err)

	f.configs[0] = full
	f.publish(local, spread("tcp", 8081, [2]int{1, 0}))
	serve(t, f.nodes[1].task("n2t0"), "n2t0", 80)
	echo(t, c)
	if server, seen, err := ask(f.client, "tcp", at(nodeAddr(0), 8081)); err != nil || server != "n2t0" || seen.Addr() != clientAddr {
		t.Errorf("with a peer: %q saw %s, %v", server, seen, err)
	}
	for _, one := range []struct {
		n    *namespace
		link string
		want int
	}{
		{f.nodes[0].host, hostLink, 1500}, {f.nodes[0].linux.router, routerLink, 1500},
		{f.nodes[0].linux.router, meshLink, 1450}, {f.nodes[0].linux.router, linkName(meshAddr(0, 0)), 1450}, {f.nodes[0].task("n1t0"), taskLink, 1450},
	} {
		l, err := one.n.LinkByName(one.link)
		must(t, err)
		if got := l.Attrs().MTU; got != one.want {
			t.Errorf("MTU of %s in %s is %d, want %d", one.link, one.n.name, got, one.want)
		}
	}

	alone.Published = []PublishedPort{local}
	f.nodes[0].apply(alone)
	echo(t, c)
	if after := f.nodes[0].dump(false); after != before {
		t.Errorf("after the last peer went there is\n%s\nwant\n%s", after, before)
	}
}

// TestFollowsTheMTU: the MTU of the link that packets leave by is followed as soon as it changes, also if it does while Apply runs.
func TestFollowsTheMTU(t *testing.T) {
	f := newFabric(t, 2, 1)
	f.publish(spread("tcp", 8080, [2]int{0, 0}))
	b := f.nodes[0]
	for _, mtu := range []int{1400, 1500} {
		b.calm(t)
		under, err := b.host.underlayLink(nodeAddr(0))
		must(t, err)
		setMTU(t, b.host, under.Attrs().Name, mtu)
		b.repair(t, "the underlay's MTU", f.configs[0])
		for _, one := range []struct {
			n    *namespace
			link string
			want int
		}{{b.linux.router, meshLink, mtu - 50}, {b.task("n1t0"), taskLink, mtu - 50}} {
			l, err := one.n.LinkByName(one.link)
			must(t, err)
			if got := l.Attrs().MTU; got != one.want {
				t.Errorf("MTU of %s in %s is %d, want %d", one.link, one.n.name, got, one.want)
			}
		}
	}
	b.linux.mu.Lock() // as an Apply that has measured already
	under, err := b.host.underlayLink(nodeAddr(0))
	must(t, err)
	setMTU(t, b.host, under.Attrs().Name, 1400)
	b.linux.settleWatch()
	b.linux.mu.Unlock()
	if !b.disturbed(time.Second) {
		t.Error("what changed during an Apply is not noticed")
	}
	b.apply(f.configs[0])
}

// Large packets fit, or their sender is told what does.
func TestMeshCarriesLargePackets(t *testing.T) {
	f := newFabric(t, 2, 1)
	f.publish(spread("tcp", 8080, [2]int{1, 0}), spread("udp", 8080, [2]int{1, 0}))
	f.serve()
	c, err := dial(f.client, "tcp", at(nodeAddr(0), 8080))
	must(t, err)
	defer c.Close()
	_, _, err = answer(c)
	must(t, err)
	must(t, c.SetDeadline(deadline()))
	sent := make([]byte, 1<<20)
	for i := range sent {
		sent[i] = byte(rand.Uint32())
	}
	go func() { _, _ = c.Write(sent) }()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != string(sent) {
		t.Errorf("a megabyte through the mesh: %v", err)
	}
	udp, err := dial(f.client, "udp", at(nodeAddr(0), 8080))
	must(t, err)
	defer udp.Close()
	must(t, udp.SetReadDeadline(deadline()))
	// Too large to go whole: the router says so, and the client's kernel sends the next in parts.
	for end := time.Now().Add(soon); ; {
		if _, err := udp.Write(make([]byte, 1460)); err != nil && !errors.Is(err, unix.EMSGSIZE) {
			t.Fatal(err)
		}
		must(t, udp.SetReadDeadline(time.Now().Add(soon/100)))
		if server, seen, err := answer(udp); err == nil {
			if server != "n2t0" || seen.Addr() != clientAddr {
				t.Errorf("answered by %s, which saw %s", server, seen)
			}
			break
		}
		if time.Now().After(end) {
			t.Fatal("large datagrams do not arrive")
		}
	}
}

// Clients come all the time to all nodes, while backends come and go as tasks do that are replaced: a new one is there before it
// takes connections, an old one drains before it goes.
func TestConnectionsWhileBackendsChange(t *testing.T) {
	f := newFabric(t, 3, 2)
	all := [][2]int{{0, 0}, {0, 1}, {1, 0}, {1, 1}, {2, 0}, {2, 1}}
	f.publish(spread("tcp", 8080, all...))
	f.serve()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	count, failed := 0, []error{}
	for worker := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				err := useOnce(f.client, at(nodeAddr((worker+i)%3), 8080))
				mu.Lock()
				count++
				if err != nil {
					failed = append(failed, err)
				}
				mu.Unlock()
			}
		})
	}
	tried := func() int {
		mu.Lock()
		defer mu.Unlock()
		return count
	}
	for start := time.Now(); tried() < 1000; {
		if time.Since(start) > 10*soon {
			t.Fatalf("only %d connections were tried", tried())
		}
		active := rand.N(len(all)) + 1
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		p := spread("tcp", 8080, all[:active]...)
		p.Draining = spread("tcp", 8080, all[active:]...).Backends
		// Nodes hear of it in any order.
		for _, n := range rand.Perm(len(f.nodes)) {
			f.configs[n].Published = []PublishedPort{p}
			f.nodes[n].apply(f.configs[n])
		}
	}
	close(stop)
	wg.Wait()
	t.Logf("%d connections", count)
	if len(failed) > 0 {
		t.Errorf("%d of %d connections failed, such as with %v", len(failed), count, failed[0])
	}
}

// useOnce connects, says something, and has it echoed.
func useOnce(n *namespace, to string) error {
	c, err := dial(n, "tcp", to)
	if err != nil {
		return err
	}
	defer c.Close()
	_, seen, err := answer(c)
	if err == nil && seen.Addr() != clientAddr {
		err = fmt.Errorf("the backend saw %s", seen)
	}
	if err != nil {
		return err
	}
	if err := c.SetDeadline(deadline()); err != nil {
		return err
	}
	if _, err := c.Write([]byte("ping")); err != nil {
		return err
	}
	_, err = io.ReadFull(c, make([]byte, 4))
	return err
}

// One backend is one small transaction, and one more in the router where it is a task of this machine, however many ports there are.
func TestOneMeshBackendIsASmallChange(t *testing.T) {
	f := newFabric(t, 3, 2)
	ports := func(first [2]int) (all []PublishedPort) {
		for i := range 2000 {
			backend := [2]int{1, 0}
			if i == 0 {
				backend = first
			}
			all = append(all, spread("tcp", uint16(10000+i), backend))
		}
		return all
	}
	c := f.configs[0]
	apply := func(first [2]int) {
		t.Helper()
		c.Published = ports(first)
		f.nodes[0].apply(c)
	}
	apply([2]int{1, 0})
	onHost, inRouter := writes(t, f.nodes[0].host), writes(t, f.nodes[0].linux.router)
	for _, tt := range []struct {
		name         string
		first        [2]int
		host, router int
	}{
		{"another of the same node", [2]int{1, 1}, 4, 0},
		{"of another node", [2]int{2, 0}, 4, 0},
		{"of this machine", [2]int{0, 0}, 4, 3},
		{"another of this machine", [2]int{0, 1}, 4, 6},
		{"of another node again", [2]int{2, 0}, 4, 3},
	} {
		apply(tt.first)
		if host, router := onHost(), inRouter(); host == 0 || host > tt.host || router > tt.router {
			t.Errorf("%s: %d changes on the host and %d in the router, want at most %d and %d", tt.name, host, router, tt.host, tt.router)
		}
	}
}
