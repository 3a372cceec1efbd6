package netplugin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// guestConfig is a machine with a task and, where there is a path, a guest on one overlay.
func guestConfig(path string) Config {
	c := testConfig(1)
	c.Overlays = []*Overlay{{ID: "back", VNI: 4096, Subnets: []Subnet{{netip.MustParsePrefix("10.9.0.0/24"), netip.MustParseAddr("10.9.0.1")}}}}
	c.Tasks[0].Networks = []Attachment{{"back", []netip.Addr{netip.MustParseAddr("10.9.0.10")}}}
	if path != "" {
		c.Tasks = append(c.Tasks, TaskLink{ID: "guest", Guest: path, Address: testAddr(7), Internal: true,
			Networks: []Attachment{{"back", []netip.Addr{netip.MustParseAddr("10.9.0.20")}}}})
	}
	return c
}

// newGuest is somebody's namespace, with a link and a default route of its own, and the path that leads to it.
func newGuest(t *testing.T) (*namespace, string) {
	t.Helper()
	n := newNamespace(t, "guest")
	setUp(t, n, "lo", netip.Prefix{})
	own := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0", Flags: net.FlagUp}, PeerName: "wall"}
	must(t, n.LinkAdd(own))
	setUp(t, n, "eth0", netip.MustParsePrefix("192.0.2.2/24"))
	must(t, n.addRoute(route{dst: anywhere, link: own.Attrs().Index, via: netip.MustParseAddr("192.0.2.1")}))
	return n, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(n.fd))
}

// indexOf is that of a link, 0 where there is none.
func indexOf(n *namespace, name string) int {
	link, err := n.LinkByName(name)
	if err != nil {
		return 0
	}
	return link.Attrs().Index
}

// TestGuest: a namespace of somebody's own is on an overlay beside its own links and routes, which stay as they are; it asks for names by its
// gateway address, and that leads nowhere else; a restart leaves its links, what is missing of them is repaired, and all goes with it.
func TestGuest(t *testing.T) {
	b := newLab(t)
	guest, path := newGuest(t)
	before, err := guest.routes(0)
	must(t, err)
	b.apply(guestConfig(path))
	task := b.task(guestConfig("").Tasks[0].ID)
	serve(t, task, "task", 80)
	serve(t, guest, "guest", 80)
	serveNames(t, b.host)
	talks := func() {
		t.Helper()
		for from, to := range map[*namespace]string{guest: "10.9.0.10:80", task: "10.9.0.20:80"} {
			if server, _, err := ask(from, "tcp", to); err != nil {
				t.Errorf("%s asks %s: %q, %v", from.name, to, server, err)
			}
		}
		if server, seen, err := ask(guest, "udp", Resolver.String()); err != nil || server != "names" || seen.Addr() != testAddr(7) {
			t.Errorf("the guest asks for names: %q saw %s, %v", server, seen, err)
		}
	}
	talks()
	after, err := guest.routes(0)
	must(t, err)
	for r := range before {
		if !after[r] {
			t.Errorf("the guest's route %s is gone", r)
		}
	}
	for r := range after {
		if r.dst == anywhere && !before[r] {
			t.Errorf("the guest got the default route %s", r)
		}
	}
	index := indexOf(guest, "swarm1")
	b.restart()
	b.apply(guestConfig(path))
	if now := indexOf(guest, "swarm1"); now != index || now == 0 {
		t.Errorf("its link %d is %d after a restart", index, now)
	}
	talks()

	link, err := guest.LinkByName("swarm1")
	must(t, err)
	must(t, guest.LinkDel(link))
	b.linux.Resync()
	b.apply(guestConfig(path))
	talks()

	b.apply(guestConfig(""))
	for _, name := range []string{"swarm0", "swarm1"} {
		if indexOf(guest, name) != 0 {
			t.Errorf("the guest still has the link %s", name)
		}
	}
	if now, err := guest.routes(0); err != nil || !maps.Equal(now, before) {
		t.Errorf("its routes are %v, %v; were %v", now, err, before)
	}
	if _, err := os.Stat(b.linux.Namespace("guest")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its namespace is still mounted: %v", err)
	}
}

// removeOwn removes a route to an encrypted network.
func removeOwn(n *namespace, r route) error {
	m := r.message()
	m.Table = guestTable
	return n.RouteDel(m)
}

// TestTakenFromAGuest: what somebody takes away of ours in a guest's namespace is noticed at once, and put back; what is done there to anything
// else is not looked at.
func TestTakenFromAGuest(t *testing.T) {
	b := newLab(t)
	guest, path := newGuest(t)
	c := guestConfig(path)
	c.Overlays[0].Encrypted = true
	c.Overlays[0].Subnets = append(c.Overlays[0].Subnets, Subnet{netip.MustParsePrefix("fd09::/64"), netip.MustParseAddr("fd09::1")})
	c.Tasks[1].Networks[0].Addresses = append(c.Tasks[1].Networks[0].Addresses, netip.MustParseAddr("fd09::20"))
	key, err := b.linux.PublicKey()
	must(t, err)
	c.Key = key
	counted := map[string]int{}
	b.linux.repaired = func(kind string, n int) { counted[kind] += n }
	apply := func() { // its socket there is to be this process's only one
		t.Helper()
		guest.Handle.Close()
		applied := b.linux.Apply(t.Context(), c)
		guest.Handle, err = netlink.NewHandleAt(guest.fd, unix.NETLINK_ROUTE)
		must(t, errors.Join(applied, err))
	}
	apply()
	b.calm(t)

	eth, err := guest.LinkByName("eth0")
	must(t, err)
	own := netlink.NewRule()
	own.Priority, own.Table, own.Dst = 300, 7, ipNet(netip.MustParsePrefix("198.51.100.0/24"))
	for range 500 {
		more := netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("192.0.2.3/32"))}
		must(t, guest.AddrAdd(eth, &more))
		r := route{dst: netip.MustParsePrefix("198.51.100.0/24"), link: eth.Attrs().Index, src: netip.MustParseAddr("192.0.2.3")}
		must(t, guest.addRoute(r))
		must(t, guest.RuleAdd(own))
		must(t, guest.RuleDel(own))
		must(t, guest.removeRoute(r))
		must(t, guest.AddrDel(eth, &more))
	}
	b.calm(t)

	state := func() string {
		t.Helper()
		routes, err := guest.allRoutes()
		must(t, err)
		var all []string
		for v := range overlayFamilies {
			sealed, err := guest.routesIn(guestTable, 0, family(v))
			must(t, err)
			maps.Copy(routes, sealed)
		}
		for r := range routes {
			all = append(all, fmt.Sprint(r))
		}
		for v := range overlayFamilies {
			rules, err := guest.rules(family(v))
			must(t, err)
			for _, r := range rules {
				all = append(all, fmt.Sprint(r))
			}
		}
		for _, name := range []string{"swarm0", "swarm1"} {
			one, err := guest.LinkByName(name)
			if err != nil {
				continue
			}
			all = append(all, fmt.Sprint(name, one.Attrs().MTU, one.Attrs().HardwareAddr))
			list, err := guest.AddrList(one, unix.AF_UNSPEC)
			must(t, err)
			for _, a := range list {
				all = append(all, fmt.Sprint(name, a.IPNet))
			}
		}
		slices.Sort(all)
		return strings.Join(all, "\n")
	}
	whole := state()
	linked := func(name string) netlink.Link {
		t.Helper()
		one, err := guest.LinkByName(name)
		must(t, err)
		return one
	}
	via := func(subnet, gateway, src string) route {
		return route{dst: netip.MustParsePrefix(subnet), link: indexOf(guest, "swarm1"), via: netip.MustParseAddr(gateway), src: netip.MustParseAddr(src)}
	}
	for name, damage := range map[string]struct {
		do   func() error
		kind string
	}{
		"a route":     {func() error { return removeOwn(guest, via("10.9.0.0/24", "10.9.0.1", "10.9.0.20")) }, kindRoute},
		"one of IPv6": {func() error { return removeOwn(guest, via("fd09::/64", guestVia.String(), "fd09::20")) }, kindRoute},
		"the way to the resolver": {func() error {
			return guest.removeRoute(guestRoute(b.linux.have.base, testAddr(7), indexOf(guest, "swarm0")))
		}, kindRoute},
		"an address": {func() error {
			return guest.AddrDel(linked("swarm1"), &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("10.9.0.20/24"))})
		}, kindAddress},
		"one of IPv6 as well": {func() error {
			return guest.AddrDel(linked("swarm1"), &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("fd09::20/64"))})
		}, kindAddress},
		"that of its names": {func() error { return guest.AddrDel(linked("swarm0"), &netlink.Addr{IPNet: ipNet(host(testAddr(7)))}) }, kindAddress},
		"a rule": {func() error {
			r := confine{netip.MustParsePrefix("10.9.0.0/24"), true, true}.rules()[0]
			return guest.RuleDel(&r)
		}, kindRule},
		"one of a rule of IPv6": {func() error {
			r := confine{netip.MustParsePrefix("fd09::/64"), true, true}.rules()[1]
			return guest.RuleDel(&r)
		}, kindRule},
		"its MTU":                  {func() error { return guest.LinkSetMTU(linked("swarm1"), 1300) }, kindLink},
		"its link address":         {func() error { return guest.LinkSetHardwareAddr(linked("swarm1"), vtepMAC(9)) }, kindLink},
		"that of its way to names": {func() error { return guest.LinkSetHardwareAddr(linked("swarm0"), vtepMAC(9)) }, kindLink},
		"a link":                   {func() error { return guest.LinkDel(linked("swarm1")) }, kindLink},
		"that it is up":            {func() error { return guest.LinkSetDown(linked("swarm1")) }, kindRoute}, // which go with it,
	} {
		clear(counted)
		must(t, damage.do())
		if state() == whole {
			t.Errorf("%s was not taken away", name)
		}
		if !b.disturbed(time.Second) {
			t.Errorf("%s was taken away, which is not noticed", name)
		}
		apply()
		b.disturbed(time.Millisecond) // by damage that was done in several steps
		if now := state(); now != whole {
			t.Errorf("%s was taken away, and then there is\n%s\nbefore\n%s", name, now, whole)
		}
		if counted[damage.kind] == 0 {
			t.Errorf("%s was put back, and counted are %v", name, counted)
		}
		b.calm(t)
	}
}

// TestGuestWithWiderRoutes: routes of a guest's own that are wider than a network, of which its gateway would be an address, keep it from nothing.
func TestGuestWithWiderRoutes(t *testing.T) {
	for _, encrypted := range []bool{false, true} {
		b := newLab(t)
		guest, path := newGuest(t)
		c := dualConfig(1)
		key, err := b.linux.PublicKey()
		must(t, err)
		c.Key, c.Overlays[0].Encrypted = key, encrypted
		c.Tasks = append(c.Tasks, TaskLink{ID: "guest", Guest: path, Address: testAddr(7), Internal: true,
			Networks: []Attachment{{"back", []netip.Addr{netip.MustParseAddr("10.9.0.20"), netip.MustParseAddr("fd09::20")}}}})
		for _, to := range []string{"10.0.0.0/8", "fd00::/8", "fd09::/48"} {
			must(t, guest.addRoute(route{dst: netip.MustParsePrefix(to), link: indexOf(guest, "eth0")}))
		}
		apply := func() {
			t.Helper()
			must(t, b.linux.Apply(t.Context(), c))
		}
		apply()
		serve(t, b.task("t0"), "t0", 80)
		serveOf(t, b.task("t0"), "t0", 80, 1)
		reaches := func(when string) {
			t.Helper()
			for _, to := range []string{"10.9.0.10:80", "[fd09::a]:80"} {
				if server, _, err := ask(guest, "tcp", to); err != nil || server != "t0" {
					t.Errorf("encrypted %t: %s it asks at %s: %q, %v", encrypted, when, to, server, err)
				}
			}
		}
		reaches("attached")
		must(t, guest.LinkDel(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: indexOf(guest, "swarm1")}}))
		b.linux.Resync()
		apply()
		reaches("linked again")
		b.restart()
		apply()
		reaches("after a restart")
	}
}

// TestGuestIsLinkedAsFarAsItGoes: what keeps one link of a guest's from being made again is that link's error; the others are.
func TestGuestIsLinkedAsFarAsItGoes(t *testing.T) {
	b := newLab(t)
	guest, path := newGuest(t)
	c := guestConfig(path)
	c.Overlays = append(c.Overlays, &Overlay{ID: "second", VNI: 4099, Subnets: []Subnet{{netip.MustParsePrefix("10.8.0.0/24"), netip.MustParseAddr("10.8.0.1")}}})
	c.Tasks[1].Networks = append(c.Tasks[1].Networks, Attachment{"second", []netip.Addr{netip.MustParseAddr("10.8.0.20")}})
	b.apply(c)
	way := route{dst: netip.MustParsePrefix("10.9.0.0/24"), link: indexOf(guest, "eth0"), via: netip.MustParseAddr("192.0.2.1")}
	taken := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "swarm0"}}
	for _, tt := range []struct {
		what, why  string
		begin, end func() error
		whole      string
	}{
		{"a network", "another route to 10.9.0.0/24", func() error { return guest.addRoute(way) }, func() error { return guest.removeRoute(way) }, "swarm0 swarm2"},
		{"the gateway network", "another link swarm0", func() error { return guest.LinkAdd(taken) }, func() error { return guest.LinkDel(taken) }, "swarm1 swarm2"},
	} {
		for _, name := range []string{"swarm0", "swarm1", "swarm2"} {
			must(t, guest.removeLink(name))
		}
		must(t, tt.begin())
		b.linux.Resync()
		for range 2 {
			err := b.linux.Apply(t.Context(), c)
			if byTask, alone := TaskErrors(err); !alone || len(byTask) != 1 || strings.Count(byTask["guest"].Error(), tt.why) != 1 {
				t.Errorf("%s: %v", tt.what, err)
			}
			for name := range strings.FieldsSeq(tt.whole) {
				if indexOf(guest, name) == 0 {
					t.Errorf("%s cannot be linked, and %s is not there", tt.what, name)
				}
			}
			b.linux.Resync()
		}
		must(t, tt.end())
		b.apply(c)
		for i := range 3 {
			if indexOf(guest, fmt.Sprint("swarm", i)) == 0 {
				t.Errorf("%s can be linked, and swarm%d is not there", tt.what, i)
			}
		}
	}
	serve(t, b.task("t0"), "t0", 80)
	if server, _, err := ask(guest, "tcp", c.Tasks[0].Networks[0].Addresses[0].String()+":80"); err != nil || server != "t0" {
		t.Errorf("it asks: %q, %v", server, err)
	}
}

// TestGuestRefused: what is no network namespace, or whose namespace must not be touched, is refused alone and for good; where a link or route
// of ours would take another's place, it is refused for as long as that is there, and nothing is left of the try.
func TestGuestRefused(t *testing.T) {
	b := newLab(t)
	b.apply(guestConfig(""))
	guest, path := newGuest(t)
	fd := func(n *namespace) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(n.fd)) }
	try := func(path string) error {
		t.Helper()
		byTask, alone := TaskErrors(b.linux.Apply(context.Background(), guestConfig(path)))
		if !alone || byTask["guest"] == nil || indexOf(guest, "swarm0") != 0 || pinned(b.linux.Namespace("guest")) {
			t.Errorf("%s: %v, alone: %t; want it refused alone, and nothing left", path, byTask, alone)
		}
		b.apply(guestConfig(""))
		return byTask["guest"]
	}
	for what, path := range map[string]string{
		"the machine's own": fd(b.host), "that of process 1": "/proc/1/ns/net", "a task's": b.linux.Namespace(guestConfig("").Tasks[0].ID),
		"the gateway's router": b.linux.routerPath(), "a network's router": b.linux.overlayPath("back"), "another kind": "/proc/self/ns/uts",
		"a file": filepath.Join(b.dir, "netns"), "a device": "/dev/null", "nothing": filepath.Join(b.dir, "nothing"),
	} {
		if err := try(path); !errors.Is(err, ErrNoGuest) {
			t.Errorf("%s: %v; want it refused for good", what, err)
		}
	}
	own := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "swarm1"}, PeerName: "other"}
	must(t, guest.LinkAdd(own))
	if err := try(path); errors.Is(err, ErrNoGuest) {
		t.Errorf("a link that is in the way: %v", err)
	}
	if indexOf(guest, "swarm1") != own.Attrs().Index {
		t.Error("the guest's own link swarm1 is gone")
	}
	must(t, guest.LinkDel(own))
	way := route{dst: netip.MustParsePrefix("10.9.0.0/24"), link: indexOf(guest, "eth0"), via: netip.MustParseAddr("192.0.2.1")}
	must(t, guest.addRoute(way))
	if err := try(path); errors.Is(err, ErrNoGuest) {
		t.Errorf("a route that is in the way: %v", err)
	}
	if now, err := guest.routes(0); err != nil || !now[way] {
		t.Errorf("the guest's own route is gone: %v, %v", now, err)
	}
	must(t, guest.removeRoute(way))
	b.apply(guestConfig(path))
}
