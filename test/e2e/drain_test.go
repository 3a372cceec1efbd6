package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

// TestDrain drains a worker and then a manager: the service never has fewer running tasks than it is to have, as its state says and as
// somebody outside finds by asking it, and --wait returns when the node is empty.
func TestDrain(t *testing.T) {
	s := form(t, 3, 2)
	first := s.Hosts[0]
	const replicas = 8
	s.serve(first, "web", replicas, "--publish", "8080:8080", "--update-parallelism", "2", "--stop-grace-period", "10s")
	for _, name := range []string{"worker1", "manager3"} {
		h := s.Host(name)
		if len(containersOf(t, h)) == 0 {
			t.Fatalf("no task of web runs on %s", name)
		}
		watching := s.watchReplicas("web", replicas)
		out := first.Must("node", "update", "--availability", "drain", "--wait", name)
		lowest, most := watching()
		t.Logf("draining %s printed\n%s", name, out)
		if n := len(containersOf(t, h)); n > 0 {
			t.Errorf("%d containers run on %s when --wait is done", n, name)
		}
		if lowest < replicas || most > replicas+2 {
			t.Errorf("while %s was drained, between %d and %d tasks ran, want at least %d and, with a parallelism of 2, at most %d", name, lowest, most, replicas, replicas+2)
		}
		s.settled(first, generous, "web")
	}
	if rows := first.Must("node", "ls", "--format", "{{.Hostname}} {{.Availability}} {{.ManagerStatus}}"); !strings.Contains(rows, "worker1 Drain") || !strings.Contains(rows, "manager3 Drain Reachable") {
		t.Errorf("node ls:\n%s", rows)
	}
	// Where nothing else has room, the tasks stop last, and the user is told why they run nowhere.
	for _, name := range []string{"manager1", "manager2"} {
		first.Must("node", "update", "--availability", "pause", name)
	}
	paused := len(s.converged(first, "web", replicas, generous)) - len(containersOf(t, s.Host("worker2")))
	first.Must("node", "update", "--availability", "drain", "worker2")
	s.Eventually(generous, "worker2 is empty, and the user is told why its tasks run nowhere", func() error {
		if n := len(containersOf(t, s.Host("worker2"))); n > 0 {
			return fmt.Errorf("%d containers", n)
		}
		if out := first.Must("service", "ps", "--no-trunc", "web"); !strings.Contains(out, "no suitable node") {
			return fmt.Errorf("service ps:\n%s", out)
		}
		return nil
	})
	s.converged(first, "web", paused, generous)
	first.Must("node", "update", "--availability", "active", "manager1")
	s.converged(first, "web", replicas, generous)
	s.settled(first, generous, "web")
}

// watchReplicas follows a service's tasks by a watch until the function that it returns is called, which then tells the fewest and the most
// that ran at once.
func (s *swarm) watchReplicas(service string, now int) func() (lowest, most int) {
	s.t.Helper()
	c := s.client(s.Hosts[0])
	ctx, cancel := context.WithCancel(s.t.Context())
	var done sync.WaitGroup
	lowest, most := now, now
	started := make(chan struct{})
	done.Go(func() {
		err := follow(ctx, c, service, now, func(running int) {
			lowest, most = min(lowest, running), max(most, running)
		}, started)
		if err != nil && ctx.Err() == nil {
			s.t.Errorf("watching %s: %v", service, err)
		}
	})
	<-started
	return func() (int, int) {
		time.Sleep(200 * time.Millisecond) // for what the watch has yet to tell
		cancel()
		done.Wait()
		return lowest, most
	}
}

// up tells whether a task runs and is not being stopped.
func up(t *v1.Task) bool {
	return t != nil && t.Desired != nil && t.Desired.State == v1.TaskRunning && v1.Observed(t) == v1.TaskRunning
}

// follow tells how many tasks of a service run at each change, from when there are as many as now; then it closes started.
func follow(ctx context.Context, c *client.Client, service string, now int, tell func(running int), started chan<- struct{}) error {
	running := make(map[string]bool)
	for e, err := range client.Watch(ctx, c, v1.Tasks, v1.Filter{"service": {service}}, -1) {
		if err != nil {
			return err
		}
		if delete(running, e.Object.Meta.ID); e.Type == client.EventPut && up(e.Object) {
			running[e.Object.Meta.ID] = true
		}
		if started != nil && len(running) == now {
			close(started)
			started = nil
		}
		if started == nil {
			tell(len(running))
		}
	}
	return nil
}
