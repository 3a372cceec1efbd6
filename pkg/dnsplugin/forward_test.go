package dnsplugin

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestForward asks for what is not ours.
func TestForward(t *testing.T) {
	up := newNameserver(t, func(m *dns.Msg, tcp bool) *dns.Msg {
		switch name := strings.ToLower(m.Question[0].Name); name {
		case "a.example.":
			return says(m, m.Question[0].Name+" 300 IN A 192.0.2.7", "ns:example. 300 IN NS ns.example.")
		case "alias.example.":
			return says(m, name+" 300 IN CNAME a.example.", "a.example. 300 IN A 192.0.2.7")
		case "huge.example.":
			a := says(m, name+" 300 IN A 192.0.2.7")
			if a.Truncated = !tcp; tcp {
				for i := range 100 {
					a.Answer = append(a.Answer, says(m, fmt.Sprintf("%s 300 IN A 198.51.100.%d", name, i)).Answer...)
				}
			}
			return a
		case "edns.example.":
			opt := m.IsEdns0()
			return says(m, fmt.Sprintf("%s 300 IN TXT \"size %d do %t options %d\"", name, opt.UDPSize(), opt.Do(), len(opt.Option))).SetEdns0(4096, true)
		case "empty.example.":
			return says(m, "ns:example. 3600 IN SOA ns.example. h.example. 1 1 1 1 3600")
		default:
			return says(m)
		}
	})
	s := newInside(t, Options{Nameservers: fixed(up)}, sample())
	for _, test := range []struct {
		name  string
		qtype uint16
		want  string
		ttl   uint32
	}{
		{"a.example", dns.TypeA, "NOERROR\na.example. A 192.0.2.7\nns example. NS ns.example.", 300},
		{"alias.example", dns.TypeA, "NOERROR\na.example. A 192.0.2.7\nalias.example. CNAME a.example.", 300},
		{"empty.example", dns.TypeA, "NOERROR\nns example. SOA", longestDenial},
		{"no.example", dns.TypeA, "NXDOMAIN\nns example. SOA", longestDenial},
		{"single", dns.TypeA, "NXDOMAIN\nns example. SOA", negativeTTL},
		{"nosuch.front", dns.TypeA, "NXDOMAIN\nns example. SOA", longestDenial},
		{"9.9.9.9.in-addr.arpa", dns.TypePTR, "NXDOMAIN\nns example. SOA", longestDenial},
	} {
		for _, round := range []string{"asked", "kept"} {
			before := up.asked.Load()
			got := s.ask(t, udpFrom(one), question(test.name, test.qtype))
			if show(got) != test.want {
				t.Errorf("%s %s: %s", test.name, round, show(got))
			}
			if again := up.asked.Load() != before; round == "kept" && again != (test.ttl < shortest) {
				t.Errorf("%s was asked for again: %t", test.name, again)
			}
			for _, rr := range append(got.Answer, got.Ns...) {
				if ttl := rr.Header().Ttl; ttl > test.ttl || ttl+2 < test.ttl {
					t.Errorf("%s %s: %s", test.name, round, rr)
				}
			}
			if got.Authoritative || !got.RecursionAvailable {
				t.Errorf("%s: authoritative %t, recursion available %t", test.name, got.Authoritative, got.RecursionAvailable)
			}
		}
	}
	if got := s.ask(t, udpFrom(one), question("HUGE.example", dns.TypeA)); !got.Truncated {
		t.Errorf("over UDP: %s", show(got))
	}
	if got := s.ask(t, tcpFrom(one), question("HUGE.example", dns.TypeA)); got.Truncated || len(got.Answer) != 101 {
		t.Errorf("over TCP: %d records", len(got.Answer))
	}
	// The asker's options stay here; so do the nameserver's.
	m := question("edns.example", dns.TypeTXT).SetEdns0(4096, true)
	m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_LOCAL{Code: 65001, Data: []byte("x")})
	got := s.ask(t, udpFrom(one), m)
	if want := "NOERROR\nedns.example. TXT \"size 1232 do true options 0\""; show(got) != want {
		t.Errorf("EDNS0: %s", show(got))
	}
	if opt := got.IsEdns0(); opt == nil || opt.UDPSize() != maxUDPSize || !opt.Do() {
		t.Errorf("EDNS0: %v", opt)
	}
}

// TestShortLived gives an answer that may not be kept: each question is asked.
func TestShortLived(t *testing.T) {
	var count atomic.Int64
	up := newNameserver(t, func(m *dns.Msg, _ bool) *dns.Msg {
		return says(m, fmt.Sprintf("%s 1 IN A 192.0.2.%d", m.Question[0].Name, count.Add(1)))
	})
	s := newInside(t, Options{Nameservers: fixed(up)}, sample())
	for i := range 3 {
		got := s.ask(t, udpFrom(one), question("quick.example", dns.TypeA))
		if show(got) != fmt.Sprintf("NOERROR\nquick.example. A 192.0.2.%d", i+1) || got.Answer[0].Header().Ttl != 1 {
			t.Errorf("%d: %v", i, got)
		}
	}
}

// TestNameserversOfTasks has tasks with nameservers of their own: what these say is not told to others.
func TestNameserversOfTasks(t *testing.T) {
	machine, own := echoing(t, 1), echoing(t, 2)
	n := sample()
	n.Askers[two] = &Asker{Zones: []string{"b"}, Nameservers: []netip.AddrPort{own.addr}}
	s := newInside(t, Options{Nameservers: fixed(machine)}, n)
	for range 2 {
		for from, want := range map[netip.Addr]string{one: "192.0.2.1", two: "192.0.2.2", three: "192.0.2.1"} {
			if got := show(s.ask(t, udpFrom(from), question("x.example", dns.TypeA))); got != "NOERROR\nx.example. A "+want {
				t.Errorf("%s: %s", from, got)
			}
		}
	}
	if machine.asked.Load() != 1 || own.asked.Load() != 1 {
		t.Errorf("asked %d and %d times", machine.asked.Load(), own.asked.Load())
	}
	if got := show(s.ask(t, udpFrom(two), question("web", dns.TypeA))); got != "NOERROR\nweb. A 10.0.2.2" {
		t.Errorf("web: %s", got)
	}
}

// TestFailover has nameservers that are silent, closed, or refuse, before one that answers.
func TestFailover(t *testing.T) {
	t.Parallel()
	nothing := func(*dns.Msg, bool) *dns.Msg { return nil }
	silent, mute := newNameserver(t, nothing), newNameserver(t, nothing) // how often silent is asked is counted
	closed := &nameserver{addr: netip.MustParseAddrPort("127.0.0.1:1")}
	refusing := newNameserver(t, func(m *dns.Msg, _ bool) *dns.Msg { return new(dns.Msg).SetRcode(m, dns.RcodeRefused) })
	failing := newNameserver(t, func(m *dns.Msg, _ bool) *dns.Msg { return new(dns.Msg).SetRcode(m, dns.RcodeServerFailure) })
	lying := newNameserver(t, func(m *dns.Msg, _ bool) *dns.Msg {
		a := says(m, "other.example. 300 IN A 192.0.2.66")
		a.Question = []dns.Question{{Name: "other.example.", Qtype: dns.TypeA, Qclass: dns.ClassINET}}
		return a
	})
	good, better := echoing(t, 1), echoing(t, 2)
	for name, test := range map[string]struct {
		list []*nameserver
		want string
	}{
		"in order":       {[]*nameserver{good, better}, "NOERROR\nx. A 192.0.2.1"},
		"silent":         {[]*nameserver{silent, better}, "NOERROR\nx. A 192.0.2.2"},
		"closed":         {[]*nameserver{closed, better}, "NOERROR\nx. A 192.0.2.2"},
		"refusing":       {[]*nameserver{refusing, better}, "NOERROR\nx. A 192.0.2.2"},
		"failing":        {[]*nameserver{failing, closed, better}, "NOERROR\nx. A 192.0.2.2"},
		"lying":          {[]*nameserver{lying, better}, "NOERROR\nx. A 192.0.2.2"},
		"only closed":    {[]*nameserver{closed}, "SERVFAIL"},
		"only silent":    {[]*nameserver{mute}, "SERVFAIL"},
		"only lying":     {[]*nameserver{lying}, "SERVFAIL"},
		"only refusing":  {[]*nameserver{refusing, closed}, "REFUSED"},
		"twice the same": {[]*nameserver{closed, closed, better}, "NOERROR\nx. A 192.0.2.2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newInside(t, Options{Nameservers: fixed(test.list...)}, sample())
			if got := show(s.ask(t, udpFrom(one), question("x", dns.TypeA))); got != test.want {
				t.Errorf("got %s", got)
			}
			if test.list[0] != silent {
				return
			}
			before := silent.asked.Load()
			s.ask(t, udpFrom(one), question("y", dns.TypeA))
			if silent.asked.Load() != before {
				t.Error("one that did not answer is asked first again")
			}
		})
	}
}

// TestNobody has no nameserver at all, and says why.
func TestNobody(t *testing.T) {
	s := newInside(t, Options{}, sample())
	got := s.ask(t, udpFrom(one), question("x.example", dns.TypeA).SetEdns0(1232, false))
	if show(got) != "SERVFAIL" || !strings.Contains(why(got), "no nameserver is known") {
		t.Errorf("%v", got)
	}
	if got := s.ask(t, udpFrom(one), question("x.example", dns.TypeA)); show(got) != "SERVFAIL" || got.IsEdns0() != nil {
		t.Errorf("without EDNS0: %v", got)
	}
}

// why is the text of the extended error.
func why(m *dns.Msg) string {
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if e, ok := o.(*dns.EDNS0_EDE); ok {
				return e.ExtraText
			}
		}
	}
	return ""
}

// TestLoop has a nameserver that is this resolver itself, or that asks it.
func TestLoop(t *testing.T) {
	t.Parallel()
	own := netip.MustParseAddrPort("127.0.0.1:5399")
	s := newInside(t, Options{Listen: []netip.AddrPort{own}, Nameservers: fixed(&nameserver{addr: own})}, sample())
	if got := s.ask(t, udpFrom(one), question("x.example", dns.TypeA).SetEdns0(1232, false)); !strings.Contains(why(got), "lead back") {
		t.Errorf("itself: %v", got)
	}
	// A nameserver of the machine that forwards to the resolver, as the machine.
	var loop *outside
	var mu sync.Mutex
	relay := newNameserver(t, func(m *dns.Msg, tcp bool) *dns.Msg {
		mu.Lock()
		to := loop.addr
		mu.Unlock()
		c := dns.Client{Timeout: 3 * time.Second}
		a, _, err := c.Exchange(m, to.String())
		if err != nil {
			return new(dns.Msg).SetRcode(m, dns.RcodeServerFailure)
		}
		return a
	})
	mu.Lock()
	loop = start(t, Options{Host: &Asker{}, Nameservers: fixed(relay)}, sample())
	mu.Unlock()
	m := question("x.example", dns.TypeA).SetEdns0(1232, false)
	if got := loop.ask(t, "udp", one, m); show(got) != "SERVFAIL" {
		t.Errorf("through another: %v", got)
	}
	if n := relay.asked.Load(); n > 8 {
		t.Errorf("it went round %d times", n)
	}
	// By now it is known, so others do not wait.
	before := relay.asked.Load()
	m = question("y.example", dns.TypeA).SetEdns0(1232, false)
	if got := loop.ask(t, "udp", one, m); show(got) != "SERVFAIL" || !strings.Contains(why(got), "lead back") {
		t.Errorf("through another, again: %v", got)
	}
	if n := relay.asked.Load() - before; n != 0 {
		t.Errorf("a loop that is known was gone round %d times", n)
	}
	if got := loop.ask(t, "udp", one, question("web", dns.TypeA)); show(got) != "NOERROR\nweb. A 10.0.1.2" {
		t.Errorf("our own names: %s", show(got))
	}
}

// TestOnce has very many ask the same at the same time: the nameserver is asked once.
func TestOnce(t *testing.T) {
	gate := make(chan struct{})
	up := newNameserver(t, func(m *dns.Msg, _ bool) *dns.Msg {
		<-gate
		return says(m, m.Question[0].Name+" 300 IN A 192.0.2.1")
	})
	s := newInside(t, Options{Nameservers: fixed(up)}, sample())
	var running sync.WaitGroup
	for range 100 {
		running.Go(func() {
			if got := show(s.ask(t, udpFrom(one), question("x.example", dns.TypeA))); got != "NOERROR\nx.example. A 192.0.2.1" {
				t.Error(got)
			}
		})
	}
	for inFlight() < 99 { // one of them asks, the others wait for it
		time.Sleep(time.Millisecond)
	}
	close(gate)
	running.Wait()
	if n := up.asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// inFlight counts the goroutines that wait for what another one asks. A question that comes in the moment between an answer and the
// cache's having it is asked again, so a test must know that all wait before there is an answer.
func inFlight() int {
	stacks, n := make([]byte, 1<<22), 0
	stacks = stacks[:runtime.Stack(stacks, true)]
	for one := range strings.SplitSeq(string(stacks), "\n\n") {
		if strings.Contains(one, "sync.(*WaitGroup).Wait") && strings.Contains(one, "singleflight.(*Group).Do(") {
			n++
		}
	}
	return n
}

// TestTooMany asks for more at a time than one asker may: what is too much fails at once, and others are served.
func TestTooMany(t *testing.T) {
	gate := make(chan struct{})
	up := newNameserver(t, func(m *dns.Msg, _ bool) *dns.Msg {
		if !strings.HasPrefix(m.Question[0].Name, "free") {
			<-gate
		}
		return says(m, m.Question[0].Name+" 300 IN A 192.0.2.1")
	})
	s := newInside(t, Options{Nameservers: fixed(up)}, sample())
	var running sync.WaitGroup
	var failed atomic.Int64
	for i := range maxForwardedPerAsker {
		running.Go(func() {
			if got := show(s.ask(t, udpFrom(one), question(fmt.Sprintf("x%d.example", i), dns.TypeA))); !strings.HasPrefix(got, "NOERROR") {
				failed.Add(1)
			}
		})
	}
	for up.asked.Load() < maxForwardedPerAsker {
		time.Sleep(time.Millisecond)
	}
	got := s.ask(t, udpFrom(one), question("free.example", dns.TypeA).SetEdns0(1232, false))
	if show(got) != "SERVFAIL" || !strings.Contains(why(got), "too many") {
		t.Errorf("one too many: %v", got)
	}
	if got := show(s.ask(t, udpFrom(one), question("web", dns.TypeA))); got != "NOERROR\nweb. A 10.0.1.2" {
		t.Errorf("ours: %s", got)
	}
	if got := show(s.ask(t, udpFrom(two), question("free.example", dns.TypeA))); got != "NOERROR\nfree.example. A 192.0.2.1" {
		t.Errorf("another asker: %s", got)
	}
	close(gate)
	running.Wait()
	if failed.Load() != 0 {
		t.Errorf("%d of those that were let in failed", failed.Load())
	}
	if got := show(s.ask(t, udpFrom(one), question("free.example", dns.TypeA))); got != "NOERROR\nfree.example. A 192.0.2.1" {
		t.Errorf("afterwards: %s", got) // and the failure was not kept
	}
}

// TestEnd ends a server that waits for a nameserver: it does not wait with it.
func TestEnd(t *testing.T) {
	silent := newNameserver(t, func(*dns.Msg, bool) *dns.Msg { return nil })
	s := start(t, Options{Nameservers: fixed(silent)}, sample())
	conn, err := net.DialUDP("udp", &net.UDPAddr{IP: one.AsSlice()}, net.UDPAddrFromAddrPort(s.addr))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	wire, _ := question("x.example", dns.TypeA).Pack()
	conn.Write(wire)
	for silent.asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	start := time.Now()
	s.stop()
	if took := time.Since(start); took >= tryTime { // it waited for the nameserver
		t.Errorf("it took %s", took)
	}
}

// TestRoutes has more lists of nameservers than are remembered.
func TestRoutes(t *testing.T) {
	f := newForwarder(t.Context(), quiet(), nil)
	list := func(i int) []netip.AddrPort {
		return []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 53)}
	}
	first := f.route(list(0))
	for i := range maxRoutes + 10 {
		f.route(list(i))
		if f.route(list(0)) != first {
			t.Fatal("one that is in use was forgotten")
		}
	}
	if len(f.routes) != maxRoutes {
		t.Errorf("%d routes", len(f.routes))
	}
}

// TestInternal asks, for a task without a way out, for what is not the swarm's: nobody outside hears of it.
func TestInternal(t *testing.T) {
	up := newNameserver(t, func(m *dns.Msg, _ bool) *dns.Msg { return says(m, m.Question[0].Name+" 300 IN A 192.0.2.7") })
	names := sample()
	asker := *names.Askers[one]
	asker.Internal, asker.Nameservers = true, fixed(up)()
	names.Askers[one] = &asker
	s := newInside(t, Options{Nameservers: fixed(up)}, names)
	if got := show(s.ask(t, udpFrom(one), question("a.example", dns.TypeA))); got != "NXDOMAIN" {
		t.Errorf("a name of elsewhere: %s", got)
	}
	if got := s.ask(t, udpFrom(one), question("web", dns.TypeA)); len(got.Answer) != 1 {
		t.Errorf("a name of the swarm: %s", show(got))
	}
	if n := up.asked.Load(); n != 0 {
		t.Errorf("a name server outside was asked %d times", n)
	}
	if got := s.ask(t, udpFrom(two), question("a.example", dns.TypeA)); len(got.Answer) != 1 {
		t.Errorf("another task asks for a name of elsewhere: %s", show(got))
	}
}
