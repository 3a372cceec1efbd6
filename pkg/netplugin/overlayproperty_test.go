package netplugin

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// After any sequence of Configs, restarts and resyncs, the networks are what they are after a first Apply of the last Config.
func TestAnySequenceOfOverlaysEqualsTheLast(t *testing.T) {
	b, fresh := newLab(t), newLab(t)
	rapid.Check(t, func(r *rapid.T) {
		var c Config
		for range rapid.IntRange(1, 6).Draw(r, "applies") {
			switch rapid.IntRange(0, 5).Draw(r, "before") {
			case 0:
				b.restart()
			case 1:
				b.linux.Resync()
			}
			c = drawOverlays(r)
			if err := b.linux.Apply(t.Context(), c); err != nil {
				r.Fatal(err)
			}
		}
		must(t, fresh.linux.Teardown(t.Context()))
		if err := fresh.linux.Apply(t.Context(), c); err != nil {
			r.Fatal(err)
		}
		if diff := cmp.Diff(fresh.dump(false), b.dump(false)); diff != "" {
			r.Fatalf("after the sequence (-fresh +got):\n%s", diff)
		}
	})
}

// drawOverlays has few networks, nodes and addresses, so that a sequence has the same ones again, in other places.
func drawOverlays(r *rapid.T) Config {
	c := Config{Node: 1, Gateway: testBlock, Pool: testPool, Underlay: hostAddr}
	for node := range uint32(3) {
		if rapid.IntRange(0, 5).Draw(r, "peer") > 0 {
			c.Peers = append(c.Peers, Peer{Node: node + 2, Underlay: netip.AddrFrom4([4]byte{10, 77, 0, byte(20 + rapid.IntRange(0, 1).Draw(r, "underlay")*10 + int(node))}),
				Key: testKey(byte(node*10 + uint32(rapid.IntRange(1, 2).Draw(r, "key"))))})
		}
	}
	for i := range rapid.IntRange(0, 3).Draw(r, "tasks") {
		c.Tasks = append(c.Tasks, TaskLink{ID: fmt.Sprintf("t%d", i), Address: testAddr(rapid.IntRange(0, 1).Draw(r, "block")*10 + i)})
	}
	for n := range 3 {
		if rapid.IntRange(0, 4).Draw(r, "network") > 0 {
			drawOverlay(r, &c, n)
		}
	}
	return c
}

func drawOverlay(r *rapid.T, c *Config, n int) {
	o := &Overlay{ID: fmt.Sprintf("net%d", n), VNI: uint32(4096 + 2*n + rapid.IntRange(0, 1).Draw(r, "VNI")), Encrypted: rapid.IntRange(0, 5).Draw(r, "encrypted") == 0}
	// The first two have the same subnet, so that no task can be on both.
	apart := n == 2
	four := func(host int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(1 + n/2), byte(host)}) }
	o.Subnets = []Subnet{{netip.PrefixFrom(four(0), 24), four(1)}}
	six := n == 0
	if six {
		o.Subnets = append(o.Subnets, Subnet{netip.MustParsePrefix("fd00:1::/64"), netip.MustParseAddr("fd00:1::1")})
	}
	pair := func(n int) []netip.Addr {
		if six {
			return []netip.Addr{four(n), netip.AddrFrom16([16]byte{0: 0xfd, 3: 1, 15: byte(n)})}
		}
		return []netip.Addr{four(n)}
	}
	free := rapid.Permutation([]int{11, 12, 13, 14, 15, 16}).Draw(r, "addresses")
	for i := range c.Tasks {
		if (apart || len(c.Tasks[i].Networks) == 0) && rapid.Bool().Draw(r, "attached") {
			c.Tasks[i].Networks = append(c.Tasks[i].Networks, Attachment{o.ID, pair(free[i])})
		}
	}
	for _, number := range free[3:] {
		if rapid.Bool().Draw(r, "remote") {
			node := uint32(rapid.IntRange(2, 4).Draw(r, "node"))
			for _, a := range pair(number) {
				o.Remote = append(o.Remote, RemoteAddress{a, node})
			}
		}
	}
	for vip := range 3 {
		if rapid.Bool().Draw(r, "VIP") {
			for v, a := range pair(5 + vip) {
				one := VIP{Address: a}
				for number := 11; number <= 16; number++ {
					if rapid.Bool().Draw(r, "backend") {
						one.Backends = append(one.Backends, pair(number)[v])
					}
				}
				o.VIPs = append(o.VIPs, one)
			}
		}
	}
	c.Overlays = append(c.Overlays, o)
}

// Of IPv6 connections as well those that are meant are taken away, and no others.
func TestForgetIPv6(t *testing.T) {
	f := newFleet(t, 1)
	net := f.network(1, true)
	for range 3 {
		f.task(0, net)
	}
	f.apply()
	f.serve()
	n := f.labs[0].overlay("net0")
	for _, six := range []bool{false, true} {
		f.vip(net, 5, f.tasks[1])
		f.vip(net, 6, f.tasks[2])
		f.apply()
		c, _ := hold(t, f.space(f.tasks[0]), at(f.numbered(net, 5, six), 80))
		other, _ := hold(t, f.space(f.tasks[0]), at(f.numbered(net, 6, six), 80))
		f.vip(net, 5) // else the next packet would make a connection known again
		f.vip(net, 6)
		f.apply()
		echo(t, c)
		must(t, n.forget([]flows{{to: f.address(f.tasks[1], net, six)}}))
		if err := wantReset(c); err != nil {
			t.Errorf("IPv6 %t: %v", six, err)
		}
		echo(t, other)
	}
}
