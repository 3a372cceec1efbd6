package netplugin

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

// benchConfig has n tasks in a block that is large enough.
func benchConfig(n int) Config {
	c := Config{Node: 1, Gateway: netip.MustParsePrefix("100.64.0.0/20"), Pool: netip.MustParsePrefix("100.64.0.0/10")}
	a := c.Gateway.Addr().Next().Next()
	for i := range n {
		c.Tasks = append(c.Tasks, TaskLink{ID: fmt.Sprintf("task%d", i), Address: a})
		a = a.Next()
	}
	return c
}

func BenchmarkAddOneTask(b *testing.B) {
	for _, n := range []int{0, 100, 1000} {
		b.Run(fmt.Sprintf("among=%d", n), func(b *testing.B) {
			l := newLab(b)
			l.apply(benchConfig(n))
			for b.Loop() {
				l.apply(benchConfig(n + 1))
				b.StopTimer()
				l.apply(benchConfig(n))
				b.StartTimer()
			}
		})
	}
}

func BenchmarkTasksAtOnce(b *testing.B) {
	for _, n := range []int{30, 100} {
		b.Run(fmt.Sprintf("add=%d", n), func(b *testing.B) {
			l := newLab(b)
			l.apply(benchConfig(0))
			for b.Loop() {
				l.apply(benchConfig(n))
				b.StopTimer()
				l.apply(benchConfig(0))
				b.StartTimer()
			}
		})
		b.Run(fmt.Sprintf("remove=%d", n), func(b *testing.B) {
			l := newLab(b)
			for b.Loop() {
				b.StopTimer()
				l.apply(benchConfig(n))
				b.StartTimer()
				l.apply(benchConfig(0))
			}
		})
	}
}

// benchPorts publishes n ports with 3 backends each.
func benchPorts(n int) Config {
	c := benchConfig(5)
	for i := range n {
		p := PublishedPort{Protocol: "tcp", Port: uint16(10000 + i)}
		for task := range 3 {
			p.Backends = append(p.Backends, netip.AddrPortFrom(c.Tasks[task].Address, 80))
		}
		c.Published = append(c.Published, p)
	}
	return c
}

// rebacked has another backend behind the port in the middle; all else is the same list.
func rebacked(c Config, backend int, to netip.AddrPort) Config {
	c.Published = slices.Clone(c.Published)
	p := &c.Published[len(c.Published)/2]
	p.Backends = slices.Clone(p.Backends)
	p.Backends[backend] = to
	slices.SortFunc(p.Backends, netip.AddrPort.Compare)
	return c
}

// between applies two configs in turn.
func (b *lab) between(t *testing.B, configs ...Config) {
	b.apply(configs[0])
	i, before := 0, cpuTime()
	for t.Loop() {
		i++
		b.apply(configs[i%2])
	}
	t.ReportMetric(float64(cpuTime()-before)/float64(i)/1e6, "cpu-ms/op")
}

func BenchmarkChangeOneBackend(b *testing.B) {
	for _, n := range []int{1, 1000, 10000} {
		b.Run(fmt.Sprintf("ports=%d", n), func(b *testing.B) {
			c := benchPorts(n)
			newLab(b).between(b, c, rebacked(c, 2, netip.AddrPortFrom(c.Tasks[3].Address, 80)))
		})
	}
}

// The same with other nodes: a port's backends are one here, and two elsewhere, of which one changes, or the one here does.
func BenchmarkChangeOneMeshBackend(b *testing.B) {
	away := func(n int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{100, 64, 16, byte(n)}), 80)
	}
	for _, n := range []int{1, 1000, 10000} {
		c := benchPorts(n)
		c.Underlay = hostAddr
		c.Peers = []Peer{{Node: 2, Underlay: nodeAddr(1), Gateway: netip.MustParsePrefix("100.64.16.0/20")}}
		for i := range c.Published {
			c.Published[i].Backends = []netip.AddrPort{c.Published[i].Backends[2], away(2), away(3)}
		}
		b.Run(fmt.Sprintf("remote/ports=%d", n), func(b *testing.B) { newLab(b).between(b, c, rebacked(c, 1, away(9))) })
		b.Run(fmt.Sprintf("local/ports=%d", n), func(b *testing.B) {
			newLab(b).between(b, c, rebacked(c, 0, netip.AddrPortFrom(c.Tasks[4].Address, 81)))
		})
	}
}

func BenchmarkPublishAtOnce(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		b.Run(fmt.Sprintf("ports=%d", n), func(b *testing.B) {
			l := newLab(b)
			none, all := benchConfig(5), benchPorts(n)
			l.apply(none)
			for b.Loop() {
				l.apply(all)
				b.StopTimer()
				l.apply(none)
				b.StartTimer()
			}
		})
	}
}

func BenchmarkSameAgain(b *testing.B) {
	l := newLab(b)
	c := benchConfig(1000)
	c.Published = benchPorts(1000).Published
	l.apply(c)
	b.Run("cached", func(b *testing.B) {
		for b.Loop() {
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
