package netplugin

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

// unnoticed is the damage of which the kernel tells nobody: what happens to mounts, and inside tasks' namespaces.
var unnoticed = map[string]bool{
	"router unmounted":            true,
	"way out deleted":             true,
	"own neighbour deleted":       true,
	"task's own routes deleted":   true,
	"task's addresses deleted":    true,
	"way to the resolver deleted": true,
}

// repair has damage repaired: at once where it is noticed, as all of it must be but what is unnoticed.
func (b *lab) repair(t *testing.T, name string, c Config) {
	t.Helper()
	if got := b.disturbed(time.Second); got == unnoticed[name] {
		t.Errorf("noticed: %v", got)
	}
	if unnoticed[name] {
		b.linux.Resync()
	}
	b.apply(c)
}

// calm sees that nothing which was done is taken for somebody else's.
func (b *lab) calm(t *testing.T) {
	t.Helper()
	if b.disturbed(60 * time.Millisecond) {
		t.Error("an Apply's own changes are taken for somebody else's")
	}
}

func (b *lab) disturbed(within time.Duration) bool {
	select {
	case <-b.linux.Disturbed():
		return true
	case <-time.After(within):
		return false
	}
}

// TestRepairsAreCounted: what an Apply mends of what others did is counted by its kind, and nothing that it was asked to change.
func TestRepairsAreCounted(t *testing.T) {
	b := newLab(t)
	counted := map[string]int{}
	b.linux.repaired = func(kind string, n int) { counted[kind] += n }
	b.apply(testConfig(1))
	b.apply(testConfig(2))
	b.linux.Resync()
	b.apply(testConfig(3))
	b.linux.Resync()
	b.apply(testConfig(3))
	if len(counted) > 0 {
		t.Errorf("repairs where nothing was broken: %v", counted)
	}
	routes, err := b.linux.router.routes(0)
	must(t, err)
	for r := range routes {
		if r.dst == host(testAddr(1)) {
			must(t, b.linux.router.removeRoute(r))
		}
	}
	if !b.disturbed(time.Second) {
		t.Error("a route that was deleted is not noticed")
	}
	b.apply(testConfig(3))
	if diff := cmp.Diff(map[string]int{kindRoute: 1}, counted); diff != "" {
		t.Errorf("counted (-want +got):\\n%s", diff)
	}
}

// TestOthersAreLetBe: what is done to links, routes and tables that are not ours disturbs nobody, however much it is.
func TestOthersAreLetBe(t *testing.T) {
	b := newLab(t)
	b.apply(testConfig(1))
	c, err := b.host.firewall()
	must(t, err)
	for i := range 500 {
		name := fmt.Sprintf("other%d", i%7)
		must(t, b.host.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name, MTU: 1400}}))
		one, err := b.host.LinkByName(name)
		must(t, err)
		must(t, b.host.LinkSetUp(one))
		must(t, b.host.addAddress(one, netip.MustParsePrefix("192.0.2.1/24")))
		must(t, b.host.addRoute(route{dst: netip.MustParsePrefix("198.51.100.0/24"), link: one.Attrs().Index}))
		must(t, b.host.setNeighbour(one.Attrs().Index, netip.MustParseAddr("192.0.2.2"), taskSideMAC))
		other := c.AddTable(&nftables.Table{Name: name, Family: nftables.TableFamilyIPv4})
		must(t, c.Flush())
		c.DelTable(other)
		must(t, c.Flush())
		must(t, b.host.LinkDel(one))
	}
	b.calm(t)
}
