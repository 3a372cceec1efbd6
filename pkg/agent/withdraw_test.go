package agent

import (
	"slices"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// TestWhenTheStopSignalComes: once nobody sends to the task any more and it has had time for what it has, or after a bound where nobody says so.
func TestWhenTheStopSignalComes(t *testing.T) {
	start := time.Now()
	at := func(d time.Duration) time.Time { return start.Add(d) }
	on := []v1.NetworkAddress{{Network: "n1"}}
	vip := []string{"10.0.1.2"}
	mesh, host := []v1.PortConfig{{Target: 80, Published: 80}}, []v1.PortConfig{{Target: 80, Published: 80, Mode: v1.PublishHost}}
	minute, none := v1.Duration(time.Minute), v1.Duration(0)
	const others, own = 40 * time.Millisecond, 25 * time.Millisecond // after the task was to stop
	for _, c := range []struct {
		name     string
		networks []v1.NetworkAddress
		ports    []v1.PortConfig
		vips     []string
		alone    bool
		drain    *v1.Duration
		change   func(*task)
		want     time.Duration // after the task was to stop; 0 for at once
	}{
		{name: "nobody reaches it", want: own},
		{name: "nobody reaches it, and it takes its time", drain: &minute, want: own + time.Minute},
		{name: "through a virtual address", networks: on, vips: vip, want: others + drainDelay},
		{name: "through a virtual address, with a delay", networks: on, vips: vip, drain: &minute, want: others + time.Minute},
		{name: "through a virtual address, without one", networks: on, vips: vip, drain: &none, want: others},
		{name: "others were faster", networks: on, vips: vip, change: func(t *task) { t.released = at(time.Millisecond) }, want: own + drainDelay},
		{name: "no other node", networks: on, vips: vip, alone: true, want: own + drainDelay},
		{name: "by its name", networks: on, want: others + namesDelay + drainDelay},
		{name: "by its name, on this node", networks: on, alone: true, want: own + namesDelay + drainDelay},
		{name: "through the mesh", ports: mesh, want: others + drainDelay},
		{name: "through a port of this node", ports: host, want: own + drainDelay},
		{name: "nobody confirms", networks: on, vips: vip, change: func(t *task) { t.released = time.Time{} }, want: v1.WithdrawWithin + drainDelay},
		{name: "nobody confirms of one that is not assigned any more", networks: on, vips: vip,
			change: func(t *task) { t.released, t.gone = time.Time{}, true }, want: othersDelay + drainDelay},
		{name: "it is unhealthy, and not to stop", networks: on, vips: vip, change: func(t *task) {
			t.released, t.stopAt, t.health = time.Time{}, time.Time{}, &health{lost: start}
		}, want: othersDelay + drainDelay},
		{name: "it never ran", networks: on, vips: vip, change: func(t *task) { t.reached = false }},
	} {
		a := New(Options{NodeID: "self"})
		m := v1.Peers{Services: []v1.PeerService{{ID: "s", Name: "web", Networks: []v1.PeerServiceNetwork{{Network: "n1", VIPs: c.vips}}}}}
		if !c.alone {
			m.Nodes = []v1.PeerNode{{ID: "other", Index: 2}}
		}
		a.peers.take(&m, true, nil)
		spec := &v1.ServiceRevisionSpec{Endpoint: &v1.EndpointSpec{Ports: c.ports}}
		spec.Task.Container.StopDrainDelay = c.drain
		task := &task{phase: phaseWithdrawn, reached: true, stopAt: start, withdrawn: at(own), released: at(others),
			assigned: &v1.Task{Desired: &v1.TaskDesired{Service: "s", Networks: c.networks}}, revision: &v1.ServiceRevision{Spec: spec}}
		if c.change != nil {
			c.change(task)
		}
		want := at(c.want)
		if c.want == 0 {
			want = time.Time{}
		}
		if got := a.lingers(task); !got.Equal(want) {
			t.Errorf("%s: waits for %s, want %s", c.name, got.Sub(start), c.want)
		}
	}
}

// TestStopWaitsForOthers: the stop signal comes after the manager's word, at once then, also to an agent that was killed while it waited; and
// a word about another task changes nothing.
func TestStopWaitsForOthers(t *testing.T) {
	for _, restart := range []bool{false, true} {
		var signalled time.Time
		watch := func(op engine.FakeOp, _ string) error {
			if op == engine.FakeSignal {
				signalled = time.Now()
			}
			return nil
		}
		bubble(t, engine.FakeOptions{Fail: watch}, func(t *testing.T, l *lab) {
			backend(l)
			l.start(nil)
			settle(5 * time.Second)
			l.want("t1", v1.TaskRunning)
			l.swarm.desire("t1", v1.TaskShutdown)
			settle(500 * time.Millisecond)
			l.swarm.send(v1.Assignment{Revision: 50, Released: []string{"task2"}})
			if restart {
				l.stop()
				l.start(nil)
			}
			settle(time.Second)
			if !signalled.IsZero() {
				t.Fatal("the stop signal came before the others' word")
			}
			said := time.Now()
			l.swarm.send(v1.Assignment{Released: []string{"t1"}})
			settle(5 * time.Second)
			l.want("t1", v1.TaskShutdown)
			if waited := signalled.Sub(said); waited < drainDelay || waited > 2*drainDelay {
				t.Errorf("restarted %t: got its stop signal %s after the word", restart, waited)
			}
		})
	}
}

// TestFollowedIsTold: a message is confirmed once network and names follow it, and not while they fail to.
func TestFollowedIsTold(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		backend(l)
		l.swarm.peers.Number = 7
		l.start(nil)
		settle(5 * time.Second)
		told := func(when string, want ...uint64) {
			t.Helper()
			l.swarm.mu.Lock()
			defer l.swarm.mu.Unlock()
			if !slices.Equal(l.swarm.followed, want) {
				t.Errorf("%s: confirmed %v, want %v", when, l.swarm.followed, want)
			}
		}
		told("the first message", 7)
		fail := func(err error) {
			l.net.mu.Lock()
			defer l.net.mu.Unlock()
			l.net.fail = err
		}
		fail(errAway)
		l.swarm.send(v1.Assignment{Revision: 50, Peers: &v1.Peers{Gone: []string{"task2"}, Number: 9}})
		settle(time.Second)
		told("the network fails", 7)
		fail(nil)
		settle(time.Minute)
		told("it does no more", 7, 9)
		l.net.mu.Lock()
		l.net.delay = 50 * time.Millisecond
		l.net.mu.Unlock()
		for n := range uint64(5) {
			l.swarm.send(v1.Assignment{Revision: 51, Peers: &v1.Peers{Gone: []string{"task3"}, Services: []v1.PeerService{{ID: "s9", Name: "nine"}}, Number: 100 + n}})
			settle(10 * time.Millisecond)
		}
		settle(time.Minute)
		l.swarm.mu.Lock()
		defer l.swarm.mu.Unlock()
		if n := len(l.swarm.followed); n > 5 || l.swarm.followed[n-1] != 104 {
			t.Errorf("five messages in a row were confirmed by %v", l.swarm.followed[2:])
		}
	})
}
