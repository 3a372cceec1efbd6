package e2e

import (
	"fmt"
	"maps"
	"strings"
	"testing"
)

// TestRebalance has a third host join a service of six replicas on two that are asked all the while, by new and by kept connections, and
// then lets one host leave and come back: each has two tasks in the end, and no request is lost. A service beside it that does not
// rebalance stays where it is.
func TestRebalance(t *testing.T) {
	s := form(t, 1, 1)
	first := s.Hosts[0]
	const replicas = 6
	s.network(first, "front")
	s.serve(first, "web", replicas, "--rebalance", "on-join", "--network", "front", "--publish", "8080:8080", "--update-parallelism", "2", "--env", "ABRUPT=1",
		"--health-tcp", "8080", "--health-start-period", "30s", "--health-start-interval", "50ms", "--stop-grace-period", "20s")
	s.serve(first, "still", 4)
	still := s.tasksPerNode("still", 4)
	var from []requester
	for _, h := range s.Hosts {
		from = append(from, requesters("port on "+h.Name, fmt.Sprintf("http://%s:8080/", h.Addr), s.Client)...)
	}
	r := sendRequests(from)
	defer r.stop()
	late, err := s.Add("late")
	if err != nil {
		t.Fatal(err)
	}
	late.Start()
	if err := late.LoadImages(); err != nil {
		t.Fatal(err)
	}
	late.Join(first, "worker")
	s.learnNodes()
	s.even("web", replicas, late.Name, 2)
	if now := s.tasksPerNode("still", 4); !maps.Equal(still, now) {
		t.Errorf("a service that does not rebalance is at %v, and was at %v", now, still)
	}
	first.Must("node", "update", "--availability", "drain", "--wait", "worker1")
	first.Must("node", "update", "--availability", "active", "worker1")
	s.even("web", replicas, "worker1", 2)
	s.settled(first, generous, "web", "still")
	r.stop()
	if failed := r.failures(); len(failed) > 0 {
		t.Errorf("%d requests were lost of %d:\n%s", len(failed), r.sent.Load(), strings.Join(failed[:min(10, len(failed))], "\n"))
	}
	t.Logf("%d requests were sent, %d were lost", r.sent.Load(), len(r.failures()))
}

// tasksPerNode is how many tasks of a service run on each node, by its ID.
func (s *swarm) tasksPerNode(service string, replicas int) map[string]int {
	counts := make(map[string]int)
	for _, t := range s.converged(s.Hosts[0], service, replicas, generous) {
		counts[t.Desired.Placement.Node]++
	}
	return counts
}

// even waits until a service has so many tasks on a host, and on each that has any.
func (s *swarm) even(service string, replicas int, host string, want int) {
	s.t.Helper()
	s.Eventually(generous, fmt.Sprintf("%s is even, with %d tasks on %s", service, want, host), func() error {
		counts := s.tasksPerNode(service, replicas)
		for node, n := range counts {
			if n != want {
				return fmt.Errorf("%d on %s: %v", n, node, counts)
			}
		}
		if counts[s.nodes[host]] != want {
			return fmt.Errorf("%d on %s: %v", counts[s.nodes[host]], host, counts)
		}
		return nil
	})
}
