package netplugin

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// After any sequence of Configs, restarts and resyncs, the kernel has what it has after a first Apply of the last Config.
func TestAnySequenceEqualsTheLast(t *testing.T) {
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
			c = drawConfig(r)
			if err := onlyPeers(b.linux.Apply(t.Context(), c)); err != nil {
				r.Fatal(err)
			}
		}
		must(t, fresh.linux.Teardown(t.Context()))
		if err := onlyPeers(fresh.linux.Apply(t.Context(), c)); err != nil {
			r.Fatal(err)
		}
		if diff := cmp.Diff(fresh.dump(false), b.dump(false)); diff != "" {
			r.Fatalf("after the sequence (-fresh +got):\n%s", diff)
		}
		if diff := cmp.Diff(fresh.linux.have, b.linux.have, cmp.AllowUnexported(state{}, publication{}, base{}, underlay{}, portKey{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
			cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
			r.Fatalf("what is taken for so (-fresh +got):\n%s", diff)
		}
	})
}

// onlyPeers lets pass that peers contradict each other, and that backends are of none.
func onlyPeers(err error) error {
	if byTask, alone := TaskErrors(err); alone && len(byTask) == 0 {
		return nil
	}
	return err
}

// drawConfig has few tasks, addresses and ports, so that a sequence has the same ones again, in other places.
func drawConfig(r *rapid.T) Config {
	c := Config{Node: 1, Gateway: testBlock, Pool: testPool}
	if rapid.IntRange(0, 9).Draw(r, "other block") == 0 {
		c.Gateway = netip.MustParsePrefix("100.64.2.0/25")
	}
	first := c.Gateway.Addr().Next()
	remote := []netip.Addr{}
	if rapid.IntRange(0, 3).Draw(r, "underlay") > 0 {
		c.Underlay = hostAddr
		c.DataPort = uint16(rapid.IntRange(4788, 4789).Draw(r, "data port"))
		for _, i := range rapid.SliceOfNDistinct(rapid.IntRange(2, 4), 0, 3, rapid.ID[int]).Draw(r, "peers") {
			block := nodeBlock(10 + rapid.IntRange(0, 1).Draw(r, "block")*3 + i)
			c.Peers = append(c.Peers, Peer{Node: uint32(i), Underlay: nodeAddr(10 + (i+rapid.IntRange(0, 3).Draw(r, "shift")/3)%4), Gateway: block})
			remote = append(remote, block.Addr().Next().Next())
		}
	}
	free := rapid.Permutation([]int{1, 2, 3, 4, 5, 6}).Draw(r, "addresses")
	for i := range rapid.IntRange(0, 5).Draw(r, "tasks") {
		a := first.As4()
		a[3] += byte(free[i])
		task := TaskLink{ID: fmt.Sprintf("t%d", i), Address: netip.AddrFrom4(a)}
		if i == 3 { // a setting that goes would keep its value until the task does, so it is always there
			task.Sysctls = map[string]string{"net.ipv4.tcp_fin_timeout": "33"}
		}
		c.Tasks = append(c.Tasks, task)
	}
	for _, protocol := range []string{"tcp", "udp", "sctp"} {
		for port := range uint16(3) {
			p := PublishedPort{Protocol: protocol, Port: 8000 + port}
			for range rapid.IntRange(-3, 4).Draw(r, "backends") {
				a := first.As4()
				a[3] += byte(rapid.IntRange(1, 6).Draw(r, "backend"))
				to := netip.AddrFrom4(a)
				if len(remote) > 0 && rapid.Bool().Draw(r, "remote") {
					to = rapid.SampledFrom(remote).Draw(r, "of")
				}
				b := netip.AddrPortFrom(to, uint16(rapid.IntRange(80, 82).Draw(r, "target")))
				if rapid.IntRange(0, 3).Draw(r, "draining") == 0 {
					p.Draining = append(p.Draining, b)
				} else {
					p.Backends = append(p.Backends, b)
				}
			}
			if len(p.Backends) > 0 || rapid.Bool().Draw(r, "without backends") {
				c.Published = append(c.Published, p)
			}
		}
	}
	return c
}
