package netplugin

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// slowServer answers what comes to UDP port 80 with its name, but "wait" only when it is told to.
type slowServer struct {
	name    string
	udp     net.PacketConn
	waiting chan net.Addr
}

func newSlowServer(t testing.TB, n *namespace, name string) *slowServer {
	t.Helper()
	s := &slowServer{name: name, waiting: make(chan net.Addr, 100)}
	must(t, n.within(func() (err error) {
		s.udp, err = net.ListenPacket("udp", ":80")
		return err
	}))
	t.Cleanup(func() { _ = s.udp.Close() })
	go func() {
		b := make([]byte, 1500)
		for {
			m, from, err := s.udp.ReadFrom(b)
			switch {
			case err != nil:
				return
			case string(b[:m]) == "wait":
				s.waiting <- from
			default:
				_, _ = s.udp.WriteTo([]byte(name), from)
			}
		}
	}()
	return s
}

// steady is a client of UDP with one socket, which takes answers from where it sends to alone.
type steady struct {
	t testing.TB
	net.Conn
	to string
}

// newSteady is one that has one of the servers, if any is named.
func newSteady(t testing.TB, n *namespace, to string, servers ...string) *steady {
	t.Helper()
	for range 200 {
		c, err := dial(n, "udp", to)
		must(t, err)
		t.Cleanup(func() { _ = c.Close() })
		s := &steady{t, c, fmt.Sprintf("%s from %s", to, n.name)}
		if got := s.ask(); len(servers) == 0 || slices.Contains(servers, got) {
			return s
		}
	}
	t.Fatalf("%s from %s never leads to %v", to, n.name, servers)
	return nil
}

func (s *steady) read() string {
	s.t.Helper()
	must(s.t, s.SetReadDeadline(time.Now().Add(2*time.Second)))
	b := make([]byte, 100)
	n, err := s.Read(b)
	if err != nil {
		s.t.Fatalf("%s: %v", s.to, err)
	}
	return string(b[:n])
}

func (s *steady) ask() string {
	s.t.Helper()
	_, err := s.Write([]byte("x"))
	must(s.t, err)
	return s.read()
}

// expect fails where another one answers.
func (s *steady) expect(what, want string) {
	s.t.Helper()
	if what != want {
		s.t.Errorf("%s: %q answered, want %q", s.to, what, want)
	}
}

// beginnings are the flows that begin at an address.
func beginnings(t testing.TB, n *namespace, a netip.Addr) (count int) {
	t.Helper()
	h, err := netlink.NewHandleAt(n.fd, unix.NETLINK_NETFILTER)
	must(t, err)
	defer h.Close()
	list, err := dump(func() ([]*netlink.ConntrackFlow, error) {
		return h.ConntrackTableList(netlink.ConntrackTable, netlink.InetFamily(familyOf(a)))
	})
	must(t, err)
	for _, f := range list {
		if addrOf(f.Forward.SrcIP) == a {
			count++
		}
	}
	return count
}

// handOverAll has clients, each in a namespace and of an address, whose server rests, of three that there are: then another one, then
// all. lead makes some of the servers, by number, those that new flows go to.
func handOverAll(t *testing.T, from []*namespace, to []string, servers []*slowServer, lead func(some ...int)) {
	t.Helper()
	var all []*steady
	waitForAll := func() {
		for _, one := range all {
			_, err := one.Write([]byte("wait"))
			must(t, err)
			one.ask() // what was sent before has arrived
		}
	}
	answerAll := func() {
		for _, s := range servers {
			for len(s.waiting) > 0 {
				_, err := s.udp.WriteTo([]byte("late"), <-s.waiting)
				must(t, err)
			}
		}
		for _, one := range all {
			one.expect(one.read(), "late")
		}
	}
	lead(0, 1, 2)
	for range 2 {
		for i, n := range from {
			all = append(all, newSteady(t, n, to[i], servers[0].name))
		}
	}
	waitForAll()
	lead(1, 2)
	answerAll() // what is on its way comes before anything new
	for _, one := range all {
		if got := one.ask(); got == servers[0].name {
			t.Errorf("%s still leads to %s", one.to, got)
		}
	}
	waitForAll()
	lead(2)
	for _, one := range all {
		one.expect(one.ask(), servers[2].name)
	}
	answerAll() // what is on its way comes after something new
	lead()
	for _, one := range all {
		one.expect(one.ask(), servers[2].name)
	}
	lead(1)
	for _, one := range all {
		one.expect(one.ask(), servers[1].name)
	}
}

// A client of UDP that keeps its port is led to another task as soon as its own is withdrawn from a published port, loses no
// answer, and is not led away from the last one. One of TCP keeps its connection.
func TestFlowsAreHandedOverAtPublishedPorts(t *testing.T) {
	for name, order := range map[string][3][2]int{"here": {{0, 0}, {1, 0}, {0, 1}}, "elsewhere": {{1, 0}, {0, 0}, {1, 1}}} {
		t.Run(name, func(t *testing.T) {
			f := newSixFabric(t, 2, 2)
			f.apply()
			var servers []*slowServer
			for _, o := range order {
				servers = append(servers, newSlowServer(t, f.nodes[o[0]].task(meshTask(o[0], o[1])), meshTask(o[0], o[1])))
			}
			serve(t, f.nodes[order[0][0]].task(servers[0].name), servers[0].name, 81)
			lead := func(some ...int) {
				// As the target's: the answer of a flow that nobody knows would look right, and begin one.
				udp, tcp := PublishedPort{Protocol: "udp", Port: 80}, PublishedPort{Protocol: "tcp", Port: 81}
				for i, o := range order {
					list := [2]*[]netip.AddrPort{&udp.Draining, &tcp.Draining}
					if slices.Contains(some, i) {
						list = [2]*[]netip.AddrPort{&udp.Backends, &tcp.Backends}
					}
					*list[0] = append(*list[0], netip.AddrPortFrom(meshAddr(o[0], o[1]), 80))
					*list[1] = append(*list[1], netip.AddrPortFrom(meshAddr(o[0], o[1]), 81))
				}
				f.publish(udp, tcp)
			}
			lead(0)
			held, _ := hold(t, f.client, at(hostAddr, 81))
			home := f.nodes[0]
			from := []*namespace{f.client, f.client, home.host, home.host, home.host, home.task("n1t1"), home.task("n1t1")}
			to := []string{at(hostAddr, 80), at(nodeSix(0), 80), "127.0.0.1:80", at(hostAddr, 80), "[::1]:80", at(hostAddr, 80), at(nodeSix(0), 80)}
			handOverAll(t, from, to, servers, lead)
			echo(t, held)

			for i := range f.configs {
				f.configs[i].Tasks, f.configs[i].Published = nil, nil
			}
			f.apply()
			for _, o := range order {
				four := meshAddr(o[0], o[1])
				for _, a := range []netip.Addr{four, home.linux.have.side(1).of(four)} {
					if n := beginnings(t, home.host, a); n != 0 {
						t.Errorf("%d flows of answers of %s, which is gone, are left", n, a)
					}
				}
			}
		})
	}
}

// The same at a virtual address.
func TestFlowsAreHandedOverAtVirtualAddresses(t *testing.T) {
	f, net := withTasks(t)
	var servers []*slowServer
	for _, one := range f.tasks[:3] {
		servers = append(servers, newSlowServer(t, f.space(one), one.id))
		serve(t, f.space(one), one.id, 81)
	}
	lead := func(some ...int) {
		var tasks []testTask
		for _, i := range some {
			tasks = append(tasks, f.tasks[i])
		}
		f.vip(net, 5, tasks...)
		f.apply()
	}
	var from []*namespace
	var to []string
	for _, one := range f.tasks {
		for _, six := range []bool{false, true} {
			from, to = append(from, f.space(one)), append(to, at(f.numbered(net, 5, six), 80))
		}
	}
	lead(0)
	held, _ := hold(t, f.space(f.tasks[3]), at(f.numbered(net, 5, false), 81))
	straight := newSteady(t, f.space(f.tasks[3]), at(f.address(f.tasks[0], net, false), 80))
	handOverAll(t, from, to, servers, lead)
	echo(t, held)
	straight.expect(straight.ask(), servers[0].name) // it did not ask for any other
}

// withTasks makes two machines with two tasks each on a network.
func withTasks(t *testing.T) (f *fleet, net int) {
	t.Helper()
	f = newFleet(t, 2)
	net = f.network(1, true)
	for _, m := range []int{0, 1, 0, 1} {
		f.task(m, net)
	}
	f.apply()
	return f, net
}
