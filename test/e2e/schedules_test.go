package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// TestSchedules: a service of mode cron runs when it is asked to and when it is due, though the daemon was killed before, once and not
// twice; a service starts when what it depends on is complete and runs, on whichever node.
func TestSchedules(t *testing.T) {
	s := form(t, 1, 1)
	first := s.Hosts[0]
	first.Must("service", "create", "--quiet", "--name", "tick", "--mode", "cron", "--schedule", "* * * * *", "--keep-successful", "10", "hello:1", "exit", "0")
	first.Must("service", "run", "--quiet", "tick")
	s.Eventually(generous, "no run is under way", func() error { // as one is for a moment, where it was due just now
		if out := first.Must("service", "ls", "--format", "{{.Name}} {{.Mode}} {{.Replicas}}"); !strings.Contains(out, "tick cron 0/0 (next ") {
			return fmt.Errorf("service ls:\n%s", out)
		}
		return nil
	})
	first.Kill()
	first.Start()
	s.Eventually(3*generous, "two runs were due, and one was asked for", func() error {
		r := first.Ctl("service", "inspect", "tick", "--format", "{{range .CronStatus.Runs}}{{if .Due}}{{.Due}}\n{{end}}{{end}}")
		due := make(map[string]bool)
		for line := range strings.Lines(r.Stdout) {
			if due[line] {
				t.Errorf("two runs are of %s", line)
			}
			due[line] = true
		}
		if len(due) < 2 {
			return fmt.Errorf("due were:\n%s%s", r.Stdout, r.Stderr)
		}
		return nil
	})
	first.Must("service", "rm", "tick")

	first.Must("service", "create", "--detach", "--name", "web", "--depends-on", "db=healthy", "--depends-on", "seed=completed", "hello:1")
	s.Eventually(generous, "web says what it waits for", func() error {
		if out := first.Must("service", "ps", "--no-trunc", "web"); !strings.Contains(out, "waits for db to be healthy: there is no such service") {
			return fmt.Errorf("service ps:\n%s", out)
		}
		return nil
	})
	first.Must("service", "create", "--quiet", "--name", "seed", "--mode", "replicated-job", "hello:1", "exit", "0")
	first.Must("service", "create", "--quiet", "--name", "db", "hello:1")
	s.Eventually(generous, "web runs", func() error {
		if rows := runningRows(first, "web"); rows == "" {
			return fmt.Errorf("service ps:\n%s", first.Must("service", "ps", "--no-trunc", "web"))
		}
		return nil
	})
}
