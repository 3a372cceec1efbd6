package e2e

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/swarmd/swarmd/test/e2e/lab"
)

// TestManagersFrozen freezes all managers of a swarm, as a paused virtual machine or a snapshot does: nobody could hear the nodes
// meanwhile, so none is missed for it, and no task and no connection ends. A host that died meanwhile is missed soon afterwards.
func TestManagersFrozen(t *testing.T) {
	for _, managers := range []int{1, 3} {
		t.Run(fmt.Sprintf("managers=%d", managers), func(t *testing.T) {
			s := form(t, managers, 2)
			s.serve(s.Hosts[0], "web", len(s.Hosts), "--publish", "8080:8080")
			before := s.untouched(nil)
			var conns []net.Conn
			for _, h := range s.Hosts {
				conns = append(conns, dialMany(t, s.Client, fmt.Sprintf("%s:8080", h.Addr), 10)...)
			}
			stalls := []time.Duration{2500 * time.Millisecond, 6 * time.Second} // within a lease, and beyond it
			if *long {
				stalls = append(stalls, 1500*time.Millisecond, 4*time.Second, 10*time.Second)
			}
			for _, d := range stalls {
				s.freeze(d, func() {})
				s.noneMissed(graceShown)
				s.stillRun(fmt.Sprintf("frozen for %s", d), before)
			}
			askAll(t, "after the managers were frozen", conns)
			if out := s.Hosts[0].Must("service", "ps", "web", "--format", "{{.CurrentState}}", "--filter", "desired-state=shutdown"); out != "" {
				t.Errorf("tasks were replaced:\n%s", s.Hosts[0].Must("service", "ps", "web"))
			}

			lost := s.Host("worker2")
			delete(before, lost.Name)
			s.freeze(6*time.Second, func() {
				if err := lost.PowerOff(); err != nil {
					t.Fatal(err)
				}
			})
			woke := time.Now()
			s.Eventually(generous, "the host that died meanwhile is missed", func() error {
				if names := s.missing(); names != lost.Name {
					return fmt.Errorf("missed: %q", names)
				}
				return nil
			})
			t.Logf("a host that died while the managers were frozen was missed %s after they woke", time.Since(woke).Round(10*time.Millisecond))
			s.converged(s.Hosts[0], "web", len(s.Hosts), generous)
			s.stillRun("a host died while the managers were frozen", before)
		})
	}
}

// graceShown is for how long a test looks whether a node is missed after all: longer than the managers wait.
const graceShown = 8 * time.Second

// freeze freezes all managers for a while, and does something meanwhile.
func (s *swarm) freeze(d time.Duration, meanwhile func()) {
	s.t.Helper()
	each := func(do func(*lab.Host)) {
		for _, h := range s.Hosts[:s.managers] {
			do(h)
		}
	}
	each((*lab.Host).Pause)
	over := time.After(d)
	meanwhile()
	<-over
	each((*lab.Host).Resume)
}

// missing is the hosts that are missed.
func (s *swarm) missing() string {
	var names []string
	for line := range strings.Lines(s.Hosts[0].Ctl("node", "ls", "--format", "{{.Hostname}} {{.Status}}").Stdout) {
		if name, ok := strings.CutSuffix(strings.TrimSpace(line), " Down"); ok {
			names = append(names, name)
		}
	}
	return strings.Join(names, " ")
}

// noneMissed looks for a while whether a node is missed.
func (s *swarm) noneMissed(d time.Duration) {
	s.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if names := s.missing(); names != "" {
			s.t.Fatalf("missed: %s", names)
		}
	}
}
