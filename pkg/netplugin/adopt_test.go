package netplugin

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// everything is a Config with something of all kinds.
func everything() Config {
	c := testConfig(5)
	c.Tasks[1].Sysctls = map[string]string{"net.ipv4.tcp_fin_timeout": "33", "net.ipv4.ip_local_port_range": "20000 30000"}
	c.Published = []PublishedPort{published("tcp", 8080, 0, 1, 2), published("udp", 8080, 0), published("sctp", 99, 3, 4), published("tcp", 70, 3), published("tcp", 71), placed(72, "10.77.0.1/32", "127.0.0.0/8", "out0")}
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
	last := &c.Published[len(c.Published)-1]
	last.Backends = slices.Clone(last.Backends)
	slices.Reverse(last.Backends)
	b.apply(c)
	check("an Apply of the same in another order")
	b.linux.Resync()
	b.apply(c)
	check("a resync")
	// The counters count.
	c.Published = append(c.Published, published("tcp", 79, 3))
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

// damage is what people, other programs and crashes do to what we made.
var damage = map[string]func(t *testing.T, b *lab){
	"table deleted": func(t *testing.T, b *lab) { must(t, b.linux.host.removeTables(four)) },
	"ruleset flushed": func(t *testing.T, b *lab) {
		c, err := b.host.firewall()
		must(t, err)
		c.FlushRuleset()
		must(t, c.Flush())
	},
	"router's table deleted": func(t *testing.T, b *lab) {
		c, err := b.linux.router.firewall()
		must(t, err)
		tx := four.newTransaction(c)
		tx.removeTable()
		must(t, tx.commit())
	},
	"rule deleted": func(t *testing.T, b *lab) {
		c, err := b.host.firewall()
		must(t, err)
		chain := &nftables.Chain{Name: "postrouting", Table: four.newTransaction(c).table}
		rules, err := c.GetRules(chain.Table, chain)
		must(t, err)
		must(t, c.DelRule(rules[1]))
		must(t, c.Flush())
	},
	"rule added": func(t *testing.T, b *lab) {
		c, err := b.host.firewall()
		must(t, err)
		table := four.newTransaction(c).table
		c.AddRule(&nftables.Rule{Table: table, Chain: &nftables.Chain{Name: "forward"}, Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}, UserData: []byte{0, 1, 0}})
		must(t, c.Flush())
	},
	"elements deleted": func(t *testing.T, b *lab) {
		c, err := b.host.firewall()
		must(t, err)
		tx := four.newTransaction(c)
		tx.elements(tx.SetDeleteElements, b.linux.have.portElements(four, portKey{unix.IPPROTO_TCP, 8080})[1:2])
		must(t, tx.commit())
	},
	"port to another's chain": func(t *testing.T, b *lab) {
		c, err := b.host.firewall()
		must(t, err)
		tx := four.newTransaction(c)
		e := b.linux.have.portElements(four, portKey{unix.IPPROTO_TCP, 8080})[:1]
		tx.elements(tx.SetDeleteElements, e)
		e[0].val = pickName(3)
		tx.elements(tx.SetAddElements, e)
		must(t, tx.commit())
	},
	"place deleted": func(t *testing.T, b *lab) {
		changeElements(t, b, b.linux.have.portElements(four, portKey{unix.IPPROTO_TCP, 8082})[:1], nil)
	},
	"place widened": func(t *testing.T, b *lab) {
		e := b.linux.have.portElements(four, portKey{unix.IPPROTO_TCP, 8082})[:1]
		wide := e[0]
		wide.key, wide.end = e[0].key[:8]+"\x0a\x00\x00\x00", e[0].key[:8]+"\x0a\xff\xff\xff"
		changeElements(t, b, e, []element{wide})
	},
	"port of a place open everywhere": func(t *testing.T, b *lab) {
		e := b.linux.have.portElements(four, portKey{unix.IPPROTO_TCP, 8082})[0]
		changeElements(t, b, nil, []element{{in: mapPorts, key: e.key[:8], val: e.val}})
	},
	"maps of an earlier version": earlierMaps,
	"ports of another kind": func(t *testing.T, b *lab) {
		c, err := b.host.firewall()
		must(t, err)
		tx := four.newTransaction(c)
		tx.maps[0].KeyType = nftables.TypeInetProto
		tx.replaceTable(tx.maps, []chain{pickChain(four, 1)})
		tx.elements(tx.SetAddElements, []element{{in: mapPorts, key: "\x06", val: pickName(1)}})
		must(t, tx.commit())
	},
	"uplink deleted": func(t *testing.T, b *lab) { must(t, b.linux.removeUplink()) },
	"uplink down":    func(t *testing.T, b *lab) { setDown(t, b.host, hostLink) },
	"route deleted": func(t *testing.T, b *lab) {
		gw, err := b.host.LinkByName(hostLink)
		must(t, err)
		must(t, b.host.removeRoute(route{dst: testBlock, link: gw.Attrs().Index, via: routerAddress}))
	},
	"route replaced": func(t *testing.T, b *lab) {
		must(t, b.host.RouteReplace(&netlink.Route{Dst: ipNet(testBlock), Type: unix.RTN_UNREACHABLE}))
	},
	"task's link deleted": func(t *testing.T, b *lab) { must(t, b.linux.cut(testAddr(1))) },
	"task's link down":    func(t *testing.T, b *lab) { setDown(t, b.linux.router, linkName(testAddr(1))) },
	"task's own end down": func(t *testing.T, b *lab) { setDown(t, b.task("t1"), taskLink) },
	"task's route deleted": func(t *testing.T, b *lab) {
		must(t, b.linux.router.removeRoute(route{dst: host(testAddr(1)), link: linkOf(t, b.linux.router, linkName(testAddr(1)))}))
	},
	"way out deleted": func(t *testing.T, b *lab) {
		must(t, b.task("t1").removeRoute(b.linux.have.side(0).taskRoute(linkOf(t, b.task("t1"), taskLink))))
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

// earlierMaps makes the maps as they were when a port led to a number of backends, and that to a chain.
func earlierMaps(t *testing.T, b *lab) {
	c, err := b.host.firewall()
	must(t, err)
	tx := four.newTransaction(c)
	tx.maps = tx.maps[:2]
	tx.maps[0].DataType = nftables.TypeMark
	numbers := &nftables.Set{Table: tx.table, Name: "dispatch", IsMap: true, KeyType: nftables.TypeMark, DataType: nftables.TypeVerdict}
	chains := hostChains(b.linux.have.base.side(0))
	for i, one := range chains {
		if one.kind == nftables.ChainTypeNAT && one.name != "postrouting" {
			chains[i].rules = []rule{{"published ports", append(dispatchPort()[:4],
				&expr.Lookup{SourceRegister: register, DestRegister: register + 4, IsDestRegSet: true, SetName: mapPorts},
				&expr.Lookup{SourceRegister: register + 4, DestRegister: verdictRegister, IsDestRegSet: true, SetName: numbers.Name})}}
		}
	}
	tx.replaceTable(append(append(tx.maps, numbers), four.askerSets(tx.table)...), chains)
	want := maps.Clone(b.linux.have.ports)
	for k, backends := range b.linux.have.ports {
		if b.linux.have.places[k] != nil {
			delete(want, k) // it knew no places
			continue
		}
		all := b.linux.have.portElements(four, k)
		must(t, tx.SetAddElements(tx.maps[0], []nftables.SetElement{{Key: []byte(all[0].key), Val: binaryutil.NativeEndian.PutUint32(uint32(len(backends)))}}))
		tx.elements(tx.SetAddElements, all[1:])
	}
	must(t, tx.commit())
	// The ports are made out of it, so that they stay published while the table is replaced.
	have, ok, err := readTable(c, four, four.hostMaps(tx.table), hostChains(b.linux.have.base.side(0)))
	if diff := cmp.Diff(want, have.ports, cmp.AllowUnexported(portKey{}), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); ok || err != nil || diff != "" {
		t.Errorf("reading an earlier version: right %t, %v, ports (-want +got):\n%s", ok, err, diff)
	}
}

func TestResyncRepairs(t *testing.T) {
	for name, hurt := range damage {
		t.Run(name, func(t *testing.T) {
			b, c := withServers(t, 3, published("tcp", 8080, 1), published("tcp", 8081, 0, 1, 2), placed(8082, "10.77.0.0/24", "lo"))
			inode := b.task("t1").fd.UniqueId()
			before := b.dump(false)
			b.calm(t)
			hurt(t, b)
			if b.dump(false) == before {
				t.Fatal("the damage is none")
			}
			b.repair(t, name, c)
			if diff := cmp.Diff(before, b.dump(false)); diff != "" {
				t.Errorf("after the repair (-want +got):\n%s", diff)
			}
			b.calm(t)
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
	n.sweeper.drain()
	all, err := dump(n.LinkList)
	must(t, err)
	return len(all)
}

func removeNeighbour(t testing.TB, n *namespace, link string, a netip.Addr) {
	t.Helper()
	must(t, n.NeighDel(&netlink.Neigh{LinkIndex: linkOf(t, n, link), Family: unix.AF_INET, IP: a.AsSlice()}))
}
