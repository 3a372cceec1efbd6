package netplugin

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// whileApplying does something while the machine's Apply runs, as far as others can tell, and sees that it is noticed.
func (b *lab) whileApplying(t *testing.T, name string, do func()) {
	t.Helper()
	func() {
		b.linux.mu.Lock()
		defer b.linux.mu.Unlock()
		do()
		b.linux.settleWatch()
	}()
	if !b.disturbed(time.Second) {
		t.Errorf("%s: not noticed", name)
		b.linux.Resync()
	}
}

func deleteLink(t *testing.T, n *namespace, name string) func() {
	return func() {
		link, err := n.LinkByName(name)
		if err == nil {
			err = n.LinkDel(link)
		}
		if err != nil {
			t.Fatalf("link %s in %s: %v", name, n.name, err)
		}
	}
}

// TestLinksGoWhileApplying: the kernel does not say who took a link away, or down, or stopped forwarding. While an Apply runs, it may have been the Apply.
func TestLinksGoWhileApplying(t *testing.T) {
	f := withTwoNetworks(t)
	f.serve()
	b := f.labs[0]
	two, router := f.space(f.tasks[1]), b.overlay("net1")
	outer := linkName(f.tasks[1].gateway)
	down := func(n *namespace, name string) func() { return func() { setDown(t, n, name) } }
	deeds := map[string]func(){
		"a task's own end removed":                deleteLink(t, two, "eth2"),
		"a task's own end of its gateway removed": deleteLink(t, two, taskLink),
		"a task's own end down":                   down(two, "eth2"),
		"the router's end removed":                deleteLink(t, router, outer),
		"the router's end down":                   down(router, outer),
		"the link to other nodes removed":         deleteLink(t, router, overlayLink),
		"the link to other nodes down":            down(router, overlayLink),
		"the machine's link removed":              deleteLink(t, b.host, hostLink),
		"the machine's link down":                 down(b.host, hostLink),
		"a router's forwarding stopped": func() {
			must(t, router.within(func() error { return setSysctls(setting{name: "net.ipv4.ip_forward", value: "0"}) }))
		},
		"a router's forwarding of IPv6 stopped": func() {
			must(t, b.overlay("net0").within(func() error { return setSysctls(setting{name: "net.ipv6.conf.all.forwarding", value: "0"}) }))
		},
		"the machine's forwarding stopped": func() {
			must(t, b.host.within(func() error { return setSysctls(setting{name: "net.ipv4.ip_forward", value: "0"}) }))
		},
		"the router's end made part of a bridge": func() {
			bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br", TxQLen: -1}}
			must(t, router.LinkAdd(bridge))
			link, err := router.LinkByName(outer)
			must(t, err)
			must(t, router.LinkSetMaster(link, bridge))
		},
	}
	for _, name := range slices.Sorted(maps.Keys(deeds)) {
		b.whileApplying(t, name, deeds[name])
		f.apply()
		b.disturbed(60 * time.Millisecond) // that the other end carries nothing any more, the kernel may tell later
		b.linux.Resync()
		f.apply()
		b.calm(t)
		f.check()
	}
}

// TestTeardownIsCalm: what a Teardown takes away is nobody's damage, and so is that the machine does not forward any more.
func TestTeardownIsCalm(t *testing.T) {
	b := newLab(t)
	b.apply(testConfig(2))
	must(t, b.linux.Teardown(t.Context()))
	b.calm(t)
}

// TestMeshLinkGoesWhileApplying: nor of the link that published ports lead to other nodes by.
func TestMeshLinkGoesWhileApplying(t *testing.T) {
	f := newFabric(t, 2, 1)
	f.apply()
	b := f.nodes[0]
	b.whileApplying(t, "the link to other nodes removed", deleteLink(t, b.linux.router, meshLink))
	f.apply()
	b.calm(t)
	if _, err := b.linux.router.LinkByName(meshLink); err != nil {
		t.Error(err)
	}
}
