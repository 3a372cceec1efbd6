package netplugin

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// BenchmarkWatchIdle is what it costs to listen while nothing happens: a machine with ten networks. One op is a second.
func BenchmarkWatchIdle(b *testing.B) {
	l := newLab(b)
	c := testConfig(1)
	c.Underlay = hostAddr
	for i := range 10 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i), 0}), 24)
		c.Overlays = append(c.Overlays, &Overlay{ID: fmt.Sprint("n", i), VNI: uint32(5000 + i), Subnets: []Subnet{{p, p.Addr().Next()}}})
	}
	l.apply(c)
	before, n := cpuTime(), 0
	for b.Loop() {
		time.Sleep(time.Second)
		n++
	}
	b.ReportMetric(float64(cpuTime()-before)/float64(n)/1e3, "cpu-µs/s")
}

// BenchmarkWatchStorm is what 10,000 messages cost who listens: of routes that are nobody's of ours in the machine's own namespace, and of
// neighbours in a router's, which are ours. What it costs to make the changes is measured without anybody who listens, and taken off.
func BenchmarkWatchStorm(b *testing.B) {
	const messages = 10_000
	for _, where := range []string{"others", "ours"} {
		b.Run(where, func(b *testing.B) {
			l := newLab(b)
			l.apply(testConfig(1))
			space, name := l.host, "out0"
			if where == "ours" {
				space, name = l.linux.router, linkName(testAddr(0))
			}
			link, err := space.LinkByName(name)
			must(b, err)
			index := link.Attrs().Index
			storm := func() int64 {
				before := cpuTime()
				for i := range messages / 2 {
					a := netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)})
					if where == "ours" {
						must(b, space.setNeighbour(index, a, hostMAC))
						must(b, space.removeNeighbour(index, a))
						continue
					}
					r := route{dst: netip.PrefixFrom(a, 32), link: index, via: clientAddr}
					must(b, space.addRoute(r))
					must(b, space.removeRoute(r))
				}
				time.Sleep(3 * watchPause) // for what is left to be read
				return cpuTime() - before
			}
			listening, alone, n := int64(0), int64(0), 0
			for b.Loop() {
				listening += storm()
				l.linux.stopWatching()
				alone += storm()
				l.linux.settleWatch()
				n++
			}
			b.ReportMetric(float64(listening-alone)/float64(n)/1e6, "cpu-ms/storm")
			b.ReportMetric(float64(alone)/float64(n)/1e6, "making-cpu-ms/storm")
		})
	}
}
