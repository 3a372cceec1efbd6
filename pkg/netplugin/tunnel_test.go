package netplugin

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// sniffer reads every frame on all links of a namespace.
type sniffer struct {
	t      testing.TB
	secret []byte // what no frame may have in it
	mu     sync.Mutex
	seen   map[string]int // frames by what they are
	frames int
}

// sniff begins to read. What tests send on encrypted networks holds the secret.
func sniff(t testing.TB, n *namespace, vxlan uint16) *sniffer {
	t.Helper()
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8
	s := &sniffer{t: t, secret: []byte("a word that nobody else may read"), seen: map[string]int{}}
	var fd int
	must(t, n.within(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, all)
		return err
	}))
	must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20))
	must(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 20000}))
	var end atomic.Bool
	done := make(chan struct{})
	t.Cleanup(func() { end.Store(true); <-done; _ = unix.Close(fd) })
	go func() {
		defer close(done)
		b := make([]byte, 1<<17)
		for !end.Load() {
			size, _, err := unix.Recvfrom(fd, b, 0)
			if err != nil {
				continue
			}
			s.mu.Lock()
			s.frames++
			s.seen[s.judge(b[:size], vxlan)]++
			s.mu.Unlock()
		}
	}()
	return s
}

// judge tells what a frame is.
func (s *sniffer) judge(p []byte, vxlan uint16) string {
	if bytes.Contains(p, s.secret) {
		return "in the clear"
	}
	switch {
	case len(p) > 28 && p[0]>>4 == 4 && p[9] == unix.IPPROTO_UDP:
		p = p[4*(p[0]&15):]
	case len(p) > 48 && p[0]>>4 == 6 && p[6] == unix.IPPROTO_UDP:
		p = p[40:]
	default:
		return "other"
	}
	switch port := uint16(p[2])<<8 | uint16(p[3]); {
	case port == vxlan:
		return "VXLAN"
	case port >= firstWirePort && len(p) > 12 && p[8] >= 1 && p[8] <= 4 && p[9]|p[10]|p[11] == 0:
		return "WireGuard"
	}
	return "other UDP"
}

func (s *sniffer) count(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[what]
}

// check fails the test if anything was readable. sealed tells whether there was to be encrypted traffic.
func (s *sniffer) check(when string, sealed bool) {
	s.t.Helper()
	time.Sleep(50 * time.Millisecond) // for what is on the way: a frame that is missed here is counted by the next check
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen["in the clear"]+s.seen["VXLAN"] > 0 {
		s.t.Errorf("%s: on the wire were %v", when, s.seen)
	}
	if sealed && s.seen["WireGuard"] == 0 {
		s.t.Errorf("%s: no encrypted packet was on the wire: %v", when, s.seen)
	}
}

// says sends the secret by TCP, and tells whether it came back.
func (s *sniffer) says(from *namespace, to string) error {
	c, err := dial(from, "tcp", to)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(deadline()); err != nil {
		return err
	}
	if _, err := c.Write(s.secret); err != nil {
		return err
	}
	var got []byte
	for b := make([]byte, 256); !bytes.Contains(got, s.secret); {
		n, err := c.Read(b)
		if err != nil {
			return err
		}
		got = append(got, b[:n]...)
	}
	return nil
}

// tries sends the secret by UDP, whether or not anything takes it.
func (s *sniffer) tries(from *namespace, to string) error {
	c, err := dial(from, "udp", to)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write(s.secret)
	return err
}

// sealedFleet has an encrypted network over machines, with two tasks on the first and one on each other, and a VIP of all.
func sealedFleet(t *testing.T, machines int, dual bool) *fleet {
	t.Helper()
	f := newFleet(t, machines)
	net := f.network(1, dual)
	f.nets[net].Encrypted = true
	f.task(0, net)
	for m := range machines {
		f.task(m, net)
	}
	f.vip(net, 5, f.tasks...)
	return f
}

// shakeHands waits until every task has reached every other once.
func (f *fleet) shakeHands() {
	f.t.Helper()
	began := time.Now()
	for _, from := range f.tasks {
		for _, to := range f.tasks {
			for _, a := range f.addresses(to, 0) {
				if from.id != to.id {
					f.awaitAnswer(from, a, began.Add(soon))
				}
			}
		}
	}
	took := time.Since(began).Round(time.Millisecond)
	if f.t.Logf("all reached each other after %s", took); took > soon {
		f.t.Errorf("it took %s until all had reached each other", took)
	}
}

// awaitAnswer has a task ask an address until it is answered, or the end. What is sent while a handshake begins anew is lost, and TCP sends again ever
// later: so it connects anew.
func (f *fleet) awaitAnswer(from testTask, to netip.Addr, end time.Time) {
	f.t.Helper()
	n := f.space(from)
	for {
		var c net.Conn
		err := n.within(func() (err error) {
			c, err = (&net.Dialer{Timeout: time.Second}).Dial("tcp", at(to, 80))
			return err
		})
		if err == nil {
			_, _, err = answer(c)
			c.Close()
		}
		if err == nil {
			return
		}
		if time.Now().After(end) {
			f.t.Fatalf("%s never reached %s: %v", from.id, to, err)
		}
	}
}

func TestEncryptedNetwork(t *testing.T) {
	for _, six := range []bool{false, true} {
		t.Run(fmt.Sprintf("underlay of IPv6 %t", six), func(t *testing.T) {
			f := sealedFleet(t, 3, true)
			f.six = six
			wire := sniff(t, f.lan, f.ports)
			f.apply()
			f.serve()
			f.shakeHands()
			f.check()
			for _, from := range f.tasks {
				for _, to := range f.tasks {
					for _, a := range f.addresses(to, 0) {
						if err := wire.says(f.space(from), at(a, 80)); err != nil && from.id != to.id {
							t.Errorf("%s to %s: %v", from.id, a, err)
						}
					}
				}
			}
			wire.check("with all keys known", true)
			mtu := 1440
			if six {
				mtu = 1408
			}
			for _, link := range []string{overlayLink, linkName(testAddr(0))} {
				one, err := f.labs[0].overlay("net0").LinkByName(link)
				must(t, err)
				if one.Attrs().MTU != mtu {
					t.Errorf("MTU of %s is %d, want %d", link, one.Attrs().MTU, mtu)
				}
			}
			// What is as large as it may be comes through whole.
			c, _ := hold(t, f.space(f.tasks[0]), at(f.address(f.tasks[3], 0, false), 80))
			pump(t, c, 4<<20)
		})
	}
}

// pump sends much over a connection to a server that sends it back.
func pump(t testing.TB, c net.Conn, size int) {
	t.Helper()
	must(t, c.SetDeadline(deadline()))
	go func() { _, _ = c.Write(make([]byte, size)) }()
	for b := make([]byte, 1<<16); size > 0; {
		n, err := c.Read(b)
		must(t, err)
		size -= n
	}
}

// processOf is the ID of the process that encrypts a network of a machine.
func processOf(t testing.TB, b *lab, network string) int {
	t.Helper()
	id, err := b.linux.process(network).id()
	must(t, err)
	return id
}

// A node whose key is not known is not reached, and what is for it goes nowhere. Once it is known, it is.
func TestEncryptedNetworkWithoutKeys(t *testing.T) {
	f := sealedFleet(t, 3, true)
	f.mute = map[int]bool{2: true}
	wire := sniff(t, f.lan, f.ports)
	for i, b := range f.labs {
		if err := b.linux.Apply(t.Context(), f.config(i)); err != nil && !strings.Contains(err.Error(), "node 3 is not reached: it has not told its key") {
			t.Fatal(err)
		}
	}
	f.serve()
	far := f.tasks[3]
	for _, from := range f.tasks[:3] {
		for _, a := range f.addresses(far, 0) {
			if err := wire.says(f.space(from), at(a, 80)); err == nil || isTimeout(err) {
				t.Errorf("%s to %s: %v, want a refusal at once", from.id, a, err)
			}
			if err := wire.tries(f.space(from), at(a, 80)); err != nil && !errors.Is(err, unix.EHOSTUNREACH) {
				t.Errorf("%s to %s: %v", from.id, a, err)
			}
		}
	}
	near := f.address(f.tasks[2], 0, true)
	f.awaitAnswer(f.tasks[0], near, time.Now().Add(3*soon)) // handshakes that cross each other are made again after five seconds
	must(t, wire.says(f.space(f.tasks[0]), at(near, 80)))
	wire.check("with a key unknown", true)
	f.mute = nil
	f.apply()
	f.check()
	wire.check("with all keys known", true)
}

// The process that encrypts may die, be stopped, or lose its link or its socket: nothing is sent in the clear meanwhile, the watcher
// tells, and the next Apply makes it anew.
func TestEncryptedNetworkIsRepaired(t *testing.T) {
	damages := map[string]func(t *testing.T, b *lab){
		"process killed": func(t *testing.T, b *lab) { must(t, syscall.Kill(processOf(t, b, "net0"), syscall.SIGKILL)) },
		"process ended":  func(t *testing.T, b *lab) { must(t, syscall.Kill(processOf(t, b, "net0"), syscall.SIGTERM)) },
		"link deleted":   func(t *testing.T, b *lab) { must(t, b.overlay("net0").removeLink(overlayLink)) },
		"link down":      func(t *testing.T, b *lab) { setDown(t, b.overlay("net0"), overlayLink) },
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			f := sealedFleet(t, 2, false)
			f.apply()
			f.serve()
			f.shakeHands()
			f.check()
			held, _ := hold(t, f.space(f.tasks[0]), at(f.address(f.tasks[2], 0, false), 80))
			wire := sniff(t, f.lan, f.ports)
			b := f.labs[0]
			// All the time somebody sends.
			var end atomic.Bool
			var sender sync.WaitGroup
			space, to := f.space(f.tasks[0]), at(f.address(f.tasks[2], 0, false), 80)
			sender.Go(func() {
				for !end.Load() {
					_ = wire.tries(space, to)
					time.Sleep(time.Millisecond) // more would push others out of what waits for a handshake
				}
			})
			damage(t, b)
			select {
			case <-b.linux.Disturbed():
			case <-time.After(soon):
				t.Error("nobody noticed")
			}
			wire.check("while it is broken", false)
			b.apply(f.config(0))
			f.check()
			pump(t, held, 1<<16) // connections go on
			end.Store(true)
			sender.Wait()
			wire.check("after the repair", true)
			_ = processOf(t, b, "net0")
		})
	}
}

// What does not answer, or is not as it should be, is found by reading back.
func TestEncryptedNetworkIsReadBack(t *testing.T) {
	damages := map[string]func(t *testing.T, f *fleet, p process){
		"process stopped": func(t *testing.T, f *fleet, p process) {
			stopProcess(t, processOf(t, f.labs[0], "net0"))
		},
		"socket removed": func(t *testing.T, _ *fleet, p process) { must(t, os.Remove(p.path)) },
		"nodes removed": func(t *testing.T, _ *fleet, p process) {
			_, err := p.ask("set=1\nreplace_peers=true\n\n")
			must(t, err)
		},
		"another key": func(t *testing.T, _ *fleet, p process) {
			_, err := p.ask("set=1\nprivate_key=" + strings.Repeat("42", 32) + "\n\n")
			must(t, err)
		},
		"another node's address": func(t *testing.T, f *fleet, p process) {
			k := f.key(1).lasting()
			_, err := p.ask(fmt.Sprintf("set=1\npublic_key=%x\nendpoint=10.78.0.99:61000\n\n", k[:]))
			must(t, err)
		},
		"another secret, and a stranger with everybody's addresses": func(t *testing.T, f *fleet, p process) {
			k := f.key(1).lasting()
			_, err := p.ask(fmt.Sprintf("set=1\npublic_key=%x\npreshared_key=%s\npublic_key=%s\nallowed_ip=10.0.1.13/32\nallowed_ip=0.0.0.0/0\n\n",
				k[:], strings.Repeat("42", 32), strings.Repeat("17", 32)))
			must(t, err)
		},
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			f := sealedFleet(t, 2, false)
			f.apply()
			f.serve()
			f.shakeHands()
			f.check()
			before, err := f.labs[0].linux.process("net0").read()
			must(t, err)
			before = before.withoutMet()
			damage(t, f, f.labs[0].linux.process("net0"))
			f.labs[0].linux.Resync()
			f.labs[0].apply(f.config(0))
			f.check()
			after, err := f.labs[0].linux.process("net0").read()
			must(t, err)
			if diff := cmp.Diff(before, after.withoutMet(), cmp.AllowUnexported(wires{}, wirePeer{}), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
				t.Errorf("the device is another (-before +after):\n%s", diff)
			}
		})
	}
}

// withoutMet is without what passes.
func (have *wires) withoutMet() *wires {
	c := *have
	c.peers = map[wgtypes.Key]wirePeer{}
	for k, p := range have.peers {
		p.met, p.heard = time.Time{}, 0
		c.peers[k] = p
	}
	return &c
}

// stream sends numbered datagrams from one task to another, and tells which of them did not come, once it is ended.
func (f *fleet) stream(from, to testTask, every time.Duration) (end func() (sent int, lost []int)) {
	f.t.Helper()
	const port = 7000
	var mu sync.Mutex
	got := map[string]bool{}
	must(f.t, listenBoth(f.t, f.space(to), port, func(data string) { mu.Lock(); got[data] = true; mu.Unlock() }))
	c, err := dial(f.space(from), "udp", at(f.address(to, 0, false), port))
	must(f.t, err)
	stop, done, sent := make(chan struct{}), make(chan struct{}), 0
	go func() {
		defer close(done)
		defer c.Close()
		for tick := time.NewTicker(every); ; {
			select {
			case <-stop:
				tick.Stop()
				return
			case <-tick.C:
				_, _ = c.Write(fmt.Appendf(nil, "%d", sent))
				sent++
			}
		}
	}()
	return func() (int, []int) {
		close(stop)
		<-done
		for wait := deadline(); time.Now().Before(wait); time.Sleep(5 * time.Millisecond) {
			mu.Lock()
			all := len(got) >= sent
			mu.Unlock()
			if all {
				break
			}
			if time.Now().After(wait.Add(-soon + 2*time.Second)) {
				break
			}
		}
		var lost []int
		for i := range sent {
			if !got[fmt.Sprint(i)] {
				lost = append(lost, i)
			}
		}
		return sent, lost
	}
}

// A restart of the daemon, keys that turn over, and tasks of others that come and go lose no packet.
func TestEncryptedNetworkLosesNothing(t *testing.T) {
	f := sealedFleet(t, 2, false)
	f.apply()
	f.serve()
	f.shakeHands()
	f.check()
	wire := sniff(t, f.lan, f.ports)
	there, back := f.stream(f.tasks[0], f.tasks[2], time.Millisecond), f.stream(f.tasks[2], f.tasks[0], time.Millisecond)
	id := processOf(t, f.labs[0], "net0")
	f.labs[0].restart()
	f.labs[0].apply(f.config(0))
	if now := processOf(t, f.labs[0], "net0"); now != id {
		t.Errorf("the process is %d after a restart, was %d", now, id)
	}
	before := f.key(0)
	must(t, f.labs[0].linux.keys.begin())
	told := f.key(0)
	if told == before || told.lasting() != before.lasting() {
		t.Errorf("the key is %x after it was turned over, was %x", told, before)
	}
	f.apply()
	secrets := func(b *lab) string {
		have, err := b.linux.process("net0").read()
		must(t, err)
		return fmt.Sprint(have.withoutMet().peers)
	}
	if now, _, err := f.labs[0].linux.keys.current(time.Now()); err != nil || now.Next != nil {
		t.Errorf("the new key is not in use: %v", err)
	}
	first := secrets(f.labs[0])
	f.labs[1].linux.Resync()
	f.apply()
	if now := secrets(f.labs[0]); now != first {
		t.Error("the secrets are others though no key is")
	}
	f.labs[1].restart()
	f.apply()
	other := f.task(1, 0)
	f.apply()
	f.tasks = f.tasks[:len(f.tasks)-1]
	f.apply()
	if owner := f.labs[0].linux.overlays["net0"].wires.owner; len(owner) != 1 {
		t.Errorf("the device leads to %v after %s went", owner, other.id)
	}
	for _, end := range []func() (int, []int){there, back} {
		if sent, lost := end(); len(lost) > 0 || sent == 0 {
			t.Errorf("of %d datagrams %d were lost: %v", sent, len(lost), lost[:min(len(lost), 20)])
		}
	}
	wire.check("all the while", true)
}

// Nodes with different ideas of each other's keys make no new session, and the same ones do.
func TestEncryptedNetworkNeedsBothKeys(t *testing.T) {
	f := sealedFleet(t, 2, false)
	stale := f.config(1)
	must(t, f.labs[0].linux.keys.begin())
	f.labs[0].apply(f.config(0))
	f.labs[1].apply(stale) // knows the key of machine 0 from before
	f.serve()
	c, err := dial(f.space(f.tasks[0]), "udp", at(f.address(f.tasks[2], 0, false), 80))
	must(t, err)
	defer c.Close()
	_, err = c.Write([]byte("x"))
	must(t, err)
	must(t, c.SetReadDeadline(time.Now().Add(time.Second)))
	if n, err := c.Read(make([]byte, 100)); !isTimeout(err) {
		t.Errorf("%d bytes were answered, %v", n, err)
	}
	f.apply()
	f.check()
}

// What is gone leaves no process, no link and no file; what a crash left goes as well.
func TestEncryptedNetworkGoes(t *testing.T) {
	f := sealedFleet(t, 2, false)
	f.apply()
	b := f.labs[0]
	id := processOf(t, b, "net0")
	gone := func(when string) {
		t.Helper()
		for end := deadline(); ; time.Sleep(5 * time.Millisecond) {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", id))
			if err != nil || strings.Contains(string(stat), ") Z ") {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%s: process %d is still there", when, id)
			}
		}
		entries, err := os.ReadDir(b.linux.wiresDir())
		must(t, err)
		for _, e := range entries {
			if e.Name() != "keys.json" {
				t.Errorf("%s: %s is still there", when, e.Name())
			}
		}
		if have := wirePorts(t, b.host); len(have) != 0 {
			t.Errorf("%s: the filter still has ports %v", when, have)
		}
	}
	tasks := f.tasks
	f.tasks = f.tasks[2:]
	f.apply()
	must(t, b.host.within(func() error { // its port is free from then on, for another network
		c, err := net.ListenPacket("udp", fmt.Sprintf(":%d", firstWirePort))
		if err == nil {
			err = c.Close()
		}
		return err
	}))
	gone("the last task went")
	f.tasks = tasks
	f.apply()
	id = processOf(t, b, "net0")
	must(t, b.linux.Close())
	must(t, unpin(b.linux.overlayPath("net0"))) // as a reboot does, but for the process
	b.start()
	f.tasks = f.tasks[2:]
	f.apply()
	gone("a process was left of before")
	f.tasks = tasks
	f.apply()
	id = processOf(t, b, "net0")
	must(t, b.linux.Teardown(t.Context()))
	if _, err := os.Stat(b.linux.wiresDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Teardown there is %s: %v", b.linux.wiresDir(), err)
	}
}

// wirePorts are the ports of encrypted networks in a machine's filter.
func wirePorts(t testing.TB, n *namespace) map[string]bool {
	t.Helper()
	c, err := n.firewall()
	must(t, err)
	have, _ := readSet(c, wireSet(dataTable()))
	return have
}

// datagrams is how many the programs of a machine were given.
func datagrams(t testing.TB, n *namespace) (count int) {
	t.Helper()
	must(t, n.within(func() error {
		for _, name := range []string{"snmp", "snmp6"} {
			data, err := os.ReadFile("/proc/thread-self/net/" + name)
			if err != nil {
				return err
			}
			lines := strings.Split(string(data), "\n")
			for i, line := range lines {
				var one int
				if fields := strings.Fields(line); name == "snmp" && len(fields) > 1 && fields[0] == "Udp:" && fields[1] != "InDatagrams" {
					_, err = fmt.Sscan(fields[1], &one)
				} else if len(fields) == 2 && fields[0] == "Udp6InDatagrams" {
					_, err = fmt.Sscan(fields[1], &one)
				}
				if err != nil {
					return fmt.Errorf("line %d of %s: %w", i, name, err)
				}
				count += one
			}
		}
		return nil
	}))
	return count
}

// A machine whose packets would leave with another address than the one that it is known by says so.
func TestEncryptedNetworkWarnsOfStrayRoutes(t *testing.T) {
	f := sealedFleet(t, 2, false)
	f.apply()
	if w := f.labs[0].linux.Warnings(); len(w) > 0 {
		t.Errorf("warned of %v", w)
	}
	second := netip.MustParseAddr("10.78.0.77")
	one, err := f.labs[0].host.LinkByName("lan0")
	must(t, err)
	must(t, f.labs[0].host.addAddress(one, netip.PrefixFrom(second, 24)))
	f.moved = map[int]netip.Addr{0: second}
	f.apply()
	w := strings.Join(f.labs[0].linux.Warnings(), "\n")
	if !strings.Contains(w, "to 10.78.0.2 leave with the address 10.78.0.1, and the other nodes know this one by 10.78.0.77") {
		t.Errorf("warned of %q", w)
	}
}

// Only known nodes' packets come to the port, and files are for root alone.
func TestEncryptedNetworkKeepsStrangersOut(t *testing.T) {
	f := sealedFleet(t, 3, false)
	stranger := f.labs[2]
	for i := range 2 {
		c := f.config(i)
		c.Peers = c.Peers[:1] // machine 2 is no node
		if i == 1 {
			c.Overlays[0].Remote = c.Overlays[0].Remote[:2]
		} else {
			c.Overlays[0].Remote = c.Overlays[0].Remote[:1]
		}
		f.labs[i].apply(c)
	}
	port, err := wirePort(f.nets[0].VNI)
	must(t, err)
	const many = 200 // more than the two machines have to tell each other
	for _, from := range []*lab{stranger, f.labs[1]} {
		before := datagrams(t, f.labs[0].host)
		c, err := dial(from.host, "udp", at(f.underlay(0, false), port))
		must(t, err)
		defer c.Close()
		for range many {
			_, err = c.Write([]byte("anything"))
			must(t, err)
		}
		time.Sleep(100 * time.Millisecond)
		if n := datagrams(t, f.labs[0].host) - before; n >= many != (from != stranger) {
			t.Errorf("%d of %d packets were taken in, of a stranger: %t", n, many, from == stranger)
		}
	}
	for name, want := range map[string]os.FileMode{"": 0o700, "keys.json": 0o600, "net0.sock": 0o700, "net0.log": 0o600} {
		info, err := os.Stat(f.labs[0].linux.wiresDir() + "/" + name)
		must(t, err)
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", name, info.Mode(), want)
		}
	}
}
