package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/swarmd/swarmd/test/e2e/lab"
)

// TestAlone takes all managers away from a worker: its containers and their ports go on untouched, one that fails is started again by its
// restart policy, the daemon's own restart changes nothing, and when there are managers again they learn of all of it.
func TestAlone(t *testing.T) {
	s := form(t, 1, 1)
	manager, worker := s.Hosts[0], s.Hosts[1]
	s.serve(manager, "web", 3, "--publish", "8080:8080", "--constraint", "node.role==worker", "--restart-delay", "1s")
	s.serve(manager, "once", 1, "--constraint", "node.role==worker", "--restart-condition", "none")
	before := containersOf(t, worker)
	webs := running(t, manager, "web")
	once := running(t, manager, "once")
	if err := manager.PowerOff(); err != nil {
		t.Fatal(err)
	}
	s.answersFor(worker, alone/3)
	if out := worker.Must("info", "--format", "{{.Swarm.LocalNodeState}}"); out != "active\n" {
		t.Errorf("without a manager, the node is %s", out)
	}
	worker.Kill()
	worker.Start()
	s.answersFor(worker, alone/3)
	if now := containersOf(t, worker); !maps.Equal(now, before) {
		t.Errorf("without a manager, the containers are %v, were %v", now, before)
	}
	if out := worker.Must("info", "--format", "{{.Swarm.LocalNodeState}}"); out != "pending\n" {
		t.Errorf("restarted without a manager, the node is %s", out)
	}

	// One fails whose policy is to start it again, and one whose policy is not to.
	victim := slices.Min(slices.Collect(maps.Keys(webs)))
	if err := syscall.Kill(webs[victim], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for _, pid := range once {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	s.Eventually(generous, "the one that failed was started again", func() error {
		now := containersOf(t, worker)
		if len(now) != 3 || now[victim] == webs[victim] {
			return fmt.Errorf("%d containers run, want 3, and a new one for task %s: %v", len(now), victim, now)
		}
		// Without a health check the port leads to a process from when it runs, and not only from when it listens.
		return s.allAnswer(worker, 3)
	})
	s.answersFor(worker, alone/3)
	after := containersOf(t, worker)
	if same := kept(before, after); same != 2 {
		t.Errorf("%d of the containers are as they were, want 2: %v, were %v", same, after, before)
	}
	manager.Start()
	s.Settled(manager, 1)
	s.Eventually(generous, "the manager learns of all of it", func() error {
		if out := manager.Must("get", "tasks", "--filter", "service=web", "-o", "json"); !strings.Contains(out, "restarted once while no manager could be reached; last: exit code 137") {
			return fmt.Errorf("the tasks of web:\n%s", out)
		}
		if out := manager.Must("service", "ps", "once", "--no-trunc", "--format", "{{.CurrentState}} {{.Error}}"); !strings.Contains(out, "137") || strings.Contains(out, "Running") {
			return fmt.Errorf("service ps once:\n%s", out)
		}
		return nil
	})
	if now := containersOf(t, worker); kept(before, now) != 2 || len(now) != 3 {
		t.Errorf("with a manager again, the containers are %v, were %v and %v", now, before, after)
	}
	s.settled(manager, generous, "web")
}

// alone is for how long the managers are away; an hour would show no more.
const alone = 12 * time.Second

// allAnswer asks a host's published port until each of so many tasks has answered, and is the error of a request that is not answered.
func (s *swarm) allAnswer(h *lab.Host, tasks int) error {
	seen := make(map[string]bool)
	for range 30 * tasks {
		body, err := s.Client.Get(fmt.Sprintf("http://%s:8080/", h.Addr))
		if err != nil {
			return err
		}
		by, _ := greeted(body)
		if seen[by] = true; len(seen) == tasks {
			return nil
		}
	}
	return fmt.Errorf("%d of %d tasks answer", len(seen), tasks)
}

// answersFor asks a host's published port again and again for a while: every request is answered.
func (s *swarm) answersFor(h *lab.Host, d time.Duration) {
	s.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		if _, err := s.Client.Get(fmt.Sprintf("http://%s:8080/", h.Addr)); err != nil {
			s.t.Error(err)
			return
		}
	}
}

// kept is how many containers are in both, as the same process.
func kept(a, b map[string]int) int {
	n := 0
	for id, pid := range a {
		if b[id] == pid {
			n++
		}
	}
	return n
}
