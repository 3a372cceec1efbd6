package e2e

import (
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"
)

var (
	changes = flag.Int("changes", 5, "how many updates TestNoRequestLost makes; a fifth as many scale-downs and drains")
	lossy   = flag.Bool("lossy", false, "TestNoRequestLost is to lose requests: for a build without the drain step (make lossy)")
)

// farAway is how much later than others one of the hosts hears and is heard: enough for a task to be gone by then.
const farAway = 50 * time.Millisecond

// TestNoRequestLost updates, scales and drains a service of six replicas on three hosts, of which one is far away, while new and kept
// connections ask it 200 times a second, by its virtual address from two hosts and at its published port on every host. The server ends at
// once when it is told to stop, and is given a second before, which is several round trips through the host that is far away. Each request is answered, unless the daemon is built without the drain step: then
// some are not. What the client sent again by itself, as HTTP has it, is told of as well: a server that ends at once closes idle connections.
func TestNoRequestLost(t *testing.T) {
	s := form(t, 1, 2)
	first := s.Hosts[0]
	const replicas = 6
	s.network(first, "front")
	s.serve(first, "web", replicas, "--network", "front", "--publish", "8080:8080", "--update-parallelism", "2", "--update-order", "start-first", "--env", "ABRUPT=1", "--stop-drain-delay", "1s",
		"--update-monitor", "100ms", "--health-tcp", "8080", "--health-start-period", "30s", "--health-start-interval", "50ms", "--stop-grace-period", "20s")
	drained := s.Host("worker2")
	s.serve(first, "caller", 2, "--network", "front", "--replicas-max-per-node", "1", "--constraint", "node.hostname!="+drained.Name)
	if err := s.Delay(s.Host("worker1"), farAway); err != nil {
		t.Fatal(err)
	}
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
	total := 0
	lost := func(what string) {
		t.Helper()
		failed := r.failures()
		if total += len(failed); len(failed) > 0 && (!*lossy || what == "before any change") {
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
	t.Logf("%d requests were sent, %d were lost; %d of those on kept connections were sent again by the client itself", r.sent.Load(), total, r.again.Load())
	if *lossy && total == 0 {
		t.Error("nothing was lost without the drain step: this test would not see it go")
	}
}

// TestTargetOfAPortChanges has a published port lead to another port of the tasks than before, again and again, also while the change before is
// on its way and is taken back: the tasks of before are led to at theirs until they are gone, and no request is lost.
func TestTargetOfAPortChanges(t *testing.T) {
	s := form(t, 1, 2)
	first := s.Hosts[0]
	s.serve(first, "web", 4, "--publish", "8500:7070", "--env", "PORT=7070", "--env", "ABRUPT=1", "--stop-drain-delay", "1s", "--update-monitor", "100ms",
		"--health-tcp", "7070", "--health-start-period", "30s", "--health-start-interval", "50ms")
	s.converged(first, "web", 4, generous)
	var from []requester
	for _, h := range s.Hosts {
		from = append(from, requesters("port on "+h.Name, fmt.Sprintf("http://%s:8500/", h.Addr), s.Client)...)
	}
	r := sendRequests(from)
	defer r.stop()
	time.Sleep(time.Second)
	change := func(what, detach, now, next string) {
		t.Helper()
		first.Must("service", "update", "--quiet", "--detach="+detach, "--publish-rm", now, "--publish-add", "8500:"+next, "--env-add", "PORT="+next, "--health-tcp", next, "web")
		if failed := r.failures(); len(failed) > 0 {
			t.Errorf("%s: %d requests were lost of %d so far:\n%s", what, len(failed), r.sent.Load(), strings.Join(failed[:min(10, len(failed))], "\n"))
		}
	}
	change("to 8080", "false", "7070", "8080")
	change("to 9090", "true", "8080", "9090")
	time.Sleep(2 * time.Second) // so that some tasks are of this revision
	first.Must("service", "rollback", "--quiet", "--detach=false", "web")
	change("back to 8080, and to 7070", "false", "8080", "7070")
	r.stop()
	if failed := r.failures(); len(failed) > 0 {
		t.Errorf("at the end: %d requests were lost of %d", len(failed), r.sent.Load())
	}
	t.Logf("%d requests were sent; %d of those on kept connections were sent again by the client itself", r.sent.Load(), r.again.Load())
}

// TestStopWithSilentNode stops a task whose published port a frozen host, and then one that is cut off, may still lead to it: it is stopped all
// the same, and goes at once where all hosts answer.
func TestStopWithSilentNode(t *testing.T) {
	s := form(t, 1, 2)
	first, silent := s.Hosts[0], s.Host("worker2")
	on := s.Host("worker1")
	for _, c := range []struct {
		what      string
		hush, end func()
	}{
		{"all hosts answer", func() {}, func() {}},
		{"a host is frozen", silent.Pause, silent.Resume},
		{"a host is cut off", func() {
			if err := s.Cut(silent); err != nil {
				t.Fatal(err)
			}
		}, func() {
			if err := s.Heal(); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		s.serve(first, "web", 1, "--publish", "8080:8080", "--constraint", "node.hostname=="+on.Name)
		c.hush()
		began := time.Now()
		first.Must("service", "rm", "web")
		s.Eventually(generous, "the task stops though "+c.what, func() error {
			if n := len(containersOf(t, on)); n > 0 {
				return fmt.Errorf("%d containers run on %s", n, on.Name)
			}
			return nil
		})
		t.Logf("%s: the task was gone after %s", c.what, time.Since(began).Round(10*time.Millisecond))
		c.end()
		s.Settled(first, 1)
	}
}
