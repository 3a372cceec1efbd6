package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/swarmd/swarmd/test/e2e/lab"
)

// TestModes is step 18 of Docker's tutorial, and jobs beside it: a global service is on every node, also on one that joins later and not
// on one that is drained; a job completes, keeps what has completed, and begins anew when it is changed.
func TestModes(t *testing.T) {
	s := form(t, 1, 2)
	first := s.Hosts[0]
	first.Must("service", "create", "--quiet", "--name", "agent", "--mode", "global", "hello:1")
	s.everywhere("agent", "manager1", "worker1", "worker2")
	if out := first.Must("service", "ls", "--format", "{{.Name}} {{.Mode}} {{.Replicas}}"); !strings.Contains(out, "agent global 3/3") {
		t.Errorf("service ls:\n%s", out)
	}
	worker1 := s.Host("worker1")
	first.Must("node", "update", "--availability", "drain", "--wait", "worker1")
	s.everywhere("agent", "manager1", "worker2")
	first.Must("node", "update", "--availability", "active", "worker1")
	s.everywhere("agent", "manager1", "worker1", "worker2")
	first.Must("service", "update", "--quiet", "--image", "hello:2", "--update-monitor", "100ms", "agent")
	s.everywhere("agent", "manager1", "worker1", "worker2")
	if rows := runningRows(first, "agent"); strings.Contains(rows, "hello:1") || !strings.Contains(rows, "hello:2") {
		t.Errorf("after the update service ps has\n%s", rows)
	}
	late, err := s.Add("late")
	if err != nil {
		t.Fatal(err)
	}
	late.Start()
	if err := late.LoadImages(); err != nil {
		t.Fatal(err)
	}
	late.Join(first, "worker")
	s.everywhere("agent", "late", "manager1", "worker1", "worker2")

	// A job waits until all is done, and its exit status is that of the whole.
	first.Must("service", "create", "--quiet", "--name", "sum", "--mode", "replicated-job", "--replicas", "5", "--max-concurrent", "2",
		"hello:1", "sleep", "300ms")
	if out := first.Must("service", "ls", "--format", "{{.Name}} {{.Mode}} {{.Replicas}}"); !strings.Contains(out, "sum replicated job 0/2 (5/5 completed)") {
		t.Errorf("service ls:\n%s", out)
	}
	if out := first.Must("service", "ps", "sum", "--format", "{{.DesiredState}} {{.CurrentState}}"); strings.Count(out, "Complete Complete") != 5 {
		t.Errorf("the tasks of a job that is done:\n%s", out)
	}
	before := first.Must("service", "ps", "-q", "--no-trunc", "sum")
	first.Must("service", "update", "--quiet", "--force", "sum")
	s.Eventually(generous, "a job that was changed is done once more", func() error {
		out := first.Must("service", "ps", "--no-trunc", "--format", "{{.ID}} {{.CurrentState}}", "sum")
		for id := range strings.FieldsSeq(before) {
			if strings.Contains(out, id) {
				return fmt.Errorf("task %s is still there:\n%s", id, out)
			}
		}
		if strings.Count(out, " Complete") != 5 {
			return fmt.Errorf("service ps:\n%s", out)
		}
		return nil
	})
	first.Must("service", "create", "--quiet", "--name", "once", "--mode", "global-job", "hello:1", "exit", "0")
	if out := first.Must("service", "ls", "--format", "{{.Name}} {{.Mode}} {{.Replicas}}"); !strings.Contains(out, "once global job 0/0 (4/4 completed)") {
		t.Errorf("service ls:\n%s", out)
	}
	for _, args := range [][]string{{"--mode", "global", "--replicas", "2"}, {"--mode", "global-job", "--update-delay", "1s"}} {
		if r := first.Ctl(append(append([]string{"service", "create"}, args...), "hello:1")...); r.Code == 0 {
			t.Errorf("service create %v is taken", args)
		}
	}
	first.Must("service", "rm", "agent", "sum", "once")
	for _, h := range []*lab.Host{first, worker1, late} {
		s.Eventually(generous, "no container is left on "+h.Name, func() error {
			if n := len(containersOf(t, h)); n > 0 {
				return fmt.Errorf("%d containers", n)
			}
			return nil
		})
	}
}

// runningRows are the rows of a service's running tasks.
func runningRows(h *lab.Host, service string) string {
	var rows []string
	for row := range strings.Lines(h.Must("service", "ps", "--format", "{{.Node}} {{.Image}} {{.DesiredState}} {{.CurrentState}}", service)) {
		if strings.Contains(row, " Running Running") {
			rows = append(rows, row)
		}
	}
	slices.Sort(rows)
	return strings.Join(rows, "")
}

// everywhere waits until a service has one running task on each of these hosts, and none elsewhere.
func (s *swarm) everywhere(service string, hosts ...string) {
	s.t.Helper()
	s.Eventually(generous, fmt.Sprintf("%s runs on %v", service, hosts), func() error {
		var on []string
		rows := runningRows(s.Hosts[0], service)
		for row := range strings.Lines(rows) {
			on = append(on, strings.Fields(row)[0])
		}
		if !slices.Equal(on, hosts) {
			return fmt.Errorf("service ps has\n%s", rows)
		}
		return nil
	})
}
