package netplugin

import (
	"fmt"
	"net/netip"
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

// benchPorts publishes n ports with 3 backends each; the first port has another third one if odd.
func benchPorts(n int, odd bool) Config {
	c := benchConfig(5)
	for i := range n {
		third := 2
		if i == 0 && odd {
			third = 3
		}
		p := PublishedPort{Protocol: "tcp", Port: uint16(10000 + i)}
		for _, task := range []int{0, 1, third} {
			p.Backends = append(p.Backends, netip.AddrPortFrom(c.Tasks[task].Address, 80))
		}
		c.Published = append(c.Published, p)
	}
	return c
}

func BenchmarkChangeOneBackend(b *testing.B) {
	for _, n := range []int{1, 1000, 10000} {
		b.Run(fmt.Sprintf("ports=%d", n), func(b *testing.B) {
			l := newLab(b)
			configs := []Config{benchPorts(n, false), benchPorts(n, true)}
			l.apply(configs[0])
			i := 0
			for b.Loop() {
				i++
				l.apply(configs[i%2])
			}
		})
	}
}

// The same with other nodes: a port's backends are one here, and two elsewhere, of which one changes, or the one here does.
func BenchmarkChangeOneMeshBackend(b *testing.B) {
	for _, where := range []string{"remote", "local"} {
		for _, n := range []int{1, 1000, 10000} {
			b.Run(fmt.Sprintf("%s/ports=%d", where, n), func(b *testing.B) {
				l := newLab(b)
				var configs []Config
				for _, odd := range []bool{false, true} {
					c := benchPorts(n, false)
					c.Underlay = hostAddr
					c.Peers = []Peer{{Node: 2, Underlay: nodeAddr(1), Gateway: netip.MustParsePrefix("100.64.16.0/20")}}
					for i := range c.Published {
						backends := c.Published[i].Backends
						for j := range 2 {
							backends[j] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{100, 64, 16, byte(2 + j)}), 80)
						}
						if i == 0 && odd && where == "remote" {
							backends[0] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{100, 64, 16, 9}), 80)
						}
						if i == 0 && odd && where == "local" {
							backends[2] = netip.AddrPortFrom(c.Tasks[4].Address, 81)
						}
					}
					configs = append(configs, c)
				}
				l.apply(configs[0])
				i := 0
				for b.Loop() {
					i++
					l.apply(configs[i%2])
				}
			})
		}
	}
}

func BenchmarkPublishAtOnce(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		b.Run(fmt.Sprintf("ports=%d", n), func(b *testing.B) {
			l := newLab(b)
			none, all := benchConfig(5), benchPorts(n, false)
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
	c.Published = benchPorts(1000, false).Published
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
