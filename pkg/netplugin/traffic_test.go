package netplugin

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func deadline() time.Time { return time.Now().Add(soon) }

// at is an address and port to connect to.
func at(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }

// withServers makes a lab with n tasks that serve on port 80, each by its own name, and the ports published.
func withServers(t *testing.T, n int, ports ...PublishedPort) (*lab, Config) {
	t.Helper()
	b := newLab(t)
	c := testConfig(n)
	c.Published = ports
	b.apply(c)
	for i := range n {
		serve(t, b.task(c.Tasks[i].ID), c.Tasks[i].ID, 80)
	}
	return b, c
}

func TestEgressIsMasqueraded(t *testing.T) {
	b := newLab(t)
	b.apply(testConfig(2))
	serve(t, b.client, "outside", 9000)
	for _, network := range []string{"tcp", "udp"} {
		server, seen, err := ask(b.task("t0"), network, at(clientAddr, 9000))
		if err != nil || server != "outside" || seen.Addr() != hostAddr {
			t.Errorf("%s from a task: answered by %q, which saw %s, %v; want the machine's address %s", network, server, seen, err, hostAddr)
		}
	}
}

func TestTaskReachesTheMachine(t *testing.T) {
	b := newLab(t)
	b.apply(testConfig(1))
	serve(t, b.host, "machine", 9000)
	for _, to := range []netip.Addr{hostAddr, hostAddress} {
		if server, seen, err := ask(b.task("t0"), "tcp", at(to, 9000)); err != nil || server != "machine" || seen.Addr() != testAddr(0) {
			t.Errorf("task to %s: answered by %q, which saw %s, %v; want the task's own address", to, server, seen, err)
		}
	}
}

func TestPublishedPortKeepsTheClientsAddress(t *testing.T) {
	b, _ := withServers(t, 3, published("tcp", 8080, 0, 1, 2), published("udp", 8080, 0, 1, 2), published("tcp", 8081, 1), published("udp", 8081, 1))
	tests := []struct {
		from *namespace
		to   netip.Addr
		seen netip.Addr
	}{
		{b.client, hostAddr, clientAddr},
		{b.host, hostAddr, hostAddr},
		{b.host, netip.MustParseAddr("127.0.0.1"), hostAddress},
		{b.host, hostAddress, hostAddress},
		{b.task("t0"), hostAddr, hostAddress},
		{b.task("t1"), hostAddr, hostAddress}, // for port 8081 to itself
	}
	for _, tt := range tests {
		for _, network := range []string{"tcp", "udp"} {
			for _, port := range []uint16{8080, 8081} {
				server, seen, err := ask(tt.from, network, at(tt.to, port))
				if err != nil || seen.Addr() != tt.seen {
					t.Errorf("%s %s from %s: %q saw %s, %v; want %s", network, at(tt.to, port), tt.from.name, server, seen, err, tt.seen)
				}
				if port == 8081 && server != "t1" {
					t.Errorf("%s %s from %s: answered by %q, want the only backend t1", network, at(tt.to, port), tt.from.name, server)
				}
			}
		}
	}
}

func TestPublishedPortIsSharedEvenly(t *testing.T) {
	b, _ := withServers(t, 3, published("tcp", 8080, 0, 1, 2), published("udp", 8080, 0, 1, 2))
	const each = 100
	for _, network := range []string{"tcp", "udp"} {
		count := map[string]int{}
		for range 3 * each {
			server, _, err := ask(b.client, network, at(hostAddr, 8080))
			must(t, err)
			count[server]++
		}
		// The deviation of a count is sqrt(300·⅓·⅔) = 8.2; five of them happen by chance once in a million.
		for _, name := range []string{"t0", "t1", "t2"} {
			if n := count[name]; n < each-41 || n > each+41 {
				t.Errorf("%s: %d of %d connections went to %s, want about %d: %v", network, n, 3*each, name, each, count)
			}
		}
	}
}

// The kernel here may have no SCTP sockets; its connection tracking is all that we need, so packets are made by hand.
func TestPublishedSCTP(t *testing.T) {
	b, _ := withServers(t, 1, published("sctp", 8080, 0))
	raw := func(n *namespace) (fd int) {
		must(t, n.within(func() (err error) {
			fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
			return err
		}))
		t.Cleanup(func() { _ = unix.Close(fd) })
		must(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: int64(soon / 1e9)}))
		return fd
	}
	backend, client := raw(b.task("t0")), raw(b.client)
	must(t, unix.Sendto(client, sctpInit(33333, 8080), 0, &unix.SockaddrInet4{Addr: hostAddr.As4()}))
	p := make([]byte, 1500)
	size, _, err := unix.Recvfrom(backend, p, 0)
	if err != nil {
		t.Fatalf("the backend got no SCTP packet: %v", err)
	}
	p = p[:size]
	src, sctp := netip.AddrFrom4([4]byte(p[12:16])), p[4*(p[0]&15):]
	if port := binary.BigEndian.Uint16(sctp[2:]); src != clientAddr || port != 80 {
		t.Errorf("the backend got SCTP from %s to port %d, want from %s to 80", src, port, clientAddr)
	}
}

// sctpInit is an INIT packet, see RFC 9260.
func sctpInit(from, to uint16) []byte {
	p := make([]byte, 12+20)
	binary.BigEndian.PutUint16(p, from)
	binary.BigEndian.PutUint16(p[2:], to)
	p[12] = 1 // INIT
	binary.BigEndian.PutUint16(p[14:], 20)
	binary.BigEndian.PutUint32(p[16:], 7)     // initiate tag
	binary.BigEndian.PutUint32(p[20:], 65536) // window
	binary.BigEndian.PutUint32(p[24:], 1<<16|1)
	binary.BigEndian.PutUint32(p[28:], 1)
	binary.LittleEndian.PutUint32(p[8:], crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)))
	return p
}

func TestTasksAreApart(t *testing.T) {
	b, c := withServers(t, 2)
	t0 := b.task("t0")
	for _, to := range []netip.Addr{testAddr(1), testAddr(77), netip.MustParseAddr("100.64.2.5")} { // a task, nobody, another node's
		// Refused at once: by an ICMP message, not by a timeout.
		if _, err := dial(t0, "tcp", at(to, 80)); err == nil || isTimeout(err) {
			t.Errorf("task to gateway address %s: %v, want it refused at once", to, err)
		}
	}
	// That it is not for want of a server is what a published port shows.
	c.Published = []PublishedPort{published("tcp", 8080, 1)}
	b.apply(c)
	if server, _, err := ask(t0, "tcp", at(hostAddr, 8080)); err != nil || server != "t1" {
		t.Errorf("task to the published port: %q, %v", server, err)
	}
}

func TestNobodyStraightToTasks(t *testing.T) {
	b, _ := withServers(t, 1)
	eth, err := b.client.LinkByName("eth0")
	must(t, err)
	must(t, b.client.addRoute(route{dst: testBlock, link: eth.Attrs().Index, via: hostAddr}))
	task := b.task("t0")
	must(t, listenUDP(t, task, 81, func(from netip.AddrPort, data string) {
		if data == "straight" {
			t.Errorf("the task got a packet straight from %s", from)
		}
	}))
	outside, err := dial(b.client, "udp", at(testAddr(0), 81))
	must(t, err)
	defer outside.Close()
	if _, err := outside.Write([]byte("straight")); err != nil {
		t.Fatal(err)
	}
	// The machine itself may, which also shows that what was sent before has arrived or never will.
	if server, _, err := ask(b.host, "tcp", at(testAddr(0), 80)); err != nil || server != "t0" {
		t.Errorf("machine to its own task: %q, %v", server, err)
	}
}

// The router refuses such packets, and so does the machine, where gw0 routes loopback addresses: both are tried.
func TestTaskCannotReachLoopbackOfTheMachine(t *testing.T) {
	b := newLab(t)
	b.apply(testConfig(1))
	got := make(chan string, 10)
	must(t, listenUDP(t, b.host, 9000, func(_ netip.AddrPort, data string) { got <- data }))
	for _, hostile := range []struct {
		n    *namespace
		link string
		via  netip.Addr
	}{{b.task("t0"), taskLink, testBlock.Addr().Next()}, {b.linux.router, routerLink, hostAddress}} {
		must(t, hostile.n.within(func() error {
			return setSysctls(setting{name: "net.ipv4.conf.all.route_localnet", value: "1"})
		}))
		lo, err := hostile.n.LinkByName("lo")
		must(t, err)
		must(t, hostile.n.AddrDel(lo, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("127.0.0.1/8"))}))
		must(t, hostile.n.addRoute(route{dst: loopbacks[0], link: linkOf(t, hostile.n, hostile.link), via: hostile.via}))
		for _, to := range []string{"127.0.0.1:9000", at(hostAddr, 9000)} {
			c, err := dial(hostile.n, "udp", to)
			must(t, err)
			_, err = c.Write([]byte(to))
			must(t, err)
			must(t, c.Close())
		}
		// They take one path, so the one that is allowed comes last.
		if first := <-got; first != at(hostAddr, 9000) {
			t.Errorf("the machine got a packet that %s sent to %s", hostile.n.name, first)
		}
	}
}

func TestSpoofedSourcesAreDropped(t *testing.T) {
	b := newLab(t)
	b.apply(testConfig(2))
	got := make(chan string, 10)
	must(t, listenUDP(t, b.client, 9000, func(_ netip.AddrPort, data string) { got <- data }))
	task := b.task("t0")
	lo, err := task.LinkByName("lo")
	must(t, err)
	sources := []netip.Addr{testAddr(1), testAddr(50), testBlock.Addr().Next(), hostAddress, routerAddress, netip.MustParseAddr("8.8.8.8"), testAddr(0)}
	for _, src := range sources {
		if src != testAddr(0) {
			must(t, task.addAddress(lo, host(src)))
		}
		must(t, task.within(func() error {
			c, err := net.DialUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(src, 0)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(clientAddr, 9000)))
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Write([]byte(src.String()))
			return err
		}))
	}
	// They are sent in order over one path, so the true one would come last.
	if first := <-got; first != testAddr(0).String() {
		t.Errorf("a packet with the source %s came through, want only the task's own %s", first, testAddr(0))
	}
}

func TestIPv6IsOnLoopbackOnly(t *testing.T) {
	if _, err := os.Stat("/proc/net/if_inet6"); err != nil {
		t.Skip("this kernel has no IPv6")
	}
	b := newLab(t)
	b.apply(testConfig(1))
	for _, one := range []struct {
		n    *namespace
		want string
	}{{b.task("t0"), "[::1/128]"}, {b.linux.router, "[]"}} {
		list, err := dump(func() ([]netlink.Addr, error) { return one.n.AddrList(nil, unix.AF_INET6) })
		must(t, err)
		var have []netip.Prefix
		for _, a := range list {
			have = append(have, prefixOf(a.IPNet))
		}
		if fmt.Sprint(have) != one.want {
			t.Errorf("IPv6 addresses in %s: %s, want %s", one.n.name, have, one.want)
		}
	}
}

// listenUDP calls f with each datagram that comes to a port of the namespace.
func listenUDP(t testing.TB, n *namespace, port uint16, f func(from netip.AddrPort, data string)) error {
	return n.within(func() error {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{Port: int(port)})
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = c.Close() })
		go func() {
			b := make([]byte, 1500)
			for {
				size, from, err := c.ReadFromUDPAddrPort(b)
				if err != nil {
					return
				}
				f(from, string(b[:size]))
			}
		}()
		return nil
	})
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout() || errors.Is(err, syscall.ETIMEDOUT)
}

func TestDialInATask(t *testing.T) {
	b, _ := withServers(t, 1)
	c, err := b.linux.Dial(t.Context(), "t0", "tcp", "127.0.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	if from := c.RemoteAddr().String(); from != "127.0.0.1:80" {
		t.Errorf("connected to %s", from)
	}
	_ = c.Close()
	if _, err := b.linux.Dial(t.Context(), "t0", "tcp", "127.0.0.1:81"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a port without a server: %v, want that it is refused", err)
	}
	if _, err := b.linux.Dial(t.Context(), "t1", "tcp", "127.0.0.1:80"); err == nil {
		t.Error("a task that is not there takes connections")
	}
}
