package dnsplugin

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
)

// TestServer asks over real sockets.
func TestServer(t *testing.T) {
	up := echoing(t, 1)
	s := start(t, Options{Nameservers: fixed(up)}, sample())
	for _, network := range []string{"udp", "tcp"} {
		for _, test := range []struct {
			from       netip.Addr
			name, want string
		}{
			{one, "web", "NOERROR\nweb. A 10.0.1.2"},
			{two, "web", "NOERROR\nweb. A 10.0.2.2"},
			{three, "web", "NOERROR\nweb. A 10.0.1.77"},
			{one, "example.com", "NOERROR\nexample.com. A 192.0.2.1"},
			{one, "gone", "NOERROR\nns gone. SOA"},
			{stranger, "web", "REFUSED"},
			{stranger, "example.com", "REFUSED"},
		} {
			if got := show(s.ask(t, network, test.from, question(test.name, dns.TypeA))); got != test.want {
				t.Errorf("%s from %s over %s: %s", test.name, test.from, network, got)
			}
		}
	}
	// What does not fit says so, and is whole over TCP.
	if got := s.ask(t, "udp", one, question("big", dns.TypeA)); !got.Truncated {
		t.Errorf("%d records over UDP, not truncated", len(got.Answer))
	}
	if got := s.ask(t, "tcp", one, question("big", dns.TypeA)); got.Truncated || len(got.Answer) != 300 {
		t.Errorf("%d records over TCP, truncated %t", len(got.Answer), got.Truncated)
	}
	s.stop()
	for _, network := range []string{"udp", "tcp"} {
		c := client(network, one)
		c.Timeout = 100 * time.Millisecond
		if got, _, err := c.Exchange(question("web", dns.TypeA), s.addr.String()); err == nil {
			t.Errorf("%s is answered after the end: %s", network, show(got))
		}
	}
	again, err := listen(t.Context(), s.addr, nil)
	if err != nil {
		t.Fatalf("the sockets were not released: %v", err)
	}
	again.close()
}

// shelf keeps sockets in this process.
type shelf map[string]*os.File

func (s shelf) Kept(name string) *os.File {
	if s[name] == nil {
		return nil
	}
	var f *os.File
	var err error
	if name == keptUDP {
		c, cErr := net.FilePacketConn(s[name])
		if cErr != nil {
			panic(cErr)
		}
		defer c.Close()
		f, err = c.(*net.UDPConn).File()
	} else {
		l, lErr := net.FileListener(s[name])
		if lErr != nil {
			panic(lErr)
		}
		defer l.Close()
		f, err = l.(*net.TCPListener).File()
	}
	if err != nil {
		panic(err)
	}
	return f
}

func (s shelf) Keep(name string, socket *os.File) {
	s[name] = socket
	s[name] = s.Kept(name)
}

func (s shelf) Drop(name string) {
	if f := s[name]; f != nil {
		f.Close()
	}
	delete(s, name)
}

// TestKeptSockets: a server goes on with the sockets of the one before, and answers what was asked meanwhile. Those of another address are let go of.
func TestKeptSockets(t *testing.T) {
	kept := shelf{}
	first := start(t, Options{}, nil) // finds a port
	at := first.addr
	first.stop()
	names := &Names{Askers: map[netip.Addr]*Asker{one: {Zones: []string{"n"}}},
		Zones: map[string]*Zone{"n": {Hosts: TableOf(map[string][]netip.Addr{"web": {netip.MustParseAddr("10.0.0.2")}})}}}
	o := Options{Listen: []netip.AddrPort{at}, Keeper: kept}
	for range 3 {
		s := start(t, o, names)
		if got := show(s.ask(t, "udp", one, question("web", dns.TypeA))); got != "NOERROR\nweb. A 10.0.0.2" {
			t.Errorf("the answer is %s", got)
		}
		s.stop()
		answers := make(chan string, 2)
		for _, network := range []string{"udp", "tcp"} {
			asks := make(chan struct{})
			go func() {
				c := client(network, one)
				c.Timeout = 10 * time.Second
				conn, err := c.Dial(at.String())
				if err == nil {
					err = conn.WriteMsg(question("web", dns.TypeA))
				}
				close(asks)
				var got *dns.Msg
				if err == nil {
					got, err = conn.ReadMsg()
				}
				if err != nil {
					answers <- network + ": " + err.Error()
					return
				}
				answers <- show(got)
			}()
			<-asks // while nobody answers
		}
		again := start(t, o, names)
		for range 2 {
			if got := <-answers; got != "NOERROR\nweb. A 10.0.0.2" {
				t.Errorf("what was asked while nobody was there: %s", got)
			}
		}
		again.stop()
	}
	other := start(t, Options{Listen: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.77"), at.Port())}, Keeper: kept}, names)
	if got := show(other.ask(t, "udp", one, question("web", dns.TypeA))); got != "NOERROR\nweb. A 10.0.0.2" {
		t.Errorf("at another address: %s", got)
	}
	other.stop()
	kept.Drop(keptUDP)
	kept.Drop(keptTCP)
	free, err := listen(t.Context(), at, nil)
	if err != nil {
		t.Fatalf("the sockets of before are still there: %v", err)
	}
	free.close()
}

// TestSeveral has servers side by side in one process, with one registry.
func TestSeveral(t *testing.T) {
	registry := prometheus.NewRegistry()
	var all []*outside
	for i := range 5 {
		n := &Names{Askers: map[netip.Addr]*Asker{one: {Zones: []string{"n"}}},
			Zones: map[string]*Zone{"n": {Hosts: TableOf(map[string][]netip.Addr{"web": {netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})}})}}}
		all = append(all, start(t, Options{Registry: registry, Nameservers: fixed(echoing(t, i))}, n))
	}
	for i, s := range all {
		if got := show(s.ask(t, "udp", one, question("web", dns.TypeA))); got != fmt.Sprintf("NOERROR\nweb. A 10.0.0.%d", i) {
			t.Errorf("server %d: %s", i, got)
		}
		if got := show(s.ask(t, "udp", one, question("example.com", dns.TypeA))); got != fmt.Sprintf("NOERROR\nexample.com. A 192.0.2.%d", i) {
			t.Errorf("server %d: %s", i, got)
		}
		if i%2 == 0 {
			s.stop()
		}
	}
	for _, want := range []string{"local NOERROR 5", "forwarded NOERROR 5", "refused REFUSED 0"} {
		got := counted(t, registry)
		for until := time.Now().Add(5 * time.Second); !strings.Contains(got, want+"\n") && time.Now().Before(until); got = counted(t, registry) {
			time.Sleep(time.Millisecond) // an answer is counted once it is sent
		}
		if !strings.Contains(got, want+"\n") {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

// counted shows what the counter of answers says.
func counted(t *testing.T, registry *prometheus.Registry) string {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range families {
		for _, m := range f.Metric {
			labels := map[string]string{}
			for _, l := range m.Label {
				labels[l.GetName()] = l.GetValue()
			}
			switch f.GetName() {
			case "swarm_dns_answers_total":
				fmt.Fprintf(&b, "%s %s %v\n", labels["source"], labels["rcode"], m.Counter.GetValue())
			case "swarm_dns_answer_duration_seconds":
				fmt.Fprintf(&b, "%s took %d\n", labels["source"], m.Histogram.GetSampleCount())
			}
		}
	}
	return b.String()
}

func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	s := newInside(t, Options{Registry: registry, Nameservers: fixed(echoing(t, 1))}, sample())
	for name, from := range map[string]netip.Addr{"web": one, "example.com": one, "example.org": one, "www": stranger, "_no._tcp.web": one} {
		s.ask(t, udpFrom(from), question(name, dns.TypeA))
	}
	got := counted(t, registry)
	for _, want := range []string{"local NOERROR 1", "local NXDOMAIN 1", "forwarded NOERROR 2", "refused REFUSED 1",
		"local took 2", "forwarded took 2", "refused took 1"} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

// TestAskedTooEarly: who asks a resolver that knows nobody yet, as after a restart of its daemon, is answered once it does, and not refused.
func TestAskedTooEarly(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		s := start(t, Options{}, nil)
		var named atomic.Bool
		time.AfterFunc(200*time.Millisecond, func() {
			named.Store(true)
			s.Set(sample())
		})
		if got := show(s.ask(t, network, one, question("web", dns.TypeA))); got != "NOERROR\nweb. A 10.0.1.2" || !named.Load() {
			t.Errorf("%s: %s", network, got)
		}
	}
}

// TestTaken listens where somebody else does, who then goes.
func TestTaken(t *testing.T) {
	taken, err := listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"), nil)
	if err != nil {
		t.Fatal(err)
	}
	s := New(Options{Listen: []netip.AddrPort{taken.addr}, Log: quiet()})
	s.Set(sample())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	select {
	case <-s.ready:
		t.Error("two listen on one address")
	case <-time.After(200 * time.Millisecond):
	}
	taken.close()
	if _, err := s.Bound(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := show((&outside{s, taken.addr, nil}).ask(t, "udp", one, question("web", dns.TypeA))); got != "NOERROR\nweb. A 10.0.1.2" {
		t.Error(got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := New(Options{}).Run(t.Context()); err == nil {
		t.Error("a server without addresses runs")
	}
}

// TestListen opens sockets of addresses that this machine has and does not have, of both families.
func TestListen(t *testing.T) {
	for _, a := range []string{"127.0.0.1:0", "169.254.77.53:0", "[::1]:0", "[fd00:77::53]:0"} {
		addr := netip.MustParseAddrPort(a)
		s, err := listen(t.Context(), addr, nil)
		if errors.Is(err, unix.EAFNOSUPPORT) {
			t.Logf("%s: this machine has no IPv6", a)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", a, err)
			continue
		}
		udp, tcp := s.udp.LocalAddr().(*net.UDPAddr).AddrPort(), s.tcp.Addr().(*net.TCPAddr).AddrPort()
		if udp != tcp || s.addr != udp || udp.Addr() != addr.Addr() || udp.Port() == 0 {
			t.Errorf("%s: listens on %s and %s, and says %s", a, udp, tcp, s.addr)
		}
		s.close()
	}
}

// TestLateAddress listens on an address that the machine gets later, loses, and gets again, in a network namespace of its own: a process of
// this test in it.
func TestLateAddress(t *testing.T) {
	const inside = "SWARMD_TEST_INSIDE"
	if os.Getenv(inside) == "" {
		if os.Geteuid() != 0 {
			t.Skip("needs root for a network namespace")
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLateAddress$", "-test.v")
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestLateAddress") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	setLoopback(t, net.IPv4(127, 0, 0, 1))
	late := netip.MustParseAddrPort("169.254.77.53:53")
	n := sample()
	n.Askers[late.Addr()] = n.Askers[one]
	s := start(t, Options{Listen: []netip.AddrPort{late}}, n)
	ask := func() (string, error) {
		c := dns.Client{Timeout: 200 * time.Millisecond}
		got, _, err := c.Exchange(question("web", dns.TypeA), s.addr.String())
		if err != nil {
			return "", err
		}
		return show(got), nil
	}
	for range 2 {
		if got, err := ask(); err == nil {
			t.Fatalf("an address that is not there answers: %s", got)
		}
		setLoopback(t, late.Addr().AsSlice())
		if got, err := ask(); err != nil || got != "NOERROR\nweb. A 10.0.1.2" {
			t.Errorf("%s %v", got, err)
		}
		setLoopback(t, net.IPv4(127, 0, 0, 1))
	}
}

// setLoopback gives the loopback link an address in the place of the one that it has, and sets it up.
func setLoopback(t *testing.T, ip net.IP) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := request.SetInet4Addr(ip.To4()); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFADDR, request); err != nil {
		t.Fatal(err)
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request); err != nil {
		t.Fatal(err)
	}
}

// TestConnections opens more connections than one asker may have: the others still get theirs.
func TestConnections(t *testing.T) {
	s := start(t, Options{}, sample())
	dial := func(from netip.Addr) net.Conn {
		c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: from.AsSlice()}}).Dial("tcp", s.addr.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	var open []*dns.Conn
	for range maxConnectionsPerAsker {
		open = append(open, &dns.Conn{Conn: dial(one)})
	}
	answers := func(c *dns.Conn) error {
		c.SetDeadline(time.Now().Add(5 * time.Second))
		if err := c.WriteMsg(question("web", dns.TypeA)); err != nil {
			return err
		}
		_, err := c.ReadMsg()
		return err
	}
	for i, c := range open {
		if err := answers(c); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
	if err := answers(&dns.Conn{Conn: dial(one)}); err == nil {
		t.Errorf("%d connections are open", maxConnectionsPerAsker+1)
	}
	if err := answers(&dns.Conn{Conn: dial(two)}); err != nil {
		t.Errorf("another asker: %v", err)
	}
	open[0].Close()
	for until := time.Now().Add(5 * time.Second); ; { // the server has to see that it is closed
		if err := answers(&dns.Conn{Conn: dial(one)}); err == nil {
			break
		} else if time.Now().After(until) {
			t.Fatalf("a connection was closed, and no other gets in: %v", err)
		}
	}
}

// TestQuestionsByTCPArePaced asks more on two connections than an asker may: it has answers to all, and no faster than it may.
func TestQuestionsByTCPArePaced(t *testing.T) {
	const each = 2500
	s := start(t, Options{}, sample())
	begin := time.Now()
	var running sync.WaitGroup
	for range 2 {
		c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: one.AsSlice()}}).Dial("tcp", s.addr.String())
		if err != nil {
			t.Fatal(err)
		}
		conn := &dns.Conn{Conn: c}
		running.Go(func() {
			for range each {
				if err := conn.WriteMsg(question("web", dns.TypeA)); err != nil {
					t.Error(err)
					return
				}
			}
		})
		running.Go(func() {
			defer conn.Close()
			for i := range each {
				if _, err := conn.ReadMsg(); err != nil {
					t.Errorf("answer %d: %v", i, err)
					return
				}
			}
		})
	}
	running.Wait()
	took := time.Since(begin)
	if may := burstByTCP + int(maxByTCP*took.Seconds()) + 1; 2*each > may {
		t.Errorf("%d answers in %s, want %d at most", 2*each, took, may)
	}
}

// TestGarbage sends what is no DNS over real sockets, and asks something in between.
func TestGarbage(t *testing.T) {
	s := start(t, Options{}, sample())
	random := rand.New(rand.NewPCG(1, 2))
	udp, err := (&net.Dialer{LocalAddr: &net.UDPAddr{IP: one.AsSlice()}}).Dial("udp", s.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	g := generator{random: random}
	for i := range 20000 {
		if _, err := udp.Write(g.packet()); err != nil {
			t.Fatal(err)
		}
		if i%500 != 0 {
			continue
		}
		if got := show(s.ask(t, "udp", two, question("web", dns.TypeA))); got != "NOERROR\nweb. A 10.0.2.2" {
			t.Fatalf("after %d packets: %s", i, got)
		}
	}
	for range 200 {
		tcp, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: one.AsSlice()}}).Dial("tcp", s.addr.String())
		if err != nil {
			t.Fatal(err)
		}
		p := g.packet()
		length := len(p)
		if random.IntN(2) == 0 {
			length = random.IntN(1 << 16)
		}
		tcp.Write(append(binary.BigEndian.AppendUint16(nil, uint16(length)), p...))
		tcp.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, tcp)
		tcp.Close()
	}
	if got := show(s.ask(t, "tcp", two, question("web", dns.TypeA))); got != "NOERROR\nweb. A 10.0.2.2" {
		t.Errorf("at the end: %s", got)
	}
}

// TestSwap changes the names under load: each answer is from one of the two, whole, and after a Set none is from before it.
func TestSwap(t *testing.T) {
	up := echoing(t, 1)
	s := start(t, Options{Nameservers: fixed(up)}, &Names{})
	// Version v of the names has three addresses 10.v.0.x for web, and a name of its own, only-v.
	version := func(v byte) *Names {
		var as []netip.Addr
		for x := range byte(3) {
			as = append(as, netip.AddrFrom4([4]byte{10, v, 0, x}))
		}
		z := &Zone{Name: "n", Hosts: TableOf(map[string][]netip.Addr{"web": as, fmt.Sprintf("only-%d", v): as})}
		return &Names{Askers: map[netip.Addr]*Asker{one: {Zones: []string{"n"}}}, Zones: map[string]*Zone{"n": z}}
	}
	s.Set(version(0))
	var least, most atomic.Int64 // the versions that an answer may be from
	stop := make(chan struct{})
	var running sync.WaitGroup
	var answers atomic.Int64
	check := func(network string) bool {
		from := least.Load()
		web := s.ask(t, network, one, question("web", dns.TypeA))
		to := most.Load()
		answers.Add(1)
		seen := map[byte]bool{}
		for _, rr := range web.Answer {
			seen[rr.(*dns.A).A.To4()[1]] = true
		}
		for v := range seen {
			if len(seen) != 1 || len(web.Answer) != 3 || int64(v) < from || int64(v) > to {
				t.Errorf("between versions %d and %d: %s", from, to, show(web))
				return false
			}
		}
		return len(seen) == 1
	}
	for i := range 16 {
		running.Go(func() {
			network := []string{"udp", "udp", "udp", "tcp"}[i%4]
			for {
				select {
				case <-stop:
					return
				default:
					if !check(network) {
						return
					}
				}
			}
		})
	}
	for v := int64(1); v < 250; v++ {
		most.Store(v)
		s.Set(version(byte(v)))
		least.Store(v)
		if got := show(s.ask(t, "udp", one, question(fmt.Sprintf("only-%d", v), dns.TypeAAAA))); !strings.HasPrefix(got, "NOERROR\nns only") {
			t.Errorf("a new name: %s", got)
		}
		if got := show(s.ask(t, "udp", one, question(fmt.Sprintf("only-%d", v-1), dns.TypeA))); !strings.HasSuffix(got, "A 192.0.2.1") {
			t.Errorf("an old name: %s", got)
		}
	}
	close(stop)
	running.Wait()
	if answers.Load() < 250 {
		t.Errorf("only %d answers", answers.Load())
	}
}
