package e2e

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/test/e2e/lab"
)

var kills = flag.Int("kills", 2, "at how many random moments TestRolloutLeaderDies kills the leader")

// dockerUpdate is how long Docker Swarm takes for the same on such a machine.
const dockerUpdate = 12900 * time.Millisecond

// TestUpdateTime prints how long a rolling update of 12 replicas takes, two at a time, stop-first, each monitored for a second, from the write
// of the spec until the rollout is completed: a program that ends only when it is killed, a millisecond after it was told to stop.
func TestUpdateTime(t *testing.T) {
	s := form(t, 3, 0)
	first := s.Hosts[0]
	var all []time.Duration
	for range rounds(5) {
		first.Must("service", "create", "--quiet", "--name", "ru", "--replicas", "12", "--update-parallelism", "2", "--update-monitor", "1s",
			"--update-failure-action", "rollback", "--stop-grace-period", "1ms", "--restart-delay", "1ms", "hello:1", "sleep", "1000h")
		all = append(all, s.timeUpdate(first, "ru"))
		first.Must("service", "rm", "ru")
		s.settled(first, generous)
	}
	m := median(all)
	t.Logf("a rolling update of 12 replicas by 2 with a monitor of 1s took %s, %.2f of Docker Swarm's %s", m, m.Seconds()/dockerUpdate.Seconds(), dockerUpdate)
}

// timeUpdate changes a service's environment, and follows its rollout to the end.
func (s *swarm) timeUpdate(h *lab.Host, service string) time.Duration {
	s.t.Helper()
	c := s.client(h)
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*generous)
	defer cancel()
	o, err := client.Get(ctx, c, v1.Services, service)
	if err != nil {
		s.t.Fatal(err)
	}
	o.Spec.Task.Container.Env = append(o.Spec.Task.Container.Env, "V=2")
	began := time.Now()
	if _, _, err = client.Update(ctx, c, v1.Services, o); err != nil {
		s.t.Fatal(err)
	}
	for e, err := range client.Watch(ctx, c, v1.Services, nil, -1) {
		if err != nil {
			s.t.Fatal(err)
		}
		if u := e.Object.Desired; e.Object.Meta.ID == o.Meta.ID && u != nil && u.Update != nil && u.Update.State == v1.UpdateCompleted && u.Update.Revision != "" &&
			e.Object.Meta.Generation > o.Meta.Generation && u.Update.Generation == e.Object.Meta.Generation {
			return time.Since(began)
		}
	}
	s.t.Fatal("the watch ended")
	return 0
}

// TestRolloutLeaderDies kills the leader at a random moment of each of a number of rolling updates, and starts it again: each ends as it would
// have, no slot is ever wanted twice, and no request is lost. Tasks run on workers alone, so that none of them is lost with a leader's host.
func TestRolloutLeaderDies(t *testing.T) {
	s := form(t, 3, 2)
	first := s.Hosts[0]
	const replicas = 6
	s.serve(first, "web", replicas, "--publish", "8080:8080", "--constraint", "node.role==worker", "--update-parallelism", "1", "--update-monitor", "300ms",
		"--health-tcp", "8080", "--health-start-period", "30s", "--health-start-interval", "50ms")
	var from []requester
	for _, h := range s.Hosts[3:] {
		from = append(from, requesters("port on "+h.Name, fmt.Sprintf("http://%s:8080/", h.Addr), s.Client)...)
	}
	r := sendRequests(from)
	defer r.stop()
	twice := s.watchSlots(first, "web")
	took := s.timeUpdate(first, "web")
	seed := *faultSeed
	if seed == 0 {
		seed = rand.Uint64N(1_000_000)
	}
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d; an update takes %s when nobody is killed", seed, took.Round(10*time.Millisecond))
	for i := range *kills {
		moment := time.Duration(random.Int64N(int64(took)))
		image := fmt.Sprintf("hello:%d", 2-i%2)
		first.Must("service", "update", "--detach", "--image", image, "web")
		time.Sleep(moment)
		leader := s.leader(first)
		leader.Kill()
		leader.Start()
		message := s.updateState(first, "web", v1.UpdateCompleted)
		s.hasRolledOut(first, "web", image, replicas)
		t.Logf("kill %d: %s, %s into the update to %s: %s", i+1, leader.Name, moment.Round(time.Millisecond), image, message)
	}
	r.stop()
	if failed := r.failures(); len(failed) > 0 {
		t.Errorf("%d of %d requests were lost:\n%s", len(failed), r.sent.Load(), strings.Join(failed[:min(10, len(failed))], "\n"))
	}
	if slots := twice(); len(slots) > 0 {
		t.Errorf("slots that were wanted twice: %s", strings.Join(slots, ", "))
	}
	t.Logf("%d requests were sent", r.sent.Load())
}

// hasRolledOut holds a service to be what an update makes of it: each slot has one task, of the image, that runs in one container.
func (s *swarm) hasRolledOut(h *lab.Host, service, image string, replicas int) {
	s.t.Helper()
	tasks := s.converged(h, service, replicas, generous)
	s.settled(h, generous, service)
	c := s.client(h)
	slots := make(map[uint64]bool)
	for _, task := range tasks {
		slots[task.Desired.Slot] = true
		revision, err := client.Get(s.t.Context(), c, v1.ServiceRevisions, task.Desired.Revision)
		if err != nil {
			s.t.Fatal(err)
		}
		if got := revision.Spec.Task.Container.Image; got != image {
			s.t.Errorf("slot %d runs %s, want %s", task.Desired.Slot, got, image)
		}
	}
	if len(slots) != replicas || !slots[1] || !slots[uint64(replicas)] {
		s.t.Errorf("the slots are %v, want 1 to %d", slots, replicas)
	}
}

// watchSlots follows the tasks of a service, of which each slot is to have one at most that is wanted, until the function that it returns is
// called: it tells where there were more.
func (s *swarm) watchSlots(h *lab.Host, service string) func() []string {
	s.t.Helper()
	c := s.client(h)
	ctx, cancel := context.WithCancel(s.t.Context())
	var done sync.WaitGroup
	var twice []string
	done.Go(func() {
		for ctx.Err() == nil {
			err := followSlots(ctx, c, service, func(slot uint64, revision int64) {
				twice = append(twice, fmt.Sprintf("%d at revision %d", slot, revision))
			})
			// A manager that was started again does not have the history of before: it is looked at anew.
			if client.Status(err) != http.StatusGone && ctx.Err() == nil {
				s.t.Errorf("watching %s: %v", service, err)
				return
			}
		}
	})
	return func() []string {
		cancel()
		done.Wait()
		return twice
	}
}

// followSlots tells which slots have more than one task that is wanted, after each commit.
func followSlots(ctx context.Context, c *client.Client, service string, twice func(slot uint64, revision int64)) error {
	wanted := make(map[uint64]map[string]bool)
	at := int64(0)
	for e, err := range client.Watch(ctx, c, v1.Tasks, v1.Filter{"service": {service}}, -1) {
		if err != nil {
			return err
		}
		if e.Revision != at { // what one commit wrote is one thing
			for slot, tasks := range wanted {
				if len(tasks) > 1 {
					twice(slot, at)
				}
			}
			at = e.Revision
		}
		d := e.Object.Desired
		if d == nil {
			continue
		}
		if wanted[d.Slot] == nil {
			wanted[d.Slot] = make(map[string]bool)
		}
		if delete(wanted[d.Slot], e.Object.Meta.ID); e.Type == client.EventPut && v1.Live(e.Object) {
			wanted[d.Slot][e.Object.Meta.ID] = true
		}
	}
	return ctx.Err()
}
