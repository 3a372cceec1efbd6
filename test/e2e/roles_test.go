package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/test/e2e/lab"
)

// TestPromoteDemote makes a worker a manager and a worker again while clients write, has the leader demoted, and is refused what would
// leave no manager or no quorum.
func TestPromoteDemote(t *testing.T) {
	s := form(t, 3, 1)
	first, worker := s.Hosts[0], s.Host("worker1")
	s.serve(first, "web", 4)
	before := s.untouched(nil)
	stop := s.keepWriting(first)

	if out := first.Must("node", "promote", "worker1"); !strings.Contains(out, "Node worker1 promoted to a manager in the swarm.") {
		t.Errorf("node promote prints %q", out)
	}
	s.managersAre(first, "manager1", "manager2", "manager3", "worker1")
	s.Eventually(generous, "the new manager serves the API", func() error { return worker.Ctl("service", "inspect", "web").Err })
	worker.Must("service", "update", "--quiet", "--detach", "--label-add", "by=worker1", "web")

	if out := first.Must("node", "demote", "worker1"); !strings.Contains(out, "Manager worker1 demoted in the swarm.") {
		t.Errorf("node demote prints %q", out)
	}
	s.managersAre(first, "manager1", "manager2", "manager3")
	s.Eventually(generous, "the demoted node is a worker", func() error {
		if out := worker.Must("info", "--format", "{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}}"); out != "active false\n" {
			return fmt.Errorf("info: %s", out)
		}
		return nil
	})
	for _, file := range tree(t, worker) {
		if strings.Contains(file, "/etcd/") || strings.Contains(file, "keyring") {
			t.Errorf("a demoted node keeps %s", file)
		}
	}
	stop()

	// The leader hands over before it goes, and again is a worker like any other.
	leader := s.leader(first)
	other := s.otherThan(leader)
	stop = s.keepWriting(other)
	other.Must("node", "demote", leader.Name)
	s.managersAre(other, slices.DeleteFunc([]string{"manager1", "manager2", "manager3"}, func(n string) bool { return n == leader.Name })...)
	stop()

	// Of two managers the one that is left cannot go while the other is down, and of one it cannot at all.
	third := s.otherThan(leader, other)
	third.Kill()
	s.Eventually(generous, "writes are refused", func() error {
		if r := other.CtlWithin(5*time.Second, "", "service", "update", "--detach", "--label-add", "alone=yes", "web"); r.Code == 0 {
			return errors.New("one of two managers takes writes")
		}
		return nil
	})
	if r := other.CtlWithin(30*time.Second, "", "node", "demote", other.Name); r.Code == 0 || !regexp.MustCompile(`quorum|majority|leader`).MatchString(r.Stderr) {
		t.Errorf("demoting the one of two managers that is up: exit %d, %q", r.Code, r.Stderr)
	}
	third.Start()
	s.managersAre(other, other.Name, third.Name)
	other.Must("node", "demote", third.Name)
	s.managersAre(other, other.Name)
	r := other.Ctl("node", "demote", other.Name)
	if r.Code == 0 || !strings.Contains(r.Stderr, "last manager") {
		t.Errorf("demoting the last manager: exit %d, %q", r.Code, r.Stderr)
	}
	s.managersAre(other, other.Name)
	s.stillRun("roles were changed", before)
	s.serve(other, "after", 4)
	s.settled(other, generous, "web", "after")
}

// managersAre waits until exactly those hosts are managers, reachable all, by the node list and as members of etcd.
func (s *swarm) managersAre(from *lab.Host, names ...string) {
	s.t.Helper()
	slices.Sort(names)
	s.Eventually(generous, fmt.Sprintf("the managers are %v", names), func() error {
		r := from.Ctl("node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}")
		if r.Err != nil {
			return r.Err
		}
		var listed []string
		for line := range strings.Lines(r.Stdout) {
			if fields := strings.Fields(line); len(fields) == 2 && fields[1] != "Unreachable" {
				listed = append(listed, fields[0])
			}
		}
		slices.Sort(listed)
		if !slices.Equal(listed, names) {
			return fmt.Errorf("node ls:\n%s", r.Stdout)
		}
		members, err := s.members(from)
		if err == nil && !slices.Equal(members, names) {
			err = fmt.Errorf("the voting members are %v", members)
		}
		return err
	})
}

// members are the hosts that vote in the managers' etcd, as it says.
func (s *swarm) members(from *lab.Host) ([]string, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*time.Second)
	defer cancel()
	list, err := client.List(ctx, s.client(from), v1.Members, nil)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, m := range list {
		for name, id := range s.nodes {
			if id == m.Meta.ID && m.Status != nil && m.Status.Voter {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names, nil
}

// keepWriting writes without a pause until the function that it returns is called, which then checks that everything that was
// acknowledged is there.
func (s *swarm) keepWriting(h *lab.Host) func() {
	s.t.Helper()
	c := s.client(h)
	ctx, cancel := context.WithCancel(s.t.Context())
	var done sync.WaitGroup
	var written []string
	failed := 0
	done.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			name := fmt.Sprintf("written-%d-%d", time.Now().UnixNano(), i)
			within, stop := context.WithTimeout(ctx, 10*time.Second)
			_, _, err := client.Create(within, c, v1.Configs, &v1.Config{Meta: v1.Meta{Name: name}, Spec: &v1.ConfigSpec{Data: []byte("x")}})
			stop()
			if err == nil {
				written = append(written, name)
			} else if ctx.Err() == nil {
				failed++
				s.t.Logf("a write failed: %v", err)
			}
		}
	})
	return func() {
		s.t.Helper()
		cancel()
		done.Wait()
		out := h.Must("get", "configs", "-o", "json")
		var list struct {
			Items []struct{ Metadata struct{ Name string } }
		}
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			s.t.Fatalf("get configs: %v", err)
		}
		there := make(map[string]bool)
		for _, item := range list.Items {
			there[item.Metadata.Name] = true
		}
		for _, name := range written {
			if !there[name] {
				s.t.Errorf("%s was acknowledged and is not there", name)
			}
		}
		s.t.Logf("%d writes were acknowledged, %d failed", len(written), failed)
		if len(written) == 0 {
			s.t.Error("nothing could be written")
		}
	}
}

// TestPromotedInPassing promotes a worker of an only manager and demotes it a moment later, at another moment each round, and kills it in between
// every other: the manager goes on alone, whatever the worker had become by then.
func TestPromotedInPassing(t *testing.T) {
	s := form(t, 1, 1)
	first, worker := s.Hosts[0], s.Host("worker1")
	s.serve(first, "web", 2)
	for i := range rounds(10) {
		pause := time.Duration(i%10) * 300 * time.Millisecond
		first.Must("node", "promote", "worker1")
		time.Sleep(pause) // the moment is what is tested
		if i%2 == 1 {
			worker.Kill()
			worker.Start()
			s.managersAre(first, "manager1", "worker1")
		}
		first.Must("node", "demote", "worker1")
		s.managersAre(first, "manager1")
		s.Eventually(generous, fmt.Sprintf("worker1 is a worker again, %s after it was promoted", pause), func() error {
			if out := worker.Ctl("info", "--format", "{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}}"); out.Stdout != "active false\n" {
				return fmt.Errorf("info: %+v", out)
			}
			return nil
		})
		first.Must("service", "update", "--quiet", "--detach", "--label-add", fmt.Sprint("round=", i), "web")
	}
	s.settled(first, generous, "web")
}
