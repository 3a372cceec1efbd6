package e2e

import (
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"
)

var changes = flag.Int("changes", 5, "how many updates TestNoRequestLost makes; a fifth as many scale-downs and drains")

// TestNoRequestLost updates, scales and drains a service of six replicas on three hosts while new and kept connections ask it 200 times a
// second, by its virtual address from two hosts and at its published port on every host: each request is answered.
func TestNoRequestLost(t *testing.T) {
	s := form(t, 1, 2)
	first := s.Hosts[0]
	const replicas = 6
	s.network(first, "front")
	s.serve(first, "web", replicas, "--network", "front", "--publish", "8080:8080", "--update-parallelism", "2", "--update-order", "start-first",
		"--update-monitor", "100ms", "--health-tcp", "8080", "--health-start-period", "30s", "--health-start-interval", "50ms", "--stop-grace-period", "20s")
	drained := s.Host("worker2")
	s.serve(first, "caller", 2, "--network", "front", "--replicas-max-per-node", "1", "--constraint", "node.hostname!="+drained.Name)
	var from []requester
	for _, h := range s.Hosts {
		from = append(from, requesters("port on "+h.Name, fmt.Sprintf("http://%s:8080/", h.Addr), s.Client)...)
	}
	for _, c := range s.tasksOf(first, "caller", 2) {
		from = append(from, requesters("virtual address from "+c.host.Name, fmt.Sprintf("http://%s:8080/", s.vip(first, "web")), c.Namespace)...)
	}
	r := sendRequests(from)
	defer r.stop()
	time.Sleep(time.Second) // so that connections are kept before the first change
	lost := func(what string) {
		t.Helper()
		if failed := r.failures(); len(failed) > 0 {
			t.Errorf("%s: %d requests were lost of %d so far:\n%s", what, len(failed), r.sent.Load(), strings.Join(failed[:min(10, len(failed))], "\n"))
		}
	}
	lost("before any change")
	for i := range *changes {
		first.Must("service", "update", "--quiet", "--detach=false", "--image", fmt.Sprintf("hello:%d", 2-i%2), "web")
		lost(fmt.Sprintf("update %d", i+1))
	}
	for i := range max(1, *changes/5) {
		first.Must("service", "scale", "--detach=false", "web=3")
		lost(fmt.Sprintf("scale-down %d", i+1))
		first.Must("service", "scale", "--detach=false", fmt.Sprintf("web=%d", replicas))
		lost(fmt.Sprintf("scale-up %d", i+1))
	}
	for i := range max(1, *changes/5) {
		first.Must("node", "update", "--availability", "drain", "--wait", drained.Name)
		lost(fmt.Sprintf("drain %d", i+1))
		first.Must("node", "update", "--availability", "active", drained.Name)
		// A node that is active again gets tasks with the next change.
		first.Must("service", "update", "--quiet", "--detach=false", "--force", "web")
		lost(fmt.Sprintf("update after drain %d", i+1))
	}
	r.stop()
	lost("at the end")
	t.Logf("%d requests were sent", r.sent.Load())
}
