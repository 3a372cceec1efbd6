package netplugin

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Both ways of forgetting take away what is meant, and leave the rest.
func TestForgetTakesWhatIsMeant(t *testing.T) {
	ways := map[string]func(*namespace, flows) error{
		"by the kernel": func(n *namespace, f flows) error { return n.request(unix.NETLINK_NETFILTER, f.request()) },
		"one by one":    func(n *namespace, f flows) error { return n.forgetEach(unix.AF_INET, f.match) },
	}
	for name, forget := range ways {
		t.Run(name, func(t *testing.T) {
			b, _ := withServers(t, 2, published("tcp", 8080, 0), published("udp", 8080, 0), published("tcp", 8081, 0), published("tcp", 8082, 1))
			serve(t, b.client, "outside", 9000)
			for _, to := range []struct {
				network string
				port    uint16
			}{{"tcp", 8080}, {"udp", 8080}, {"tcp", 8081}, {"tcp", 8082}} {
				_, _, err := ask(b.client, to.network, at(hostAddr, to.port))
				must(t, err)
			}
			_, _, err := ask(b.task("t0"), "tcp", at(clientAddr, 9000))
			must(t, err)
			expect := func(after string, t0, t1, out int) {
				t.Helper()
				if a, b, c := tracked(t, b.host, testAddr(0)), tracked(t, b.host, testAddr(1)), tracked(t, b.host, clientAddr); a != t0 || b != t1 || c != out {
					t.Errorf("after %s: %d connections to t0, %d to t1, %d from t0; want %d, %d, %d", after, a, b, c, t0, t1, out)
				}
			}
			expect("nothing", 3, 1, 1)
			must(t, forget(b.linux.host, flows{to: testAddr(0), toPort: 80, published: portKey{unix.IPPROTO_TCP, 8080}}))
			expect("one port", 2, 1, 1)
			must(t, forget(b.linux.host, flows{to: testAddr(0)}))
			expect("one backend", 0, 1, 1)
			must(t, forget(b.linux.host, flows{from: testAddr(0)}))
			expect("one source", 0, 1, 0)
			must(t, forget(b.linux.host, flows{to: testAddr(0)}))
			expect("nothing left", 0, 1, 0)
		})
	}
}

func TestBackendThatGoes(t *testing.T) {
	b, c := withServers(t, 2, published("tcp", 8080, 0), published("udp", 8080, 0))
	tcp, err := dial(b.client, "tcp", at(hostAddr, 8080))
	must(t, err)
	defer tcp.Close()
	_, _, err = answer(tcp)
	must(t, err)
	udp, err := dial(b.client, "udp", at(hostAddr, 8080))
	must(t, err)
	defer udp.Close()
	say := func() string {
		t.Helper()
		_, err := udp.Write([]byte("x"))
		must(t, err)
		server, _, err := answer(udp)
		must(t, err)
		return server
	}
	if got := say(); got != "t0" {
		t.Fatalf("answered by %s", got)
	}

	// Out of the ports, but there: it is being stopped, and finishes what it has begun.
	c.Published = []PublishedPort{published("tcp", 8080, 1), published("udp", 8080, 1)}
	b.apply(c)
	echo(t, tcp)
	if server, _, err := ask(b.client, "tcp", at(hostAddr, 8080)); err != nil || server != "t1" {
		t.Errorf("a new connection went to %q, %v", server, err)
	}

	// Gone: a TCP client is told so at its next packet, a UDP client's next packet goes to a live backend.
	c.Tasks = c.Tasks[1:]
	b.apply(c)
	must(t, tcp.SetDeadline(deadline()))
	if _, err = tcp.Write([]byte("hello?")); err == nil {
		_, err = tcp.Read(make([]byte, 1))
	}
	if !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the TCP client saw %v, want its connection reset", err)
	}
	if got := say(); got != "t1" {
		t.Errorf("the UDP client is answered by %s, want t1", got)
	}
}

func TestUnpublishedPortIsCut(t *testing.T) {
	// The other port leads to the same backend and more: its connections, forgotten by mistake, would mostly go elsewhere.
	b, c := withServers(t, 8, published("tcp", 8080, 0), published("tcp", 8081, 0, 1, 2, 3, 4, 5, 6, 7))
	var conns []net.Conn
	for _, port := range []uint16{8080, 8081} {
		for server := ""; server != "t0"; {
			one, err := dial(b.client, "tcp", at(hostAddr, port))
			must(t, err)
			defer one.Close()
			server, _, err = answer(one)
			must(t, err)
			conns = append(conns, one)
		}
	}
	c.Published = c.Published[1:]
	b.apply(c)
	for _, other := range conns[1:] {
		echo(t, other)
	}
	must(t, conns[0].SetDeadline(deadline()))
	_, err := conns[0].Write([]byte("hello?"))
	if err == nil {
		_, err = conns[0].Read(make([]byte, 1))
	}
	if !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("a client of the port saw %v, want its connection reset", err)
	}
}

func TestUDPClientThatWasEarly(t *testing.T) {
	b, c := withServers(t, 1)
	// A socket that is not connected does not mind that it is told that there is nobody.
	var early net.PacketConn
	must(t, b.client.within(func() (err error) {
		early, err = net.ListenPacket("udp4", ":0")
		return err
	}))
	defer early.Close()
	to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(hostAddr, 8080))
	_, err := early.WriteTo([]byte("anybody?"), to)
	must(t, err)
	c.Published = []PublishedPort{published("udp", 8080, 0)}
	b.apply(c)
	_, err = early.WriteTo([]byte("anybody?"), to)
	must(t, err)
	must(t, early.SetReadDeadline(deadline()))
	got := make([]byte, 100)
	n, _, err := early.ReadFrom(got)
	if err != nil || !strings.HasPrefix(string(got[:n]), "t0 ") {
		t.Errorf("the early client got %q, %v", got[:n], err)
	}
}

func TestStrangersAreForgotten(t *testing.T) {
	b, c := withServers(t, 2, published("tcp", 8080, 0))
	conn, err := dial(b.client, "tcp", at(hostAddr, 8080))
	must(t, err)
	defer conn.Close()
	_, _, err = answer(conn)
	must(t, err)
	// The daemon dies after the change of the ports and of the links, before it had the connections forgotten.
	b.linux.mu.Lock()
	must(t, b.linux.publish(&desired{base: b.linux.have.base}))
	must(t, b.linux.remove(map[string]TaskLink{"t0": b.linux.have.tasks["t0"]}))
	b.linux.mu.Unlock()
	b.restart()
	c.Tasks, c.Published = c.Tasks[1:], nil
	b.apply(c)
	if n := tracked(t, b.host, testAddr(0)); n != 0 {
		t.Errorf("%d connections of the task that is gone are tracked", n)
	}
}

// tracked counts the connections that an address answers.
func tracked(t testing.TB, n *namespace, a netip.Addr) (count int) {
	t.Helper()
	h, err := netlink.NewHandleAt(n.fd, unix.NETLINK_NETFILTER)
	must(t, err)
	defer h.Close()
	flows, err := dump(func() ([]*netlink.ConntrackFlow, error) {
		return h.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
	})
	must(t, err)
	for _, f := range flows {
		if f.Reverse.SrcIP.Equal(net.IP(a.AsSlice())) {
			count++
		}
	}
	return count
}
