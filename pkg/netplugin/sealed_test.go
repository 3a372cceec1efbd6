package netplugin

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestNothingGoesAroundAnEncryptedNetwork: where a task's link to an encrypted network is gone, or its route, what it sends there does not go
// by its way out instead. Nothing is repaired meanwhile, as while no daemon runs.
func TestNothingGoesAroundAnEncryptedNetwork(t *testing.T) {
	f := sealedFleet(t, 2, true)
	b := f.labs[0]
	configs := []Config{f.config(0), f.config(1)}
	configs[0].Prefix6 = netip.MustParsePrefix("fd12:3456:789a::/96")
	apply := func() {
		t.Helper()
		for i, c := range configs {
			must(t, f.labs[i].linux.Apply(context.Background(), c))
		}
	}
	f.apply()
	for i := range configs { // with the keys that the machines have by now
		prefix := configs[i].Prefix6
		configs[i] = f.config(i)
		configs[i].Prefix6 = prefix
	}
	apply()
	f.serve()
	f.shakeHands()
	from, router := f.space(f.tasks[0]), b.overlay("net0")
	outer := linkName(f.tasks[0].gateway)
	all := sniff(t, b.host, f.ports)
	damages := map[string]func(){
		"nothing": func() {},
		"its own end removed, and the rules": func() {
			deleteLink(t, from, "eth1")()
			flushRuleset(t, b.linux.router)
		},
		"its own end and the loopback down, and the rules removed": func() {
			setDown(t, from, "lo")
			setDown(t, from, "eth1")
			flushRuleset(t, b.linux.router)
		},
		"all its routes removed, and the rules": func() {
			flushRuleset(t, b.linux.router)
			all, err := from.allRoutes()
			must(t, err)
			for r := range all {
				if r.dst != anywhere && r.dst != anywhere6 {
					must(t, from.removeRoute(r))
				}
			}
		},
		"its own end removed":      deleteLink(t, from, "eth1"),
		"its own end down":         func() { setDown(t, from, "eth1") },
		"the router's end removed": deleteLink(t, router, outer),
		"its routes removed": func() {
			for v := range overlayFamilies {
				all, err := from.routesOf(linkOf(t, from, "eth1"), family(v))
				must(t, err)
				for r := range all {
					must(t, from.removeRoute(r))
				}
			}
		},
	}
	for _, name := range slices.Sorted(maps.Keys(damages)) {
		damages[name]()
		for _, to := range f.addresses(f.tasks[2], 0) {
			for range 3 {
				_ = all.tries(from, at(to, 80)) // refused or not
			}
		}
		all.check(name, false)
		b.linux.Resync()
		apply()
	}
	c := configs[0]
	c.Tasks = slices.Delete(slices.Clone(c.Tasks), 0, 1)
	end, sent := make(chan struct{}), make(chan int)
	go func() { // what is still in the namespace sends while the task is taken away
		for n := 0; ; n++ {
			select {
			case <-end:
				sent <- n
				return
			default:
				_ = all.tries(from, at(f.address(f.tasks[2], 0, false), 80))
			}
		}
	}()
	must(t, b.linux.Apply(context.Background(), c))
	b.linux.swept()
	close(end)
	if <-sent == 0 {
		t.Error("nothing was sent meanwhile")
	}
	all.check("the task taken away", false)
	if n := len(b.linux.have.sealed); n != 2 { // of the other task, for both versions
		t.Errorf("%d ways are closed, want 2: %v", n, b.linux.have.sealed)
	}
	must(t, all.tries(f.space(f.tasks[1]), at(clientAddr, 80)))
	for end := deadline(); all.count("in the clear") == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("what goes out in the clear is not seen")
		}
	}
}

// TestNothingOfAnAttachmentGoesAround: the way out of somebody's own namespace is never the way to an encrypted network that it is on, and no route
// of ours is left in it, whichever way it leaves.
func TestNothingOfAnAttachmentGoesAround(t *testing.T) {
	b := newLab(t)
	guest, path := newGuest(t)
	rules := func() (all []netlink.Rule) {
		t.Helper()
		for v := range overlayFamilies {
			some, err := guest.rules(family(v))
			must(t, err)
			all = append(all, some...)
		}
		return all
	}
	before, err := guest.allRoutes()
	must(t, err)
	for _, r := range (confine{netip.MustParsePrefix("198.51.100.0/24"), true, true}).rules() { // like ours, and somebody's own
		must(t, guest.RuleAdd(&r))
	}
	rulesBefore := rules()
	withGuest := func(path string) Config {
		c := guestConfig(path)
		c.Overlays[0].Encrypted = true
		key, err := b.linux.PublicKey()
		must(t, err)
		c.Key = key
		return c
	}
	goes := func() bool {
		t.Helper()
		_, err := guest.RouteGet([]byte{10, 9, 0, 99})
		if err != nil && !errors.Is(err, unix.ENETUNREACH) {
			t.Fatal(err)
		}
		return err == nil
	}
	must(t, b.linux.Apply(t.Context(), withGuest(path)))
	for name, damage := range map[string]func(){
		"link removed": func() { deleteLink(t, guest, "swarm1")() },
		"link down":    func() { setDown(t, guest, "swarm1") },
		"loopback down, and the link removed": func() {
			setDown(t, guest, "lo")
			deleteLink(t, guest, "swarm1")()
		},
		"route removed": func() {
			must(t, removeOwn(guest, route{dst: netip.MustParsePrefix("10.9.0.0/24"), link: indexOf(guest, "swarm1"), via: netip.MustParseAddr("10.9.0.1"),
				src: netip.MustParseAddr("10.9.0.20")}))
		},
		"the router's end removed": deleteLink(t, b.overlay("back"), linkName(testAddr(7))),
	} {
		if !goes() {
			t.Fatalf("before %s nothing leads there", name)
		}
		if damage(); goes() {
			t.Errorf("%s: what is for the network leaves by another way", name)
		}
		b.linux.Resync()
		must(t, b.linux.Apply(t.Context(), withGuest(path)))
	}
	var owned []*netlink.Route
	for i, to := range []string{"10.9.0.0/24", "10.9.0.64/26"} {
		r := route{dst: netip.MustParsePrefix(to), link: indexOf(guest, "eth0"), via: netip.MustParseAddr("192.0.2.1")}.message()
		r.Priority = 100 + i
		must(t, guest.RouteAdd(r))
		owned = append(owned, r)
	}
	elsewhere := route{dst: anywhere, link: indexOf(guest, "eth0"), via: netip.MustParseAddr("192.0.2.1")}.message()
	elsewhere.Table = guestTable
	must(t, guest.RouteAdd(elsewhere))
	if deleteLink(t, guest, "swarm1")(); goes() {
		t.Error("with routes of its own, what is for the network leaves by them")
	}
	b.linux.Resync()
	must(t, b.linux.Apply(t.Context(), withGuest(path)))
	if by, err := guest.RouteGet([]byte{10, 9, 0, 99}); err != nil || by[0].LinkIndex != indexOf(guest, "swarm1") {
		t.Errorf("with routes of its own that came later, it goes by %v, %v", by, err)
	}
	must(t, b.linux.Apply(t.Context(), withGuest("")))
	if err := b.linux.Apply(t.Context(), withGuest(path)); err == nil || !strings.Contains(err.Error(), "another route to 10.9.0.") {
		t.Errorf("it comes with routes of its own into the network: %v", err)
	}
	for _, r := range append(owned, elsewhere) {
		must(t, guest.RouteDel(r))
	}
	must(t, b.linux.Apply(t.Context(), withGuest(path)))
	link, err := guest.LinkByName("swarm0")
	must(t, err)
	must(t, guest.LinkDel(link))
	own := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "swarm0"}}
	must(t, guest.LinkAdd(own))
	b.linux.Resync()
	if err := b.linux.Apply(t.Context(), withGuest(path)); err == nil || !strings.Contains(err.Error(), "rename that first") {
		t.Errorf("it cannot be linked again: %v", err)
	}
	if deleteLink(t, guest, "swarm1")(); goes() {
		t.Error("not linked whole, what is for the network leaves by another way")
	}
	must(t, guest.LinkDel(own))
	b.linux.Resync()
	must(t, b.linux.Apply(t.Context(), withGuest(path)))
	for name, leave := range map[string]func() error{
		"it leaves":                   func() error { return b.linux.Apply(t.Context(), withGuest("")) },
		"it left while no daemon ran": func() error { b.restart(); return b.linux.Apply(t.Context(), withGuest("")) },
		"the node leaves":             func() error { return b.linux.Teardown(t.Context()) },
	} {
		must(t, leave())
		if now, err := guest.allRoutes(); err != nil || !maps.Equal(now, before) {
			t.Errorf("%s: its routes are %v, %v; were %v", name, now, err, before)
		}
		if now := rules(); !reflect.DeepEqual(now, rulesBefore) {
			t.Errorf("%s: its rules are %v, were %v", name, now, rulesBefore)
		}
		must(t, b.linux.Apply(t.Context(), withGuest(path)))
	}
}
