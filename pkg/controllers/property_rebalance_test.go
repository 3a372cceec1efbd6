package controllers_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"pgregory.net/rapid"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/controllers"
	"github.com/swarmd/swarmd/pkg/reconcile/reconciletest"
	"github.com/swarmd/swarmd/pkg/store"
)

// TestRebalanceProperties has nodes join while agents are as slow, or fail, as they like. At every moment as many tasks of the service run as are to
// be, and no more slots move than may. It ends: where nothing failed with all nodes within one task of each other, in every zone and over the
// zones, and another look moves nothing. A service that does not rebalance keeps exactly the tasks that it had.
func TestRebalanceProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := newBalance(t)
		do(t, b.w, "settle")
		still := b.tasks(t, "still")
		do(t, b.w, "tick 1m")
		for i := range rapid.IntRange(1, 3).Draw(t, "joins") {
			if _, err := b.w.Do(fmt.Sprintf("node m%d new", i)); err != nil {
				t.Fatal(err)
			}
			do(t, b.w, fmt.Sprintf("node m%d label zone=z%d", i, rapid.IntRange(0, 2).Draw(t, "zone")))
			for range rapid.IntRange(0, 8).Draw(t, "steps") {
				b.step(t)
			}
			do(t, b.w, "tick 1s") // no two moments are the same
		}
		for range 60 {
			do(t, b.w, "settle")
			b.check(t)
			do(t, b.w, "tick 5m")
		}
		if !b.failed {
			b.balanced(t)
		}
		moved := b.tasks(t, "web")
		do(t, b.w, "tick 1h")
		do(t, b.w, "settle")
		if again := b.tasks(t, "web"); !maps.Equal(moved, again) {
			t.Fatalf("a second look has moved tasks: %v, and before %v", again, moved)
		}
		if now := b.tasks(t, "still"); !maps.Equal(still, now) {
			t.Fatalf("tasks have moved of a service that does not rebalance: %v, and before %v", now, still)
		}
	})
}

// balance is a swarm with nodes that join.
type balance struct {
	w           *reconciletest.World
	replicas    int
	parallelism int
	zones       bool // the service spreads over them
	mayFail     bool
	failed      bool
}

func newBalance(t *rapid.T) *balance {
	b := &balance{w: reconciletest.NewWorld(controllers.Pipelines()), replicas: rapid.IntRange(1, 9).Draw(t, "replicas"),
		parallelism: rapid.IntRange(0, 3).Draw(t, "parallelism"), zones: rapid.Bool().Draw(t, "zones"), mayFail: rapid.Bool().Draw(t, "mayFail")}
	var y strings.Builder
	for i := range rapid.IntRange(1, 3).Draw(t, "nodes") {
		fmt.Fprintf(&y, "---\nkind: Node\nmetadata: {id: n%d, labels: {zone: z%d}}\n", i, i%2)
	}
	preferences := ""
	if b.zones {
		preferences = ", preferences: [{spread: node.labels.zone}]"
	}
	for name, rebalance := range map[string]v1.Rebalance{"web": v1.RebalanceOnJoin, "still": v1.RebalanceOff} {
		fmt.Fprintf(&y, "---\nkind: Service\nmetadata: {name: %s}\nspec: {replicas: %d, update: {order: %s, parallelism: %d}, task: {container: {image: a:1}, "+
			"restartPolicy: {delay: 1s}, placement: {rebalance: %s%s}}}\n", name, b.replicas,
			rapid.SampledFrom([]v1.UpdateOrder{v1.StopFirst, v1.StartFirst}).Draw(t, "order"), b.parallelism, rebalance, preferences)
	}
	if err := b.w.Load(y.String()); err != nil {
		t.Fatal(err)
	}
	return b
}

// step lets time go by, or the agent of a task that is to take over say something of it, or all agents.
func (b *balance) step(t *rapid.T) {
	switch rapid.IntRange(0, 3).Draw(t, "step") {
	case 0:
		do(t, b.w, fmt.Sprintf("tick %ds", rapid.IntRange(1, 20).Draw(t, "seconds")))
	case 1:
		do(t, b.w, "play")
	default:
		b.report(t)
	}
	b.check(t)
}

func (b *balance) report(t *rapid.T) {
	states := []v1.TaskState{v1.TaskStarting, v1.TaskRunning}
	if b.mayFail {
		states = append(states, v1.TaskFailed, v1.TaskRejected)
	}
	for task := range store.All(b.w.Snapshot(), v1.Tasks) {
		if task.Desired.Move == nil || !v1.Live(task) || v1.TaskNode(task) == "" {
			continue
		}
		if state := rapid.SampledFrom(states).Draw(t, "state"); state > v1.Observed(task) {
			b.failed = b.failed || state.Terminal()
			do(t, b.w, fmt.Sprintf("status %s@%d %s", v1.TaskName(task.Desired), task.Desired.Attempt, state))
		}
		return
	}
}

// check is what has to hold at every moment.
func (b *balance) check(t *rapid.T) {
	t.Helper()
	s := b.w.Snapshot()
	id, _ := s.ByName(v1.KindService, "web")
	if counts := s.CountsOf(id); counts.Running < b.replicas {
		printed, _ := b.w.Do("tasks web")
		t.Fatalf("%d of %d run\n%s", counts.Running, b.replicas, printed)
	}
	moving := 0
	for task := range s.TasksOfService(id) {
		if task.Desired.Move != nil && v1.Live(task) {
			moving++
		}
	}
	if b.parallelism > 0 && moving > b.parallelism {
		printed, _ := b.w.Do("tasks web")
		t.Fatalf("%d slots move, of at most %d\n%s", moving, b.parallelism, printed)
	}
}

// tasks are the live tasks of a service, and where they are.
func (b *balance) tasks(t *rapid.T, service string) map[string]string {
	t.Helper()
	found := make(map[string]string)
	for task := range store.All(b.w.Snapshot(), v1.Tasks) {
		if task.Desired.ServiceName == service && v1.Live(task) {
			found[fmt.Sprintf("%s@%d", v1.TaskName(task.Desired), task.Desired.Attempt)] = v1.TaskNode(task)
		}
	}
	if len(found) != b.replicas {
		t.Fatalf("%s has %d tasks of %d", service, len(found), b.replicas)
	}
	return found
}

// balanced tells that the service is as even as it can be.
func (b *balance) balanced(t *rapid.T) {
	t.Helper()
	zones, nodes := make(map[string]int), make(map[string]map[string]int)
	for n := range store.All(b.w.Snapshot(), v1.Nodes) {
		zone := ""
		if b.zones {
			zone = n.Meta.Labels["zone"]
		}
		if nodes[zone] == nil {
			nodes[zone] = make(map[string]int)
		}
		zones[zone], nodes[zone][n.Meta.ID] = 0, 0
		for task := range b.w.Snapshot().TasksOfNode(n.Meta.ID) {
			if task.Desired.ServiceName == "web" && v1.Live(task) {
				nodes[zone][n.Meta.ID]++
			}
		}
	}
	for zone, of := range nodes {
		for _, n := range of {
			zones[zone] += n
		}
		b.within(t, "in zone "+zone, of)
	}
	b.within(t, "over the zones", zones)
}

func (b *balance) within(t *rapid.T, where string, counts map[string]int) {
	t.Helper()
	least, most := b.replicas, 0
	for _, n := range counts {
		least, most = min(least, n), max(most, n)
	}
	if most-least > 1 {
		printed, _ := b.w.Do("tasks web")
		t.Fatalf("%s there are %v\n%s", where, counts, printed)
	}
}
