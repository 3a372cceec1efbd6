package e2e

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestJoinRefusals joins with everything that must not work. Each is refused with an error that says why, nobody gets in, and the
// machine is as it was, ready to join properly. (A clock that is far off is tested in pkg/ca: the lab's hosts share one.)
func TestJoinRefusals(t *testing.T) {
	s := hosts(t, "manager1", "worker1", "other1")
	manager, worker, other := s.Hosts[0], s.Hosts[1], s.Hosts[2]
	manager.Must("swarm", "init", "--advertise-addr", manager.Addr.String())
	other.Must("swarm", "init", "--advertise-addr", other.Addr.String())
	token, addr := manager.JoinArguments("worker")
	foreign, foreignAddr := other.JoinArguments("worker")
	rotated := token
	manager.Must("swarm", "join-token", "--rotate", "worker")
	token, _ = manager.JoinArguments("worker")
	if token == rotated {
		t.Fatal("a rotated token is what it was")
	}
	parts := strings.Split(token, "-")
	with := func(digest, secret string) string {
		return strings.Join([]string{parts[0], parts[1], digest, secret}, "-")
	}
	before := tree(t, worker)
	for _, c := range []struct {
		name, token, addr, want string
	}{
		{"the token is rotated", rotated, addr, "token"},
		{"the token is truncated", token[:len(token)-1], addr, "token"},
		{"the token has one wrong letter", with(parts[2], flip(parts[3])), addr, "token"},
		{"the token is of another role's secret and this root", with(parts[2], strings.Repeat("0", 25)), addr, "token"},
		{"the token is no token", "hello", addr, "token"},
		{"the token is empty", "", addr, "token"},
		{"the token names another CA", with(flip(parts[2]), parts[3]), addr, "CA"},
		{"the token is another swarm's", foreign, addr, "CA"},
		{"the address is another swarm's", token, foreignAddr, "CA"},
		{"nobody listens", token, manager.Addr.String() + ":1", manager.Addr.String() + ":1"},
		{"nobody is there", token, "10.91.0.200:2377", "10.91.0.200:2377"},
		{"it is no manager", token, worker.Addr.String() + ":2377", worker.Addr.String()},
		{"the address is nonsense", token, "not an address", "not an address"},
		{"the advertised address is nonsense", token, addr, "advertise"},
	} {
		args := []string{"swarm", "join", "--token", c.token, c.addr}
		if strings.Contains(c.name, "advertised") {
			args = append(args, "--advertise-addr", "nonsense")
		}
		r := worker.Ctl(args...)
		t.Logf("%s: exit %d: %s", c.name, r.Code, strings.TrimSpace(r.Stderr))
		if r.Code == 0 || len(r.Stderr) < 15 || !strings.Contains(r.Stderr, c.want) {
			t.Errorf("%s: exit %d, %q, want an error with %q", c.name, r.Code, r.Stderr, c.want)
		}
		if secret := parts[3]; strings.Contains(r.Stderr, secret) {
			t.Errorf("%s: the error tells the secret: %q", c.name, r.Stderr)
		}
		if state := strings.TrimSpace(worker.Must("info", "--format", "{{.Swarm.LocalNodeState}}")); state != "inactive" {
			t.Errorf("%s: the node is %s afterwards", c.name, state)
		}
		if after := tree(t, worker); !slices.Equal(after, before) {
			t.Errorf("%s: the machine has changed from\n%s\nto\n%s", c.name, strings.Join(before, "\n"), strings.Join(after, "\n"))
		}
	}
	for _, h := range s.Hosts[:1] {
		if out := h.Must("node", "ls", "-q"); strings.Count(out, "\n") != 1 {
			t.Errorf("node ls on %s after refusals:\n%s", h.Name, out)
		}
	}
	managerToken, _ := manager.JoinArguments("manager")
	for _, advertised := range []string{"10.91.0.77", manager.Addr.String()} {
		r := worker.Ctl("swarm", "join", "--token", managerToken, "--advertise-addr", advertised, addr)
		t.Logf("advertising %s: exit %d: %s", advertised, r.Code, strings.TrimSpace(r.Stderr))
		if r.Code != 1 || !strings.Contains(r.Stderr, advertised) || !strings.Contains(r.Stderr, "--advertise-addr") {
			t.Errorf("advertising %s: exit %d, %q", advertised, r.Code, r.Stderr)
		}
		if after := tree(t, worker); !slices.Equal(after, before) {
			t.Errorf("advertising %s: the machine has changed from\n%s\nto\n%s", advertised, strings.Join(before, "\n"), strings.Join(after, "\n"))
		}
	}
	if out := manager.Must("node", "ls", "-q"); strings.Count(out, "\n") != 1 {
		t.Errorf("node ls after refusals:\n%s", out)
	}
	worker.Must("swarm", "join", "--token", token, addr)
	for _, h := range s.Hosts {
		if r := h.Ctl("swarm", "join", "--token", token, addr); r.Code == 0 || !strings.Contains(r.Stderr, "already part of a swarm") {
			t.Errorf("joining from %s, which is in a swarm: exit %d, %q", h.Name, r.Code, r.Stderr)
		}
	}
	if out := manager.Must("node", "ls"); !regexp.MustCompile(`worker1\s+Ready`).MatchString(out) {
		t.Errorf("node ls:\n%s", out)
	}
}

// flip changes the last letter.
func flip(text string) string {
	last := "a"
	if strings.HasSuffix(text, "a") {
		last = "b"
	}
	return text[:len(text)-1] + last
}

// TestLeave takes nodes out of the swarm the documented way, and back in.
func TestLeave(t *testing.T) {
	s := form(t, 3, 1)
	first, worker := s.Hosts[0], s.Host("worker1")
	s.serve(first, "web", 8, "--publish", "8081:8080")
	if r := s.Host("manager3").Ctl("swarm", "leave"); r.Code == 0 || !strings.Contains(r.Stderr, "--force") {
		t.Errorf("a manager leaves without --force: exit %d, %q", r.Code, r.Stderr)
	}
	worker.Must("swarm", "leave")
	if n := len(containersOf(t, worker)); n > 0 {
		t.Errorf("%d containers run on a node that left", n)
	}
	s.Eventually(generous, "the node that left is down, and its tasks run elsewhere", func() error {
		if out := first.Must("node", "ls", "--format", "{{.Hostname}} {{.Status}}"); !strings.Contains(out, "worker1 Down") {
			return fmt.Errorf("node ls:\n%s", out)
		}
		return nil
	})
	s.converged(first, "web", 8, generous)
	// It comes back as another node at the same address, while its old entry is still there: the others reach its tasks.
	old := s.nodes["worker1"]
	worker.Join(first, "worker")
	s.learnNodes()
	s.serve(first, "there", 1, "--constraint", "node.id=="+s.nodes["worker1"], "--publish", "8080:8080")
	s.Eventually(generous, "a published port leads from every host to the node that came back", func() error {
		for _, h := range s.Hosts {
			if _, err := s.Client.Get(fmt.Sprintf("http://%s:8080/", h.Addr)); err != nil {
				return fmt.Errorf("by way of %s: %w", h.Name, err)
			}
		}
		return nil
	})
	first.Must("service", "rm", "there")
	// What was left of its tasks of before, which nobody saw end, keeps none from its port, with the old entry and without.
	first.Must("service", "scale", "web=9")
	first.Must("node", "rm", old)
	first.Must("service", "scale", "web=10")
	if out := first.Must("service", "ps", "--format", "{{.DesiredState}} {{.CurrentState}}", "web"); strings.Contains(out, "Shutdown Running") {
		t.Errorf("tasks of a node that was removed run for ever:\n%s", out)
	}
	first.Must("service", "scale", "web=8")
	s.Settled(first, 3)

	// A manager that leaves with force goes from the members too.
	third := s.Host("manager3")
	third.Must("swarm", "leave", "--force")
	s.managersAre(first, "manager1", "manager2")
	first.Must("node", "rm", "--force", s.nodes["manager3"])
	third.Join(first, "manager")
	s.learnNodes()
	s.managersAre(first, "manager1", "manager2", "manager3")
	s.settled(first, generous, "web")
}
