package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/test/e2e/lab"
)

// updateState waits until the rollout of a service is in a state, and is its message.
func (s *swarm) updateState(h *lab.Host, service string, want v1.UpdateState) (message string) {
	s.t.Helper()
	c := s.client(h)
	s.Eventually(2*generous, fmt.Sprintf("%s is %s", service, want), func() error {
		ctx, cancel := context.WithTimeout(s.t.Context(), 2*time.Second)
		defer cancel()
		o, err := client.Get(ctx, c, v1.Services, service)
		if err != nil {
			return err
		}
		if o.Desired == nil || o.Desired.Update == nil || o.Desired.Update.State != want {
			return fmt.Errorf("%s has %+v", service, o.Desired)
		}
		message = o.Desired.Update.Message
		return nil
	})
	return message
}

// TestRollback has updates that fail, and that cannot get on: they are rolled back by themselves, also when leaders die meanwhile, and by
// hand to a revision of the history.
func TestRollback(t *testing.T) {
	s := form(t, 3, 1)
	first := s.Hosts[0]
	s.serve(first, "web", 6, "--publish", "8080:8080", "--restart-delay", "200ms", "--stop-grace-period", "2s", "--update-monitor", "1s",
		"--update-failure-action", "rollback", "--rollback-parallelism", "1", "--rollback-delay", "500ms", "--rollback-monitor", "500ms")

	// A program that ends at once, while one leader after the other dies.
	first.Must("service", "update", "--detach", "--image", "hello:2", "--args", "exit 3", "--update-parallelism", "3", "web")
	s.updateState(first, "web", v1.UpdateRollbackStarted)
	leader := s.leader(first)
	leader.Kill()
	other := s.otherThan(leader)
	s.updateState(other, "web", v1.UpdateRollbackCompleted)
	leader.Start()
	s.converged(other, "web", 6, generous)
	s.settled(other, generous, "web") // the killed leader's host may have had tasks that were replaced meanwhile
	for range 12 {
		if body, err := s.Client.Get(fmt.Sprintf("http://%s:8080/", first.Addr)); err != nil || !strings.Contains(body, "version 1") {
			t.Errorf("after the rollback: %q, %v", body, err)
		}
	}
	out := other.Must("service", "history", "--format", "{{.Revision}} {{.Image}} {{.Note}}", "web")
	if !strings.Contains(out, "2 hello:2 failed, rolled back") || !strings.Contains(out, "1 hello:1 current") {
		t.Errorf("service history:\n%s", out)
	}
	before := s.untouched(nil)
	other.Must("service", "update", "--quiet", "--label-add", "a=b", "web")
	s.stillRun("a label was added", before)

	// One that is good, and one that no node takes.
	other.Must("service", "update", "--quiet", "--image", "hello:2", "web")
	r := other.Ctl("service", "update", "--constraint-add", "node.labels.gpu==yes", "--update-progress-deadline", "3s", "web")
	if r.Err == nil || !strings.Contains(r.Stderr, "rolled back: update rolled back due to no progress for 3s: task web.") ||
		!strings.Contains(r.Stderr, "scheduling constraints not satisfied") {
		t.Errorf("an update that no node takes: %v\n%s\n%s", r.Err, r.Stdout, r.Stderr)
	}
	s.converged(other, "web", 6, generous)
	r = other.Ctl("service", "rollback", "--to", "1", "web")
	if r.Err != nil || !strings.Contains(r.Stdout, "converged") {
		t.Errorf("service rollback: %v\n%s\n%s", r.Err, r.Stdout, r.Stderr)
	}
	if message := s.updateState(other, "web", v1.UpdateRollbackCompleted); message != "rollback completed" {
		t.Errorf("after service rollback it is %q", message)
	}
	if out := other.Must("service", "ls", "--format", "{{.Image}} {{.Replicas}}"); strings.TrimSpace(out) != "hello:1 6/6" {
		t.Errorf("service ls: %q", out)
	}
}
