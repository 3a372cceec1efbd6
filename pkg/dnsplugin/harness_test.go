package dnsplugin

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/miekg/dns"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Who asks in the tests: addresses that a client on this machine can really ask from.
var (
	one      = netip.MustParseAddr("127.0.0.11") // on front and back
	two      = netip.MustParseAddr("127.0.0.12") // on back and front
	three    = netip.MustParseAddr("127.0.0.13") // on other alone, which has the subnet of front
	stranger = netip.MustParseAddr("127.0.0.99")
)

func addrs(all ...string) []netip.Addr {
	var as []netip.Addr
	for _, a := range all {
		as = append(as, netip.MustParseAddr(a))
	}
	return as
}

// many are n addresses.
func many(n int) []netip.Addr {
	as := make([]netip.Addr, n)
	for i := range as {
		as[i] = netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)})
	}
	return as
}

// sample are the names that most tests ask for.
func sample() *Names {
	front := &Zone{Name: "front",
		Hosts: TableOf(map[string][]netip.Addr{
			"web": addrs("10.0.1.2"), "tasks.web": addrs("10.0.1.11", "10.0.1.12"), "www": addrs("10.0.1.2"),
			"web.1": addrs("10.0.1.11"), "web.1.abc": addrs("10.0.1.11"), "web.2": addrs("10.0.1.12"), "web.2.def": addrs("10.0.1.12"),
			"rr": addrs("10.0.1.21", "10.0.1.22", "10.0.1.23"), "rr.1": addrs("10.0.1.21"), "rr.2": addrs("10.0.1.22"), "rr.3": addrs("10.0.1.23"),
			"dual": addrs("10.0.1.31", "fd00:1::31"), "six": addrs("fd00:1::41"), "gone": nil, "both": nil,
			"big": many(300), "huge": many(10000),
		}),
		Reverse: TableOf(map[string]string{
			"10.0.1.2": "web.front", "10.0.1.11": "web.1.abc.front",
			"10.0.1.12": "web.2.def.front", "fd00:1::31": "dual.front",
			"10.0.1.21": "rr.1", "10.0.1.22": "rr.2", "10.0.1.23": "unknown",
		}),
		Ports: map[string][]Port{
			"web":  {{Name: "http", Protocol: "tcp", Port: 80}, {Name: "http", Protocol: "udp", Port: 443}, {Protocol: "tcp", Port: 9090}},
			"rr":   {{Name: "sip", Protocol: "udp", Port: 5060}, {Name: "alt", Protocol: "udp", Port: 5060}, {Name: "admin", Protocol: "tcp", Port: 9000}, {Protocol: "tcp", Port: 9000}},
			"gone": {{Name: "http", Protocol: "tcp", Port: 80}},
		},
	}
	back := &Zone{Name: "Back-End", Hosts: TableOf(map[string][]netip.Addr{
		"web": addrs("10.0.2.2"), "db": addrs("10.0.2.3"), "both": addrs("10.0.2.4"), "nothing": nil,
	}), Reverse: TableOf(map[string]string{"10.0.2.3": "db.back-end"})}
	other := &Zone{Name: "other", Hosts: TableOf(map[string][]netip.Addr{"web": addrs("10.0.1.77"), "secret": addrs("10.0.1.78")}),
		Reverse: TableOf(map[string]string{"10.0.1.11": "secret.other"})}
	return &Names{
		Zones: map[string]*Zone{"f": front, "b": back, "o": other},
		Askers: map[netip.Addr]*Asker{
			one: {Task: "t1", Zones: []string{"f", "b"}}, two: {Task: "t2", Zones: []string{"b", "unknown", "f"}},
			three: {Task: "t3", Zones: []string{"o"}},
		},
	}
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// recorder is a writer that keeps what is written, as it would be on the wire.
type recorder struct {
	dns.ResponseWriter
	local, remote net.Addr
	wire          []byte
	writes        int
}

func (r *recorder) LocalAddr() net.Addr  { return r.local }
func (r *recorder) RemoteAddr() net.Addr { return r.remote }
func (r *recorder) WriteMsg(m *dns.Msg) error {
	wire, err := m.Pack()
	if err != nil {
		return err
	}
	r.writes++
	r.wire = wire
	return nil
}

func udpFrom(a netip.Addr) *recorder {
	return &recorder{remote: net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 4321)), local: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 53}}
}

func tcpFrom(a netip.Addr) *recorder {
	return &recorder{remote: net.TCPAddrFromAddrPort(netip.AddrPortFrom(a, 4321)), local: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 53}}
}

// inside is a Server without sockets: CoreDNS's server with our plugin.
type inside struct {
	*Server
	core *dnsserver.Server
}

func newInside(t testing.TB, o Options, n *Names) *inside {
	t.Helper()
	if o.Log == nil {
		o.Log = quiet()
	}
	s := New(o)
	s.Set(n)
	ctx, cancel := context.WithCancel(context.Background())
	handler := &resolver{server: s, forwarder: newForwarder(ctx, s.log, o.Listen)}
	t.Cleanup(func() {
		cancel()
		handler.forwarder.probes.running.Wait()
	})
	// With Debug, CoreDNS lets a panic be one.
	core, err := dnsserver.NewServer("dns://test", []*dnsserver.Config{{Zone: ".", Debug: true, Plugin: []plugin.Plugin{
		func(plugin.Handler) plugin.Handler { return handler }}}})
	if err != nil {
		t.Fatal(err)
	}
	return &inside{s, core}
}

// ask gives the server a message, and unpacks the one that it writes.
func (i *inside) ask(t testing.TB, w *recorder, m *dns.Msg) *dns.Msg {
	t.Helper()
	i.core.ServeDNS(context.Background(), w, m)
	if w.writes != 1 {
		t.Fatalf("%v: %d messages were written", m.Question, w.writes)
	}
	answer := new(dns.Msg)
	if err := answer.Unpack(w.wire); err != nil {
		t.Fatalf("%v: %v", m.Question, err)
	}
	return answer
}

func question(name string, qtype uint16) *dns.Msg {
	return new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
}

// show is a message in a line a record, sorted, without times to live.
func show(m *dns.Msg) string {
	lines := []string{}
	for _, section := range []struct {
		name string
		rrs  []dns.RR
	}{{"", m.Answer}, {"ns ", m.Ns}, {"extra ", m.Extra}} {
		for _, rr := range section.rrs {
			if rr.Header().Rrtype == dns.TypeOPT {
				continue
			}
			fields := strings.Fields(rr.String())
			line := section.name + strings.Join(append(fields[:1:1], fields[3:]...), " ")
			if rr.Header().Rrtype == dns.TypeSOA {
				line = section.name + fields[0] + " SOA"
			}
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return strings.Join(append([]string{dns.RcodeToString[m.Rcode]}, lines...), "\n")
}

// outside is a Server that runs.
type outside struct {
	*Server
	addr netip.AddrPort
	stop func()
}

func start(t testing.TB, o Options, n *Names) *outside {
	t.Helper()
	if o.Listen == nil {
		o.Listen = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}
	}
	if o.Log == nil {
		o.Log = quiet()
	}
	s := New(o)
	if n != nil {
		s.Set(n)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	within, cancelWithin := context.WithTimeout(ctx, 10*time.Second)
	defer cancelWithin()
	bound, err := s.Bound(within)
	if err != nil {
		t.Fatal(err)
	}
	return &outside{s, bound[0], stop}
}

// client asks from an address.
func client(network string, from netip.Addr) *dns.Client {
	c := &dns.Client{Net: network, Timeout: 8 * time.Second, Dialer: &net.Dialer{LocalAddr: &net.UDPAddr{IP: from.AsSlice()}}}
	if network == "tcp" {
		c.Dialer.LocalAddr = &net.TCPAddr{IP: from.AsSlice()}
	}
	return c
}

func (o *outside) ask(t testing.TB, network string, from netip.Addr, m *dns.Msg) *dns.Msg {
	t.Helper()
	answer, _, err := client(network, from).Exchange(m, o.addr.String())
	if err != nil {
		t.Fatalf("%s %v: %v", network, m.Question, err)
	}
	return answer
}

// nameserver is somebody else's, which the tests forward to.
type nameserver struct {
	addr  netip.AddrPort
	asked atomic.Int64
}

func newNameserver(t testing.TB, answer func(m *dns.Msg, tcp bool) *dns.Msg) *nameserver {
	t.Helper()
	s, err := listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"), nil)
	if err != nil {
		t.Fatal(err)
	}
	n := &nameserver{addr: s.addr}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, m *dns.Msg) {
		n.asked.Add(1)
		if a := answer(m, network(w) == "tcp"); a != nil {
			w.WriteMsg(a)
		}
	})
	for _, server := range []*dns.Server{{PacketConn: s.udp, Handler: handler}, {Listener: s.tcp, Handler: handler}} {
		started, done := make(chan struct{}), make(chan error, 1)
		server.NotifyStartedFunc = func() { close(started) }
		go func() { done <- server.ActivateAndServe() }()
		<-started
		t.Cleanup(func() {
			server.Shutdown()
			<-done
		})
	}
	return n
}

// says makes the answer of a nameserver: records in zone file syntax; none is a denial.
func says(m *dns.Msg, records ...string) *dns.Msg {
	a := new(dns.Msg).SetReply(m)
	a.RecursionAvailable = true
	if len(records) == 0 {
		a.Rcode = dns.RcodeNameError
		records = []string{"ns:example. 3600 IN SOA ns.example. h.example. 1 1 1 1 3600"}
	}
	for _, r := range records {
		text, ns := strings.CutPrefix(r, "ns:")
		rr, err := dns.NewRR(text)
		if err != nil {
			panic(err)
		}
		if ns {
			a.Ns = append(a.Ns, rr)
		} else {
			a.Answer = append(a.Answer, rr)
		}
	}
	return a
}

// echoing answers with its name as an address's last byte.
func echoing(t testing.TB, last int) *nameserver {
	return newNameserver(t, func(m *dns.Msg, _ bool) *dns.Msg {
		return says(m, fmt.Sprintf("%s 300 IN A 192.0.2.%d", m.Question[0].Name, last))
	})
}

func fixed(all ...*nameserver) func() []netip.AddrPort {
	var list []netip.AddrPort
	for _, n := range all {
		list = append(list, n.addr)
	}
	return func() []netip.AddrPort { return list }
}
