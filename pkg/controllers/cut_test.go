package controllers_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/controllers"
	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/store"
)

const (
	cutNodes    = 6
	cutReplicas = 180
	cutMost     = cutReplicas / cutNodes // for each node: there is no room beside what runs
)

// cutting is a store that takes no more than one phase in a commit, and that a crash cuts off after some commits.
type cutting struct {
	*store.Memory
	t    *testing.T
	rng  *rand.Rand
	left int             // commits until the crash; negative is never
	gone map[string]bool // tasks that were removed
}

var errCrash = errors.New("crash")

// MaxOps implements store.Limited.
func (c *cutting) MaxOps() int { return store.MaxOps }

// Commit implements store.Store. It stands for many commits of parts of a phase: before the crash, any of them were made.
func (c *cutting) Commit(ctx context.Context, commit store.Commit) (int64, error) {
	if len(reconcile.Phases(commit.Ops)) > 1 {
		return 0, store.ErrTooLarge
	}
	if c.left == 0 {
		return 0, errCrash
	}
	c.left--
	ops, err := commit.Ops, error(nil)
	if c.left == 0 {
		ops, err = nil, errCrash
		for _, op := range commit.Ops {
			if c.rng.IntN(2) == 0 {
				ops = append(ops, op)
			}
		}
	}
	before, _ := c.Snapshot(ctx, 0)
	revision, failed := c.Memory.Commit(ctx, store.Commit{Ops: ops})
	if failed != nil {
		return 0, failed
	}
	c.check(before, ops)
	return revision, err
}

// check holds what was written to what must never be, however little of a commit there is.
func (c *cutting) check(before *store.Snapshot, ops []store.Op) {
	c.t.Helper()
	for _, op := range ops {
		if op.Kind != v1.KindTask {
			continue
		}
		if _, was := store.Get(before, v1.Tasks, op.ID); !was && c.gone[op.ID] {
			c.t.Fatalf("the ID of a task that is gone is used again: %+v", op.Value)
		}
		c.gone[op.ID] = c.gone[op.ID] || op.Value == nil
	}
	after, _ := c.Snapshot(context.Background(), 0)
	for n := range store.All(after, v1.Nodes) {
		live := 0
		for t := range after.TasksOfNode(n.Meta.ID) {
			if v1.Live(t) {
				live++
			}
		}
		if live > cutMost {
			c.t.Fatalf("%s has %d live tasks, at most %d may be", n.Meta.ID, live, cutMost)
		}
	}
	for contest := range after.Contests() {
		c.t.Fatalf("%s has two holders", contest.Address)
	}
	for t := range store.All(after, v1.Tasks) {
		if _, ok := store.Get(after, v1.ServiceRevisions, t.Desired.Revision); !ok {
			c.t.Fatalf("%s refers to a revision that is not there", v1.TaskName(t.Desired))
		}
		if _, ok := store.Get(after, v1.Services, t.Desired.Service); !ok {
			c.t.Fatalf("%s is of a service that is not there", v1.TaskName(t.Desired))
		}
	}
}

// put writes the service as the user wants it.
func (c *cutting) put(image string, replicas uint64, deleting bool) {
	c.t.Helper()
	none := v1.Duration(0)
	all := uint64(0)
	o := &v1.Service{Spec: &v1.ServiceSpec{Replicas: &replicas, Update: &v1.UpdateConfig{Parallelism: &all},
		Task: v1.TaskSpec{Container: v1.ContainerSpec{Image: image}, Networks: []v1.NetworkAttachment{{Target: "back"}}, Placement: &v1.Placement{MaxReplicas: cutMost},
			RestartPolicy: &v1.RestartPolicy{Delay: &none}}}}
	v1.Default(o)
	meta := &v1.Meta{Name: "web", Generation: 1}
	if deleting {
		meta.Deleting = epoch
	}
	commit(c.t, c.Memory, store.Op{Kind: v1.KindService, ID: "web", Section: v1.SectionSpec, Value: o.Spec, Meta: meta, If: store.Always()})
}

// decide decides, and is cut off by a crash a few times before it is not, until there is nothing more to decide. The clock
// stands still.
func (c *cutting) decide() (cuts int) {
	c.t.Helper()
	e := reconcile.New(c, controllers.Rules(), reconcile.Options{})
	for range 50 {
		s, _ := c.Snapshot(c.t.Context(), 0)
		ops, _ := e.Step(epoch, s, []string{"web"})
		if len(ops) == 0 {
			return cuts
		}
		c.left = -1
		if c.rng.IntN(3) > 0 {
			c.left = c.rng.IntN(4)
		}
		switch _, err := e.Commit(c.t.Context(), ops, nil); {
		case errors.Is(err, errCrash):
			cuts++
		case err != nil:
			c.t.Fatal(err)
		}
	}
	c.t.Fatal("the rules did not come to rest")
	return cuts
}

// report has the agents do what they are told.
func (c *cutting) report() {
	c.t.Helper()
	s, _ := c.Snapshot(c.t.Context(), 0)
	for t := range store.All(s, v1.Tasks) {
		state := min(t.Desired.State, v1.TaskShutdown)
		if v1.TaskNode(t) != "" && !v1.Observed(t).Terminal() && state != v1.Observed(t) {
			commit(c.t, c.Memory, store.Op{Kind: v1.KindTask, ID: t.Meta.ID, Section: v1.SectionStatus,
				Value: &v1.TaskStatus{State: state, At: epoch}})
		}
	}
}

// TestCutCommits takes a service through its life, with no room to spare, and a crash in most commits. See cutting.check
// for what must never be.
func TestCutCommits(t *testing.T) {
	cuts := 0
	for seed := range uint64(30) {
		c := &cutting{Memory: store.NewMemory(), t: t, rng: rand.New(rand.NewPCG(seed, 0)), gone: make(map[string]bool)}
		for n := range store.All(cluster(t, cutNodes, 0, 0), v1.Nodes) {
			commit(t, c.Memory, store.Op{Kind: v1.KindNode, ID: n.Meta.ID, Section: v1.SectionSpec, Value: n.Spec, Meta: &n.Meta, If: store.Absent()},
				store.Op{Kind: v1.KindNode, ID: n.Meta.ID, Section: v1.SectionStatus, Value: n.Status, If: store.Always()})
		}
		// There are not enough addresses for all old tasks and all new ones.
		commit(t, c.Memory, store.Op{Kind: v1.KindNetwork, ID: "back", Value: &v1.NetworkSpec{}, Meta: &v1.Meta{Name: "back"}, If: store.Absent()},
			store.Op{Kind: v1.KindNetwork, ID: "back", Section: v1.SectionDesired, If: store.Always(), Value: &v1.NetworkDesired{VNI: v1.FirstVNI,
				Subnets: []v1.SubnetSpec{{Subnet: "10.0.0.0/24", Gateway: "10.0.0.1"}}}})
		runs := func(want int) {
			t.Helper()
			for range 4 { // what is to stop has to, before what is ready may run, and has an address
				cuts += c.decide()
				c.report()
			}
			s, _ := c.Snapshot(t.Context(), 0)
			if got := s.CountsOf("web").Running; got != want {
				t.Fatalf("seed %d: %d tasks run, want %d", seed, got, want)
			}
		}
		c.put("hello:1", cutReplicas, false)
		runs(cutReplicas)
		c.put("hello:2", cutReplicas, false) // each task is placed where there is room once another is to stop
		runs(cutReplicas)
		c.put("hello:2", 0, false)
		cuts += c.decide()
		c.report()
		c.put("hello:2", cutReplicas, false) // the slots come back while their last tasks go
		runs(cutReplicas)
		c.put("hello:2", cutReplicas, true)
		runs(0)
		cuts += c.decide()
		s, _ := c.Snapshot(t.Context(), 0)
		if left := s.Count(v1.KindTask) + s.Count(v1.KindServiceRevision) + s.Count(v1.KindService); left != 0 {
			t.Fatalf("seed %d: %d objects are left of a service that was deleted", seed, left)
		}
	}
	if cuts < 100 {
		t.Errorf("only %d commits were cut off", cuts)
	}
}

// TestSlotWithoutItsNewestTask has a slot whose removal was cut off, whether or not what is left was told to go before.
func TestSlotWithoutItsNewestTask(t *testing.T) {
	for _, state := range []v1.TaskState{v1.TaskRunning, v1.TaskShutdown, v1.TaskRemove} {
		left := v1.TaskID("service00000", "1", 1)
		s := apply(t, cluster(t, 1, 1, 1), []store.Op{
			{Kind: v1.KindService, ID: "service00000", Section: v1.SectionDesired, Value: &v1.ServiceDesired{Attempts: 2}},
			{Kind: v1.KindTask, ID: left, Section: v1.SectionDesired, If: store.Absent(), Meta: &v1.Meta{},
				Value: &v1.TaskDesired{Service: "service00000", Slot: 1, Attempt: 1, State: state}},
			{Kind: v1.KindTask, ID: left, Section: v1.SectionStatus, Value: &v1.TaskStatus{State: v1.TaskFailed}}})
		ops, _ := reconcile.New(store.NewMemory(), controllers.Rules(), reconcile.Options{}).Step(epoch, s, []string{"service00000"})
		var made []uint64
		for _, op := range ops {
			if d, ok := op.Value.(*v1.TaskDesired); ok && op.ID != left {
				made = append(made, d.Attempt)
			}
		}
		if !slices.Equal(made, []uint64{3}) {
			t.Errorf("beside a task that is to be %s, the attempts %d are made; want the third: there was a second", state, made)
		}
	}
}

// TestFailureIsCountedOnce has a leader that counts a task that failed in a rollout, and is cut off before it stops it.
func TestFailureIsCountedOnce(t *testing.T) {
	const key = "service00000"
	e := reconcile.New(store.NewMemory(), controllers.Rules(), reconcile.Options{})
	s := cluster(t, 1, 1, 4)
	step := func(phases int) {
		t.Helper()
		ops, _ := e.Step(epoch, s, []string{key})
		for _, phase := range reconcile.Phases(ops)[:min(phases, len(reconcile.Phases(ops)))] {
			s = apply(t, s, phase)
		}
	}
	report := func() {
		t.Helper()
		for task := range s.TasksOfService(key) {
			state := min(task.Desired.State, v1.TaskShutdown)
			if task.Desired.Revision != v1.RevisionID(serviceOf(t, s, key)) && state == v1.TaskRunning || state == v1.TaskShutdown {
				s = apply(t, s, []store.Op{{Kind: v1.KindTask, ID: task.Meta.ID, Section: v1.SectionStatus, Value: &v1.TaskStatus{State: state}}})
			} else if state == v1.TaskRunning {
				ran := v1.Duration(0)
				s = apply(t, s, []store.Op{{Kind: v1.KindTask, ID: task.Meta.ID, Section: v1.SectionStatus,
					Value: &v1.TaskStatus{State: v1.TaskFailed, Ran: &ran}}})
			}
		}
	}
	step(6)
	o := serviceOf(t, s, key)
	spec := *o.Spec
	spec.Task.Container.Image = "hello:2"
	spec.Update = &v1.UpdateConfig{MaxFailureRatio: 0.25}
	s = apply(t, s, []store.Op{{Kind: v1.KindService, ID: key, Section: v1.SectionSpec, Value: &spec, Meta: &v1.Meta{ID: key, Name: key, Generation: 2}}})
	report()
	step(6) // admits a slot, and stops its task
	report()
	step(6) // lets the new task run
	report()
	step(1) // counts its failure
	if u := serviceOf(t, s, key).Desired.Update; u.Failures != 1 {
		t.Fatalf("got %+v, want one failure", u)
	}
	step(6)
	if u := serviceOf(t, s, key).Desired.Update; u.Failures != 1 || u.State != v1.UpdateUpdating {
		t.Errorf("got %+v, want one failure still", u)
	}
}

func serviceOf(t *testing.T, s *store.Snapshot, id string) *v1.Service {
	t.Helper()
	o, ok := store.Get(s, v1.Services, id)
	if !ok {
		t.Fatalf("there is no service %s", id)
	}
	return o
}
