package netplugin

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

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
