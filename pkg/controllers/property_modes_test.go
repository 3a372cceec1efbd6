package controllers_test

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/controllers"
	"github.com/swarmd/swarmd/pkg/reconcile/reconciletest"
	"github.com/swarmd/swarmd/pkg/store"
)

// TestModeProperties does random steps to a global service and to jobs. After each, beside what reconciletest.World.Run holds the rules to: a task of a global
// service is on its own node, which hosts it; of a job no more are at work than may be, no slot that has completed has another, and
// what has completed stays. When everything is well again, a global service is on every node, and every job completes.
func TestModeProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := reconciletest.NewWorld(controllers.Pipelines())
		if err := w.Load(drawModes(t)); err != nil {
			t.Fatal(err)
		}
		do(t, w, "run")
		m := modes{completed: make(map[string]completion)}
		m.check(t, w)
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			do(t, w, drawModeStep(t, w))
			m.check(t, w)
		}
		for _, id := range nodeIDs {
			do(t, w, "node "+id+" ready")
			do(t, w, "node "+id+" active")
			do(t, w, "node "+id+" label zone=east")
		}
		for _, name := range []string{"sum", "each"} {
			do(t, w, "set "+name+" task.restartPolicy=null") // with attempts that are used up none would complete
		}
		for range 40 {
			do(t, w, "settle")
			do(t, w, "tick 5m")
			m.check(t, w)
			completeAll(t, w)
		}
		do(t, w, "settle")
		m.end(t, w)
	})
}

func drawModes(t *rapid.T) string {
	y := ""
	for _, id := range nodeIDs {
		y += fmt.Sprintf("---\nkind: Node\nmetadata: {id: %s, labels: {zone: east}}\n", id)
	}
	constraints := rapid.SampledFrom([]string{"", "node.labels.zone==east"}).Draw(t, "constraints")
	order := rapid.SampledFrom([]v1.UpdateOrder{v1.StopFirst, v1.StartFirst}).Draw(t, "order")
	policy := func() string {
		return fmt.Sprintf("{condition: %s, delay: %ds, maxAttempts: %d}", rapid.SampledFrom([]string{"any", "on-failure", "none"}).Draw(t, "condition"),
			rapid.IntRange(0, 2).Draw(t, "delay"), rapid.IntRange(0, 2).Draw(t, "attempts"))
	}
	task := func(policy string) string {
		return fmt.Sprintf("{container: {image: a:1}, placement: {constraints: [%s]}, restartPolicy: %s}", constraints, policy)
	}
	y += fmt.Sprintf("---\nkind: Service\nmetadata: {name: agent}\nspec: {mode: global, update: {order: %s, parallelism: %d, failureAction: continue}, task: %s}\n", order,
		rapid.IntRange(0, 2).Draw(t, "parallelism"), task("{condition: any, delay: 1s}"))
	y += fmt.Sprintf("---\nkind: Service\nmetadata: {name: sum}\nspec: {mode: replicated-job, replicas: %d, maxConcurrent: %d, task: %s}\n",
		rapid.IntRange(1, 5).Draw(t, "replicas"), rapid.IntRange(1, 5).Draw(t, "concurrent"), task(policy()))
	return y + fmt.Sprintf("---\nkind: Service\nmetadata: {name: each}\nspec: {mode: global-job, task: %s}\n", task(policy()))
}

func drawModeStep(t *rapid.T, w *reconciletest.World) string {
	service := rapid.SampledFrom([]string{"agent", "sum", "each"}).Draw(t, "service")
	node := rapid.SampledFrom(nodeIDs).Draw(t, "node")
	switch rapid.IntRange(0, 11).Draw(t, "step") {
	case 0:
		return fmt.Sprintf("set sum replicas=%d maxConcurrent=%d", rapid.IntRange(1, 5).Draw(t, "replicas"), rapid.IntRange(1, 5).Draw(t, "concurrent"))
	case 1:
		return fmt.Sprintf("set %s task.container.image=a:%d", service, rapid.IntRange(1, 3).Draw(t, "image"))
	case 2:
		return "resume " + service
	case 3, 4:
		return fmt.Sprintf("node %s %s", node, rapid.SampledFrom([]string{"down", "ready", "drain", "active", "pause"}).Draw(t, "what"))
	case 5:
		return fmt.Sprintf("node %s label zone=%s", node, rapid.SampledFrom([]string{"east", "west"}).Draw(t, "zone"))
	case 6:
		return fmt.Sprintf("tick %ds", rapid.IntRange(1, 20).Draw(t, "seconds"))
	case 7:
		return fmt.Sprintf("history %d", rapid.IntRange(-1, 2).Draw(t, "history"))
	case 8:
		return "play"
	default:
		return drawStatus(t, w)
	}
}

// completeAll has the agents tell that all tasks of jobs have completed.
func completeAll(t *rapid.T, w *reconciletest.World) {
	for task := range store.All(w.Snapshot(), v1.Tasks) {
		if d := task.Desired; d.Iteration > 0 && d.State == v1.TaskComplete && v1.Observed(task) == v1.TaskRunning {
			do(t, w, fmt.Sprintf("status %s@%d complete", v1.TaskName(d), d.Attempt))
		}
	}
}

// modes remember which tasks of jobs have completed, by ID.
type modes struct{ completed map[string]completion }

type completion struct {
	service   string
	iteration uint64
}

func (m *modes) check(t *rapid.T, w *reconciletest.World) {
	t.Helper()
	s := w.Snapshot()
	fail := func(task *v1.Task, what string) {
		t.Helper()
		printed, _ := w.Do("tasks")
		t.Fatalf("%s attempt %d %s\n%s", v1.TaskName(task.Desired), task.Desired.Attempt, what, printed)
	}
	for o := range store.All(s, v1.Services) {
		atWork, done := 0, make(map[uint64]bool)
		for task := range s.TasksOfService(o.Meta.ID) {
			if task.Desired.Iteration == o.Meta.Generation && v1.Observed(task) == v1.TaskComplete {
				done[task.Desired.Slot], m.completed[task.Meta.ID] = true, completion{o.Meta.ID, o.Meta.Generation}
			}
		}
		for task := range s.TasksOfService(o.Meta.ID) {
			if !v1.Live(task) {
				continue
			}
			if v1.Global(o) {
				m.onItsNode(s, o, task, func(what string) { fail(task, what) })
			}
			switch {
			case !v1.Job(o):
			case task.Desired.Iteration != o.Meta.Generation:
				fail(task, "is of an earlier iteration")
			case done[task.Desired.Slot]:
				fail(task, "is at work in a slot that has completed")
			default:
				atWork++
			}
		}
		if o.Spec.Mode == v1.ModeReplicatedJob && uint64(atWork) > *o.Spec.MaxConcurrent {
			printed, _ := w.Do("tasks")
			t.Fatalf("%s has %d tasks at work, of at most %d\n%s", o.Meta.Name, atWork, *o.Spec.MaxConcurrent, printed)
		}
		m.stay(t, s, o)
	}
}

// stay holds what completed to being there until the job begins anew, and then to going.
func (m *modes) stay(t *rapid.T, s *store.Snapshot, o *v1.Service) {
	t.Helper()
	for id, c := range m.completed {
		if c.service != o.Meta.ID {
			continue
		}
		task, there := store.Get(s, v1.Tasks, id)
		switch {
		case c.iteration == o.Meta.Generation && !there:
			t.Fatalf("%s: task %s has completed in this iteration, and is gone", o.Meta.Name, id)
		case c.iteration != o.Meta.Generation && there && task.Desired.State < v1.TaskRemove:
			t.Fatalf("%s: task %s has completed in an earlier iteration, and stays", o.Meta.Name, id)
		}
	}
}

// onItsNode looks at where a global service's task is.
func (m *modes) onItsNode(s *store.Snapshot, o *v1.Service, task *v1.Task, fail func(string)) {
	if node := v1.TaskNode(task); node != "" && node != task.Desired.Node {
		fail("is on " + node + ", and not on its own node")
	}
	n, there := store.Get(s, v1.Nodes, task.Desired.Node)
	if !there || !v1.NodePaused(n) && !v1.Hosts(n, v1.Constraints(&v1.Effective(o).Spec.Task)) {
		fail("is on a node that does not host it")
	}
}

// end is what there has to be once everything is well.
func (m *modes) end(t *rapid.T, w *reconciletest.World) {
	s := w.Snapshot()
	for o := range store.All(s, v1.Services) {
		counts := s.CountsOf(o.Meta.ID)
		running, complete := len(nodeIDs), 0
		switch o.Spec.Mode {
		case v1.ModeReplicatedJob:
			running, complete = 0, int(*o.Spec.Replicas)
		case v1.ModeGlobalJob:
			running, complete = 0, len(nodeIDs)
		}
		if counts.Running != running || v1.Job(o) && counts.Complete != complete {
			printed, _ := w.Do("tasks")
			t.Fatalf("%s has %+v, want %d running and %d complete\n%s", o.Meta.Name, counts, running, complete, printed)
		}
	}
}
