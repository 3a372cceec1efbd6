package netplugin

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

var (
	testPrefix = netip.MustParsePrefix("fd12:3456:789a::/96")
	clientSix  = netip.MustParseAddr("2001:db8::100")
	loopSix    = netip.MustParseAddr("::1")
)

// nodeSix is the address of the nth node of a fabric that has IPv6.
func nodeSix(n int) netip.Addr {
	b := clientSix.As16()
	b[15] = byte(n + 1)
	return netip.AddrFrom16(b)
}

// newSixFabric is a fabric whose machines and client have IPv6 addresses, while they reach each other's networks by IPv4.
func newSixFabric(t testing.TB, n, tasks int) *fabric {
	t.Helper()
	f := newFabric(t, n, tasks)
	giveAddress(t, f.client, clientSix)
	for i, b := range f.nodes {
		giveAddress(t, b.host, nodeSix(i))
		f.configs[i].Prefix6 = testPrefix
		for j := range f.configs[i].Peers {
			f.configs[i].Peers[j].IPv6 = true
		}
	}
	return f
}

func giveAddress(t testing.TB, n *namespace, a netip.Addr) {
	t.Helper()
	out, err := n.LinkByName("out0")
	must(t, err)
	must(t, n.AddrAdd(out, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(a, 64)), Flags: unix.IFA_F_NODAD}))
	must(t, n.settleAddress(a))
}

// serveSix makes all tasks answer by IPv6 on port 80, by their names.
func (f *fabric) serveSix() {
	f.t.Helper()
	for i, c := range f.configs {
		for _, task := range c.Tasks {
			serveOf(f.t, f.nodes[i].task(task.ID), task.ID, 80, 1)
		}
	}
}

func TestMeshOfIPv6(t *testing.T) {
	f := newSixFabric(t, 3, 2)
	f.publish(everywhere("tcp", 8080), everywhere("udp", 8080), spread("tcp", 8081, [2]int{1, 0}), spread("udp", 8081, [2]int{1, 0}))
	f.serveSix()
	home := f.nodes[0]
	for n := range f.nodes {
		for _, network := range []string{"tcp", "udp"} {
			servers := map[string]bool{}
			for range 60 {
				server, seen, err := ask(f.client, network, at(nodeSix(n), 8080))
				if err != nil || seen.Addr() != clientSix {
					t.Fatalf("%s to node %d: %q saw %s, %v; want the client's own %s", network, n+1, server, seen, err, clientSix)
				}
				servers[server] = true
			}
			if len(servers) != 6 { // all but certain: (5/6)^60 is one in 50,000 for each
				t.Errorf("%s to node %d: only %v answered", network, n+1, slices.Sorted(maps.Keys(servers)))
			}
		}
	}
	face := home.linux.have.side(1).face
	for _, from := range []struct {
		n    *namespace
		to   netip.Addr
		seen netip.Addr
	}{
		{home.host, loopSix, face}, {home.host, nodeSix(0), nodeSix(0)}, {home.host, nodeSix(1), nodeSix(0)}, {home.host, nodeSix(2), nodeSix(0)},
		{home.task("n1t0"), nodeSix(0), face}, {home.task("n1t0"), nodeSix(1), nodeSix(0)}, {home.task("n1t0"), nodeSix(2), nodeSix(0)},
		{f.nodes[1].task("n2t0"), nodeSix(1), f.nodes[1].linux.have.side(1).face},
	} {
		for _, network := range []string{"tcp", "udp"} {
			server, seen, err := ask(from.n, network, at(from.to, 8081))
			if err != nil || server != "n2t0" || seen.Addr() != from.seen {
				t.Errorf("%s %s from %s: %q saw %s, %v; want n2t0 to see %s", network, at(from.to, 8081), from.n.name, server, seen, err, from.seen)
			}
		}
	}
	if got := answerer(f.client, "tcp", nodeSix(0), 8082); got != "" {
		t.Errorf("a port that is not published is answered by %s", got)
	}
}

// Two nodes lead connections that look the same to one backend.
func TestIPv6KeepsEqualConnectionsApart(t *testing.T) {
	f := newSixFabric(t, 3, 1)
	f.publish(spread("tcp", 8080, [2]int{1, 0}), spread("udp", 8080, [2]int{1, 0}))
	f.serveSix()
	for _, network := range []string{"tcp", "udp"} {
		for n := range f.nodes {
			c, err := dialFrom(f.client, network, 40000, at(nodeSix(n), 8080))
			if err != nil {
				t.Fatalf("%s to node %d: %v", network, n+1, err)
			}
			defer c.Close()
			if network == "udp" {
				_, err := c.Write([]byte("x"))
				must(t, err)
			}
			if _, seen, err := answer(c); err != nil || seen.Addr() != clientSix {
				t.Fatalf("%s to node %d: the backend saw %s, %v", network, n+1, seen, err)
			}
		}
	}
}

func TestPlacesOfIPv6(t *testing.T) {
	f := newSixFabric(t, 1, 1)
	b := f.nodes[0]
	second := netip.MustParseAddr("2001:db8::77")
	giveAddress(t, b.host, second)
	var ports []PublishedPort
	for port, at := range []string{"", nodeSix(0).String() + "/128", "2001:db8::70/124", "::/0", "0.0.0.0/0", "10.77.0.1/32", "out0", "::1/128", "fd00::/8", "out1"} {
		p := spread("tcp", uint16(port+1), [2]int{0, 0})
		if at != "" {
			p.Places = []Place{{Link: at}}
			if prefix, err := netip.ParsePrefix(at); err == nil {
				p.Places = []Place{{Prefix: prefix}}
			}
		}
		ports = append(ports, p)
	}
	f.publish(ports...)
	serveOf(t, b.task("n1t0"), "n1t0", 80, 0)
	serveOf(t, b.task("n1t0"), "n1t0", 80, 1)
	check := func(when string) {
		t.Helper()
		for port, want := range map[uint16]string{
			1: "client four, client first, client second, machine four, machine first, machine second, machine loop",
			2: "client first, machine first",
			3: "client second, machine second",
			4: "client first, client second, machine first, machine second, machine loop",
			5: "client four, machine four",
			6: "client four, machine four",
			7: "client four, client first, client second",
			8: "machine loop",
			9: "", 10: "",
		} {
			var got []string
			for _, from := range []struct {
				name string
				n    *namespace
			}{{"client", f.client}, {"machine", b.host}} {
				for i, to := range []netip.Addr{nodeAddr(0), nodeSix(0), second, loopSix} {
					if (from.name == "machine" || to != loopSix) && answerer(from.n, "tcp", to, port) != "" {
						got = append(got, from.name+" "+[]string{"four", "first", "second", "loop"}[i])
					}
				}
			}
			if got := strings.Join(got, ", "); got != want {
				t.Errorf("%s, port %d answers %q, want %q", when, port, got, want)
			}
		}
	}
	check("at first")
	before := b.dump(true)
	b.restart()
	f.apply()
	check("after a restart")
	if diff := cmp.Diff(before, b.dump(true)); diff != "" {
		t.Errorf("a restart changed something (-before +after):\n%s", diff)
	}
}

// What comes straight to a task's address is dropped, wherever it comes from; out of it goes what may.
func TestIPv6IsClosedAndHasAWayOut(t *testing.T) {
	f := newSixFabric(t, 2, 2)
	f.configs[0].Tasks[1].Internal = true
	f.publish(spread("tcp", 8080, [2]int{0, 1}))
	f.serveSix()
	serveOf(t, f.client, "client", 9000, 1)
	home := f.nodes[0]
	s := home.linux.have.side(1)
	task := s.of(meshAddr(0, 0))
	for _, n := range []int{0, 1} {
		must(t, f.client.addRoute(route{dst: s.pool, link: linkOf(t, f.client, "out0"), via: nodeSix(n)}))
		var all []closed
		for _, to := range []netip.Addr{task, s.of(meshAddr(0, 1)), s.of(meshAddr(1, 0))} {
			all = append(all, closed{fmt.Sprintf("to everybody by node %d", n+1), f.client, to, 80})
		}
		nobodyAnswers(t, append(all, closed{"to another node's task", f.nodes[1].task("n2t0"), task, 80}, closed{"to another task of the node", home.task("n1t1"), task, 80},
			closed{"out of a task without a way out", home.task("n1t1"), clientSix, 9000})...)
	}
	for _, network := range []string{"tcp", "udp"} {
		if server, seen, err := ask(home.task("n1t0"), network, at(clientSix, 9000)); err != nil || server != "client" || seen.Addr() != nodeSix(0) {
			t.Errorf("the way out by %s: %q saw %s, %v; want it to see the node's %s", network, server, seen, err, nodeSix(0))
		}
	}
	if server, seen, err := ask(f.client, "tcp", at(nodeSix(1), 8080)); err != nil || server != "n1t1" || seen.Addr() != clientSix {
		t.Errorf("a published port of a task without a way out: %q saw %s, %v", server, seen, err)
	}
}

// A machine that did not forward IPv6 does not forward anybody else's because of us, until it is told to.
func TestOthersAreNotForwarded(t *testing.T) {
	f := newSixFabric(t, 2, 1)
	f.apply()
	far := netip.MustParseAddr("2001:db8:5::1")
	lo, err := f.nodes[1].host.LinkByName("lo")
	must(t, err)
	must(t, f.nodes[1].host.addAddress(lo, host(far)))
	must(t, f.nodes[0].host.addRoute(route{dst: host(far), link: linkOf(t, f.nodes[0].host, "out0"), via: nodeSix(1)}))
	must(t, f.client.addRoute(route{dst: host(far), link: linkOf(t, f.client, "out0"), via: nodeSix(0)}))
	serveOf(t, f.nodes[1].host, "far", 9000, 1)
	if !f.nodes[0].linux.force {
		t.Skip("this kernel forwards all or nothing")
	}
	if got := answerer(f.client, "tcp", far, 9000); got != "" {
		t.Error("the machine became a router for everybody")
	}
	must(t, f.nodes[0].host.within(func() error { return setSysctls(setting{name: "net.ipv6.conf.all.forwarding", value: "1"}) }))
	<-f.nodes[0].linux.Disturbed()
	f.apply()
	if got := answerer(f.client, "tcp", far, 9000); got != "far" {
		t.Error("the machine does not forward though its administrator says so")
	}
}

// settingsOfSix are the machine's own, but for our link's.
func settingsOfSix(t testing.TB, n *namespace) map[string]string {
	t.Helper()
	all := map[string]string{}
	must(t, n.within(func() error {
		entries, err := os.ReadDir(confDir)
		for _, e := range entries {
			for _, name := range []string{settingForward, settingForce, settingAdvert} {
				if e.Name() != hostLink && e.Name() != "lo" {
					all[e.Name()+" "+name] = confNow(e.Name(), name)
				}
			}
		}
		return err
	}))
	return all
}

func TestForwardingOfIPv6IsRestored(t *testing.T) {
	for _, old := range []bool{false, true} {
		for _, was := range []string{"0", "1"} {
			f := newSixFabric(t, 1, 1)
			b := f.nodes[0]
			must(t, b.host.within(func() error {
				other := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "x.100"}, PeerName: "y.100"}
				if err := b.host.LinkAdd(other); err != nil {
					return err
				}
				forced := map[bool]string{false: "1", true: "0"}[old] // a kernel that has it not cannot have it set
				for _, c := range []conf{{"all", settingForward, was}, {"x.100", settingForce, forced}, {"x.100", settingAdvert, "2"}, {"out0", settingAdvert, "1"}} {
					if err := c.set(); err != nil {
						return err
					}
				}
				return nil
			}))
			before := settingsOfSix(t, b.host)
			b.linux.old = old
			f.publish(spread("tcp", 8080, [2]int{0, 0}))
			f.serveSix()
			if got := answerer(f.client, "tcp", nodeSix(0), 8080); got != "n1t0" {
				t.Errorf("old %t, forwarding before %s: no answer", old, was)
			}
			during := settingsOfSix(t, b.host)
			if old && was == "0" && during["out0 "+settingAdvert] != "2" {
				t.Errorf("a machine that forwards does not heed routers: %v", during)
			}
			if was == "1" && !maps.Equal(before, during) {
				t.Errorf("old %t: the settings of a machine that forwards were changed:\n%s", old, cmp.Diff(before, during))
			}
			b.restart()
			b.linux.old = old
			f.apply()
			must(t, b.linux.Teardown(context.Background()))
			if diff := cmp.Diff(before, settingsOfSix(t, b.host)); diff != "" {
				t.Errorf("old %t, forwarding before %s: settings after Teardown (-before +after):\n%s", old, was, diff)
			}
			if left, err := os.ReadDir(b.dir); err != nil || len(left) > 0 {
				t.Errorf("left in the directory: %v, %v", left, err)
			}
		}
	}
}

// damageSix is what somebody may do to what is of IPv6.
var damageSix = map[string]func(t *testing.T, b *lab){
	"table of the machine deleted": func(t *testing.T, b *lab) { must(t, b.linux.host.removeTables(b.linux.have.side(1))) },
	"tables of the router deleted": func(t *testing.T, b *lab) { must(t, b.linux.router.removeTables(b.linux.have.side(1))) },
	"backend removed": func(t *testing.T, b *lab) {
		s := b.linux.have.side(1)
		c, err := b.host.firewall()
		must(t, err)
		tx := s.newTransaction(c)
		tx.elements(tx.SetDeleteElements, b.linux.have.six.portElements(s, portKey{unix.IPPROTO_TCP, 8080})[1:2])
		must(t, tx.commit())
	},
	"way of the machine's loopback deleted": func(t *testing.T, b *lab) {
		must(t, b.host.RouteDel(loopbackWay(linkOf(t, b.host, hostLink))))
	},
	"rule of replies deleted":  func(t *testing.T, b *lab) { must(t, b.linux.syncReplyRule(1, false)) },
	"route of replies deleted": func(t *testing.T, b *lab) { must(t, b.linux.syncReplyRoute(1, false)) },
	"route to a node deleted": func(t *testing.T, b *lab) {
		must(t, b.linux.router.removeRoute(b.linux.have.side(1).peerRoute(b.linux.have.peers[2], b.linux.vx)))
	},
	"next hop deleted": func(t *testing.T, b *lab) {
		must(t, b.linux.router.removeNeighbour(b.linux.vx, b.linux.have.peers[2].hop(1)))
	},
	"route to a task deleted": func(t *testing.T, b *lab) {
		must(t, b.linux.router.removeRoute(route{dst: host(b.linux.have.side(1).of(meshAddr(0, 0))), link: linkOf(t, b.linux.router, linkName(meshAddr(0, 0)))}))
	},
	"address of the uplink deleted": func(t *testing.T, b *lab) {
		gw, err := b.host.LinkByName(hostLink)
		must(t, err)
		must(t, b.host.AddrDel(gw, &netlink.Addr{IPNet: ipNet(host(b.linux.have.side(1).of(hostAddress)))}))
	},
	"route of the machine deleted": func(t *testing.T, b *lab) {
		s := b.linux.have.side(1)
		must(t, b.host.removeRoute(route{dst: s.swarm(), link: linkOf(t, b.host, hostLink), via: s.of(routerAddress), src: s.of(hostAddress)}))
	},
	"way of the loopback deleted": func(t *testing.T, b *lab) {
		must(t, b.host.RouteDel(&netlink.Route{Dst: ipNet(loopbacks[1]), LinkIndex: linkOf(t, b.host, hostLink), Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Priority: loopbackMetric}))
	},
	"forwarding off": func(t *testing.T, b *lab) {
		must(t, b.host.within(func() error { return conf{"all", settingForce, "0"}.set() }))
	},
	"IPv6 of the router off": func(t *testing.T, b *lab) {
		must(t, b.linux.router.within(func() error { return setSysctls(setting{name: "net.ipv6.conf.all.disable_ipv6", value: "1"}) }))
	},
	"IPv6 of a task off": func(t *testing.T, b *lab) {
		must(t, b.task("n1t0").within(func() error { return setSysctls(setting{name: "net.ipv6.conf.eth0.disable_ipv6", value: "1"}) }))
	},
}

func TestResyncRepairsIPv6(t *testing.T) {
	f := newSixFabric(t, 2, 1)
	f.publish(spread("tcp", 8080, [2]int{0, 0}, [2]int{1, 0}))
	f.serveSix()
	b := f.nodes[0]
	for _, name := range slices.Sorted(maps.Keys(damageSix)) {
		t.Run(name, func(t *testing.T) {
			before, settings := b.dump(false), settingsOfSix(t, b.host)
			damageSix[name](t, b)
			b.linux.Resync()
			f.apply()
			if diff := cmp.Diff(before, b.dump(false)); diff != "" {
				t.Errorf("it is not repaired (-before +after):\n%s", diff)
			}
			if diff := cmp.Diff(settings, settingsOfSix(t, b.host)); diff != "" {
				t.Errorf("settings are not repaired (-before +after):\n%s", diff)
			}
			for _, to := range []int{0, 1} {
				if got := answerer(f.client, "tcp", nodeSix(to), 8080); got == "" {
					t.Errorf("node %d does not answer", to+1)
				}
			}
		})
	}
}

// TestForwardingByLinksIsNoticed: whoever has links of the machine forward IPv6 no more, of all, of one or of those to come, is noticed at once.
func TestForwardingByLinksIsNoticed(t *testing.T) {
	f := newSixFabric(t, 1, 1)
	f.publish(spread("tcp", 8080, [2]int{0, 0}))
	b := f.nodes[0]
	if !b.linux.kept {
		t.Skip("this kernel does not forward IPv6 by links")
	}
	settings := settingsOfSix(t, b.host)
	set := func(link, name, value string) {
		t.Helper()
		must(t, b.host.within(func() error { return conf{link, name, value}.set() }))
	}
	for _, link := range []string{"all", "default", "out0", hostLink} {
		b.calm(t)
		set(link, settingForce, "0")
		if !b.disturbed(time.Second) {
			t.Errorf("nobody noticed that force_forwarding of %s is off", link)
		}
		f.apply()
		if diff := cmp.Diff(settings, settingsOfSix(t, b.host)); diff != "" {
			t.Errorf("force_forwarding of %s: settings are not repaired (-before +after):\n%s", link, diff)
		}
		b.disturbed(time.Millisecond) // by what all links were told with one setting
	}
	set("out0", settingAdvert, "0")
	set("lo", settingForce, "0")
	b.calm(t)
}

// A machine whose IPv6 is switched off goes on with IPv4 alone, and has tasks that others lead clients of IPv6 to.
func TestMachineWithoutIPv6(t *testing.T) {
	f := newSixFabric(t, 2, 1)
	off := func(value string) {
		must(t, f.nodes[1].host.within(func() error { return setSysctls(setting{name: "net.ipv6.conf.all.disable_ipv6", value: value}) }))
	}
	off("1")
	f.publish(spread("tcp", 8080, [2]int{1, 0}))
	f.serve()
	if got := answerer(f.client, "tcp", nodeAddr(1), 8080); got != "n2t0" {
		t.Errorf("IPv4 is answered by %q", got)
	}
	c, err := f.nodes[1].host.firewall()
	must(t, err)
	if tables, err := c.ListTablesOfFamily(overlayFamilies[1].table); err != nil || len(tables) > 0 {
		t.Errorf("it has tables of IPv6: %v, %v", tables, err)
	}
	serveOf(t, f.nodes[1].task("n2t0"), "n2t0", 80, 1)
	if server, seen, err := ask(f.client, "tcp", at(nodeSix(0), 8080)); err != nil || server != "n2t0" || seen.Addr() != clientSix {
		t.Errorf("its task is not reached by another node's IPv6: %q saw %s, %v", server, seen, err)
	}
	if _, err := dial(f.nodes[1].task("n2t0"), "tcp", at(clientSix, 9000)); err == nil || !strings.Contains(err.Error(), "unreachable") && !strings.Contains(err.Error(), "no route") {
		t.Errorf("the way out there is none of: %v; want to be told at once", err)
	}
	off("0")
	giveAddress(t, f.nodes[1].host, nodeSix(1))
	f.nodes[1].linux.Resync()
	f.apply()
	if got := answerer(f.client, "tcp", nodeSix(1), 8080); got != "n2t0" {
		t.Errorf("after it was switched on, IPv6 is answered by %q", got)
	}
}

// Nodes of an earlier version have tasks without IPv6 addresses, until they are of this one: then tasks that run get theirs.
func TestIPv6ComesToTasksThatRun(t *testing.T) {
	f := newSixFabric(t, 2, 1)
	f.configs[1].Prefix6 = netip.Prefix{}
	f.configs[0].Peers[0].IPv6 = false
	f.publish(spread("tcp", 8080, [2]int{0, 0}, [2]int{1, 0}), spread("tcp", 8081, [2]int{1, 0}))
	f.serve()
	serveOf(t, f.nodes[0].task("n1t0"), "n1t0", 80, 1)
	serveOf(t, f.nodes[1].task("n2t0"), "n2t0", 80, 1)
	for range 20 {
		if got := answerer(f.client, "tcp", nodeSix(0), 8080); got != "n1t0" {
			t.Fatalf("answered by %q, want the one task that has IPv6", got)
		}
	}
	if got := answerer(f.client, "tcp", nodeSix(0), 8081); got != "" {
		t.Errorf("a port without tasks that have IPv6 is answered by %q", got)
	}
	conn, err := dial(f.client, "tcp", at(nodeAddr(1), 8081))
	must(t, err)
	defer conn.Close()
	_, _, err = answer(conn)
	must(t, err)
	f.nodes[1].restart()
	f.configs[1].Prefix6 = testPrefix
	f.configs[0].Peers[0].IPv6 = true
	f.apply()
	echo(t, conn)
	for _, n := range []int{0, 1} {
		if server, seen, err := ask(f.client, "tcp", at(nodeSix(n), 8081)); err != nil || server != "n2t0" || seen.Addr() != clientSix {
			t.Errorf("by node %d: %q saw %s, %v", n+1, server, seen, err)
		}
	}
}

// A task that was told to be without IPv6 is, and stays so.
func TestTaskToldToBeWithoutIPv6(t *testing.T) {
	f := newSixFabric(t, 2, 1)
	f.configs[0].Tasks[0].Sysctls = map[string]string{"net.ipv6.conf.all.disable_ipv6": "1"}
	f.publish(spread("tcp", 8080, [2]int{0, 0}))
	f.serve()
	f.nodes[0].linux.Resync()
	f.apply()
	for n := range f.nodes {
		if got := answerer(f.client, "tcp", nodeAddr(n), 8080); got != "n1t0" {
			t.Errorf("IPv4 to node %d is answered by %q", n+1, got)
		}
		if _, err := dial(f.client, "tcp", at(nodeSix(n), 8080)); err == nil || !strings.Contains(err.Error(), "unreachable") && !strings.Contains(err.Error(), "no route") {
			t.Errorf("IPv6 to node %d: %v; want to be told at once", n+1, err)
		}
	}
}

// A backend that goes has its connections cut, and the number of rules depends on nothing.
func TestIPv6FollowsChanges(t *testing.T) {
	f := newSixFabric(t, 2, 2)
	f.publish(spread("tcp", 8080, [2]int{1, 0}))
	f.serveSix()
	conn, err := dial(f.client, "tcp", at(nodeSix(0), 8080))
	must(t, err)
	defer conn.Close()
	_, _, err = answer(conn)
	must(t, err)
	count := func() (n int) {
		c, err := f.nodes[0].host.firewall()
		must(t, err)
		chains, err := c.ListChains()
		must(t, err)
		for _, one := range chains {
			rules, err := c.GetRules(one.Table, one)
			must(t, err)
			n += len(rules)
		}
		return n
	}
	before := count()
	ports := []PublishedPort{spread("tcp", 8080, [2]int{0, 0})}
	for i := range 50 {
		ports = append(ports, spread("udp", uint16(9000+i), [2]int{1, 1}))
	}
	f.publish(ports...)
	if after := count(); after != before {
		t.Errorf("%d rules with one port, %d with 51", before, after)
	}
	must(t, conn.SetDeadline(deadline()))
	_, err = conn.Write([]byte("x"))
	if _, readErr := conn.Read(make([]byte, 1)); err == nil && readErr == nil {
		t.Error("a connection to a backend that is gone goes on")
	} else if os.IsTimeout(readErr) {
		t.Error("the client of a backend that is gone is not told")
	}
	if got := answerer(f.client, "tcp", nodeSix(0), 8080); got != "n1t0" {
		t.Errorf("answered by %q, want the new backend", got)
	}
}
