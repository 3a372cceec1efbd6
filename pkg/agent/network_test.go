package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/netplugin"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

func published(ports ...v1.PortConfig) func(*v1.ServiceRevisionSpec) {
	return func(s *v1.ServiceRevisionSpec) { s.Endpoint = &v1.EndpointSpec{Ports: ports} }
}

func TestPortsLeadToRunningTasksOnly(t *testing.T) {
	var l *lab
	backends := func() []netip.AddrPort {
		if c := l.net.config(); len(c.Published) > 0 {
			return c.Published[0].Backends
		}
		return nil
	}
	var atSignal []netip.AddrPort
	watch := func(op engine.FakeOp, _ string) error {
		if op == engine.FakeSignal {
			atSignal = backends()
		}
		return nil
	}
	slow := func(op engine.FakeOp, id string) time.Duration {
		if op == engine.FakeStart && id == "t2" {
			return 5 * time.Second
		}
		return 0
	}
	bubble(t, engine.FakeOptions{Fail: watch, Delay: slow}, func(t *testing.T, lab *lab) {
		l = lab
		l.net.delay = 300 * time.Millisecond
		l.swarm.reject = func(r v1.StatusReport) error {
			for _, told := range r.Tasks {
				addr, _ := netip.ParseAddr(told.Status.Address)
				leads := slices.ContainsFunc(backends(), func(b netip.AddrPort) bool { return b.Addr() == addr })
				if told.Status.State == v1.TaskRunning && !leads {
					t.Errorf("%s is told to be running, no port leads to it yet", told.ID)
				}
			}
			return nil
		}
		web := l.swarm.service("web", published(v1.PortConfig{Published: 8080, Target: 80, Mode: v1.PublishIngress},
			v1.PortConfig{Published: 53, Target: 5353, Protocol: v1.UDP, Mode: v1.PublishHost}))
		l.swarm.assign("t1", web, v1.TaskRunning)
		l.swarm.assign("t2", web, v1.TaskRunning)
		l.start(nil)
		settle(2 * time.Second)
		at := func(text string) []netip.AddrPort { return []netip.AddrPort{netip.MustParseAddrPort(text)} }
		want := []netplugin.PublishedPort{{Protocol: "udp", Port: 53, Backends: at("100.64.7.2:5353"), Draining: at("100.64.7.3:5353")},
			{Protocol: "tcp", Port: 8080, Backends: at("100.64.7.2:80"), Draining: at("100.64.7.3:80")}}
		if diff := cmp.Diff(want, l.net.config().Published, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Errorf("while t2 starts (-want +got):\n%s", diff)
		}
		if status := l.want("t1", v1.TaskRunning); len(status.Ports) != 1 || status.Ports[0].Published != 53 {
			t.Errorf("host ports are %+v", status.Ports)
		}
		settle(10 * time.Second)
		if got := backends(); len(got) != 2 {
			t.Errorf("backends are %v", got)
		}
		l.swarm.desire("t1", v1.TaskShutdown)
		settle(10 * time.Second)
		if len(atSignal) != 1 || atSignal[0].Addr() != netip.MustParseAddr("100.64.7.3") {
			t.Errorf("when t1 got its stop signal, its port led to %v", atSignal)
		}
		l.fake.Kill("t2", 1)
		settle(10 * time.Second)
		l.wantClean()
	})
}

func TestPortConflict(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		first := l.swarm.service("first", published(v1.PortConfig{Published: 8080, Target: 80}))
		second := l.swarm.service("second", published(v1.PortConfig{Published: 8080, Target: 90}))
		udp := l.swarm.service("udp", published(v1.PortConfig{Published: 8080, Target: 90, Protocol: v1.UDP}))
		l.start(nil)
		l.swarm.assign("a", first, v1.TaskRunning)
		settle(time.Second)
		l.swarm.assign("b", second, v1.TaskRunning)
		l.swarm.assign("c", udp, v1.TaskRunning)
		l.swarm.assign("d", first, v1.TaskRunning)
		settle(time.Second)
		if status := l.want("b", v1.TaskRejected); status.Err != `port 8080/tcp is already published on this node by service "first"` {
			t.Errorf("status is %+v", status)
		}
		l.want("c", v1.TaskRunning)
		l.want("d", v1.TaskRunning)
		l.swarm.desire("a", v1.TaskShutdown)
		l.swarm.desire("d", v1.TaskShutdown)
		l.swarm.assign("e", second, v1.TaskRunning)
		settle(time.Second)
		l.want("e", v1.TaskRunning)
	})
}

func TestNetworkFailsThenWorks(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		web := l.swarm.service("web", published(v1.PortConfig{Published: 8080, Target: 80}))
		l.swarm.assign("t1", web, v1.TaskRunning)
		l.start(nil)
		settle(time.Second)
		l.want("t1", v1.TaskRunning)
		l.net.mu.Lock()
		l.net.fail = errors.New("no such module nf_tables")
		l.net.mu.Unlock()
		l.swarm.assign("t2", web, v1.TaskRunning)
		l.swarm.desire("t1", v1.TaskShutdown) // which does not need the network
		settle(time.Minute)
		l.want("t1", v1.TaskShutdown)
		if status := l.want("t2", v1.TaskPreparing); status.Err != "setting up the network: no such module nf_tables; trying again" {
			t.Errorf("status is %+v", status)
		}
		if l.net.applies > 20 {
			t.Errorf("tried %d times in a minute", l.net.applies)
		}
		l.net.mu.Lock()
		l.net.fail = nil
		l.net.mu.Unlock()
		settle(time.Minute)
		if status := l.want("t2", v1.TaskRunning); status.Err != "" {
			t.Errorf("status is %+v", status)
		}
		if c := l.net.config(); len(c.Tasks) != 1 {
			t.Errorf("links are %+v", c.Tasks)
		}
	})
}

func TestAddressesRunOut(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		web := l.swarm.service("web", nil)
		id := func(i int) string { return fmt.Sprintf("t%03d", i) }
		for i := range 253 {
			l.swarm.assign(id(i), web, v1.TaskRunning)
		}
		l.start(nil)
		settle(time.Second)
		l.want(id(252), v1.TaskRunning)
		l.swarm.assign("more", web, v1.TaskRunning)
		settle(time.Second)
		if status := l.want("more", v1.TaskRejected); status.Err != "no free gateway address: all 253 of this node's block 100.64.7.0/24 are in use" {
			t.Errorf("status is %+v", status)
		}
		l.net.delay = time.Second
		l.swarm.desire(id(7), v1.TaskShutdown)
		l.swarm.assign("again", web, v1.TaskRunning) // waits for the one that stops
		settle(10 * time.Second)
		if status := l.want("again", v1.TaskRunning); status.Address != "100.64.7.9" {
			t.Errorf("status is %+v", status)
		}
	})
}

func TestBlockOfNode(t *testing.T) {
	for _, c := range []struct {
		pool  string
		index uint32
		want  string
	}{
		{"", 1, "100.64.1.0/24"}, {"", 16383, "100.127.255.0/24"}, {"", 16384, "invalid Prefix"}, {"", 0, "invalid Prefix"},
		{"10.9.0.0/16", 255, "10.9.255.0/24"}, {"10.9.7.7/16", 3, "10.9.3.0/24"}, {"10.9.0.0/16", 256, "invalid Prefix"},
		{"10.9.0.0/25", 1, "invalid Prefix"}, {"fd00::/8", 1, "invalid Prefix"}, {"nonsense", 1, "invalid Prefix"},
	} {
		a := New(Options{})
		a.node, a.pool = &v1.Node{Spec: &v1.NodeSpec{Index: c.index}}, c.pool
		a.setBlock()
		if got := a.links.block.String(); got != c.want {
			t.Errorf("pool %q, index %d: block is %s, want %s", c.pool, c.index, got, c.want)
		}
	}
}

func TestManyTasksShareApplies(t *testing.T) {
	count := func(op engine.FakeOp, _ string) time.Duration {
		if op == engine.FakeStart {
			return 10 * time.Millisecond
		}
		return 0
	}
	bubble(t, engine.FakeOptions{Delay: count}, func(t *testing.T, l *lab) {
		l.net.delay = 20 * time.Millisecond
		web := l.swarm.service("web", published(v1.PortConfig{Published: 8080, Target: 80}))
		for i := range 200 {
			l.swarm.assign(fmt.Sprint("t", i), web, v1.TaskRunning)
		}
		l.start(nil)
		settle(time.Second) // 200 starts of 10 ms, four at a time, take half of it
		for i := range 200 {
			l.want(fmt.Sprint("t", i), v1.TaskRunning)
		}
		if l.net.applies > 40 {
			t.Errorf("%d applies", l.net.applies)
		}
		if l.swarm.reports > 50 { // one each 10 ms at most: everybody's names and ports follow them
			t.Errorf("%d reports", l.swarm.reports)
		}
		if calls := l.fake.Calls(engine.FakePull); calls != 1 {
			t.Errorf("%d pulls", calls)
		}
	})
}

// One task's link and one port that cannot be made hold up nobody else.
func TestOneLinkAndOnePortFail(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		bad := errors.New("no such setting")
		l.net.fail = fmt.Errorf("netplugin: %w", errors.Join(&netplugin.TaskError{Task: "bad", Err: bad}, &netplugin.PortError{Protocol: "tcp", Port: 81, Err: bad}))
		l.swarm.assign("bad", l.swarm.service("bad", nil), v1.TaskRunning)
		l.swarm.assign("good", l.swarm.service("good", published(v1.PortConfig{Published: 80, Target: 80})), v1.TaskRunning)
		l.swarm.assign("deaf", l.swarm.service("deaf", published(v1.PortConfig{Published: 81, Target: 80})), v1.TaskRunning)
		l.start(nil)
		settle(300 * time.Millisecond)
		l.want("good", v1.TaskRunning)
		settle(10 * time.Second)
		if status := l.want("bad", v1.TaskRejected); status.Err != "setting up the network: no such setting" {
			t.Errorf("status is %+v", status)
		}
		if status := l.want("deaf", v1.TaskStarting); status.Err != "setting up the network: published port tcp/81: no such setting; trying again" {
			t.Errorf("status is %+v", status)
		}
		l.swarm.desire("good", v1.TaskShutdown)
		l.swarm.assign("next", l.swarm.service("next", nil), v1.TaskRunning)
		settle(time.Second)
		l.want("good", v1.TaskShutdown)
		l.want("next", v1.TaskRunning)
		if l.net.applies > 25 {
			t.Errorf("%d applies in 10 s", l.net.applies)
		}
		l.net.mu.Lock()
		l.net.fail = nil
		l.net.mu.Unlock()
		settle(time.Minute)
		if status := l.want("deaf", v1.TaskRunning); status.Err != "" {
			t.Errorf("status is %+v", status)
		}
	})
}

// TestNetworkIsRepaired: others flush tables and delete links; what nobody changed on purpose comes back by itself.
func TestNetworkIsRepaired(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		l.start(nil)
		settle(time.Minute)
		if l.net.resyncs != 0 {
			t.Errorf("read back %d times, though there is nothing to repair", l.net.resyncs)
		}
		l.swarm.assign("t1", l.swarm.service("web", nil), v1.TaskRunning)
		settle(3 * time.Minute)
		if n := l.net.resyncs; n < 4 || n > 7 {
			t.Errorf("read back %d times in three minutes, want about 6", n)
		}
	})
}

// TestDisturbedNetworkIsRepaired: what is noticed is repaired at once; where somebody never stops, so rarely that the machine has time for
// something else.
func TestDisturbedNetworkIsRepaired(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		l.swarm.assign("t1", l.swarm.service("web", nil), v1.TaskRunning)
		l.start(nil)
		settle(time.Second)
		for range 5 {
			before := l.net.resyncs
			l.net.disturbed <- struct{}{}
			settle(10 * time.Millisecond)
			if n := l.net.resyncs - before; n != 1 {
				t.Errorf("read back %d times at once, want once", n)
			}
			settle(time.Second)
		}
		l.net.delay = 500 * time.Millisecond
		before := l.net.resyncs
		for range 3 * 600 {
			select {
			case l.net.disturbed <- struct{}{}:
			default:
			}
			settle(100 * time.Millisecond)
		}
		if n := l.net.resyncs - before; n < 40 || n > 80 {
			t.Errorf("read back %d times in three minutes in which somebody never stops, want twenty a minute at half a second each", n)
		}
	})
}

// What cannot be repaired, such as one port that somebody else has, keeps nothing else from it.
func TestNetworkIsRepairedBesideAFailure(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		l.net.fail = &netplugin.PortError{Protocol: "tcp", Port: 81, Err: errors.New("somebody else has it")}
		l.swarm.assign("t1", l.swarm.service("web", nil), v1.TaskRunning)
		l.start(nil)
		settle(3 * time.Minute)
		if n := l.net.resyncs; n < 4 || n > 7 {
			t.Errorf("read back %d times in three minutes, want about 6", n)
		}
	})
}

// A slow Apply makes repair rarer, to a bound.
func TestSlowNetworkIsRepairedToo(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		l.net.delay = 5 * time.Second
		l.swarm.assign("t1", l.swarm.service("web", nil), v1.TaskRunning)
		l.start(nil)
		settle(8 * time.Minute)
		if n := l.net.resyncs; n < 5 || n > 9 {
			t.Errorf("read back %d times in eight minutes, want one each 65 s", n)
		}
	})
}
