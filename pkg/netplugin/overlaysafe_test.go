package netplugin

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestSpoofedSourcesAreDroppedOnOverlays(t *testing.T) {
	for _, six := range []bool{false, true} {
		f := newFleet(t, 2)
		net := f.network(1, true)
		for _, m := range []int{0, 0, 1} {
			f.task(m, net)
		}
		f.apply()
		got := make(chan string, 10)
		for _, i := range []int{1, 2} {
			must(t, listenBoth(t, f.space(f.tasks[i]), 9000, func(data string) { got <- data }))
		}
		task := f.space(f.tasks[0])
		lo, err := task.LinkByName("lo")
		must(t, err)
		own := f.address(f.tasks[0], net, six)
		outside := netip.MustParseAddr("8.8.8.8")
		if six {
			outside = netip.MustParseAddr("2001:db8::1")
		}
		for _, to := range []testTask{f.tasks[1], f.tasks[2]} {
			for _, src := range []netip.Addr{f.address(f.tasks[1], net, six), f.address(f.tasks[2], net, six), f.numbered(net, 99, six), f.numbered(net, 1, six), outside, own} {
				if src == f.address(to, net, six) { // the task would take it for its own
					continue
				}
				if src != own {
					must(t, task.addTaskAddress(lo, host(src)))
				}
				must(t, sendFrom(task, src, netip.AddrPortFrom(f.address(to, net, six), 9000)))
				if src != own { // it would keep packets to that address from leaving
					must(t, task.AddrDel(lo, &netlink.Addr{IPNet: ipNet(host(src))}))
				}
			}
			// They are sent in order over one path, so the true one would come last.
			select {
			case first := <-got:
				if first != own.String() {
					t.Errorf("a packet with the source %s came to %s, want only the task's own %s", first, to.id, own)
				}
			case <-time.After(soon):
				t.Errorf("the packet with the task's own source %s did not come to %s", own, to.id)
			}
		}
	}
}

// sendFrom sends a datagram that says what its source is.
func sendFrom(n *namespace, src netip.Addr, to netip.AddrPort) error {
	return n.within(func() error {
		c, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(src, 0)), net.UDPAddrFromAddrPort(to))
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte(src.String()))
		return err
	})
}

// listenBoth is listenUDP for both IP versions.
func listenBoth(t testing.TB, n *namespace, port int, f func(data string)) error {
	return n.within(func() error {
		c, err := net.ListenUDP("udp", &net.UDPAddr{Port: port})
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = c.Close() })
		go func() {
			b := make([]byte, 1500)
			for {
				size, _, err := c.ReadFromUDPAddrPort(b)
				if err != nil {
					return
				}
				f(string(b[:size]))
			}
		}()
		return nil
	})
}

// applyMute is apply where some nodes have not told their keys, which each machine says, and nothing else.
func (f *fleet) applyMute() {
	f.t.Helper()
	for i, b := range f.labs {
		err := b.linux.Apply(f.t.Context(), f.config(i))
		var o *OverlayError
		if !errors.As(err, &o) || !strings.Contains(err.Error(), "it has not told its key") {
			f.t.Fatalf("machine %d: %v", i, err)
		}
	}
}

// An encrypted network that cannot be encrypted is closed between machines, and works within one. What is on the wire is looked at.
func TestEncryptedNetworkSendsNothingInTheClear(t *testing.T) {
	f := newFleet(t, 2)
	secret := f.network(1, true)
	for _, m := range []int{0, 0, 1} {
		f.task(m, secret)
	}
	f.vip(secret, 5, f.tasks[:2]...)
	f.apply() // it was in the clear before
	f.serve()
	wire := capture(t, f.lan)
	// Not by TCP: the end of a connection that is cut off is sent again and again, and the kernel tells each task once a second, at most, that
	// what it sent has no way.
	if _, _, err := ask(f.space(f.tasks[0]), "udp", at(f.address(f.tasks[2], secret, false), 80)); err != nil {
		t.Fatal(err)
	}
	if n := wire(f.ports); n == 0 {
		t.Fatal("the capture saw no packet of a network in the clear")
	}
	f.nets[secret].Encrypted = true
	f.mute = map[int]bool{0: true, 1: true}
	f.applyMute()
	wire(f.ports)
	for _, from := range []testTask{f.tasks[0], f.tasks[2]} {
		for _, to := range f.tasks {
			for _, a := range f.addresses(to, secret) {
				_, err := dial(f.space(from), "tcp", at(a, 80))
				if local := from.machine == to.machine; local != (err == nil) || isTimeout(err) {
					t.Errorf("%s to %s: %v, on one machine: %t", from.id, a, err, local)
				}
			}
		}
	}
	if _, _, err := ask(f.space(f.tasks[1]), "tcp", at(f.numbered(secret, 5, true), 80)); err != nil {
		t.Errorf("to a VIP of tasks here: %v", err)
	}
	if n := wire(f.ports); n != 0 {
		t.Errorf("%d packets of an encrypted network were on the wire", n)
	}
}

// capture counts the UDP packets to a port on any link of the namespace since the last call.
func capture(t *testing.T, n *namespace) func(port uint16) int {
	t.Helper()
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8
	var fd int
	must(t, n.within(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, all)
		return err
	}))
	t.Cleanup(func() { _ = unix.Close(fd) })
	return func(port uint16) (count int) {
		t.Helper()
		b := make([]byte, 65536)
		for {
			size, _, err := unix.Recvfrom(fd, b, 0)
			if err == unix.EAGAIN {
				return count
			}
			must(t, err)
			p := b[:size]
			switch {
			case len(p) > 28 && p[0]>>4 == 4 && p[9] == unix.IPPROTO_UDP:
				p = p[4*(p[0]&15):]
			case len(p) > 48 && p[0]>>4 == 6 && p[6] == unix.IPPROTO_UDP:
				p = p[40:]
			default:
				continue
			}
			if uint16(p[2])<<8|uint16(p[3]) == port {
				count++
			}
		}
	}
}

func TestOverlayMTU(t *testing.T) {
	f := newFleet(t, 2)
	a, b := f.network(1, true), f.network(2, false)
	f.nets[b].MTU = 1300
	f.task(0, a, b)
	f.task(1, a, b)
	check := func(wantA, wantB int) {
		t.Helper()
		for _, one := range []struct {
			n    *namespace
			link string
			want int
		}{
			{f.labs[0].overlay("net0"), overlayLink, wantA}, {f.labs[0].overlay("net0"), linkName(testAddr(0)), wantA}, {f.space(f.tasks[0]), "eth1", wantA},
			{f.labs[0].overlay("net1"), overlayLink, wantB}, {f.labs[0].overlay("net1"), linkName(testAddr(0)), wantB}, {f.space(f.tasks[0]), "eth2", wantB},
		} {
			l, err := one.n.LinkByName(one.link)
			must(t, err)
			if got := l.Attrs().MTU; got != one.want {
				t.Errorf("MTU of %s in %s is %d, want %d", one.link, one.n.name, got, one.want)
			}
		}
	}
	f.apply()
	f.serve()
	check(1450, 1300)
	for i, m := range f.labs {
		port, err := f.lan.LinkByName(fmt.Sprintf("port%d", i))
		must(t, err)
		must(t, f.lan.LinkSetMTU(port, 1340))
		lan0, err := m.host.LinkByName("lan0")
		must(t, err)
		must(t, m.host.LinkSetMTU(lan0, 1340))
		m.linux.Resync()
	}
	f.apply()
	check(1290, 1290)
	// What is larger than the packets between machines arrives, in whole and unfragmented pieces.
	c, _ := hold(t, f.space(f.tasks[0]), at(f.address(f.tasks[1], a, true), 80))
	big := make([]byte, 1<<20)
	must(t, c.SetDeadline(deadline()))
	go func() { _, _ = c.Write(big) }()
	for left := len(big); left > 0; {
		n, err := c.Read(big)
		must(t, err)
		left -= n
	}
	// IPv6 is not to be had with less; the network without it goes on.
	lan0, err := f.labs[0].host.LinkByName("lan0")
	must(t, err)
	must(t, f.labs[0].host.LinkSetMTU(lan0, 1300))
	f.labs[0].linux.Resync()
	err = f.labs[0].linux.Apply(t.Context(), f.config(0))
	var o *OverlayError
	if !errors.As(err, &o) || o.Overlay != "net0" || !strings.Contains(err.Error(), "give the machines' network an MTU of 1330 or more") {
		t.Errorf("got %v", err)
	}
	l, err := f.labs[0].overlay("net1").LinkByName(overlayLink)
	must(t, err)
	if l.Attrs().MTU != 1250 {
		t.Errorf("MTU of the other network is %d", l.Attrs().MTU)
	}
}

// One network that cannot be leaves the others, and the tasks that are not on it, alone.
func TestBrokenOverlayLeavesTheOthersAlone(t *testing.T) {
	f := newFleet(t, 1)
	good, bad := f.network(1, false), f.network(2, false)
	f.task(0, good)
	f.task(0, good, bad)
	b := f.labs[0]
	c := f.config(0)
	c.Overlays[1].Subnets = nil
	err := b.linux.Apply(t.Context(), c)
	byTask, alone := TaskErrors(err)
	if len(byTask) != 1 || !alone || !strings.Contains(byTask["t1"].Error(), "network net1: it has no subnet") {
		t.Errorf("a broken Config: %v, alone %v", byTask, alone)
	}
	// The UDP port is another's: no network reaches another node, and each says so.
	must(t, b.linux.Teardown(t.Context()))
	must(t, listenUDP(t, b.host, f.ports, func(netip.AddrPort, string) {}))
	err = b.linux.Apply(t.Context(), f.config(0))
	byTask, alone = TaskErrors(err)
	if len(byTask) != 2 || !alone || !strings.Contains(err.Error(), "network net0: UDP port 4790 is another program's") {
		t.Errorf("a taken port: %v, alone %v", err, alone)
	}
	for id, err := range byTask {
		if !strings.Contains(err.Error(), "it is not there: UDP port 4790 is another program's") {
			t.Errorf("a taken port, of task %s: %v", id, err)
		}
	}
	f.ports++
	b.apply(f.config(0))
	f.serve()
	f.check()
	// A network that becomes broken stays as it was, with what its tasks have.
	before := b.dump(true)
	c = f.config(0)
	c.Overlays[1].VNI = 0
	if err := b.linux.Apply(t.Context(), c); err == nil {
		t.Error("VNI 0 was taken")
	}
	if diff := cmp.Diff(before, b.dump(true)); diff != "" {
		t.Errorf("a network that cannot be as it should was touched (-before +after):\n%s", diff)
	}
	b.restart()
	if err := b.linux.Apply(t.Context(), c); err == nil {
		t.Error("VNI 0 was taken")
	}
	if diff := cmp.Diff(before, b.dump(true)); diff != "" {
		t.Errorf("after a restart it was touched (-before +after):\n%s", diff)
	}
	b.apply(f.config(0))
	if diff := cmp.Diff(before, b.dump(true)); diff != "" {
		t.Errorf("made good it is another one (-before +after):\n%s", diff)
	}
}

// A task that moves takes its address along; a machine that gets another one is found there.
func TestTasksAndMachinesMove(t *testing.T) {
	f := newFleet(t, 3)
	net := f.network(1, true)
	for _, m := range []int{0, 1} {
		f.task(m, net)
	}
	f.task(2, net)
	f.apply()
	f.serve()
	f.check()
	for _, to := range []int{0, 2, 1} { // next to the first, away, and back
		f.tasks[1].machine = to
		f.apply()
		serveAll(t, f.space(f.tasks[1]), "t1", 80)
		f.check()
	}
	// The second machine has another address.
	lan0, err := f.labs[1].host.LinkByName("lan0")
	must(t, err)
	must(t, f.labs[1].host.AddrDel(lan0, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(f.underlay(1, false), 24))}))
	f.moved = map[int]netip.Addr{1: netip.MustParseAddr("10.78.0.77")}
	must(t, f.labs[1].host.addAddress(lan0, netip.PrefixFrom(f.underlay(1, false), 24)))
	f.labs[0].linux.swept() // of the task that moved away
	changes := writes(t, f.labs[0].overlay("net0"))
	f.apply()
	if n := changes(); n == 0 || n > 4 {
		t.Errorf("a machine's new address made %d changes, want that of its forwarding entry", n)
	}
	f.check()
}

// The operator's tool understands all rules: see TestOperatorCanListTheFirewall.
func TestOperatorCanListOverlays(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs nft, of the package nftables: ", err)
	}
	f := newFleet(t, 1)
	net := f.network(1, true)
	f.task(0, net)
	f.task(0, net)
	f.vip(net, 5, f.tasks...)
	f.vip(net, 6)
	f.apply()
	ruleset := nft(t, f.labs[0].overlay("net0"), "list", "ruleset")
	for _, want := range []string{
		"table ip swarmd", "table ip6 swarmd", "meta mark set ip daddr map @vips", "meta mark vmap @dispatch", "mod 2 seed 0x1 map @backends",
		"10.0.1.5 : 0x", ": goto pick2", ": goto refuse", "10.0.1.5 . 0x00000001 : 10.0.1.12", "fd00:1::5 . 0x00000001 : fd00:1::c", "10.0.1.11 . 10.0.1.11 : 10.0.1.1",
		"reject with tcp reset", "fib saddr . iif oif",
	} {
		if !strings.Contains(ruleset, want) {
			t.Errorf("the ruleset has no %q:\n%s", want, ruleset)
		}
	}
	nft(t, f.labs[0].overlay("net0"), "--json", "list", "ruleset")
}

func TestPing(t *testing.T) {
	f := newFleet(t, 2)
	net := f.network(1, true)
	f.task(0, net)
	f.task(1, net)
	f.vip(net, 5, f.tasks[1])
	f.apply()
	for _, six := range []bool{false, true} {
		for _, to := range []netip.Addr{f.address(f.tasks[1], net, six), f.numbered(net, 5, six), f.numbered(net, 1, six)} {
			if err := ping(f.space(f.tasks[0]), to); err != nil {
				t.Errorf("ping %s: %v", to, err)
			}
		}
		if err := ping(f.space(f.tasks[0]), f.numbered(net, 99, six)); !errors.Is(err, syscall.EHOSTUNREACH) && !errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("ping to nobody: %v, want to be told so", err)
		}
	}
}

// ping sends an echo request and waits for the answer.
func ping(n *namespace, to netip.Addr) error {
	domain, proto, request := unix.AF_INET, unix.IPPROTO_ICMP, byte(8)
	var sa unix.Sockaddr
	if to.Is6() {
		domain, proto, request = unix.AF_INET6, unix.IPPROTO_ICMPV6, 128
		sa = &unix.SockaddrInet6{Addr: to.As16()}
	} else {
		sa = &unix.SockaddrInet4{Addr: to.As4()}
	}
	var fd int
	err := n.within(func() (err error) {
		fd, err = unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, proto)
		return err
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, sa); err != nil {
		return err
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: int64(soon / 1e9)}); err != nil {
		return err
	}
	recverr, level := unix.IP_RECVERR, unix.SOL_IP
	if to.Is6() {
		recverr, level = unix.IPV6_RECVERR, unix.SOL_IPV6
	}
	if err := unix.SetsockoptInt(fd, level, recverr, 1); err != nil {
		return err
	}
	if _, err := unix.Write(fd, []byte{request, 0, 0, 0, 0, 0, 0, 1}); err != nil {
		return err
	}
	_, err = unix.Read(fd, make([]byte, 100))
	return err
}

// The settings of a task may be of its links to networks.
func TestSysctlsOfAttachments(t *testing.T) {
	f := newFleet(t, 1)
	f.task(0, f.network(1, false))
	c := f.config(0)
	c.Tasks[0].Sysctls = map[string]string{"net.ipv4.conf.eth1.forwarding": "1"}
	f.labs[0].apply(c)
	must(t, f.space(f.tasks[0]).within(func() error {
		if v, err := getSysctl("net.ipv4.conf.eth1.forwarding"); err != nil || v != "1" {
			t.Errorf("the setting is %q, %v", v, err)
		}
		return nil
	}))
}

// TestAddressIsGivenOnBeforeTheNews: a task here has the address of one that is gone on another node, of which this node hears later. Apply has
// nothing to say, unless the news does not come, and the address is the task's that is here.
func TestAddressIsGivenOnBeforeTheNews(t *testing.T) {
	f := newFleet(t, 2)
	net := f.network(1, true)
	f.task(0, net)
	gone := f.task(1, net)
	f.task(1, net)
	f.apply()
	next := testTask{id: "next", gateway: testAddr(20), nets: []int{net}, alias: gone.id}
	f.tasks = append(f.tasks, next)
	home := f.labs[0]
	answers := func(what string) {
		t.Helper()
		for _, six := range []bool{false, true} {
			to := at(f.address(next, net, six), 80)
			if server, _, err := ask(f.space(f.tasks[0]), "tcp", to); err != nil || server != "next" {
				t.Errorf("%s: %s is answered by %q, %v, want the task that is here", what, to, server, err)
			}
		}
	}
	home.apply(f.config(0))
	serve(t, f.space(next), "next", 80)
	serveOf(t, f.space(next), "next", 80, 1)
	answers("before the news")
	for c := range home.linux.conflicts {
		home.linux.conflicts[c] = time.Now().Add(-conflictPatience)
	}
	err := home.linux.Apply(t.Context(), f.config(0))
	if byTask, alone := TaskErrors(err); err == nil || len(byTask) > 0 || !alone || !strings.Contains(err.Error(), "is that of task next here, and of one on node 2") {
		t.Errorf("without any news: %v", err)
	}
	answers("without any news")
	f.tasks = append(f.tasks[:1:1], f.tasks[2:]...)
	f.apply()
	answers("after the news")
	if len(home.linux.conflicts) > 0 {
		t.Errorf("after the news there are conflicts %v", home.linux.conflicts)
	}
}
