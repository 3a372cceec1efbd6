package netplugin

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
)

// TestAnswersGoHome: a published port answers clients, and the nodes themselves, whose addresses are in the subnet of a network that the task
// is on, with their own addresses, also once the rule and the route of answers were made anew.
func TestAnswersGoHome(t *testing.T) {
	f := newSixFabric(t, 2, 1)
	for i := range f.configs {
		c := &f.configs[i]
		c.Overlays = []*Overlay{{ID: "back", VNI: 4096, Subnets: []Subnet{
			{netip.MustParsePrefix("10.77.0.0/24"), netip.MustParseAddr("10.77.0.254")}, {netip.MustParsePrefix("2001:db8::/64"), netip.MustParseAddr("2001:db8::fffe")}}}}
		c.Tasks[0].Networks = []Attachment{{"back", []netip.Addr{netip.MustParseAddr("10.77.0.200"), netip.MustParseAddr("2001:db8::200")}}}
		if i > 0 {
			c.Tasks[0].Networks[0].Addresses = []netip.Addr{netip.MustParseAddr("10.77.0.201"), netip.MustParseAddr("2001:db8::201")}
		}
	}
	f.publish(spread("tcp", 8080, [2]int{1, 0}))
	f.serve()
	f.serveSix()
	answered := func(when string) {
		t.Helper()
		for n := range f.nodes {
			for from, to := range map[netip.Addr]netip.Addr{clientAddr: nodeAddr(n), clientSix: nodeSix(n)} {
				server, seen, err := ask(f.client, "tcp", at(to, 8080))
				if err != nil || server != "n2t0" || seen.Addr() != from {
					t.Errorf("%s: %s asks %s: %q saw %s, %v; want n2t0 to see it as it is", when, from, to, server, seen, err)
				}
			}
		}
		if server, _, err := ask(f.nodes[0].host, "tcp", at(nodeAddr(1), 8080)); err != nil || server != "n2t0" {
			t.Errorf("%s: a node asks another: %q, %v", when, server, err)
		}
	}
	answered("at first")
	task := f.nodes[1].task("n2t0")
	for v := range overlayFamilies {
		rules, err := task.RuleList(family(v))
		must(t, err)
		for _, r := range rules {
			if r.Table == homeTable {
				must(t, task.RuleDel(&r))
			}
		}
		routes, err := task.RouteListFiltered(family(v), &netlink.Route{Table: homeTable}, netlink.RT_FILTER_TABLE)
		must(t, err)
		if len(routes) != 1 {
			t.Fatalf("the routes of answers are %v", routes)
		}
		must(t, task.RouteDel(&routes[0]))
	}
	f.nodes[1].linux.Resync()
	f.apply()
	answered("after they were removed and the network was read back")
}
