package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/test/e2e/lab"
)

// follower reads what a service's tasks print, by one manager, until the test ends.
type follower struct {
	mu    sync.Mutex
	said  map[string]bool // tasks of which a line came
	wrong []string
}

func (s *swarm) follow(h *lab.Host, service string) *follower {
	f := &follower{said: make(map[string]bool)}
	c := s.client(h)
	ctx, cancel := context.WithCancel(s.t.Context())
	var reading sync.WaitGroup
	reading.Go(func() {
		for r, err := range c.Logs(ctx, "services", service, v1.LogOptions{Stdout: true, Stderr: true, Follow: true, Tail: -1}) {
			f.mu.Lock()
			switch {
			case errors.Is(err, context.Canceled):
			case err != nil:
				f.wrong = append(f.wrong, err.Error())
			case r.Error != "":
				f.wrong = append(f.wrong, r.Name+": "+r.Error)
			case strings.Contains(string(r.Line), "listens on port"):
				f.said[r.Task] = true
			}
			f.mu.Unlock()
		}
	})
	s.t.Cleanup(func() { cancel(); reading.Wait() })
	return f
}

// hears waits until a line of each task came.
func (s *swarm) hears(f *follower, what string, tasks []*v1.Task) {
	s.t.Helper()
	s.Eventually(generous, what, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, t := range tasks {
			if !f.said[t.Meta.ID] {
				return fmt.Errorf("nothing of %s %s on %s; told: %q", v1.TaskName(t.Desired), t.Meta.ID, v1.TaskNode(t), f.wrong)
			}
		}
		return nil
	})
}

// TestLogsFollow follows services by every manager through updates: each new task is heard, at once or after an old one took its time.
func TestLogsFollow(t *testing.T) {
	s := form(t, 2, 1)
	// The signal is one that nobody heeds: an old task takes all of its grace, which is longer than a node may take to answer.
	s.serve(s.Hosts[0], "slow", 3, "--replicas-max-per-node", "1", "--stop-signal", "SIGWINCH", "--stop-grace-period", "12s", "--update-parallelism", "0")
	s.serve(s.Hosts[0], "quick", 6, "--update-parallelism", "0", "--stop-grace-period", "1s")
	for service, replicas := range map[string]int{"quick": 6, "slow": 3} {
		updates := map[string]int{"quick": rounds(5), "slow": 1}[service]
		var followers []*follower
		tasks := s.converged(s.Hosts[0], service, replicas, generous)
		for _, h := range s.Hosts[:s.managers] {
			f := s.follow(h, service)
			followers = append(followers, f)
			s.hears(f, h.Name+" follows "+service, tasks)
		}
		for n := range updates {
			s.Hosts[0].Must("service", "update", "--quiet", "--force", service)
			tasks := s.converged(s.Hosts[0], service, replicas, generous)
			for i, f := range followers {
				s.hears(f, fmt.Sprintf("%s follows %s after update %d", s.Hosts[i].Name, service, n+1), tasks)
			}
		}
	}
}
