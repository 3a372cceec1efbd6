package netplugin

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// withVIP makes two machines with three tasks of which all are the VIP's backends: t0 and t1 on the first, t2 on the second.
func withVIP(t *testing.T, dual bool) (f *fleet, net int) {
	t.Helper()
	f = newFleet(t, 2)
	net = f.network(1, dual)
	for _, m := range []int{0, 0, 1} {
		f.task(m, net)
	}
	f.vip(net, 5, f.tasks...)
	f.apply()
	f.serve()
	return f, net
}

func TestVIPIsSharedEvenly(t *testing.T) {
	f, net := withVIP(t, true)
	const each = 100
	for _, from := range []testTask{f.tasks[0], f.tasks[2]} {
		for _, six := range []bool{false, true} {
			for _, network := range []string{"tcp", "udp"} {
				count := map[string]int{}
				for range 3 * each {
					server, seen, err := ask(f.space(from), network, at(f.numbered(net, 5, six), 80))
					must(t, err)
					count[server]++
					// A task that is its own backend sees the gateway; the others see the task.
					want := f.address(from, net, six)
					if server == from.id {
						want = f.numbered(net, 1, six)
					}
					if seen.Addr() != want {
						t.Fatalf("%s from %s: %s saw %s, want %s", network, from.id, server, seen, want)
					}
				}
				// Five deviations of 8.2, see TestPublishedPortIsSharedEvenly.
				for _, one := range f.tasks {
					if n := count[one.id]; n < each-41 || n > each+41 {
						t.Errorf("%s from %s: %d of %d went to %s: %v", network, from.id, n, 3*each, one.id, count)
					}
				}
			}
		}
	}
}

func TestHairpinToTheOnlyBackend(t *testing.T) {
	f, net := withVIP(t, true)
	f.vip(net, 5, f.tasks[0])
	f.apply()
	for _, six := range []bool{false, true} {
		for _, network := range []string{"tcp", "udp"} {
			if server, seen, err := ask(f.space(f.tasks[0]), network, at(f.numbered(net, 5, six), 80)); err != nil || server != "t0" || seen.Addr() != f.numbered(net, 1, six) {
				t.Errorf("%s: %q saw %s, %v", network, server, seen, err)
			}
		}
	}
}

func TestVIPWithoutBackendsRefuses(t *testing.T) {
	f, net := withVIP(t, true)
	f.vip(net, 6)
	f.apply()
	for _, six := range []bool{false, true} {
		if _, err := dial(f.space(f.tasks[0]), "tcp", at(f.numbered(net, 6, six), 80)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("tcp: %v, want it refused", err)
		}
		if _, _, err := ask(f.space(f.tasks[0]), "udp", at(f.numbered(net, 6, six), 80)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("udp: %v, want it refused", err)
		}
	}
}

// What only left the VIP keeps its connections; what is gone has them cut at once.
func TestConnectionsOfBackendsThatLeave(t *testing.T) {
	f, network := withVIP(t, true)
	for _, six := range []bool{false, true} {
		f.vip(network, 5, f.tasks...)
		f.apply()
		vip := at(f.numbered(network, 5, six), 80)
		held := map[string][]net.Conn{}
		for len(held["t0"]) == 0 || len(held["t1"]) == 0 || len(held["t2"]) == 0 {
			c, server := hold(t, f.space(f.tasks[0]), vip)
			held[server] = append(held[server], c)
		}
		f.vip(network, 5, f.tasks[0])
		f.apply()
		for _, all := range held {
			for _, c := range all {
				echo(t, c)
			}
		}
		for range 20 {
			if server, _, err := ask(f.space(f.tasks[0]), "tcp", vip); err != nil || server != "t0" {
				t.Fatalf("a new connection went to %q, %v", server, err)
			}
		}
		// The remote one goes, with its machine for all that t0 knows; so does the local one.
		c := f.config(0)
		c.Tasks = c.Tasks[:1]
		o := *c.Overlays[0]
		o.Remote = nil
		c.Overlays = []*Overlay{&o}
		f.labs[0].apply(c)
		for server, all := range held {
			for _, c := range all {
				if server == "t0" {
					echo(t, c)
				} else if err := wantReset(c); err != nil {
					t.Errorf("the connection to %s, which is gone: %v", server, err)
				}
			}
		}
		f.apply()
		for _, one := range f.tasks { // t1 has lost its server
			if one.id == "t1" {
				serveAll(t, f.space(one), one.id, 80)
			}
		}
	}
}

// wantReset is nil if the other side is found to be gone at once.
func wantReset(c net.Conn) error {
	if err := c.SetDeadline(deadline()); err != nil {
		return err
	}
	if _, err := c.Write([]byte("x")); err != nil {
		return nil
	}
	_, err := c.Read(make([]byte, 1))
	switch {
	case errors.Is(err, syscall.ECONNRESET):
		return nil
	case err == nil:
		return errors.New("it still works")
	}
	return fmt.Errorf("got %w, want it reset", err)
}

func TestResizesBreakNoConnection(t *testing.T) {
	f, net := withVIP(t, false)
	vip := at(f.numbered(net, 5, false), 80)
	const connections, workers = 3000, 8
	var left atomic.Int64
	left.Store(connections)
	var wg sync.WaitGroup
	space := f.space(f.tasks[0])
	fromOther := f.space(f.tasks[2])
	for w := range workers {
		wg.Go(func() {
			n := space
			if w%2 == 1 {
				n = fromOther
			}
			for left.Add(-1) >= 0 {
				if _, _, err := ask(n, "tcp", vip); err != nil {
					t.Errorf("a connection during resizes: %v", err)
					return
				}
			}
		})
	}
	resizes := 0
	for ; left.Load() > 0 && !t.Failed(); resizes++ {
		var some []testTask
		for _, i := range rand.Perm(3)[:1+rand.IntN(3)] {
			some = append(some, f.tasks[i])
		}
		f.vip(net, 5, some...)
		f.apply()
	}
	wg.Wait()
	if resizes < 50 {
		t.Errorf("only %d resizes happened", resizes)
	}
	t.Logf("%d resizes during %d connections", resizes, connections)
}

func TestSameSubnetTwiceStaysApart(t *testing.T) {
	f := newFleet(t, 2)
	a, b := f.network(1, true), f.network(1, true)
	for _, net := range []int{a, b} {
		f.task(0, net)
		f.task(1, net)
	}
	// The tasks of both networks have the same addresses.
	f.nets[b].VNI = 5000
	for i, one := range f.tasks {
		if one.nets[0] == b {
			f.tasks[i].alias = f.tasks[i-2].id
		}
	}
	f.vip(a, 5, f.tasks[0], f.tasks[1])
	f.vip(b, 5, f.tasks[2], f.tasks[3])
	f.apply()
	f.serve()
	for i, from := range f.tasks {
		other := f.tasks[i^1]
		net := from.nets[0]
		for _, to := range f.addresses(other, net) {
			if server, _, err := ask(f.space(from), "tcp", at(to, 80)); err != nil || server != other.id {
				t.Errorf("%s to %s: answered by %q, %v; want %s", from.id, to, server, err, other.id)
			}
			vip := at(f.numbered(net, 5, to.Is6()), 80)
			for range 10 {
				if server, _, err := ask(f.space(from), "udp", vip); err != nil || server != other.id && server != from.id {
					t.Errorf("%s to %s: answered by %q, %v", from.id, vip, server, err)
				}
			}
		}
	}
}
