package agent

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// TestFreeHostPorts: a port that the service leaves to the node is one that nobody has, another for each task, tells itself in the task's
// status, leads to the task, and stays over a restart of the agent.
func TestFreeHostPorts(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		l.taken = map[uint16]bool{firstFreePort: true, firstFreePort + 2: true}
		web := l.swarm.service("web", published(v1.PortConfig{Target: 80, Mode: v1.PublishHost}, v1.PortConfig{Target: 81, Published: firstFreePort + 1, Mode: v1.PublishHost}))
		l.swarm.assign("t1", web, v1.TaskRunning)
		l.start(nil)
		settle(time.Second)
		other := l.swarm.service("other", published(v1.PortConfig{Target: 80, Mode: v1.PublishHost}))
		l.swarm.assign("t2", other, v1.TaskRunning)
		settle(time.Second)
		check := func(when string) {
			t.Helper()
			for id, want := range map[string]uint16{"t1": firstFreePort + 3, "t2": firstFreePort + 4} {
				status := l.want(id, v1.TaskRunning)
				if len(status.Ports) == 0 || status.Ports[0].Published != want {
					t.Errorf("%s: the ports of %s are %+v, want %d", when, id, status.Ports, want)
				}
				led := false
				for _, p := range l.net.config().Published {
					led = led || p.Port == want && len(p.Backends) == 1 && p.Backends[0] == netip.AddrPortFrom(netip.MustParseAddr(status.Address), 80)
				}
				if !led {
					t.Errorf("%s: port %d does not lead to %s: %+v", when, want, id, l.net.config().Published)
				}
			}
		}
		check("at first")
		l.stop()
		l.start(nil)
		settle(time.Second)
		check("after a restart")
	})
}

// TestNoFreeHostPort: where no port is free, the task says so.
func TestNoFreeHostPort(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		l.taken = map[uint16]bool{}
		for p := firstFreePort; p <= lastFreePort; p++ {
			l.taken[uint16(p)] = true
		}
		l.swarm.assign("t1", l.swarm.service("web", published(v1.PortConfig{Target: 80, Mode: v1.PublishHost})), v1.TaskRunning)
		l.start(nil)
		settle(time.Second)
		if status := l.want("t1", v1.TaskRejected); !strings.Contains(status.Err, "none of 32768 to 60999 is free") {
			t.Errorf("error is %q", status.Err)
		}
	})
}

// TestHostPortInUse: a task does not take a port away from a program of the machine, and says so; elsewhere on the machine the port is free.
func TestHostPortInUse(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		l.net.listening = map[uint16]bool{22: true}
		at := func(where string) v1.PortConfig {
			return v1.PortConfig{Target: 80, Published: 22, Mode: v1.PublishHost, HostIP: where}
		}
		l.swarm.assign("t1", l.swarm.service("web", published(at(""))), v1.TaskRunning)
		l.swarm.assign("t2", l.swarm.service("near", published(at("127.0.0.1"))), v1.TaskRunning)
		l.start(nil)
		settle(time.Second)
		const want = "port 22/tcp is in use on this node by another program, which listens at 10.0.0.7"
		if status := l.want("t1", v1.TaskRejected); !strings.Contains(status.Err, want) {
			t.Errorf("error is %q, want %q", status.Err, want)
		}
		l.want("t2", v1.TaskRunning)
		l.net.mu.Lock()
		l.net.listening[22] = false
		l.net.mu.Unlock()
		l.swarm.assign("t3", l.swarm.service("third", published(v1.PortConfig{Target: 80, Published: 23, Mode: v1.PublishHost})), v1.TaskRunning)
		settle(time.Second)
		l.want("t3", v1.TaskRunning)
		l.net.mu.Lock()
		l.net.listening[23] = true
		l.net.mu.Unlock()
		l.stop()
		l.start(nil)
		settle(time.Second)
		l.want("t3", v1.TaskRunning) // its port was looked at once
	})
}
