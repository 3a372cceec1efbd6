package netplugin

import (
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
)

// TestNextPlan: a plan that was made from the one before is what all of it looked at anew would be, whatever changed; and small changes
// are made in this way.
func TestNextPlan(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	peers := map[uint32]Peer{}
	for n := range uint32(6) {
		peers[n+2] = Peer{Node: n + 2, Underlay: nodeAddr(int(n) + 2)}
	}
	d := &desired{underlay: underlay{addr: hostAddr, node: 1, port: 4789}}
	quick, slow := 0, 0
	for range 200 {
		o := randomOverlay(random)
		before, err := d.planOverlay(o, peers)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			o = changedOverlay(random, o)
			fresh, err := d.planOverlay(o, peers)
			if err != nil {
				t.Fatal(err)
			}
			next := before.next(o, 1)
			if next == nil {
				slow++
				before = fresh
				continue
			}
			quick++
			if fresh.err != nil || !reflect.DeepEqual(canonical(fresh), canonical(next)) {
				t.Fatalf("of %+v\nfollows %+v\nnot     %+v", o, canonical(next), canonical(fresh))
			}
			before = next
		}
	}
	if quick < 1000 || slow < 100 {
		t.Errorf("%d plans were made of the one before, %d were not", quick, slow)
	}
}

// canonical has no list that is empty, but none.
func canonical(p *plan) plan {
	c := *p
	if len(c.remote) == 0 {
		c.remote = nil
	}
	if len(c.vteps) == 0 {
		c.vteps = nil
	}
	c.vips = slices.Clone(c.vips)
	for i := range c.vips {
		if len(c.vips[i].Backends) == 0 {
			c.vips[i].Backends = nil
		}
	}
	return c
}

func overlayAddr(random *rand.Rand) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 0, 1, byte(1 + random.IntN(200))}) // also the gateway, now and then
}

func randomOverlay(random *rand.Rand) *Overlay {
	p := netip.MustParsePrefix("10.0.1.0/24")
	o := &Overlay{ID: "n", VNI: 4097, Subnets: []Subnet{{p, p.Addr().Next()}}}
	for range 40 {
		o = changedOverlay(random, o)
	}
	return o
}

// changedOverlay is one with something else in it, mostly in order.
func changedOverlay(random *rand.Rand, o *Overlay) *Overlay {
	now := *o
	now.Remote, now.VIPs = slices.Clone(o.Remote), slices.Clone(o.VIPs)
	byVIP := func(a, b VIP) int { return a.Address.Compare(b.Address) }
	switch random.IntN(7) {
	case 0, 1:
		now.Remote = append(now.Remote, RemoteAddress{overlayAddr(random), 2 + random.Uint32N(7)}) // one node is no peer
	case 2, 3:
		if len(now.Remote) > 0 {
			i := random.IntN(len(now.Remote))
			now.Remote = slices.Delete(now.Remote, i, i+1)
		}
	case 4:
		now.VIPs = append(now.VIPs, VIP{Address: overlayAddr(random)})
	case 5:
		if len(now.VIPs) > 0 {
			i := random.IntN(len(now.VIPs))
			now.VIPs = slices.Delete(now.VIPs, i, i+1)
		}
	default:
		if len(now.VIPs) > 0 {
			v := &now.VIPs[random.IntN(len(now.VIPs))]
			v.Backends = append(slices.Clone(v.Backends), overlayAddr(random))
			slices.SortFunc(v.Backends, netip.Addr.Compare)
		}
	}
	if random.IntN(20) == 0 {
		return &now
	}
	slices.SortFunc(now.Remote, byAddress)
	slices.SortFunc(now.VIPs, byVIP)
	if random.IntN(3) > 0 { // as the swarm's are, once messages have come
		now.Remote = slices.CompactFunc(now.Remote, func(a, b RemoteAddress) bool { return a.Address == b.Address })
		now.VIPs = slices.CompactFunc(now.VIPs, func(a, b VIP) bool { return a.Address == b.Address })
	}
	return &now
}
