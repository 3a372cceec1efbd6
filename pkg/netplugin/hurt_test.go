package netplugin

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// dualConfig is a machine with tasks on one network of both IP versions, the first of which may change its links itself.
func dualConfig(tasks int) Config {
	c := testConfig(tasks)
	c.Overlays = []*Overlay{{ID: "back", VNI: 4096, Subnets: []Subnet{
		{netip.MustParsePrefix("10.9.0.0/24"), netip.MustParseAddr("10.9.0.1")}, {netip.MustParsePrefix("fd09::/64"), netip.MustParseAddr("fd09::1")}}}}
	c.Tasks[0].Administers = true
	for i := range c.Tasks {
		six := netip.MustParseAddr("fd09::").As16()
		six[15] = byte(10 + i)
		c.Tasks[i].Networks = []Attachment{{"back", []netip.Addr{netip.AddrFrom4([4]byte{10, 9, 0, byte(10 + i)}), netip.AddrFrom16(six)}}}
	}
	return c
}

// TestATaskHurtsItselfAlone: what a task did to its own links so that they cannot be put right is its error, and no other's: a task that comes is
// linked, to the gateway network and to the one that they share. What can be put right is.
func TestATaskHurtsItselfAlone(t *testing.T) {
	onLoopback := func(address string) func(*testing.T, *namespace) {
		return func(t *testing.T, n *namespace) {
			lo, err := n.LinkByName("lo")
			must(t, err)
			must(t, n.AddrAdd(lo, &netlink.Addr{IPNet: ipNet(host(netip.MustParseAddr(address)))}))
		}
	}
	withoutRoutesOf := func(link string) func(*testing.T, *namespace) {
		return func(t *testing.T, n *namespace) {
			all, err := n.routesOf(linkOf(t, n, link), unix.AF_INET)
			must(t, err)
			for r := range all {
				must(t, n.removeRoute(r))
			}
		}
	}
	for name, tt := range map[string]struct {
		damage []func(*testing.T, *namespace)
		failed []string
	}{
		"its gateway's address, and no way out":   {[]func(*testing.T, *namespace){onLoopback("100.64.1.1"), withoutRoutesOf("eth0")}, []string{"t0"}},
		"its network's gateway, and no way there": {[]func(*testing.T, *namespace){onLoopback("10.9.0.1"), withoutRoutesOf("eth1")}, []string{"t0"}},
		"a link too small for IPv6": {damage: []func(*testing.T, *namespace){func(t *testing.T, n *namespace) {
			eth, err := n.LinkByName("eth1")
			must(t, err)
			must(t, n.LinkSetMTU(eth, 900))
		}}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newLab(t)
			b.apply(dualConfig(2))
			own := b.task("t0")
			if got := b.linux.have.base.gateway(); tt.failed != nil && got != netip.MustParseAddr("100.64.1.1") {
				t.Fatalf("the gateway is %s", got)
			}
			for _, do := range tt.damage {
				do(t, own)
			}
			b.linux.Resync()
			err := b.linux.Apply(t.Context(), dualConfig(3))
			byTask, alone := TaskErrors(err)
			if diff := cmp.Diff(tt.failed, slices.Sorted(maps.Keys(byTask))); diff != "" || !alone {
				t.Fatalf("%v: alone %t, failed (-want +got):\n%s", err, alone, diff)
			}
			b.apply(dualConfig(3)) // which changes nothing inside it
			found, _, err := b.linux.Examine(t.Context(), "")
			told := slices.ContainsFunc(found, func(f Finding) bool { return strings.Contains(f.Text, "network namespace of task t0 keeps its links") })
			if err != nil || told != (tt.failed != nil) {
				t.Errorf("the examination finds %v, %v", found, err)
			}
			serve(t, b.task("t2"), "t2", 80)
			serveOf(t, b.task("t2"), "t2", 80, 1)
			for _, to := range []string{"10.9.0.12:80", "[fd09::c]:80"} {
				if server, _, err := ask(b.task("t1"), "tcp", to); err != nil || server != "t2" {
					t.Errorf("another asks one that came at %s: %q, %v", to, server, err)
				}
			}
			if tt.failed == nil {
				serveOf(t, own, "t0", 80, 1)
				if server, _, err := ask(b.task("t2"), "tcp", "[fd09::a]:80"); err != nil || server != "t0" {
					t.Errorf("it was put right, and is asked: %q, %v", server, err)
				}
			}
		})
	}
}

// TestRulesOfTheKernelInATask: without those a task's routes do not count, so they are put back, but for who may take them away.
func TestRulesOfTheKernelInATask(t *testing.T) {
	b := newLab(t)
	c := dualConfig(2)
	b.apply(c)
	plain := func(task string) (count int) {
		t.Helper()
		for v := range overlayFamilies {
			have, err := b.task(task).rules(family(v))
			must(t, err)
			for _, r := range plainRules(family(v)) {
				if hasRule(have, r) {
					count++
				}
			}
		}
		return count
	}
	whole := plain("t1")
	for _, task := range []string{"t0", "t1"} {
		for v := range overlayFamilies {
			n := b.task(task)
			have, err := n.rules(family(v))
			must(t, err)
			for _, r := range have {
				if r.Priority != 0 {
					must(t, n.RuleDel(&r))
				}
			}
		}
	}
	if !b.disturbed(soon) {
		t.Error("that they went is not noticed")
	}
	b.apply(c)
	if got := plain("t1"); got != whole {
		t.Errorf("a task has %d of the kernel's %d rules", got, whole)
	}
	if got := plain("t0"); got == whole {
		t.Error("one that may take them away has them again")
	}
	if err := func() error { _, err := b.task("t1").RouteGet(Resolver.Addr().AsSlice()); return err }(); err != nil {
		t.Errorf("no way to the resolver: %v", err)
	}
}

// TestLoopbackOfATask: a task that must not change its loopback has it as the kernel made it, whatever somebody does to it.
func TestLoopbackOfATask(t *testing.T) {
	b := newLab(t)
	c := dualConfig(2)
	b.apply(c)
	n := b.task("t1")
	lo, err := n.LinkByName("lo")
	must(t, err)
	for name, damage := range map[string]func() error{
		"address":         func() error { return n.AddrDel(lo, &netlink.Addr{IPNet: ipNet(loopback[0])}) },
		"address of IPv6": func() error { return n.AddrDel(lo, &netlink.Addr{IPNet: ipNet(loopback[1])}) },
		"MTU":             func() error { return n.LinkSetMTU(lo, 1000) },
		"tiny MTU":        func() error { return n.LinkSetMTU(lo, 20) },
		"no IPv6": func() error {
			return n.within(func() error { return setSysctls(setting{name: "net.ipv6.conf.all.disable_ipv6", value: "1"}) })
		},
		"down": func() error { return n.LinkSetDown(lo) },
	} {
		must(t, damage())
		if !b.disturbed(soon) {
			t.Errorf("%s: it is not noticed", name)
		}
		b.apply(c)
		if now, err := n.LinkByName("lo"); err != nil || now.Attrs().MTU != loopbackMTU {
			t.Errorf("%s: %v, %v", name, now.Attrs(), err)
		}
		for v := range overlayFamilies {
			deaf, err := n.deaf(lo, v)
			must(t, err)
			have, err := n.addresses(lo, v)
			must(t, err)
			if len(deaf) > 0 || len(have) != 1 || prefixOf(have[0].IPNet) != loopback[v] || have[0].Scope != unix.RT_SCOPE_HOST {
				t.Errorf("%s: the loopback has %v, and takes nothing in at %v", name, have, deaf)
			}
		}
		b.disturbed(50 * time.Millisecond)
	}
}

// TestAddressesThatNobodyGave: an end whose MTU was for a moment too small for IPv6 makes itself no address.
func TestAddressesThatNobodyGave(t *testing.T) {
	b := newLab(t)
	guest, path := newGuest(t)
	c := dualConfig(2)
	c.Prefix6 = netip.MustParsePrefix("fd12:3456:789a::/96")
	c.Tasks = append(c.Tasks, TaskLink{ID: "guest", Guest: path, Address: testAddr(7), Internal: true,
		Networks: []Attachment{{"back", []netip.Addr{netip.MustParseAddr("10.9.0.20"), netip.MustParseAddr("fd09::20")}}}})
	b.apply(c)
	for _, end := range []struct {
		n    *namespace
		link string
	}{{b.task("t1"), "eth0"}, {b.task("t1"), "eth1"}, {guest, "swarm0"}, {guest, "swarm1"}, {b.overlay("back"), linkName(c.Tasks[1].Address)}} {
		addresses := func() (all []string) {
			one, err := end.n.LinkByName(end.link)
			must(t, err)
			have, err := end.n.addresses(one, 1)
			must(t, err)
			for _, a := range have {
				all = append(all, a.IPNet.String())
			}
			return all
		}
		before := addresses()
		one, err := end.n.LinkByName(end.link)
		must(t, err)
		must(t, end.n.LinkSetMTU(one, 1000))
		b.linux.Resync()
		b.apply(c)
		if diff := cmp.Diff(before, addresses()); diff != "" {
			t.Errorf("%s in %s (-before +after):\n%s", end.link, end.n.name, diff)
		}
	}
}

// TestLinksOfATaskThatWasThere: the first change of a link of a task that was there before the daemon is noticed like every other.
func TestLinksOfATaskThatWasThere(t *testing.T) {
	b := newLab(t)
	c := dualConfig(3)
	b.apply(c)
	for task, change := range map[string]func(*namespace, netlink.Link) error{
		"t1": func(n *namespace, eth netlink.Link) error { return n.LinkSetMTU(eth, 1300) },
		"t2": func(n *namespace, eth netlink.Link) error { return n.LinkSetHardwareAddr(eth, vtepMAC(9)) },
	} {
		for _, link := range []string{"eth0", "eth1"} {
			b.restart()
			b.apply(c)
			b.calm(t)
			eth, err := b.task(task).LinkByName(link)
			must(t, err)
			must(t, change(b.task(task), eth))
			if !b.disturbed(soon) {
				t.Errorf("%s of %s was changed, which is not noticed", link, task)
			}
			b.apply(c)
			now, err := b.task(task).LinkByName(link)
			must(t, err)
			if now.Attrs().MTU != eth.Attrs().MTU || now.Attrs().HardwareAddr.String() != eth.Attrs().HardwareAddr.String() {
				t.Errorf("%s of %s is %v, was %v", link, task, now.Attrs(), eth.Attrs())
			}
		}
	}
}

// TestDeafInATask: the kernel's own routes, by which it takes in what comes for an address, are put back in tasks and guests.
func TestDeafInATask(t *testing.T) {
	b := newLab(t)
	guest, path := newGuest(t)
	c := dualConfig(2)
	c.Tasks = append(c.Tasks, TaskLink{ID: "guest", Guest: path, Address: testAddr(7), Internal: true,
		Networks: []Attachment{{"back", []netip.Addr{netip.MustParseAddr("10.9.0.20"), netip.MustParseAddr("fd09::20")}}}})
	b.apply(c)
	for name, n := range map[string]*namespace{"t1": b.task("t1"), "guest": guest} {
		for _, link := range []string{"lo", "eth0", "eth1", "swarm0", "swarm1"} {
			if name == "guest" && (link == "eth0" || link == "lo") || indexOf(n, link) == 0 {
				continue
			}
			for v := range overlayFamilies {
				routes, err := n.RouteListFiltered(family(v), &netlink.Route{Table: unix.RT_TABLE_LOCAL, LinkIndex: indexOf(n, link), Type: unix.RTN_LOCAL},
					netlink.RT_FILTER_TABLE|netlink.RT_FILTER_OIF|netlink.RT_FILTER_TYPE)
				must(t, err)
				for _, r := range routes {
					if r.Dst.IP.IsLinkLocalUnicast() {
						continue
					}
					must(t, n.RouteDel(&r))
					if !b.disturbed(soon) {
						t.Errorf("%s: that the route for %s went is not noticed", name, r.Dst)
					}
					b.apply(c)
					one, err := n.LinkByName(link)
					must(t, err)
					if deaf, err := n.deaf(one, v); err != nil || len(deaf) > 0 {
						t.Errorf("%s: nothing is taken in at %v, %v", name, deaf, err)
					}
					b.disturbed(50 * time.Millisecond)
				}
			}
		}
	}
	for _, to := range []string{"10.9.0.11:80", "[fd09::b]:80"} {
		serveOf(t, b.task("t1"), "t1", 80, version(netip.MustParseAddrPort(to).Addr()))
		if server, _, err := ask(guest, "tcp", to); err != nil || server != "t1" {
			t.Errorf("the guest asks at %s: %q, %v", to, server, err)
		}
	}
}
