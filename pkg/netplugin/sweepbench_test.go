package netplugin

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

// BenchmarkRemoveOneTask is what an Apply takes in which one of many tasks goes, with its link to a network. The least says what it costs,
// whatever else the machine does.
func BenchmarkRemoveOneTask(b *testing.B) {
	l := newLab(b)
	with := func(n int) Config {
		c := benchConfig(n)
		net := &Overlay{ID: "net0", VNI: 4096, Subnets: []Subnet{{netip.MustParsePrefix("10.0.0.0/16"), netip.MustParseAddr("10.0.0.1")}}}
		c.Overlays = []*Overlay{net}
		for i := range c.Tasks {
			c.Tasks[i].Networks = []Attachment{{"net0", []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 1, byte(i)})}}}
		}
		return c
	}
	var took []time.Duration
	for b.Loop() {
		b.StopTimer()
		l.apply(with(31))
		b.StartTimer()
		began := time.Now()
		l.apply(with(30))
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[0].Microseconds())/1e3, "least-ms")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1e3, "median-ms")
}
