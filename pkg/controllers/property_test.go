package controllers_test

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/controllers"
	"github.com/swarmd/swarmd/pkg/reconcile/reconciletest"
	"github.com/swarmd/swarmd/pkg/store"
)

// TestProperties does random steps from random starts, wrong ones too. After each, reconciletest.World.Run holds the rules
// to what must always be: they come to rest, and deciding again gives nothing; the same snapshot gives the same plan; no
// slot has two live tasks, no node holds more than it has, no ID is used twice, no task runs before the other stopped.
// When everything is well again, each service has its replicas.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := reconciletest.NewWorld(controllers.Pipelines())
		if err := w.Load(drawCluster(t)); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Run(); err != nil {
			t.Fatalf("from the start: %v", err)
		}
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			do(t, w, drawStep(t, w))
		}
		heal(t, w)
		for o := range store.All(w.Snapshot(), v1.Services) {
			if !o.Meta.Deleting.IsZero() {
				t.Fatalf("service %s is still being deleted", o.Meta.Name)
			}
			want := int(*o.Spec.Replicas)
			if counts := w.Snapshot().CountsOf(o.Meta.ID); counts.Running != want || counts.Live != want {
				printed, _ := w.Do("tasks " + o.Meta.Name)
				t.Fatalf("service %s wants %d: %+v\n%s", o.Meta.Name, want, counts, printed)
			}
			if u := o.Desired; u != nil && u.Update != nil && u.Update.State == v1.UpdateUpdating {
				t.Fatalf("the update of service %s never ends: %+v", o.Meta.Name, u.Update)
			}
		}
	})
}

func do(t *rapid.T, w *reconciletest.World, step string) {
	t.Helper()
	if step == "" {
		return
	}
	for _, s := range []string{step, "run"} {
		if _, err := w.Do(s); err != nil {
			tasks, _ := w.Do("tasks")
			t.Fatalf("%s: %v\n%s", s, err, tasks)
		}
	}
}

var nodeIDs = []string{"n1", "n2", "n3"}

// drawCluster is three nodes, two services, and tasks that may be anything.
func drawCluster(t *rapid.T) string {
	var y strings.Builder
	for i, id := range nodeIDs {
		fmt.Fprintf(&y, "---\nkind: Node\nmetadata: {id: %s, labels: {zone: z%d}}\n", id, i%2)
	}
	drawNetworks(t, &y)
	for _, name := range []string{"web", "db"} {
		order := rapid.SampledFrom([]v1.UpdateOrder{v1.StopFirst, v1.StartFirst}).Draw(t, "order")
		parallelism := rapid.IntRange(0, 3).Draw(t, "parallelism")
		delay := rapid.IntRange(0, 2).Draw(t, "delay")
		action := rapid.SampledFrom([]v1.FailureAction{v1.FailurePause, v1.FailureContinue, v1.FailureRollback}).Draw(t, "action")
		extra := rapid.SampledFrom([]string{"", "resources: {reservations: {cpus: 1}}", "placement: {maxReplicas: 3}",
			"placement: {preferences: [{spread: node.labels.zone}]}", "placement: {rebalance: on-join}",
			"placement: {rebalance: on-join, maxReplicas: 2, preferences: [{spread: node.labels.zone}]}"}).Draw(t, "extra")
		if extra != "" {
			extra = ", " + extra
		}
		extra += ", networks: " + drawAttachments(t)
		fmt.Fprintf(&y, "---\nkind: Service\nmetadata: {name: %s}\nspec: {replicas: %d, update: {order: %s, parallelism: %d, delay: %ds, "+
			"failureAction: %s}, task: {container: {image: a:1}, restartPolicy: {delay: %ds, condition: %s, maxAttempts: %d}%s}, endpoint: %s}\n%s", name,
			rapid.IntRange(0, 5).Draw(t, "replicas"), order, parallelism, delay, action, rapid.IntRange(0, 2).Draw(t, "restart"),
			rapid.SampledFrom([]string{"any", "any", "on-failure", "none"}).Draw(t, "condition"), max(0, rapid.IntRange(-3, 2).Draw(t, "attempts")), extra,
			rapid.SampledFrom([]string{"{}", "{mode: dnsrr}", "{ports: [{target: 80}]}"}).Draw(t, "endpoint"), drawVIPs(t))
		drawTasks(t, &y, name)
	}
	return y.String()
}

// drawTasks are tasks as no rule would have left them.
func drawTasks(t *rapid.T, y *strings.Builder, service string) {
	seen := make(map[string]bool)
	for range rapid.IntRange(0, 5).Draw(t, "tasks") {
		slot, attempt := rapid.IntRange(0, 7).Draw(t, "slot"), rapid.IntRange(1, 4).Draw(t, "attempt")
		if key := fmt.Sprint(slot, "/", attempt); seen[key] {
			continue
		} else {
			seen[key] = true
		}
		fmt.Fprintf(y, "---\nkind: Task\ndesired: {service: %s, slot: %d, attempt: %d, revision: %s, state: %s", service, slot, attempt,
			rapid.SampledFrom([]string{"current", "foreign"}).Draw(t, "revision"),
			rapid.SampledFrom([]string{"ready", "running", "shutdown", "remove"}).Draw(t, "desired"))
		if on := drawHeld(t); on != "[]" {
			fmt.Fprintf(y, ", networks: %s", on)
		}
		if node := rapid.SampledFrom(append([]string{"", "nowhere"}, nodeIDs...)).Draw(t, "node"); node != "" {
			fmt.Fprintf(y, ", placement: {node: %s}}\n", node)
			if state := rapid.SampledFrom([]string{"", "starting", "running", "failed", "shutdown"}).Draw(t, "observed"); state != "" {
				fmt.Fprintf(y, "status: {state: %s}\n", state)
			}
		} else {
			y.WriteString("}\n")
		}
	}
}

// drawStep is one step of a scenario, or "".
func drawStep(t *rapid.T, w *reconciletest.World) string {
	service := rapid.SampledFrom([]string{"web", "db"}).Draw(t, "service")
	node := rapid.SampledFrom(nodeIDs).Draw(t, "node")
	switch rapid.IntRange(0, 16).Draw(t, "step") {
	case 0:
		return fmt.Sprintf("scale %s %d", service, rapid.IntRange(0, 5).Draw(t, "replicas"))
	case 1:
		return fmt.Sprintf("set %s task.container.image=a:%d", service, rapid.IntRange(1, 3).Draw(t, "image"))
	case 2:
		return fmt.Sprintf("tick %ds", rapid.IntRange(1, 20).Draw(t, "seconds"))
	case 3:
		return fmt.Sprintf("node %s %s", node, rapid.SampledFrom([]string{"down", "ready", "drain", "active", "pause"}).Draw(t, "what"))
	case 4:
		return "play"
	case 5, 6, 7:
		return drawStatus(t, w)
	case 8:
		return "resume " + service
	case 13:
		return fmt.Sprintf("edit %s task.container.image=a:%d", service, rapid.IntRange(1, 3).Draw(t, "image"))
	case 14:
		return drawRollback(w, service)
	case 15:
		return fmt.Sprintf(`set %s task.container.secrets=[{"source":"s%d","target":"/s","onChange":"none"}]`, service, rapid.IntRange(0, 2).Draw(t, "secret"))
	case 16:
		return drawUnfit(t, w)
	case 10:
		return fmt.Sprintf("set %s task.networks=%s", service, drawAttachments(t))
	case 11:
		return drawNetworkStep(t, w)
	case 12:
		return fmt.Sprintf("set %s endpoint=%s", service, rapid.SampledFrom([]string{`{"mode":"vip"}`, `{"mode":"dnsrr"}`,
			`{"mode":"vip","ports":[{"target":80,"protocol":"tcp","mode":"ingress"},{"target":80,"protocol":"tcp","mode":"ingress"}]}`}).Draw(t, "endpoint"))
	default:
		return fmt.Sprintf("set %s task.placement.constraints=[node.labels.zone!=z%d]", service, rapid.IntRange(0, 5).Draw(t, "zone"))
	}
}

// drawRollback goes back by hand, where there is somewhere to go.
func drawRollback(w *reconciletest.World, service string) string {
	o, err := w.Snapshot().Resolve(v1.KindService, service)
	if err != nil {
		return ""
	}
	d := o.(*v1.Service).Desired
	if d == nil || d.Update == nil {
		return ""
	}
	if _, kept := store.Get(w.Snapshot(), v1.ServiceRevisions, d.Update.Previous); !kept {
		return ""
	}
	return "rollback " + service
}

// drawStatus is what an agent may say next of some task.
func drawStatus(t *rapid.T, w *reconciletest.World) string {
	var live []*v1.Task
	for task := range store.All(w.Snapshot(), v1.Tasks) {
		if v1.TaskNode(task) != "" && task.Desired.Slot > 0 && !v1.Observed(task).Terminal() {
			live = append(live, task)
		}
	}
	if len(live) == 0 {
		return ""
	}
	task := rapid.SampledFrom(live).Draw(t, "task")
	states := []v1.TaskState{v1.TaskStarting, v1.TaskRunning, v1.TaskFailed, v1.TaskRejected, v1.TaskComplete, v1.TaskShutdown}
	state := rapid.SampledFrom(states).Draw(t, "state")
	if state <= v1.Observed(task) || state <= v1.TaskRunning && task.Desired.State < state {
		return "" // states never go back, and no agent starts what is not to run
	}
	return fmt.Sprintf("status %s@%d %s", v1.TaskName(task.Desired), task.Desired.Attempt, state)
}

// drawUnfit is an agent that cannot change the secrets of some task.
func drawUnfit(t *rapid.T, w *reconciletest.World) string {
	for task := range store.All(w.Snapshot(), v1.Tasks) {
		if v1.Observed(task) == v1.TaskRunning && v1.Refitting(task) {
			return fmt.Sprintf("unfit %s@%d disk full", v1.TaskName(task.Desired), task.Desired.Attempt)
		}
	}
	return ""
}

// heal makes everything well, and waits for long enough.
func heal(t *rapid.T, w *reconciletest.World) {
	steps := []string{}
	for _, id := range nodeIDs {
		steps = append(steps, "node "+id+" ready", "node "+id+" active", "node "+id+" cpus 100")
	}
	for _, name := range []string{"web", "db"} {
		steps = append(steps, "set "+name+" task.placement=null task.restartPolicy.condition=any task.restartPolicy.maxAttempts=null task.networks=[{\"target\":\"wide\"}]")
	}
	if _, err := w.Snapshot().Resolve(v1.KindNetwork, "wide"); err != nil {
		steps = append(steps, "network wide")
	}
	for range 30 {
		steps = append(steps, "settle", "tick 5m")
	}
	for _, s := range append(steps, "settle") {
		do(t, w, s)
	}
}
