package netplugin

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// everything is a Config with something of all kinds.
func everything() Config {
	c := testConfig(5)
	c.Tasks[1].Sysctls = map[string]string{"net.ipv4.tcp_fin_timeout": "33", "net.ipv4.ip_local_port_range": "20000 30000"}
	c.Published = []PublishedPort{published("tcp", 8080, 0, 1, 2), published("udp", 8080, 0), published("sctp", 99, 3, 4), published("tcp", 70, 3), published("tcp", 71)}
	return c
}

// echo sends a line over a connection that serve answers, and fails if it does not come back.
func echo(t testing.TB, c net.Conn) {
	t.Helper()
	must(t, c.SetDeadline(deadline()))
	if _, err := c.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	for n := 0; n < len(got); {
		m, err := c.Read(got[n:])
		if err != nil {
			t.Fatalf("the connection broke: %v", err)
		}
		n += m
	}
}

func TestRestartIsInvisible(t *testing.T) {
	b, c := withServers(t, 3, published("tcp", 8080, 0, 1, 2), published("udp", 8081, 2))
	serve(t, b.client, "outside", 9000)
	in, err := dial(b.client, "tcp", at(hostAddr, 8080))
	must(t, err)
	defer in.Close()
	out, err := dial(b.task("t1"), "tcp", at(clientAddr, 9000))
	must(t, err)
	defer out.Close()
	for _, one := range []net.Conn{in, out} {
		_, _, err := answer(one)
		must(t, err)
	}
	before := b.dump(true)
	all := []func() int{writes(t, b.host), writes(t, b.linux.router), writes(t, b.task("t0")), writes(t, b.task("t2"))}
	b.restart()
	have, err := b.linux.Addresses(context.Background())
	must(t, err)
	if diff := cmp.Diff(map[string]netip.Addr{"t0": testAddr(0), "t1": testAddr(1), "t2": testAddr(2)}, have, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("addresses after a restart (-want +got):\n%s", diff)
	}
	b.apply(c)
	for i, changes := range all {
		if n := changes(); n != 0 {
			t.Errorf("the restart made %d changes in namespace %d", n, i)
		}
	}
	if diff := cmp.Diff(before, b.dump(true)); diff != "" {
		t.Errorf("the restart changed the kernel's state (-before +after):\n%s", diff)
	}
	echo(t, in)
	echo(t, out)
}

func TestApplyAgainChangesNothing(t *testing.T) {
	b := newLab(t)
	c := everything()
	b.apply(c)
	spaces := []*namespace{b.host, b.linux.router}
	for _, task := range c.Tasks {
		spaces = append(spaces, b.task(task.ID))
	}
	var all []func() int
	for _, n := range spaces {
		all = append(all, writes(t, n))
	}
	check := func(what string) {
		t.Helper()
		for i, changes := range all {
			if n := changes(); n != 0 {
				t.Errorf("%s made %d changes in %s", what, n, spaces[i].name)
			}
		}
	}
	b.apply(c)
	check("a second Apply")
	slices.Reverse(c.Tasks)
	slices.Reverse(c.Published)
	slices.Reverse(c.Published[len(c.Published)-1].Backends)
	b.apply(c)
	check("an Apply of the same in another order")
	b.linux.Resync()
	b.apply(c)
	check("a resync")
	// The counters count.
	c.Published = append(c.Published, published("tcp", 72, 3))
	b.apply(c)
	if all[0]() == 0 {
		t.Error("a changed port was not seen as a change of the machine's namespace")
	}
	c.Tasks = append(c.Tasks, TaskLink{ID: "more", Address: testAddr(20)})
	b.apply(c)
	if all[1]() == 0 {
		t.Error("a new task was not seen as a change of the router's namespace")
	}
}

func TestResyncRepairs(t *testing.T) {
	damage := map[string]func(t *testing.T, b *lab){
		"table deleted": func(t *testing.T, b *lab) { must(t, b.linux.removeTable()) },
		"ruleset flushed": func(t *testing.T, b *lab) {
			c, err := b.host.firewall()
			must(t, err)
			c.FlushRuleset()
			must(t, c.Flush())
		},
		"router's table deleted": func(t *testing.T, b *lab) {
			c, err := b.linux.router.firewall()
			must(t, err)
			tx := newTransaction(c)
			tx.removeTable()
			must(t, tx.commit())
		},
		"rule deleted": func(t *testing.T, b *lab) {
			c, err := b.host.firewall()
			must(t, err)
			chain := &nftables.Chain{Name: "postrouting", Table: newTransaction(c).table}
			rules, err := c.GetRules(chain.Table, chain)
			must(t, err)
			must(t, c.DelRule(rules[1]))
			must(t, c.Flush())
		},
		"rule added": func(t *testing.T, b *lab) {
			c, err := b.host.firewall()
			must(t, err)
			table := newTransaction(c).table
			c.AddRule(&nftables.Rule{Table: table, Chain: &nftables.Chain{Name: "forward"}, Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}, UserData: []byte{0, 1, 0}})
			must(t, c.Flush())
		},
		"elements deleted": func(t *testing.T, b *lab) {
			c, err := b.host.firewall()
			must(t, err)
			tx := newTransaction(c)
			tx.elements(tx.SetDeleteElements, portElements(portKey{unix.IPPROTO_TCP, 8080}, b.linux.have.ports[portKey{unix.IPPROTO_TCP, 8080}])[1:2])
			must(t, tx.commit())
		},
		"uplink deleted": func(t *testing.T, b *lab) { must(t, b.linux.removeUplink()) },
		"uplink down":    func(t *testing.T, b *lab) { setDown(t, b.host, hostLink) },
		"route deleted": func(t *testing.T, b *lab) {
			gw, err := b.host.LinkByName(hostLink)
			must(t, err)
			must(t, b.host.removeRoute(route{dst: testBlock, link: gw.Attrs().Index, via: routerAddress}))
		},
		"task's link deleted": func(t *testing.T, b *lab) { must(t, b.linux.cut(testAddr(1))) },
		"task's link down":    func(t *testing.T, b *lab) { setDown(t, b.linux.router, linkName(testAddr(1))) },
		"task's own end down": func(t *testing.T, b *lab) { setDown(t, b.task("t1"), taskLink) },
		"task's route deleted": func(t *testing.T, b *lab) {
			must(t, b.linux.router.removeRoute(route{dst: host(testAddr(1)), link: linkOf(t, b.linux.router, linkName(testAddr(1)))}))
		},
		"way out deleted": func(t *testing.T, b *lab) {
			must(t, b.task("t1").removeRoute(taskRoute(b.linux.have.base, linkOf(t, b.task("t1"), taskLink))))
		},
		"neighbour deleted":     func(t *testing.T, b *lab) { removeNeighbour(t, b.linux.router, linkName(testAddr(1)), testAddr(1)) },
		"own neighbour deleted": func(t *testing.T, b *lab) { removeNeighbour(t, b.task("t1"), taskLink, testBlock.Addr().Next()) },
		"alias changed": func(t *testing.T, b *lab) {
			l, err := b.linux.router.LinkByName(linkName(testAddr(1)))
			must(t, err)
			must(t, b.linux.router.LinkSetAlias(l, "someone"))
		},
		"forwarding off": func(t *testing.T, b *lab) {
			must(t, b.host.within(func() error { return setSysctls(setting{name: ipForward, value: "0"}) }))
		},
	}
	for name, hurt := range damage {
		t.Run(name, func(t *testing.T) {
			b, c := withServers(t, 3, published("tcp", 8080, 1), published("tcp", 8081, 0, 1, 2))
			inode := b.task("t1").fd.UniqueId()
			before := b.dump(false)
			hurt(t, b)
			if b.dump(false) == before {
				t.Fatal("the damage is none")
			}
			b.linux.Resync()
			b.apply(c)
			if diff := cmp.Diff(before, b.dump(false)); diff != "" {
				t.Errorf("after the repair (-want +got):\n%s", diff)
			}
			if got := b.task("t1").fd.UniqueId(); got != inode {
				t.Errorf("the task's namespace is another one now, %s for %s: its container would be cut off", got, inode)
			}
			if server, _, err := ask(b.client, "tcp", at(hostAddr, 8080)); err != nil || server != "t1" {
				t.Errorf("the port is answered by %q, %v", server, err)
			}
		})
	}
}

func TestResyncMakesTheRouterAnew(t *testing.T) {
	b, c := withServers(t, 2, published("tcp", 8080, 1))
	before := b.dump(false)
	inode := b.task("t1").fd.UniqueId()
	must(t, unpin(b.linux.routerPath()))
	b.linux.Resync()
	b.apply(c)
	if diff := cmp.Diff(before, b.dump(false)); diff != "" {
		t.Errorf("with a new router (-want +got):\n%s", diff)
	}
	if b.task("t1").fd.UniqueId() != inode {
		t.Error("the task has another namespace")
	}
	if server, _, err := ask(b.client, "tcp", at(hostAddr, 8080)); err != nil || server != "t1" {
		t.Errorf("the port is answered by %q, %v", server, err)
	}
}

func TestPrunesWhatACrashLeft(t *testing.T) {
	b := newLab(t)
	c := testConfig(2)
	b.apply(c)
	want := b.dump(false)
	c3 := testConfig(4)
	b.apply(c3)
	// A namespace without a link, a file where a namespace was before a reboot, a link whose namespace was never mounted, a
	// namespace mounted twice.
	must(t, b.linux.cut(testAddr(2)))
	must(t, os.WriteFile(b.linux.Namespace("rebooted"), nil, 0o444))
	must(t, onThread(func() error {
		inside := &namespace{name: "half made"}
		if err := inside.unshare(); err != nil {
			return err
		}
		t.Cleanup(inside.close)
		return b.linux.connect(b.linux.have.base, TaskLink{ID: "half", Address: testAddr(9)}, inside)
	}))
	must(t, unix.Mount(b.linux.Namespace("t3"), b.linux.Namespace("t3"), "", unix.MS_BIND, ""))
	b.restart()
	have, err := b.linux.Addresses(context.Background())
	must(t, err)
	if len(have) != 3 || have["t3"] != testAddr(3) {
		t.Errorf("addresses after the crash: %v, want those of t0, t1 and t3", have)
	}
	b.apply(c)
	if diff := cmp.Diff(want, b.dump(false)); diff != "" {
		t.Errorf("after the next start (-want +got):\n%s", diff)
	}
}

func TestRebootLeavesFilesOnly(t *testing.T) {
	b := newLab(t)
	for _, path := range []string{b.linux.Namespace("t0"), b.linux.Namespace("gone"), b.linux.routerPath()} {
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, nil, 0o444))
	}
	must(t, os.WriteFile(b.linux.forwardFile(), []byte("another boot\n"), 0o600))
	must(t, b.host.within(func() error { return setSysctls(setting{name: ipForward, value: "1"}) }))
	b.apply(testConfig(1))
	if !pinned(b.linux.Namespace("t0")) {
		t.Error("the task has no namespace")
	}
	if _, err := os.Stat(b.linux.Namespace("gone")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file of a task that is gone: %v", err)
	}
	must(t, b.linux.Teardown(context.Background()))
	if got := forwarding(t, b.host); got != "1" {
		t.Errorf("ip_forward is %s after Teardown: a note of another boot counted", got)
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
	must(t, b.linux.publish(nil))
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

func TestHundredTasksLeaveNothing(t *testing.T) {
	b := newLab(t)
	empty := b.dump(false)
	before := mounts(t, b.dir)
	c := testConfig(100)
	for i := range 50 {
		c.Published = append(c.Published, published("tcp", uint16(8000+i), i, 2*i, 99-i))
	}
	b.apply(c)
	if n := mounts(t, b.dir); n != before+101 {
		t.Errorf("%d mounts, want one for each task and the router", n-before)
	}
	b.apply(testConfig(0))
	if n := mounts(t, b.dir); n != before+1 {
		t.Errorf("%d mounts are left, want the router's", n-before)
	}
	b.apply(c)
	must(t, b.linux.Teardown(context.Background()))
	if n := mounts(t, b.dir); n != before {
		t.Errorf("%d mounts are left", n-before)
	}
	if diff := cmp.Diff(empty, b.dump(false)); diff != "" {
		t.Errorf("Teardown left (-want +got):\n%s", diff)
	}
	left, err := os.ReadDir(b.dir)
	if err != nil || len(left) != 0 {
		t.Errorf("Teardown left files: %v, %v", left, err)
	}
	// And all of it can begin again.
	b.apply(c)
	if n := mounts(t, b.dir); n != before+101 {
		t.Errorf("%d mounts after a second beginning", n-before)
	}
}

// mounts counts those under a directory.
func mounts(t testing.TB, dir string) int {
	t.Helper()
	all, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	return strings.Count(string(all), " "+dir+"/")
}

func TestForwardingIsRestored(t *testing.T) {
	for _, was := range []string{"0", "1"} {
		b := newLab(t)
		must(t, b.host.within(func() error { return setSysctls(setting{name: ipForward, value: was}) }))
		b.apply(testConfig(1))
		if got := forwarding(t, b.host); got != "1" {
			t.Errorf("ip_forward is %s while tasks run", got)
		}
		b.restart()
		b.apply(testConfig(1))
		must(t, b.linux.Teardown(context.Background()))
		if got := forwarding(t, b.host); got != was {
			t.Errorf("ip_forward is %s after Teardown, was %s", got, was)
		}
	}
}

func forwarding(t testing.TB, n *namespace) (value string) {
	t.Helper()
	must(t, n.within(func() (err error) {
		value, err = getSysctl(ipForward)
		return err
	}))
	return value
}

func TestTwoMachines(t *testing.T) {
	a, b := newLab(t), newLab(t)
	for _, one := range []*lab{a, b} {
		c := testConfig(2)
		c.Published = []PublishedPort{published("tcp", 8080, 0)}
		one.apply(c)
		serve(t, one.task("t0"), one.dir, 80)
	}
	for _, one := range []*lab{a, b} {
		if server, _, err := ask(one.client, "tcp", at(hostAddr, 8080)); err != nil || server != one.dir {
			t.Errorf("answered by %q, %v; want the machine's own task", server, err)
		}
	}
	must(t, a.linux.Teardown(context.Background()))
	if server, _, err := ask(b.client, "tcp", at(hostAddr, 8080)); err != nil || server != b.dir {
		t.Errorf("after the other machine's end: %q, %v", server, err)
	}
}

func TestSecondDaemonIsRefused(t *testing.T) {
	b := newLab(t)
	open := func() (l *Linux, err error) {
		err = b.host.within(func() error {
			l, err = New(Options{Dir: t.TempDir()})
			return err
		})
		return l, err
	}
	if _, err := open(); err == nil || !strings.Contains(err.Error(), "another swarmd has charge of this network namespace") {
		t.Errorf("a second daemon in the namespace: %v", err)
	}
	must(t, b.linux.Close())
	defer b.start()
	l, err := open()
	must(t, err)
	must(t, l.Close())
}

func TestClosed(t *testing.T) {
	b := newLab(t)
	must(t, b.linux.Close())
	defer b.start()
	if err := b.linux.Apply(t.Context(), testConfig(0)); !errors.Is(err, errClosed) {
		t.Errorf("Apply after Close: %v", err)
	}
	if _, err := b.linux.Addresses(t.Context()); !errors.Is(err, errClosed) {
		t.Errorf("Addresses after Close: %v", err)
	}
	if err := b.linux.Teardown(t.Context()); !errors.Is(err, errClosed) {
		t.Errorf("Teardown after Close: %v", err)
	}
	must(t, b.linux.Close())
}

func TestSysctls(t *testing.T) {
	b := newLab(t)
	c := everything()
	read := func(task, name string) (value string) {
		t.Helper()
		must(t, b.task(task).within(func() (err error) {
			value, err = getSysctl(name)
			return err
		}))
		return value
	}
	b.apply(c)
	for name, want := range map[string]string{"net.ipv4.tcp_fin_timeout": "33", "net.ipv4.ip_local_port_range": "20000 30000", "net.ipv4.ip_unprivileged_port_start": "0"} {
		if got := read("t1", name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if got := read("t0", "net.ipv4.tcp_fin_timeout"); got == "33" {
		t.Error("the setting of one task is also another's")
	}
	c.Tasks[1].Sysctls = map[string]string{"net.ipv4.tcp_fin_timeout": "34"}
	b.apply(c)
	if got := read("t1", "net.ipv4.tcp_fin_timeout"); got != "34" {
		t.Errorf("the changed setting is %q", got)
	}
}

func TestBadTaskLeavesTheOthersAlone(t *testing.T) {
	b := newLab(t)
	c := testConfig(3)
	c.Tasks[1].Sysctls = map[string]string{"net.ipv4.no_such_thing": "1"}
	c.Tasks = append(c.Tasks, TaskLink{ID: "../x", Address: testAddr(7)}, TaskLink{ID: "far", Address: netip.MustParseAddr("10.0.0.1")})
	err := b.linux.Apply(t.Context(), c)
	byTask, alone := TaskErrors(err)
	if len(byTask) != 3 || !alone || !strings.Contains(byTask["t1"].Error(), "no_such_thing") {
		t.Errorf("errors by task: %v, alone %v", byTask, alone)
	}
	have, err := b.linux.Addresses(t.Context())
	must(t, err)
	if len(have) != 2 || have["t0"] != testAddr(0) || have["t2"] != testAddr(2) {
		t.Errorf("linked are %v, want t0 and t2", have)
	}
	if n := linkCount(t, b.linux.router); n != 2+2 {
		t.Errorf("%d links in the router, want lo, up0 and those of two tasks", n)
	}
	// Made good, it is linked; made bad, it stays.
	c = testConfig(3)
	b.apply(c)
	before := b.dump(true)
	c.Tasks[1].Address = netip.MustParseAddr("10.0.0.1")
	if err := b.linux.Apply(t.Context(), c); err == nil {
		t.Error("an address out of the block was taken")
	}
	if diff := cmp.Diff(before, b.dump(true)); diff != "" {
		t.Errorf("a task that cannot be as it should was touched (-before +after):\n%s", diff)
	}
}

func TestCanceledApply(t *testing.T) {
	b := newLab(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.linux.Apply(ctx, testConfig(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	b.apply(testConfig(1))
}

func TestForeignForwardDropIsWarnedOf(t *testing.T) {
	b := newLab(t)
	c, err := b.host.firewall()
	must(t, err)
	table := c.AddTable(&nftables.Table{Name: "filter", Family: nftables.TableFamilyIPv4})
	policy := nftables.ChainPolicyDrop
	forward := c.AddChain(&nftables.Chain{Name: "FORWARD", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &policy})
	must(t, c.Flush())
	b.apply(testConfig(1))
	if w := b.linux.Warnings(); len(w) != 1 || !strings.Contains(w[0], "chain FORWARD of table filter") || !strings.Contains(w[0], hostLink) {
		t.Errorf("warnings: %q", w)
	}
	serve(t, b.client, "outside", 9000)
	for _, rule := range [][]expr.Any{join(inLink(hostLink, true), accept()), join(outLink(hostLink, true), accept())} {
		c.AddRule(&nftables.Rule{Table: table, Chain: forward, Exprs: rule})
	}
	must(t, c.Flush())
	b.linux.Resync()
	b.apply(testConfig(1))
	if w := b.linux.Warnings(); len(w) != 0 {
		t.Errorf("warnings where %s is accepted: %q", hostLink, w)
	}
	if _, _, err := ask(b.task("t0"), "tcp", at(clientAddr, 9000)); err != nil {
		t.Error(err)
	}
	c.DelTable(table)
	must(t, c.Flush())
}

func TestMTUFollowsTheUplink(t *testing.T) {
	b := newLab(t)
	b.apply(testConfig(1))
	check := func(want int) {
		t.Helper()
		for _, one := range []struct {
			n    *namespace
			link string
		}{{b.host, hostLink}, {b.linux.router, routerLink}, {b.linux.router, linkName(testAddr(0))}, {b.task("t0"), taskLink}} {
			l, err := one.n.LinkByName(one.link)
			must(t, err)
			if got := l.Attrs().MTU; got != want {
				t.Errorf("MTU of %s in %s is %d, want the uplink's %d", one.link, one.n.name, got, want)
			}
		}
	}
	check(1400)
	out, err := b.host.LinkByName("out0")
	must(t, err)
	must(t, b.host.LinkSetMTU(out, 9000))
	b.linux.Resync()
	b.apply(testConfig(1))
	check(9000)
}

func TestForeignLinkOfOurName(t *testing.T) {
	b := newLab(t)
	bridge := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	bridge.Name = hostLink
	must(t, b.host.LinkAdd(bridge))
	if err := b.linux.Apply(t.Context(), testConfig(1)); err == nil || !strings.Contains(err.Error(), "not ours: rename or remove it") {
		t.Errorf("got %v", err)
	}
	must(t, b.host.LinkDel(bridge))
	b.apply(testConfig(1))
}

func setDown(t testing.TB, n *namespace, name string) {
	t.Helper()
	l, err := n.LinkByName(name)
	must(t, err)
	must(t, n.LinkSetDown(l))
}

func linkOf(t testing.TB, n *namespace, name string) int {
	t.Helper()
	l, err := n.LinkByName(name)
	must(t, err)
	return l.Attrs().Index
}

func linkCount(t testing.TB, n *namespace) int {
	t.Helper()
	all, err := dump(n.LinkList)
	must(t, err)
	return len(all)
}

func removeNeighbour(t testing.TB, n *namespace, link string, a netip.Addr) {
	t.Helper()
	must(t, n.NeighDel(&netlink.Neigh{LinkIndex: linkOf(t, n, link), Family: unix.AF_INET, IP: a.AsSlice()}))
}
