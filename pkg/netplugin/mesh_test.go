package netplugin

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// everywhere is a port with two tasks of each of three nodes behind it.
func everywhere(protocol string, port uint16) PublishedPort {
	return spread(protocol, port, [2]int{0, 0}, [2]int{0, 1}, [2]int{1, 0}, [2]int{1, 1}, [2]int{2, 0}, [2]int{2, 1})
}

func TestMeshKeepsTheClientsAddress(t *testing.T) {
	f := newFabric(t, 3, 2)
	f.publish(everywhere("tcp", 8080), everywhere("udp", 8080))
	f.serve()
	const each = 60
	for n := range f.nodes {
		for _, network := range []string{"tcp", "udp"} {
			count := map[string]int{}
			for range 6 * each {
				server, seen, err := ask(f.client, network, at(nodeAddr(n), 8080))
				if err != nil {
					t.Fatalf("%s to node %d: %v", network, n+1, err)
				}
				if seen.Addr() != clientAddr {
					t.Fatalf("%s to node %d: backend %s saw %s, want the client's own %s", network, n+1, server, seen, clientAddr)
				}
				count[server]++
			}
			// The deviation of a count is sqrt(360·⅙·⅚) = 7.1; six of them happen by chance once in a hundred million.
			for node := range f.nodes {
				for task := range 2 {
					if got := count[meshTask(node, task)]; got < each-42 || got > each+42 {
						t.Errorf("%s to node %d: %d of %d connections went to %s, want about %d: %v", network, n+1, got, 6*each, meshTask(node, task), each, count)
					}
				}
			}
		}
	}
}

func TestMeshFromInside(t *testing.T) {
	f := newFabric(t, 3, 2)
	remote := [2]int{1, 0}
	f.publish(spread("tcp", 8080, remote), spread("udp", 8080, remote), spread("tcp", 8081, [2]int{0, 0}), spread("udp", 8081, [2]int{0, 0}))
	f.serve()
	home := f.nodes[0]
	tests := []struct {
		from *namespace
		to   netip.Addr
	}{
		{home.host, netip.MustParseAddr("127.0.0.1")},
		{home.host, nodeAddr(0)},
		{home.host, nodeAddr(1)},
		{home.host, nodeAddr(2)},
		{home.task("n1t0"), nodeAddr(0)},
		{home.task("n1t0"), nodeAddr(1)},
		{home.task("n1t0"), nodeAddr(2)},
		{home.task("n1t1"), nodeAddr(0)},
	}
	for _, tt := range tests {
		for _, network := range []string{"tcp", "udp"} {
			for port, want := range map[uint16]string{8080: "n2t0", 8081: "n1t0"} {
				server, seen, err := ask(tt.from, network, at(tt.to, port))
				if err != nil || server != want || seen.Addr() != nodeAddr(0) {
					t.Errorf("%s %s from %s: %q saw %s, %v; want %s to see the node's %s", network, at(tt.to, port), tt.from.name, server, seen, err, want, nodeAddr(0))
				}
			}
		}
	}
}

// The same address and port of a client, by way of three nodes to one backend, are three connections that look the same to it but
// for what the backend's machine does about it.
func TestMeshKeepsEqualConnectionsApart(t *testing.T) {
	f := newFabric(t, 3, 1)
	backend := [2]int{1, 0}
	f.publish(spread("tcp", 8080, backend), spread("udp", 8080, backend))
	f.serve()
	for _, network := range []string{"tcp", "udp"} {
		for port := 40000; port < 40004; port++ {
			var all []net.Conn
			ports := map[uint16]bool{}
			for n := range f.nodes {
				c, err := dialFrom(f.client, network, port, at(nodeAddr(n), 8080))
				if err != nil {
					t.Fatalf("%s from port %d to node %d: %v", network, port, n+1, err)
				}
				defer c.Close()
				all = append(all, c)
				if network == "udp" {
					_, err := c.Write([]byte("x"))
					must(t, err)
				}
				_, seen, err := answer(c)
				if err != nil || seen.Addr() != clientAddr {
					t.Fatalf("%s from port %d to node %d: the backend saw %s, %v", network, port, n+1, seen, err)
				}
				ports[seen.Port()] = true
			}
			if len(ports) != len(f.nodes) || !ports[uint16(port)] {
				t.Errorf("%s: the backend saw the ports %v, want one for each node, and %d among them", network, ports, port)
			}
			for _, c := range all {
				if network == "tcp" {
					echo(t, c)
				}
			}
		}
	}
}

// dialFrom connects from a port that others may have too, to other addresses.
func dialFrom(n *namespace, network string, port int, to string) (c net.Conn, err error) {
	d := net.Dialer{Timeout: soon, Control: func(_, _ string, raw syscall.RawConn) error {
		var set error
		err := raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
		return errors.Join(err, set)
	}}
	d.LocalAddr = &net.TCPAddr{Port: port}
	if network == "udp" {
		d.LocalAddr = &net.UDPAddr{Port: port}
	}
	err = n.within(func() error {
		c, err = d.Dial(network, to)
		return err
	})
	return c, err
}

// What a task's kernel and its router say about a connection comes to the client as its own.
func TestErrorsComeByTheIngress(t *testing.T) {
	f := newFabric(t, 2, 2)
	f.publish(spread("udp", 8080, [2]int{1, 0}), spread("udp", 8081, [2]int{1, 1}))
	serve(t, f.nodes[1].task("n2t1"), "n2t1", 80)
	c := dialWithErrors(t, f.client, at(nodeAddr(0), 8080))
	must(t, c.SetDeadline(deadline()))
	_, err := c.Write([]byte("x"))
	must(t, err)
	if _, err := c.Read(make([]byte, 10)); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a port that nobody listens on: %v", err)
	}
	c = dialWithErrors(t, f.client, at(nodeAddr(0), 8081))
	_, err = c.Write([]byte("x"))
	must(t, err)
	_, _, err = answer(c)
	must(t, err)
	must(t, f.nodes[1].linux.cut(meshAddr(1, 1)))
	must(t, c.SetDeadline(deadline()))
	_, err = c.Write([]byte("x"))
	must(t, err)
	if _, err := c.Read(make([]byte, 10)); !errors.Is(err, unix.EHOSTUNREACH) {
		t.Errorf("a task that is gone: %v", err)
	}
	f.nodes[1].linux.Resync()
}

// dialWithErrors connects by UDP, and wants to be told of all errors.
func dialWithErrors(t testing.TB, n *namespace, to string) net.Conn {
	t.Helper()
	c, err := dial(n, "udp", to)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	raw, err := c.(*net.UDPConn).SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVERR, 1) }))
	must(t, err)
	return c
}

// The kernel's connection tracking knows SCTP also where it has no sockets for it: packets are made by hand.
func TestMeshSCTP(t *testing.T) {
	f := newFabric(t, 2, 1)
	f.publish(spread("sctp", 8080, [2]int{1, 0}))
	backend, client := sctpSocket(t, f.nodes[1].task("n2t0")), sctpSocket(t, f.client)
	must(t, unix.Sendto(client, sctpInit(33333, 8080), 0, &unix.SockaddrInet4{Addr: nodeAddr(0).As4()}))
	src, from, to := receiveSCTP(t, backend)
	if src != clientAddr || from != 33333 || to != 80 {
		t.Errorf("the backend got SCTP from %s port %d to %d, want from %s port 33333 to 80", src, from, to, clientAddr)
	}
	// The answer comes back by the ingress: from its address, and the port that was asked.
	ack := sctpInit(80, 33333)
	ack[12] = 2 // INIT ACK
	binary.BigEndian.PutUint32(ack[4:], 7)
	binary.LittleEndian.PutUint32(ack[8:], 0)
	binary.LittleEndian.PutUint32(ack[8:], crc32.Checksum(ack, crc32.MakeTable(crc32.Castagnoli)))
	must(t, unix.Sendto(backend, ack, 0, &unix.SockaddrInet4{Addr: clientAddr.As4()}))
	if src, from, to := receiveSCTP(t, client); src != nodeAddr(0) || from != 8080 || to != 33333 {
		t.Errorf("the client got SCTP from %s port %d to %d, want from %s port 8080 to 33333", src, from, to, nodeAddr(0))
	}
}

func TestMeshSCTPConnection(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err != nil {
		t.Skipf("this kernel has no SCTP sockets: %v", err)
	}
	_ = unix.Close(fd)
	f := newFabric(t, 2, 1)
	f.publish(spread("sctp", 8080, [2]int{1, 0}))
	open := func(n *namespace) (fd int) {
		must(t, n.within(func() (err error) {
			fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
			return err
		}))
		t.Cleanup(func() { _ = unix.Close(fd) })
		return fd
	}
	server, client := open(f.nodes[1].task("n2t0")), open(f.client)
	must(t, unix.Bind(server, &unix.SockaddrInet4{Port: 80}))
	must(t, unix.Listen(server, 1))
	must(t, unix.Connect(client, &unix.SockaddrInet4{Addr: nodeAddr(0).As4(), Port: 8080}))
	_, peer, err := unix.Accept(server)
	must(t, err)
	if got := netip.AddrFrom4(peer.(*unix.SockaddrInet4).Addr); got != clientAddr {
		t.Errorf("the backend saw %s, want %s", got, clientAddr)
	}
}

func sctpSocket(t testing.TB, n *namespace) (fd int) {
	t.Helper()
	must(t, n.within(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
		return err
	}))
	t.Cleanup(func() { _ = unix.Close(fd) })
	must(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: int64(soon / 1e9)}))
	return fd
}

// receiveSCTP is the source and the ports of the next packet.
func receiveSCTP(t testing.TB, fd int) (src netip.Addr, from, to uint16) {
	t.Helper()
	p := make([]byte, 1500)
	size, _, err := unix.Recvfrom(fd, p, 0)
	if err != nil {
		t.Fatalf("no SCTP packet came: %v", err)
	}
	p = p[:size]
	sctp := p[4*(p[0]&15):]
	return netip.AddrFrom4([4]byte(p[12:16])), binary.BigEndian.Uint16(sctp), binary.BigEndian.Uint16(sctp[2:])
}

func TestMeshOverIPv6(t *testing.T) {
	f := newFabric(t, 2, 1)
	under := func(n int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("fd77::%d", n+1)) }
	for n, b := range f.nodes {
		out, err := b.host.LinkByName("out0")
		must(t, err)
		err = b.host.AddrAdd(out, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(under(n), 64)), Flags: unix.IFA_F_NODAD})
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EACCES) {
			t.Skipf("this kernel has no IPv6: %v", err)
		}
		must(t, err)
		f.configs[n].Underlay = under(n)
		f.configs[n].Peers[0].Underlay = under(1 - n)
	}
	f.publish(spread("tcp", 8080, [2]int{1, 0}), spread("udp", 8080, [2]int{1, 0}))
	f.serve()
	for _, network := range []string{"tcp", "udp"} {
		if server, seen, err := ask(f.client, network, at(nodeAddr(0), 8080)); err != nil || server != "n2t0" || seen.Addr() != clientAddr {
			t.Errorf("%s: %q saw %s, %v", network, server, seen, err)
		}
		if server, seen, err := ask(f.nodes[0].host, network, "127.0.0.1:8080"); err != nil || server != "n2t0" || seen.Addr() != hostAddress {
			t.Errorf("%s from the node: %q saw %s, %v", network, server, seen, err)
		}
	}
	l, err := f.nodes[0].task("n1t0").LinkByName(taskLink)
	must(t, err)
	if got := l.Attrs().MTU; got != 1430 {
		t.Errorf("MTU of a task's link is %d, want 1430", got)
	}
	frame := vxlanFrame(1, 2, netip.MustParseAddrPort("192.0.2.1:99"), netip.AddrPortFrom(meshAddr(1, 0), 80), "injected")
	if _, err := sendUDP(f.nodes[0].host, netip.AddrPortFrom(under(1), defaultDataPort), frame); !errors.Is(err, unix.EPERM) {
		t.Errorf("a program sends to the data port: %v, want it refused", err)
	}
	want := f.nodes[0].dump(true)
	f.nodes[0].linux.Resync()
	f.apply()
	if got := f.nodes[0].dump(true); got != want {
		t.Errorf("a resync made\n%s\nof\n%s", got, want)
	}
}

// TestMeshToSeveralTargets: tasks behind one port may be led to at several ports of theirs, as they are while an update changes it. Those that
// come and go there, and a restart, leave connections to the others alone.
func TestMeshToSeveralTargets(t *testing.T) {
	f := newFabric(t, 3, 1)
	before, after := spread("tcp", 8080, [2]int{1, 0}), spread("tcp", 8080, [2]int{1, 0})
	after.Backends = append(after.Backends, netip.AddrPortFrom(meshAddr(2, 0), 81))
	f.publish(before)
	serve(t, f.nodes[1].task("n2t0"), "n2t0", 80)
	serve(t, f.nodes[2].task("n3t0"), "n3t0", 81)
	var old []net.Conn
	for n := range f.nodes {
		c, err := dial(f.client, "tcp", at(nodeAddr(n), 8080))
		must(t, err)
		defer c.Close()
		_, _, err = answer(c)
		must(t, err)
		old = append(old, c)
	}
	leads := func(step string, want ...string) {
		t.Helper()
		for n := range f.nodes {
			count := map[string]int{}
			for range 40 { // one of two is missed by chance once in 10¹¹
				server, _, err := ask(f.client, "tcp", at(nodeAddr(n), 8080))
				if err != nil {
					t.Fatalf("%s, node %d: %v", step, n+1, err)
				}
				count[server]++
			}
			if got := slices.Sorted(maps.Keys(count)); !slices.Equal(got, want) {
				t.Errorf("%s, node %d leads to %v, want %v", step, n+1, got, want)
			}
			echo(t, old[n])
		}
	}
	leads("before", "n2t0")
	f.publish(after)
	leads("both", "n2t0", "n3t0")
	for _, b := range f.nodes {
		b.restart()
	}
	f.apply()
	leads("after a restart", "n2t0", "n3t0")
	after.Backends, after.Draining = after.Backends[1:], after.Backends[:1]
	f.publish(after)
	leads("the old one rests", "n3t0")
}
