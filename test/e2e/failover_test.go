package e2e

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/test/e2e/lab"
)

// These tests print how long things take; what they hold to is the order of events and bounds that no machine misses.

const (
	generous = 60 * time.Second
	replicas = 10
)

// moved is how long it takes from now until all replicas of a service run on nodes that are not lost.
func (s *swarm) moved(h *lab.Host, service string, lost *lab.Host) time.Duration {
	s.t.Helper()
	c := s.client(h)
	began := time.Now()
	s.Eventually(generous, service+" runs elsewhere", func() error {
		ctx, cancel := context.WithTimeout(s.t.Context(), time.Second)
		defer cancel()
		tasks, err := live(ctx, c, service, s.nodes[lost.Name])
		if err == nil && len(tasks) < replicas {
			err = fmt.Errorf("%d of %d tasks run elsewhere", len(tasks), replicas)
		}
		return err
	})
	return time.Since(began)
}

// untouched are the containers on all hosts but the lost one: whatever happens to that, they run on.
func (s *swarm) untouched(lost *lab.Host) map[string]map[string]int {
	s.t.Helper()
	before := make(map[string]map[string]int)
	for _, h := range s.Hosts {
		if h != lost {
			before[h.Name] = containersOf(s.t, h)
		}
	}
	return before
}

// stillRun checks that every container of before runs still, as the same process.
func (s *swarm) stillRun(what string, before map[string]map[string]int) {
	s.t.Helper()
	for name, containers := range before {
		now := containersOf(s.t, s.Host(name))
		for id, pid := range containers {
			if now[id] != pid {
				s.t.Errorf("%s: on %s the container of task %s is process %d, was %d", what, name, id, now[id], pid)
			}
		}
	}
}

// TestHostCutOff cuts a host off the network, a worker first and then the leader: its tasks run elsewhere, no other is touched, and when
// it is back its surplus tasks stop. (Docker Swarm, cut the same way: 12 to 14 s.)
func TestHostCutOff(t *testing.T) {
	s := form(t, 3, 2)
	s.serve(s.Hosts[0], "web", replicas)
	took := make(map[string][]time.Duration)
	for range rounds(3) {
		for _, who := range []string{"a worker", "the leader"} {
			lost := s.Host("worker1")
			if who == "the leader" {
				lost = s.leader(s.Hosts[0])
			}
			s.spread(s.otherThan(lost), "web", lost)
			before, alone := s.untouched(lost), containersOf(t, lost)
			if err := s.Cut(lost); err != nil {
				t.Fatal(err)
			}
			took[who] = append(took[who], s.moved(s.otherThan(lost), "web", lost))
			s.stillRun(who+" cut off", before)
			if now := containersOf(t, lost); !maps.Equal(now, alone) {
				t.Errorf("%s cut off: its containers are %v, were %v", who, now, alone)
			}
			if err := s.Heal(); err != nil {
				t.Fatal(err)
			}
			s.comesBack(lost, "web")
			s.stillRun(who+" came back", before)
		}
	}
	for who, all := range took {
		t.Logf("tasks of %s that was cut off ran elsewhere after %s (median of %d: %s)", who, median(all), len(all), all)
	}
}

// comesBack waits until a host is a ready node again and runs no more than it is wanted to.
func (s *swarm) comesBack(h *lab.Host, services ...string) {
	s.t.Helper()
	s.Settled(s.otherThan(h), s.managers)
	s.settled(s.otherThan(h), generous, services...)
	for _, service := range services {
		s.converged(s.otherThan(h), service, replicas, 0)
	}
}

// spread has tasks of the service on a host, which it may have lost all of by being lost.
func (s *swarm) spread(h *lab.Host, service string, onto *lab.Host) {
	s.t.Helper()
	s.current(h)
	s.converged(h, service, replicas, generous)
	if len(containersOf(s.t, onto)) > 0 {
		return
	}
	h.Must("service", "update", "--quiet", "--force", "--update-parallelism", "0", "--update-monitor", "1ms", service)
	s.converged(h, service, replicas, generous)
	s.settled(h, generous, service)
	if len(containersOf(s.t, onto)) == 0 {
		s.t.Fatalf("no task of %s runs on %s, of %d", service, onto.Name, replicas)
	}
}

// current has a manager write something: what it shows afterwards is at least as new. One that was cut off a moment ago shows what was
// until it has caught up.
func (s *swarm) current(h *lab.Host) {
	s.t.Helper()
	name := fmt.Sprintf("current-%d", time.Now().UnixNano())
	if r := h.CtlInput("x", "config", "create", name, "-"); r.Err != nil {
		s.t.Fatal(r.Err)
	}
	h.Must("config", "rm", name)
}

// TestManagersCutOff cuts two of five managers off: the other hosts have sessions with the managers that are left before they are
// missed, whomever they ask first, and keep every task.
func TestManagersCutOff(t *testing.T) {
	s := form(t, 5, 1)
	s.serve(s.Hosts[0], "web", 2*len(s.Hosts))
	for range rounds(4) {
		leader := s.leader(s.Hosts[0])
		lost := []*lab.Host{leader, s.otherThan(leader)}
		left := s.otherThan(lost...)
		before := s.untouched(nil)
		delete(before, lost[0].Name)
		delete(before, lost[1].Name)
		if err := s.Cut(lost[0]); err != nil {
			t.Fatal(err)
		}
		if err := s.Cut(lost[1]); err != nil {
			t.Fatal(err)
		}
		s.Eventually(generous, "the two are missed", func() error {
			out := left.Ctl("node", "ls", "--format", "{{.Status}}").Stdout
			if strings.Count(out, "Down") < 2 {
				return fmt.Errorf("node ls:\n%s", out)
			}
			return nil
		})
		for range 30 { // in which somebody else would be missed
			if down := strings.Count(left.Ctl("node", "ls", "--format", "{{.Status}}").Stdout, "Down"); down > 2 {
				t.Fatalf("%d nodes are missed, want the two that are cut off", down)
			}
			time.Sleep(100 * time.Millisecond)
		}
		s.stillRun("two managers are cut off", before)
		if err := s.Heal(); err != nil {
			t.Fatal(err)
		}
		s.Settled(s.Hosts[0], s.managers)
		s.settled(s.Hosts[0], generous, "web")
	}
}

// TestLongCut cuts two of three managers off for a minute: afterwards writes go on at once, though TCP would try the connections that
// stood through it only after about as long again.
func TestLongCut(t *testing.T) {
	if !*long {
		t.Skip("a minute of waiting: see -long, and TestCutOff of pkg/store/etcd")
	}
	const cut, within = 60 * time.Second, 20 * time.Second // TCP's next try would come 30 s later or more
	s := form(t, 3, 0)
	for _, h := range s.Hosts[1:] {
		if err := s.Cut(h); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(cut) // the longer it is, the later TCP tries again
	if err := s.Heal(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	s.Eventually(within, "a write succeeds", func() error {
		return s.Hosts[0].CtlInput("x", "config", "create", fmt.Sprintf("after-%d", time.Now().UnixNano()), "-").Err
	})
	t.Logf("written %s after the cut of %s was over", time.Since(began).Round(time.Millisecond), cut)
}

// TestHostDies kills a host's swarmd and all its containers: the kernel closes its connections, and that is noticed at once.
func TestHostDies(t *testing.T) {
	s := form(t, 3, 2)
	s.serve(s.Hosts[0], "web", replicas)
	var took, power []time.Duration
	lost := s.Host("worker1")
	for range rounds(3) {
		for _, how := range []string{"killed", "power"} {
			s.spread(s.Hosts[0], "web", lost)
			before := s.untouched(lost)
			if how == "killed" {
				lost.KillAll()
				took = append(took, s.moved(s.Hosts[0], "web", lost))
			} else {
				if err := lost.PowerOff(); err != nil {
					t.Fatal(err)
				}
				power = append(power, s.moved(s.Hosts[0], "web", lost))
			}
			s.stillRun("a host "+how, before)
			lost.Start()
			s.comesBack(lost, "web")
		}
	}
	t.Logf("tasks of a host whose processes were killed ran elsewhere after %s (median of %d: %s)", median(took), len(took), took)
	t.Logf("tasks of a host whose power was cut ran elsewhere after %s (median of %d: %s)", median(power), len(power), power)
}

// TestLeaderDies kills the leading manager's daemon, which is started again at once, as an init system does: another one leads, the API
// accepts writes again, and no container notices, those on the leader's own host included.
func TestLeaderDies(t *testing.T) {
	s := form(t, 3, 2)
	s.serve(s.Hosts[0], "web", replicas)
	var took []time.Duration
	for i := range rounds(5) {
		leader := s.leader(s.Hosts[0])
		other := s.otherThan(leader)
		c := s.client(other)
		before := s.untouched(nil)
		leader.Kill()
		began := time.Now()
		if err := leader.Launch(); err != nil {
			t.Fatal(err)
		}
		s.Eventually(generous, "the API accepts writes", func() error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, _, err := client.Create(ctx, c, v1.Configs, &v1.Config{Meta: v1.Meta{Name: fmt.Sprintf("round-%d-%d", i, time.Now().UnixNano())},
				Spec: &v1.ConfigSpec{Data: []byte("x")}})
			return err
		})
		took = append(took, time.Since(began))
		// The rules work again too.
		other.Must("service", "update", "--quiet", "--detach", "--label-add", fmt.Sprintf("round=%d", i), "web")
		other.Must("service", "create", "--quiet", "--name", fmt.Sprintf("after%d", i), "hello:1")
		s.stillRun("the leader killed", before)
		s.Settled(other, s.managers)
		s.stillRun("the leader came back", before)
		other.Must("service", "rm", fmt.Sprintf("after%d", i))
		s.settled(other, generous, "web") // the next round counts on what runs
	}
	t.Logf("after the leader's death the API accepted writes after %s (median of %d: %s)", median(took), len(took), took)
}

// TestComesBack has a host miss everything for a while: what it runs is replaced, the service is changed and scaled meanwhile, and when it
// is back the swarm settles on what is wanted.
func TestComesBack(t *testing.T) {
	s := form(t, 3, 2)
	first := s.Hosts[0]
	s.serve(first, "web", replicas)
	s.serve(first, "gone", 3)
	lost := s.Host("worker2")
	s.spread(first, "web", lost)
	alone := containersOf(t, lost)
	if err := s.Cut(lost); err != nil {
		t.Fatal(err)
	}
	s.moved(first, "web", lost)
	first.Must("service", "update", "--quiet", "--image", "hello:2", "--update-parallelism", "0", "--update-monitor", "1ms", "web")
	first.Must("service", "scale", "web=6")
	first.Must("service", "rm", "gone")
	if now := containersOf(t, lost); !maps.Equal(now, alone) {
		t.Errorf("a host that hears nothing changed its containers: %v, were %v", now, alone)
	}
	if err := s.Heal(); err != nil {
		t.Fatal(err)
	}
	s.Settled(first, s.managers)
	s.settled(first, generous, "web")
	slots := make(map[uint64]int)
	for _, task := range s.converged(first, "web", 6, generous) {
		slots[task.Desired.Slot]++
	}
	if want := []uint64{1, 2, 3, 4, 5, 6}; !slices.Equal(slices.Sorted(maps.Keys(slots)), want) {
		t.Errorf("slots are %v, want one task in each of %v", slots, want)
	}
}
