package netplugin

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vishvananda/netlink"
)

// placed is a TCP port with task t1 behind it that answers at prefixes, and at links.
func placed(port uint16, places ...string) PublishedPort {
	p := published("tcp", port, 1)
	for _, at := range places {
		if prefix, err := netip.ParsePrefix(at); err == nil {
			p.Places = append(p.Places, Place{Prefix: prefix})
		} else {
			p.Places = append(p.Places, Place{Link: at})
		}
	}
	return p
}

// changeElements does so behind our back.
func changeElements(t *testing.T, b *lab, remove, add []element) {
	t.Helper()
	c, err := b.host.firewall()
	must(t, err)
	tx := four.newTransaction(c)
	tx.elements(tx.SetDeleteElements, remove)
	tx.elements(tx.SetAddElements, add)
	must(t, tx.commit())
}

// answers tells whether a port of the machine leads to a task, asked from a namespace.
func answers(from *namespace, to netip.Addr, port uint16) bool {
	server, _, err := ask(from, "tcp", at(to, port))
	return err == nil && server == "t1"
}

// TestPlaces publishes ports at some of the machine's addresses and links: they answer there, and nowhere else.
func TestPlaces(t *testing.T) {
	second, local := netip.MustParseAddr("10.78.0.1"), netip.MustParseAddr("127.0.0.1")
	b, c := withServers(t, 2, placed(1, "10.77.0.1/32"), placed(2, "10.78.0.1/32", "10.78.0.0/16", "127.0.0.0/8", "127.0.0.0/16"), placed(3, "out0"), placed(4, "out1"),
		placed(5, "0.0.0.0/0"), placed(6), placed(7, "127.0.0.1/32"))
	out, err := b.host.LinkByName("out0")
	must(t, err)
	must(t, b.host.addAddress(out, netip.PrefixFrom(second, 32)))
	dev, err := b.client.LinkByName("eth0")
	must(t, err)
	must(t, b.client.addRoute(route{dst: host(second), link: dev.Attrs().Index, via: hostAddr}))
	check := func(when string) {
		t.Helper()
		for port, want := range map[uint16]string{
			1: "client first, machine first, task first",
			2: "client second, machine second, machine local, task second",
			3: "client first, client second",
			4: "",
			5: "client first, client second, machine first, machine second, machine local, task first, task second",
			6: "client first, client second, machine first, machine second, machine local, task first, task second",
			7: "machine local",
		} {
			var got []string
			for _, from := range []struct {
				name string
				*namespace
			}{{"client", b.client}, {"machine", b.host}, {"task", b.task("t0")}} {
				for i, to := range []netip.Addr{hostAddr, second, local} {
					if (from.name == "machine" || to != local) && answers(from.namespace, to, port) {
						got = append(got, from.name+" "+[]string{"first", "second", "local"}[i])
					}
				}
			}
			if got := strings.Join(got, ", "); got != want {
				t.Errorf("%s: port %d answers %s; want %s", when, port, got, want)
			}
		}
	}
	check("at first")
	b.restart()
	b.apply(c)
	check("after a restart")
	must(t, b.linux.host.removeTables(four))
	b.linux.Resync()
	b.apply(c)
	check("after the table was lost")

	// Places change with the backends as they are.
	c.Published[0].Places = []Place{{Prefix: netip.MustParsePrefix("127.0.0.1/32")}}
	c.Published[5].Places = []Place{{Link: "out1"}}
	c.Published[6].Places = nil
	b.apply(c)
	for port, want := range map[uint16]bool{1: false, 6: false, 7: true} {
		if got := answers(b.client, hostAddr, port); got != want {
			t.Errorf("after a change: port %d answers: %v", port, got)
		}
	}
	if !answers(b.host, local, 1) {
		t.Error("after a change: port 1 does not answer where it is to answer now")
	}
}

// TestPlacesAdopted: what a restart finds is taken as it is, without a change.
// TestLoopbackPlacesAreTheMachinesOwn: a neighbour on the link sends to the machine's loopback address.
func TestLoopbackPlacesAreTheMachinesOwn(t *testing.T) {
	b, _ := withServers(t, 2, placed(1, "127.0.0.1/32"), placed(2))
	local := netip.MustParseAddr("127.0.0.1")
	must(t, b.client.within(func() error {
		return setSysctls(setting{name: "net.ipv4.conf.all.route_localnet", value: "1"})
	}))
	lo, err := b.client.LinkByName("lo")
	must(t, err)
	must(t, b.client.AddrDel(lo, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("127.0.0.1/8"))}))
	must(t, b.client.addRoute(route{dst: loopbacks[0], link: linkOf(t, b.client, "eth0"), via: hostAddr}))
	nobodyAnswers(t, closed{"to a neighbour", b.client, local, 1}, closed{"to a neighbour", b.client, local, 2})
	for port := range uint16(2) {
		if !answers(b.host, local, 1+port) {
			t.Errorf("port %d of the loopback address does not answer the machine", 1+port)
		}
	}
}

func TestPlacesAdopted(t *testing.T) {
	b, c := withServers(t, 2, placed(1, "10.77.0.1/32", "10.128.0.0/10", "lo", "out0"), placed(2))
	before := b.dump(true)
	b.restart()
	b.apply(c)
	if after := b.dump(true); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// TestBadPlaces: a port whose places cannot be answers nowhere.
func TestBadPlaces(t *testing.T) {
	b, c := withServers(t, 2, published("tcp", 1, 1))
	for _, tt := range []struct {
		places []string
		err    string
	}{
		{[]string{"2001:db8::/32"}, ""}, // nowhere, without IPv6
		{[]string{""}, "link"},
		{[]string{strings.Repeat("x", unix.IFNAMSIZ)}, "link"},
		{[]string{hostLink}, "link"},
	} {
		c.Published = []PublishedPort{placed(1, tt.places...)}
		if err := b.linux.Apply(context.Background(), c); (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%q: %v", tt.places, err)
		}
		if answers(b.client, hostAddr, 1) {
			t.Errorf("%q: it answers", tt.places)
		}
	}
}
