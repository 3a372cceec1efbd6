package netplugin

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
)

// serveNames answers at the resolver's address as serve does at others.
func serveNames(t testing.TB, n *namespace) {
	t.Helper()
	var tcp net.Listener
	var udp net.PacketConn
	must(t, n.within(func() (err error) {
		if tcp, err = net.Listen("tcp4", Resolver.String()); err != nil {
			return err
		}
		udp, err = net.ListenPacket("udp4", Resolver.String())
		return err
	}))
	t.Cleanup(func() { _, _ = tcp.Close(), udp.Close() })
	go func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(c, "names %s\n", c.RemoteAddr())
			_ = c.Close()
		}
	}()
	go func() {
		b := make([]byte, 1500)
		for {
			_, from, err := udp.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = udp.WriteTo(fmt.Appendf(nil, "names %s\n", from), from)
		}
	}()
}

func TestTasksReachTheResolver(t *testing.T) {
	f := newFabric(t, 2, 2)
	// A name server that the swarm publishes is another one.
	f.publish(spread("udp", 53, [2]int{1, 0}), spread("tcp", 53, [2]int{1, 0}))
	f.serve()
	home := f.nodes[0]
	serveNames(t, home.host)
	for n := range 2 {
		task := home.task(meshTask(0, n))
		for _, to := range []netip.Addr{Resolver.Addr(), dockerResolver} {
			for _, network := range []string{"udp", "tcp"} {
				server, seen, err := ask(task, network, at(to, 53))
				if err != nil || server != "names" || seen.Addr() != meshAddr(0, n) {
					t.Errorf("%s %s from task %d: answered by %q, which saw %s, %v; want the task's %s", network, to, n, server, seen, err, meshAddr(0, n))
				}
			}
		}
	}
	for _, network := range []string{"udp", "tcp"} {
		if server, _, err := ask(home.host, network, Resolver.String()); err != nil || server != "names" {
			t.Errorf("%s from the machine: %q, %v", network, server, err)
		}
		if server, seen, err := ask(f.client, network, at(nodeAddr(0), 53)); err != nil || server != "n2t0" || seen.Addr() != clientAddr {
			t.Errorf("%s to the published name server: %q saw %s, %v", network, server, seen, err)
		}
	}
}

func TestResolverIsForTasksOnly(t *testing.T) {
	b := newLab(t)
	b.apply(testConfig(1))
	box, other := &inbox{}, &inbox{}
	for port, into := range map[int]*inbox{53: box, 54: other} {
		must(t, b.host.within(func() error {
			c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(Resolver.Addr(), uint16(port))))
			if err != nil {
				return err
			}
			t.Cleanup(func() { _ = c.Close() })
			go func() {
				data := make([]byte, 100)
				for {
					n, from, err := c.ReadFromUDPAddrPort(data)
					if err != nil {
						return
					}
					into.mu.Lock()
					into.all = append(into.all, from.Addr().String()+" "+string(data[:n]))
					into.mu.Unlock()
				}
			}()
			return nil
		}))
	}
	must(t, b.client.addRoute(route{dst: host(Resolver.Addr()), link: linkOf(t, b.client, "eth0"), via: hostAddr}))
	send(t, b.client, Resolver, []byte("stranger"))
	send(t, b.task("t0"), netip.AddrPortFrom(Resolver.Addr(), 54), []byte("other port"))
	if _, err := dial(b.task("t0"), "tcp", at(Resolver.Addr(), 55)); err == nil || isTimeout(err) {
		t.Errorf("another port of the resolver: %v, want it refused at once", err)
	}
	for _, got := range box.wait(t, "task", func() { send(t, b.task("t0"), netip.AddrPortFrom(dockerResolver, 53), []byte("task")) }) {
		if got != testAddr(0).String()+" task" {
			t.Errorf("the resolver got %q", got)
		}
	}
	if got := other.take(); len(got) != 0 {
		t.Errorf("another port got %q", got)
	}
}
