package netplugin

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// withTwoNetworks makes two machines with tasks on two networks, of which the first has both IP versions, and a task on both.
func withTwoNetworks(t *testing.T) *fleet {
	t.Helper()
	f := newFleet(t, 2)
	a, b := f.network(1, true), f.network(2, false)
	f.task(0, a)
	f.task(0, a, b)
	f.task(1, a)
	f.task(1, b)
	f.vip(a, 5, f.tasks[:3]...)
	f.vip(a, 6, f.tasks[2])
	f.vip(a, 7)
	f.vip(b, 5, f.tasks[1], f.tasks[3])
	f.apply()
	return f
}

// check lets every task ask every other one of its networks, and the VIPs.
func (f *fleet) check() {
	f.t.Helper()
	for _, from := range f.tasks {
		for _, to := range f.tasks {
			for _, net := range from.nets {
				if !slices.Contains(to.nets, net) || from.id == to.id {
					continue
				}
				for _, a := range f.addresses(to, net) {
					if server, seen, err := ask(f.space(from), "tcp", at(a, 80)); err != nil || server != to.id || seen.Addr() != f.address(from, net, a.Is6()) {
						f.t.Errorf("%s to %s at %s: answered by %q, which saw %s, %v", from.id, to.id, a, server, seen, err)
					}
				}
			}
		}
		for _, net := range from.nets {
			if len(f.nets[net].VIPs) == 0 {
				continue
			}
			if _, _, err := ask(f.space(from), "udp", at(f.numbered(net, 5, false), 80)); err != nil {
				f.t.Errorf("%s to the VIP of network %d: %v", from.id, net, err)
			}
		}
	}
}

// TestOverlaysOverASmallMTU: a network of IPv6 needs more than fits between nodes for a while. The others go on, and it does afterwards.
func TestOverlaysOverASmallMTU(t *testing.T) {
	f := withTwoNetworks(t)
	f.serve()
	b, c := f.labs[0], f.config(0)
	c.Prefix6 = netip.MustParsePrefix("fd12:3456:789a::/96")
	b.apply(c)
	setMTU(t, b.host, "lan0", 1320)
	b.linux.Resync()
	if err := b.linux.Apply(context.Background(), c); err == nil || !strings.Contains(err.Error(), "IPv6 needs 1280") {
		t.Errorf("with too little for IPv6: %v", err)
	}
	to := f.address(f.tasks[3], 1, false)
	if server, _, err := ask(f.space(f.tasks[1]), "tcp", at(to, 80)); err != nil || server != f.tasks[3].id {
		t.Errorf("the other network meanwhile: answered by %q, %v", server, err)
	}
	setMTU(t, b.host, "lan0", 1500)
	b.linux.Resync()
	b.apply(c)
	f.check()
}

func TestOverlayRestartIsInvisible(t *testing.T) {
	f := withTwoNetworks(t)
	f.serve()
	b := f.labs[0]
	direct, _ := hold(t, f.space(f.tasks[0]), at(f.address(f.tasks[2], 0, true), 80))
	vip, _ := hold(t, f.space(f.tasks[1]), at(f.numbered(0, 5, false), 80))
	before := b.dump(true)
	spaces := []*namespace{b.host, b.linux.router, f.space(f.tasks[0]), f.space(f.tasks[1]), b.overlay("net0"), b.overlay("net1")}
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
		if diff := cmp.Diff(before, b.dump(true)); diff != "" {
			t.Errorf("%s changed the kernel's state (-before +after):\n%s", what, diff)
		}
		echo(t, direct)
		echo(t, vip)
	}
	b.apply(f.config(0))
	check("a second Apply")
	b.linux.Resync()
	b.apply(f.config(0))
	check("a resync")
	b.restart()
	b.apply(f.config(0))
	check("a restart")
	f.vip(0, 6, f.tasks[0])
	b.apply(f.config(0))
	if n := all[4](); n == 0 || n > 6 {
		t.Errorf("one changed backend made %d changes, want some few", n)
	}
	f.check()
}

// overlay opens the router of a network.
func (b *lab) overlay(id string) *namespace {
	b.t.Helper()
	n, err := openNamespace("router of "+id, b.linux.overlayPath(id))
	must(b.t, err)
	b.t.Cleanup(n.close)
	return n
}

// Packets go on while the daemon restarts and looks at all there is.
func TestOverlayRestartLosesNoPacket(t *testing.T) {
	f := withTwoNetworks(t)
	f.serve()
	b := f.labs[0]
	stop, done := make(chan struct{}), make(chan int)
	c, err := dial(f.space(f.tasks[1]), "udp", at(f.address(f.tasks[3], 1, false), 80))
	must(t, err)
	defer c.Close()
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				done <- n
				return
			default:
			}
			if _, err := c.Write([]byte("x")); err != nil {
				t.Errorf("packet %d: %v", n, err)
			}
			if _, _, err := answer(c); err != nil {
				t.Errorf("packet %d was lost: %v", n, err)
				done <- n
				return
			}
			n++
		}
	}()
	for range 10 {
		b.restart()
		b.apply(f.config(0))
	}
	close(stop)
	if n := <-done; n < 100 {
		t.Errorf("only %d packets went by", n)
	}
}

// overlayDamage is what people, other programs and crashes do to the networks of a machine.
var overlayDamage = map[string]func(t *testing.T, f *fleet, n *namespace){
	"table deleted": func(t *testing.T, f *fleet, n *namespace) { flushTables(t, n, false) },
	"ruleset flushed": func(t *testing.T, f *fleet, n *namespace) {
		c, err := n.firewall()
		must(t, err)
		c.FlushRuleset()
		must(t, c.Flush())
	},
	"IPv6 table deleted": func(t *testing.T, f *fleet, n *namespace) { flushTables(t, n, true) },
	"elements deleted": func(t *testing.T, f *fleet, n *namespace) {
		c, err := n.firewall()
		must(t, err)
		tx := overlayFamilies[0].newTransaction(c)
		tx.elements(tx.SetDeleteElements, []element{vipElement(f.numbered(0, 6, false), 1)})
		must(t, tx.commit())
	},
	"backend changed": func(t *testing.T, f *fleet, n *namespace) {
		c, err := n.firewall()
		must(t, err)
		tx := overlayFamilies[0].newTransaction(c)
		vip := f.numbered(0, 6, false)
		tx.elements(tx.SetDeleteElements, []element{backendElement(vip, 0, f.address(f.tasks[2], 0, false))})
		tx.elements(tx.SetAddElements, []element{backendElement(vip, 0, f.numbered(0, 99, false))})
		must(t, tx.commit())
	},
	"VIP added": func(t *testing.T, f *fleet, n *namespace) {
		c, err := n.firewall()
		must(t, err)
		tx := overlayFamilies[0].newTransaction(c)
		vip := f.numbered(0, 66, false)
		tx.elements(tx.SetAddElements, []element{vipElement(vip, 1), backendElement(vip, 0, f.address(f.tasks[2], 0, false))})
		must(t, tx.commit())
	},
	"hairpin deleted": func(t *testing.T, f *fleet, n *namespace) {
		c, err := n.firewall()
		must(t, err)
		tx := overlayFamilies[0].newTransaction(c)
		tx.elements(tx.SetDeleteElements, []element{hairpinElement(f.address(f.tasks[0], 0, false), f.numbered(0, 1, false))})
		must(t, tx.commit())
	},
	"rule deleted": func(t *testing.T, f *fleet, n *namespace) {
		c, err := n.firewall()
		must(t, err)
		tx := overlayFamilies[0].newTransaction(c)
		rules, err := c.GetRules(tx.table, &nftables.Chain{Name: "prerouting", Table: tx.table})
		must(t, err)
		must(t, c.DelRule(rules[1]))
		must(t, c.Flush())
	},
	"table dormant": func(t *testing.T, f *fleet, n *namespace) {
		putToSleep(t, n, &nftables.Table{Name: tableName, Family: nftables.TableFamilyIPv4})
	},
	"another's tables": func(t *testing.T, f *fleet, n *namespace) { strangeTables(t, n) },
	"another's rules": func(t *testing.T, f *fleet, n *namespace) {
		for v := range overlayFamilies {
			r := netlink.NewRule()
			r.Family, r.Priority, r.Type = family(v), 7, unix.RTN_BLACKHOLE
			must(t, n.RuleAdd(r))
			main := plainRules(family(v))[1]
			must(t, n.RuleDel(&main))
		}
	},
	"link to other nodes deleted":     func(t *testing.T, f *fleet, n *namespace) { must(t, n.removeLink(overlayLink)) },
	"link to other nodes down":        func(t *testing.T, f *fleet, n *namespace) { setDown(t, n, overlayLink) },
	"link to other nodes in a bridge": func(t *testing.T, f *fleet, n *namespace) { bridged(t, n, overlayLink) },
	"task's link in a bridge":         func(t *testing.T, f *fleet, n *namespace) { bridged(t, n, linkName(testAddr(1))) },
	"link to other nodes renamed": func(t *testing.T, f *fleet, n *namespace) {
		setDown(t, n, overlayLink)
		one, err := n.LinkByName(overlayLink)
		must(t, err)
		must(t, n.LinkSetName(one, "renamed"))
	},
	"loopback down":         func(t *testing.T, f *fleet, n *namespace) { setDown(t, n, "lo") },
	"task's link deleted":   func(t *testing.T, f *fleet, n *namespace) { must(t, n.removeLink(linkName(testAddr(1)))) },
	"task's link down":      func(t *testing.T, f *fleet, n *namespace) { setDown(t, n, linkName(testAddr(1))) },
	"task's own end down":   func(t *testing.T, f *fleet, n *namespace) { setDown(t, f.space(f.tasks[1]), "eth1") },
	"task's other end gone": func(t *testing.T, f *fleet, n *namespace) { must(t, f.space(f.tasks[1]).removeLink("eth2")) },
	"alias changed": func(t *testing.T, f *fleet, n *namespace) {
		one, err := n.LinkByName(linkName(testAddr(1)))
		must(t, err)
		must(t, n.LinkSetAlias(one, "someone"))
	},
	"foreign link": func(t *testing.T, f *fleet, n *namespace) {
		pair := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "b"}
		pair.Name = "a"
		must(t, n.LinkAdd(pair))
	},
	"remote task's route deleted": func(t *testing.T, f *fleet, n *namespace) {
		for _, a := range f.addresses(f.tasks[2], 0) {
			must(t, n.removeRoute(route{dst: host(a), link: linkOf(t, n, overlayLink), via: nextHop(2, version(a))}))
		}
	},
	"remote task's route changed": func(t *testing.T, f *fleet, n *namespace) {
		for _, a := range f.addresses(f.tasks[2], 0) {
			must(t, n.addRoute(route{dst: host(a), link: linkOf(t, n, linkName(testAddr(0)))}))
		}
	},
	"foreign routes": func(t *testing.T, f *fleet, n *namespace) {
		must(t, n.addRoute(route{dst: host(f.numbered(0, 99, false)), link: linkOf(t, n, overlayLink), via: nextHop(2, 0)}))
		must(t, n.addRoute(route{dst: anywhere, link: linkOf(t, n, overlayLink), via: nextHop(2, 0)}))
		must(t, n.addRoute(route{dst: anywhere6, link: linkOf(t, n, overlayLink), via: nextHop(2, 1)}))
	},
	"routes made in other ways than ours": func(t *testing.T, f *fleet, n *namespace) {
		strayInto(t, n, netip.PrefixFrom(f.numbered(0, 0, false), 28).Masked(), linkOf(t, n, overlayLink))
	},
	"task's routes deleted": func(t *testing.T, f *fleet, n *namespace) {
		for _, a := range f.addresses(f.tasks[1], 0) {
			must(t, n.removeRoute(route{dst: host(a), link: linkOf(t, n, linkName(testAddr(1)))}))
		}
	},
	"task's own routes deleted": func(t *testing.T, f *fleet, n *namespace) {
		inside := f.space(f.tasks[1])
		for i, a := range f.addresses(f.tasks[1], 0) {
			s := f.nets[0].Subnets[i]
			must(t, inside.removeRoute(route{dst: s.Prefix, link: linkOf(t, inside, "eth1"), via: s.Gateway, src: a}))
		}
	},
	"task's addresses deleted": func(t *testing.T, f *fleet, n *namespace) {
		inside := f.space(f.tasks[1])
		one, err := inside.LinkByName("eth1")
		must(t, err)
		for i, a := range f.addresses(f.tasks[1], 0) {
			p := netip.PrefixFrom(a, f.nets[0].Subnets[i].Prefix.Bits())
			must(t, inside.AddrDel(one, &netlink.Addr{IPNet: ipNet(p)}))
		}
	},
	"unreachable routes deleted": func(t *testing.T, f *fleet, n *namespace) {
		for _, s := range f.nets[0].Subnets {
			must(t, n.removeRoute(route{dst: s.Prefix}))
		}
	},
	"neighbours deleted": func(t *testing.T, f *fleet, n *namespace) {
		for v := range overlayFamilies {
			must(t, n.removeNeighbour(linkOf(t, n, overlayLink), nextHop(2, v)))
		}
		for _, a := range f.addresses(f.tasks[1], 0) {
			must(t, n.removeNeighbour(linkOf(t, n, linkName(testAddr(1))), a))
		}
	},
	"forwarding entry deleted": func(t *testing.T, f *fleet, n *namespace) {
		must(t, n.removeForward(linkOf(t, n, overlayLink), vtepMAC(2), f.underlay(1, false)))
	},
	"forwarding entry changed": func(t *testing.T, f *fleet, n *namespace) {
		must(t, n.setForward(linkOf(t, n, overlayLink), vtepMAC(2), netip.MustParseAddr("10.78.0.99")))
		must(t, n.setForward(linkOf(t, n, overlayLink), vtepMAC(9), netip.MustParseAddr("10.78.0.99")))
	},
	"forwarding entry with another port": func(t *testing.T, f *fleet, n *namespace) {
		elsewhere(t, n, unix.NLM_F_REPLACE, linkOf(t, n, overlayLink), vtepMAC(2), f.underlay(1, false))
	},
	"forwarding entry with another VNI": func(t *testing.T, f *fleet, n *namespace) {
		one := forward(linkOf(t, n, overlayLink), vtepMAC(2), f.underlay(1, false))
		one.VNI = 99
		must(t, n.NeighSet(one))
	},
	"neighbours for a while": func(t *testing.T, f *fleet, n *namespace) {
		fleeting(t, n, linkOf(t, n, linkName(testAddr(1))), f.address(f.tasks[1], 0, false), netlink.NUD_REACHABLE)
		fleeting(t, n, linkOf(t, n, overlayLink), nextHop(2, 0), netlink.NUD_NOARP)
	},
	"metrics of routes": func(t *testing.T, f *fleet, n *namespace) {
		r := route{dst: host(f.address(f.tasks[1], 0, false)), link: linkOf(t, n, linkName(testAddr(1)))}.message()
		r.Hoplimit = 1
		must(t, n.RouteReplace(r))
	},
	"gateway's addresses deaf": func(t *testing.T, f *fleet, n *namespace) {
		for _, s := range f.nets[0].Subnets {
			deafen(t, n, s.Gateway)
		}
	},
	"routes in the kernel's name": func(t *testing.T, f *fleet, n *namespace) {
		inKernelsName(t, n, unix.RT_TABLE_LOCAL, f.numbered(0, 11, false))
		inKernelsName(t, n, unix.RT_TABLE_LOCAL, f.numbered(0, 11, true))
		inKernelsName(t, n, unix.RT_TABLE_MAIN, f.numbered(0, 99, true))
	},
	"gateway's addresses deleted": func(t *testing.T, f *fleet, n *namespace) {
		lo, err := n.LinkByName("lo")
		must(t, err)
		for _, s := range f.nets[0].Subnets {
			must(t, n.AddrDel(lo, &netlink.Addr{IPNet: ipNet(host(s.Gateway))}))
		}
	},
	"forwarding off": func(t *testing.T, f *fleet, n *namespace) {
		must(t, n.within(func() error {
			return setSysctls(setting{name: ipForward, value: "0"}, setting{name: "net.ipv6.conf.all.forwarding", value: "0"})
		}))
	},
	"router unmounted": func(t *testing.T, f *fleet, n *namespace) { must(t, unpin(f.labs[0].linux.overlayPath("net0"))) },
	"VNI taken": func(t *testing.T, f *fleet, n *namespace) {
		other := f.labs[0].overlay("net1")
		must(t, n.removeLink(overlayLink))
		must(t, other.removeLink(overlayLink))
		must(t, f.labs[0].host.LinkAdd(f.labs[0].linux.vxlan(other, overlayLink, 4096)))
	},
}

func flushTables(t *testing.T, n *namespace, six bool) {
	t.Helper()
	c, err := n.firewall()
	must(t, err)
	v := 0
	if six {
		v = 1
	}
	tx := overlayFamilies[v].newTransaction(c)
	tx.removeTable()
	must(t, tx.commit())
}

func TestResyncRepairsOverlays(t *testing.T) {
	for name, hurt := range overlayDamage {
		t.Run(name, func(t *testing.T) {
			f := withTwoNetworks(t)
			f.serve()
			b := f.labs[0]
			inode := f.space(f.tasks[1]).fd.UniqueId()
			before := b.dump(false)
			n := b.overlay("net0")
			b.calm(t)
			hurt(t, f, n)
			if b.dump(false) == before {
				t.Fatal("the damage is none")
			}
			n.close()
			b.repair(t, name, f.config(0))
			b.calm(t)
			if diff := cmp.Diff(before, b.dump(false)); diff != "" {
				t.Errorf("after the repair (-want +got):\n%s", diff)
			}
			if got := f.space(f.tasks[1]).fd.UniqueId(); got != inode {
				t.Errorf("the task's namespace is another one now, %s for %s: its container would be cut off", got, inode)
			}
			f.check()
		})
	}
}

func TestPrunesLeftoverOverlays(t *testing.T) {
	f := withTwoNetworks(t)
	b := f.labs[0]
	c := f.config(0)
	c.Tasks[1].Networks = c.Tasks[1].Networks[:1]
	c.Overlays = c.Overlays[:1]
	b.apply(c)
	want := b.dump(false)
	b.apply(f.config(0))
	// A file where a router was before a reboot, a router mounted twice, one with the VNI that another should have, a task's link of
	// a task that is none, one of a task that never came to be.
	rebooted := b.linux.overlayPath("rebooted")
	must(t, os.WriteFile(rebooted, nil, 0o444))
	must(t, unix.Mount(b.linux.overlayPath("net1"), b.linux.overlayPath("net1"), "", unix.MS_BIND, ""))
	n := b.overlay("net0")
	for i, alias := range []string{"", "gone", "t0"} {
		pair := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "x"}
		pair.Name = linkName(testAddr(100 + i))
		must(t, n.LinkAdd(pair))
		must(t, n.LinkSetAlias(pair, alias))
		setUp(t, n, pair.Name, netip.Prefix{})
		must(t, n.addRoute(route{dst: host(f.numbered(0, 100+i, false)), link: pair.Index}))
		must(t, n.LinkDel(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "x", Index: linkOf(t, n, "x")}}))
	}
	stray := newNamespace(t, "stray")
	must(t, onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return pinThread(b.linux.overlayPath("stray"))
	}))
	in := b.overlay("stray")
	must(t, b.host.LinkAdd(b.linux.vxlan(in, overlayLink, 7777)))
	stray.close()
	in.close()
	n.close()
	b.restart()
	b.apply(c)
	if diff := cmp.Diff(want, b.dump(false)); diff != "" {
		t.Errorf("after the next start (-want +got):\n%s", diff)
	}
	left, err := os.ReadDir(filepath.Dir(rebooted))
	if err != nil || len(left) != 2 {
		t.Errorf("routers are %v, %v; want the gateway's and the network's", left, err)
	}
}

func TestTeardownLeavesNothingOfOverlays(t *testing.T) {
	f := newFleet(t, 2)
	b := f.labs[0]
	empty := b.dump(false)
	before := mounts(t, b.dir)
	for range 2 {
		for n := range 5 {
			if len(f.nets) < 5 {
				f.task(0, f.network(byte(n+1), n%2 == 0))
				f.vip(n, 5, f.tasks[n])
			}
		}
		f.apply()
		b.restart() // also what another process made
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
	}
}
