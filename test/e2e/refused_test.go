package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestNoneRefusedAfterALoss cuts the power of hosts one after the other, while new connections ask a service by its virtual address and its published
// port. What was led to a lost host is not answered until that is missed; but nothing is refused, for what takes the lost tasks' places is led
// to once it is healthy.
func TestNoneRefusedAfterALoss(t *testing.T) {
	s := form(t, 1, 3)
	first, asks := s.Hosts[0], s.Host("worker1")
	s.network(first, "front")
	s.serve(first, "web", replicas, "--network", "front", "--publish", "8080:8080", "--health-tcp", "8080", "--health-start-period", "30s", "--health-start-interval", "50ms")
	s.serve(first, "caller", 1, "--network", "front", "--constraint", "node.hostname=="+asks.Name)
	from := requesters("port on "+first.Name, fmt.Sprintf("http://%s:8080/", first.Addr), s.Client)
	from = append(from, requesters("port on "+asks.Name, fmt.Sprintf("http://%s:8080/", asks.Addr), s.Client)...)
	for _, c := range s.tasksOf(first, "caller", 1) {
		from = append(from, requesters("virtual address", "http://"+s.vip(first, "web")+":8080/", c.Namespace)...)
	}
	r := sendRequests(from)
	defer r.stop()
	total := 0
	for i := range rounds(4) {
		lost := s.Host([]string{"worker2", "worker3"}[i%2])
		if err := lost.PowerOff(); err != nil {
			t.Fatal(err)
		}
		s.moved(first, "web", lost)
		time.Sleep(time.Second)
		if err := lost.PowerOn(); err != nil {
			t.Fatal(err)
		}
		lost.Start()
		s.Settled(first, 1)
		first.Must("service", "update", "--quiet", "--detach=false", "--force", "web") // it gets tasks again
		for _, f := range r.failures() {
			total++
			if strings.Contains(f, "refused") {
				t.Errorf("round %d: %s", i, f)
			}
		}
	}
	t.Logf("%d requests were sent, %d were led to hosts that were lost", r.sent.Load(), total)
}
