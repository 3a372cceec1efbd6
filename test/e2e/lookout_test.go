package e2e

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/swarmd/swarmd/test/e2e/lab"
)

// TestNamesStayRightWithoutManagers freezes the only manager, and then has a task end and a host die: the nodes that are left find out by
// themselves, and lead to neither any more.
func TestNamesStayRightWithoutManagers(t *testing.T) {
	s := form(t, 1, 3)
	first, asks := s.Hosts[0], s.Host("worker1")
	s.network(first, "front")
	onWorkers := []string{"--constraint", "node.role==worker", "--restart-delay", "5m"}
	s.serve(first, "web", 6, append([]string{"--network", "front", "--publish", "8080:8080", "--health-tcp", "8080", "--health-start-period", "30s", "--health-start-interval", "50ms"}, onWorkers...)...)
	s.serve(first, "ports", 6, append([]string{"--publish", "8090:8080", "--health-tcp", "8080", "--health-start-period", "30s", "--health-start-interval", "50ms"}, onWorkers...)...)
	s.serve(first, "caller", 1, "--network", "front", "--constraint", "node.hostname=="+asks.Name)
	caller, vip := s.tasksOf(first, "caller", 1)[0], s.vip(first, "web")
	tasks := s.tasksOf(first, "web", 6)
	s.tasksOf(first, "ports", 6)

	led := func(what string, gone map[string]bool) {
		t.Helper()
		var want []string
		for _, one := range tasks {
			if !gone[one.name] {
				want = append(want, one.address(0))
			}
		}
		slices.Sort(want)
		began := time.Now()
		s.resolves(caller, "tasks.web", want...)
		t.Logf("%s: the names are right %s later", what, time.Since(began).Round(10*time.Millisecond))
		s.allGet(what+", by the virtual address", caller.Namespace, fmt.Sprintf("http://%s:8080/", vip))
		s.allGet(what+", by the published port", s.Client, fmt.Sprintf("http://%s:8080/", asks.Addr))
		s.allGet(what+", by the port of tasks without a network", s.Client, fmt.Sprintf("http://%s:8090/", asks.Addr))
	}
	first.Pause()
	defer first.Resume()
	time.Sleep(3 * time.Second) // so that the nodes know that nobody is there
	// On one host, a task of each service ends.
	gone, onHost := map[string]bool{}, containersOf(t, s.Host("worker2"))
	for _, one := range tasks {
		if pid := onHost[one.task.Meta.ID]; pid != 0 {
			if delete(onHost, one.task.Meta.ID); len(gone) == 0 {
				gone[one.name] = true
				kill(t, pid)
			}
		}
	}
	kill(t, slices.Collect(maps.Values(onHost))[0])
	led("a task of each service ended", gone)

	lost := s.Host("worker3")
	if err := lost.PowerOff(); err != nil {
		t.Fatal(err)
	}
	for _, one := range tasks {
		if one.host == lost {
			gone[one.name] = true
		}
	}
	led("a host died", gone)

	first.Resume()
	for _, service := range []string{"web", "ports"} {
		s.Eventually(generous, service+" runs on the hosts that are left", func() error {
			now, err := live(t.Context(), s.client(first), service, s.nodes[lost.Name])
			if err == nil && len(now) < 5 { // the task that ended waits for its delay
				err = fmt.Errorf("%d of 5 tasks run", len(now))
			}
			return err
		})
	}
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// allGet sends some requests, each by a new connection: all are answered.
func (s *swarm) allGet(what string, from *lab.Namespace, url string) {
	s.t.Helper()
	c := from.HTTP()
	for i := range 60 {
		answer, err := c.Get(url)
		if err != nil {
			s.t.Errorf("%s: request %d: %v", what, i, err)
			return
		}
		_, err = io.Copy(io.Discard, answer.Body)
		if answer.Body.Close(); err != nil || answer.StatusCode != http.StatusOK {
			s.t.Errorf("%s: request %d: %s, %v", what, i, answer.Status, err)
		}
	}
}
