package netplugin

import (
	"bufio"
	"bytes"
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
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/swarmd/swarmd/pkg/dnsplugin"
)

// resolverOf, in a process's environment, has the test's program be the resolver of the tasks with these addresses, which finds the name web.
const resolverOf = "NETPLUGIN_TEST_RESOLVER_OF"

// runResolver is a resolver until the standard input ends.
func runResolver() {
	names := &dnsplugin.Names{Askers: map[netip.Addr]*dnsplugin.Asker{}, Zones: map[string]*dnsplugin.Zone{"f": {Name: "front",
		Hosts: dnsplugin.TableOf(map[string][]netip.Addr{"web": {netip.MustParseAddr("10.0.1.2")}})}}}
	for a := range strings.FieldsSeq(os.Getenv(resolverOf)) {
		names.Askers[netip.MustParseAddr(a)] = &dnsplugin.Asker{Task: a, Zones: []string{"f"}}
	}
	s := dnsplugin.New(dnsplugin.Options{Listen: []netip.AddrPort{Resolver}})
	s.Set(names)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		if _, err := s.Bound(ctx); err == nil {
			fmt.Println("bound")
		}
		_, _ = os.Stdin.Read(make([]byte, 1))
	}()
	if err := s.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// resolve starts a resolver for the first n tasks in the machine's namespace, in a process of its own as it is in the daemon.
func (b *lab) resolve(n int) {
	b.t.Helper()
	self, err := os.Executable()
	must(b.t, err)
	var askers []string
	for i := range n {
		askers = append(askers, testAddr(i).String())
	}
	c := exec.Command(self)
	c.Env = append(os.Environ(), resolverOf+"="+strings.Join(askers, " "))
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	must(b.t, err)
	out, err := c.StdoutPipe()
	must(b.t, err)
	must(b.t, b.host.within(c.Start)) // a process is born in the namespace of its parent's thread
	b.t.Cleanup(func() {
		_ = in.Close()
		if err := c.Wait(); err != nil {
			b.t.Errorf("the resolver: %v", err)
		}
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "bound\n" {
		b.t.Fatalf("the resolver said %q, %v", line, err)
	}
}

// questionFor is a packet that asks for the IPv4 addresses of a name of one label.
func questionFor(id uint16, name string) []byte {
	m := append(binary.BigEndian.AppendUint16(nil, id), 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, byte(len(name)))
	return append(append(m, name...), 0, 0, 1, 0, 1)
}

// lookUp asks as programs do that have the C library: twice, for 5 s each. It tells how often it had to ask; 0 is without an answer.
func lookUp(c net.Conn, name string) (asked int, err error) {
	id := uint16(rand.Uint32())
	answer := make([]byte, 512)
	for asked = 1; asked <= 2; asked++ {
		if _, err := c.Write(questionFor(id, name)); err != nil {
			return 0, err
		}
		if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return 0, err
		}
		for {
			n, err := c.Read(answer)
			if err != nil && !isTimeout(err) {
				return 0, err
			}
			if err != nil {
				break
			}
			if n > 12 && binary.BigEndian.Uint16(answer) == id && binary.BigEndian.Uint16(answer[6:]) > 0 {
				return asked, nil
			}
		}
	}
	return 0, errors.New("no answer to two questions, 5 s each")
}

// flood sends questions for random names as fast as it can, from several sockets, until the test or stop ends it.
func flood(t testing.TB, from *namespace, to netip.AddrPort) (sent *atomic.Int64, stop func()) {
	t.Helper()
	sent = new(atomic.Int64)
	var running sync.WaitGroup
	var all []net.Conn
	for range 4 {
		c, err := dial(from, "udp", to.String())
		must(t, err)
		all = append(all, c)
		running.Go(func() {
			for {
				_, err := c.Write(questionFor(uint16(rand.Uint32()), fmt.Sprintf("x%016x", rand.Uint64())))
				if errors.Is(err, net.ErrClosed) {
					return
				}
				sent.Add(1)
			}
		})
	}
	stop = sync.OnceFunc(func() {
		for _, c := range all {
			_ = c.Close()
		}
		running.Wait()
	})
	t.Cleanup(stop)
	return sent, stop
}

// TestFloodLeavesNamesToOthers: while one task asks as fast as it can, another has an answer to everything that it asks.
func TestFloodLeavesNamesToOthers(t *testing.T) {
	const questions = 100
	b := newLab(t)
	c := testConfig(2)
	b.apply(c)
	b.resolve(2)
	docker := netip.AddrPortFrom(dockerResolver, 53)
	other, err := dial(b.task("t1"), "udp", docker.String())
	must(t, err)
	defer other.Close()
	if _, err := lookUp(other, "web"); err != nil {
		t.Fatalf("before the flood: %v", err)
	}
	before := b.ownTables()
	sent, stop := flood(t, b.task("t0"), docker)
	again := 0
	var longest time.Duration
	for i := range questions {
		start := time.Now()
		asked, err := lookUp(other, "web")
		if err != nil {
			t.Fatalf("question %d during a flood of %d: %v", i, sent.Load(), err)
		}
		again += asked - 1
		longest = max(longest, time.Since(start))
	}
	t.Logf("%d questions during a flood of %d: %d asked again, the longest took %s", questions, sent.Load(), again, longest)
	// What packets leave in the sets is nobody's change, and no reason to make the table anew.
	b.calm(t)
	stop()
	if n := len(membersOf(t, b.host, setAskers)); n != 2 {
		t.Errorf("%d askers are remembered, want 2", n)
	}
	findings, _, err := b.linux.Examine(context.Background(), "")
	if err != nil || len(findings) > 0 {
		t.Errorf("examined after the flood: %v, %v", findings, err)
	}
	b.linux.Resync()
	b.apply(c)
	b.restart()
	b.apply(c)
	if after := b.ownTables(); after != before {
		t.Errorf("the table was made anew: before\n%s\nafter\n%s", before, after)
	}
	if n := len(membersOf(t, b.host, setAskers)); n != 2 {
		t.Errorf("%d askers are remembered after a restart, want 2", n)
	}
}

// ownTables are the machine's own tables with the kernel's numbers.
func (b *lab) ownTables() string {
	b.t.Helper()
	var w strings.Builder
	dumpTables(b.t, &w, b.host, true)
	return w.String()
}

func membersOf(t testing.TB, n *namespace, name string) []nftables.SetElement {
	t.Helper()
	c, err := n.firewall()
	must(t, err)
	table := &nftables.Table{Name: tableName, Family: nftables.TableFamilyIPv4}
	s, err := c.GetSetByName(table, name)
	must(t, err)
	all, err := c.GetSetElements(s)
	must(t, err)
	return all
}

// TestFloodByTCPLeavesNamesToOthers does so with as many connections as a task may have, each full of questions.
func TestFloodByTCPLeavesNamesToOthers(t *testing.T) {
	const questions = 50
	b := newLab(t)
	b.apply(testConfig(2))
	b.resolve(2)
	other, err := dial(b.task("t1"), "udp", Resolver.String())
	must(t, err)
	defer other.Close()
	question := questionFor(1, "web")
	many := bytes.Repeat(append(binary.BigEndian.AppendUint16(nil, uint16(len(question))), question...), 100)
	var sent atomic.Int64
	var running sync.WaitGroup
	defer running.Wait()
	for range 64 {
		c, err := dial(b.task("t0"), "tcp", Resolver.String())
		must(t, err)
		defer c.Close()
		running.Go(func() { _, _ = io.Copy(io.Discard, c) })
		running.Go(func() {
			for {
				if _, err := c.Write(many); err != nil {
					return
				}
				sent.Add(100)
			}
		})
	}
	var longest time.Duration
	for i := range questions {
		start := time.Now()
		if _, err := lookUp(other, "web"); err != nil {
			t.Fatalf("question %d during a flood of %d: %v", i, sent.Load(), err)
		}
		longest = max(longest, time.Since(start))
	}
	t.Logf("%d questions during a flood of %d: the longest took %s", questions, sent.Load(), longest)
	if sent.Load() == 0 {
		t.Error("there was no flood")
	}
}

// TestQuestionsOfATaskAreBounded: of more than a task may ask, no more comes through than its burst and what its rate is for the time that it took.
func TestQuestionsOfATaskAreBounded(t *testing.T) {
	b := newLab(t)
	b.apply(testConfig(2))
	var got atomic.Int64
	must(t, b.host.within(func() error {
		c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(Resolver))
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = c.Close() })
		raw, err := c.SyscallConn()
		if err != nil {
			return err
		}
		var setErr error // all that comes waits for a reader, for whom the flood leaves little time
		err = raw.Control(func(fd uintptr) { setErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20) })
		if err := errors.Join(err, setErr); err != nil {
			return err
		}
		go func() {
			data := make([]byte, 512)
			for {
				_, from, err := c.ReadFromUDPAddrPort(data)
				if err != nil {
					return
				}
				if from.Addr() == testAddr(0) {
					got.Add(1)
				}
			}
		}()
		return nil
	}))
	start := time.Now()
	may := func() int64 { return askerBurst + int64(askerRate*time.Since(start).Seconds()) + 1 }
	sent, stop := flood(t, b.task("t0"), Resolver)
	for sent.Load() < 20*askerBurst || sent.Load() < 3*may() {
		if time.Since(start) > 30*time.Second {
			t.Skipf("this machine sends %d questions in 30 s, which is no flood", sent.Load())
		}
		time.Sleep(time.Millisecond)
	}
	stop()
	took, allowed := time.Since(start), may()
	for last := int64(-1); last != got.Load(); time.Sleep(20 * time.Millisecond) {
		last = got.Load()
	}
	came := got.Load()
	t.Logf("%d of %d questions came through in %s, %d may", came, sent.Load(), took, allowed)
	if came > allowed || came < askerBurst {
		t.Errorf("%d questions of %d came through, want between %d and %d", came, sent.Load(), askerBurst, allowed)
	}
}

// TestKernelWithoutLimits: it has the rules that it can have.
func TestKernelWithoutLimits(t *testing.T) {
	s := four
	s.unlimited = true
	if sets := s.askerSets(nil); len(sets) != 0 {
		t.Errorf("it has sets %v", sets)
	}
	rest := slices.DeleteFunc(resolverGuard(four), func(r rule) bool { return strings.HasPrefix(r.why, "too many") })
	same := slices.EqualFunc(rest, resolverGuard(s), func(a, b rule) bool { return slices.Equal(a.tag(), b.tag()) })
	if !same || len(rest) != len(resolverGuard(four))-2 {
		t.Errorf("its rules are %v, want all but those that need limits", resolverGuard(s))
	}
}

// TestConnectionsOfATaskAreBounded does so with connections.
func TestConnectionsOfATaskAreBounded(t *testing.T) {
	const tries = 4 * callerBurst
	b := newLab(t)
	b.apply(testConfig(1))
	var got atomic.Int64
	must(t, b.host.within(func() error {
		l, err := net.Listen("tcp4", Resolver.String())
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				got.Add(1)
				_ = c.Close()
			}
		}()
		return nil
	}))
	var sockets []int
	defer func() {
		for _, fd := range sockets {
			_ = unix.Close(fd)
		}
	}()
	start := time.Now()
	must(t, b.task("t0").within(func() error {
		for range tries {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			sockets = append(sockets, fd)
			to := &unix.SockaddrInet4{Port: int(Resolver.Port()), Addr: Resolver.Addr().As4()}
			if err := unix.Connect(fd, to); err != nil && !errors.Is(err, unix.EINPROGRESS) {
				return err
			}
		}
		return nil
	}))
	for last := int64(-1); last != got.Load(); time.Sleep(20 * time.Millisecond) {
		last = got.Load()
	}
	came, took := got.Load(), time.Since(start)
	allowed := callerBurst + int64(callerRate*took.Seconds()) + 1
	t.Logf("%d of %d connections came through in %s, %d may", came, tries, took, allowed)
	if allowed >= tries {
		t.Skip("this machine is too slow for more connections than a task may make")
	}
	if came > allowed || came < callerBurst/2 {
		t.Errorf("%d connections of %d came through, want between %d and %d", came, tries, callerBurst/2, allowed)
	}
}
