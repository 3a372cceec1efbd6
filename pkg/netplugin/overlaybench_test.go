package netplugin

import (
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// benchOverlay has 10,000 remote tasks on 100 nodes, behind 1,000 VIPs, or all of them behind one.
func benchOverlay(oneVIP bool) (Config, *Overlay) {
	c := Config{Node: 500, Gateway: testBlock, Pool: testPool, Underlay: hostAddr}
	p := netip.MustParsePrefix("10.0.0.0/16")
	o := &Overlay{ID: "large", VNI: 4097, Subnets: []Subnet{{p, p.Addr().Next()}}}
	for i := range 100 {
		c.Peers = append(c.Peers, Peer{Node: uint32(i + 1), Underlay: netip.AddrFrom4([4]byte{10, 77, 1, byte(i + 1)})})
	}
	const endpoints, vips = 10000, 1000
	at := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}) }
	for i := range vips {
		o.VIPs = append(o.VIPs, VIP{Address: at(60000 + i)})
	}
	for i := range endpoints {
		o.Remote = append(o.Remote, RemoteAddress{at(2 + i), uint32(i%100 + 1)})
		v := &o.VIPs[i%vips]
		if oneVIP {
			v = &o.VIPs[0]
		}
		v.Backends = append(v.Backends, at(2+i))
	}
	c.Tasks = []TaskLink{{ID: "t0", Address: testAddr(0), Networks: []Attachment{{o.ID, []netip.Addr{at(50000)}}}}}
	return c, o
}

// without is the overlay but for one endpoint: what goes when a task ends.
func without(o *Overlay, i int) *Overlay {
	now := *o
	a := now.Remote[i].Address
	now.Remote = slices.Delete(slices.Clone(now.Remote), i, i+1)
	now.VIPs = slices.Clone(now.VIPs)
	for v, one := range now.VIPs {
		if at := slices.Index(one.Backends, a); at >= 0 {
			now.VIPs[v].Backends = slices.Delete(slices.Clone(one.Backends), at, at+1)
		}
	}
	return &now
}

func cpuTime() int64 {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return u.Utime.Nano() + u.Stime.Nano()
}

// One change is that a task goes, or that it comes: its route, its place behind its service's VIP, and its connections.
func BenchmarkOneEndpointOf10000(b *testing.B) {
	for _, bb := range []struct {
		name   string
		oneVIP bool
	}{{"1000VIPs", false}, {"1VIP", true}} {
		b.Run(bb.name, func(b *testing.B) {
			l := newLab(b)
			c, o := benchOverlay(bb.oneVIP)
			c.Overlays = []*Overlay{o}
			l.apply(c)
			states := [2]Config{c, c}
			states[1].Overlays = []*Overlay{without(o, 5000)}
			states[0].Overlays = []*Overlay{o}
			i, before := 0, cpuTime()
			for b.Loop() {
				i++
				l.apply(states[i%2])
			}
			b.ReportMetric(float64(cpuTime()-before)/float64(i)/1e6, "cpu-ms/op")
		})
	}
}

func BenchmarkSameOverlayAgain(b *testing.B) {
	l := newLab(b)
	c, o := benchOverlay(false)
	c.Overlays = []*Overlay{o}
	l.apply(c)
	b.Run("same", func(b *testing.B) {
		for b.Loop() {
			l.apply(c)
		}
	})
	b.Run("equal", func(b *testing.B) {
		for b.Loop() {
			now := *o
			c.Overlays = []*Overlay{&now}
			l.apply(c)
		}
	})
	b.Run("resync", func(b *testing.B) {
		for b.Loop() {
			l.linux.Resync()
			l.apply(c)
		}
	})
}

func BenchmarkFirst10000Endpoints(b *testing.B) {
	l := newLab(b)
	c, o := benchOverlay(false)
	none := c
	none.Tasks = nil
	c.Overlays = []*Overlay{o}
	for b.Loop() {
		l.apply(c)
		b.StopTimer()
		l.apply(none)
		b.StartTimer()
	}
}
