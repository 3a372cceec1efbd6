package e2e

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/swarmd/swarmd/test/e2e/lab"
)

// TestRestart stops and starts every daemon of a swarm, one after the other, as an upgrade does: no container, no port and no writer
// through another manager notices, and every node is where it was.
func TestRestart(t *testing.T) {
	s := form(t, 3, 2)
	first := s.Hosts[0]
	s.serve(first, "web", 10, "--publish", "8080:8080")
	before := s.untouched(nil)
	asked := s.keepAsking()
	for _, h := range s.Hosts {
		stop := s.keepWriting(s.otherThan(h))
		h.Stop()
		time.Sleep(away)
		h.Start()
		s.Settled(s.otherThan(h), s.managers)
		stop()
		s.stillRun(h.Name+" was restarted", before)
	}
	asked()
	if out := first.Must("service", "ps", "web", "--format", "{{.CurrentState}}", "--filter", "desired-state=shutdown"); out != "" {
		t.Errorf("tasks were replaced by restarts:\n%s", first.Must("service", "ps", "web"))
	}
	s.settled(first, generous, "web")
}

// away is for how long a daemon is stopped: longer than a silent node is waited for, and not as long as one is that stopped in order, which has to end and to start in that time as well.
const away = 5 * time.Second

// keepAsking asks port 8080 of every host that runs a container, from outside, until the function that it returns is called. Every
// request must be answered.
func (s *swarm) keepAsking() func() {
	s.t.Helper()
	ended := make(chan struct{})
	done := make(chan struct{})
	var asked atomic.Int64
	serving := slices.DeleteFunc(slices.Clone(s.Hosts), func(h *lab.Host) bool { return len(containersOf(s.t, h)) == 0 })
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			h := serving[i%len(serving)]
			if _, err := s.Client.Get(fmt.Sprintf("http://%s:8080/", h.Addr)); err != nil {
				s.t.Errorf("request %d, to %s: %v", i, h.Name, err)
				return
			}
			asked.Add(1)
			select {
			case <-ended:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	return func() {
		close(ended)
		<-done
		s.t.Logf("%d requests were answered", asked.Load())
	}
}

// TestDiskFull fills the disk of a manager and of a worker to the last byte: the rest of the swarm goes on, and with room again both are
// back and well.
func TestDiskFull(t *testing.T) {
	s := hosts(t)
	for _, name := range []string{"manager1", "manager2", "manager3", "worker1"} {
		h, err := s.Add(name)
		if err != nil {
			t.Fatal(err)
		}
		if name == "manager3" || name == "worker1" {
			if err := h.UseSmallDisk(400 << 20); err != nil {
				t.Fatal(err)
			}
		}
		h.Start()
		if err := h.LoadImages(); err != nil {
			t.Fatal(err)
		}
	}
	s.managers = 3
	s.Form(3)
	s.learnNodes()
	first := s.Hosts[0]
	s.serve(first, "web", 8)
	full := []*lab.Host{s.Host("manager3"), s.Host("worker1")}
	for _, h := range full {
		if err := h.FillDisk(); err != nil {
			t.Fatal(err)
		}
	}
	stop := s.keepWriting(first)
	first.Must("service", "create", "--quiet", "--name", "meanwhile", "--replicas", "2", "--constraint", "node.hostname==manager2", "hello:1")
	first.Must("service", "update", "--quiet", "--detach", "--label-add", "disk=full", "web")
	time.Sleep(3 * time.Second) // of writes that reach a log that cannot grow
	stop()
	for _, h := range full {
		if err := h.FreeDisk(); err != nil {
			t.Fatal(err)
		}
		if !h.Alive() { // as it says in docs/operating.md: a manager ends, and is started again
			h.Start()
		}
	}
	s.Settled(first, 3)
	s.managersAre(first, "manager1", "manager2", "manager3")
	first.Must("service", "update", "--quiet", "--force", "--update-parallelism", "0", "--update-monitor", "1ms", "web")
	s.settled(first, generous, "web", "meanwhile")
}
