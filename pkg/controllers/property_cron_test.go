package controllers_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/controllers"
	"github.com/swarmd/swarmd/pkg/reconcile/reconciletest"
	"github.com/swarmd/swarmd/pkg/schedule"
	"github.com/swarmd/swarmd/pkg/store"
)

// TestCronProperties lets time pass, with and without a leader, over days on which clocks are changed, while runs end well, fail or go on,
// nodes are lost, leaders follow each other and users change their minds. No due time has two runs, none begins later than it may, and of
// what falls due while somebody leads nothing is passed over but by what was said of it. World.Run sees that no two are at work together.
func TestCronProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := reconciletest.NewWorld(controllers.Pipelines())
		spring := rapid.Bool().Draw(t, "spring")
		if w.Now = time.Date(2026, 10, 24, 20, 0, 0, 0, time.UTC); spring {
			w.Now = time.Date(2026, 3, 28, 20, 0, 0, 0, time.UTC)
		}
		expr := rapid.SampledFrom([]string{"*/20 * * * *", "30 2 * * *", "15 * * * *", "*/30 1-3 * * *"}).Draw(t, "cron")
		zone := rapid.SampledFrom([]string{"", "Europe/Berlin"}).Draw(t, "zone")
		policy := rapid.SampledFrom([]v1.ConcurrencyPolicy{v1.ConcurrencyAllow, v1.ConcurrencyForbid, v1.ConcurrencyReplace}).Draw(t, "policy")
		err := w.Load(fmt.Sprintf("kind: Node\nmetadata: {id: n1}\n---\nkind: Node\nmetadata: {id: n2}\n---\nkind: Service\nmetadata: {name: job}\n"+
			"spec: {mode: cron, schedule: {cron: '%s', timeZone: '%s', concurrency: %s, startingDeadline: 45m}, "+
			"task: {container: {image: a:1}, restartPolicy: {delay: 1s, maxAttempts: 1}}}\n", expr, zone, policy))
		if err != nil {
			t.Fatal(err)
		}
		when, err := schedule.Parse(expr, zone)
		if err != nil {
			t.Fatal(err)
		}
		// What was told to stop and then lost with its node runs for a moment when that is back: nobody can know.
		c := &cronChecks{loses: policy != v1.ConcurrencyReplace, t: t, w: w, when: when, begun: make(map[uint64]v1.CronRun)}
		for range rapid.IntRange(5, 60).Draw(t, "steps") {
			c.step()
		}
	})
}

// cronChecks are what was seen of the runs of a service.
type cronChecks struct {
	t     *rapid.T
	w     *reconciletest.World
	when  *schedule.Schedule
	begun map[uint64]v1.CronRun
	// next is what the rules said last.
	next time.Time
	// loses: nodes are lost, and come back.
	loses bool
}

func (c *cronChecks) step() {
	steps := []string{"tick 1m", "tick 10m", "tick 19m", "tick 3h", "lead", "lead", "set job schedule.runNow=" +
		fmt.Sprint(len(c.begun)), "set job task.container.image=a:2"}
	if c.loses {
		steps = append(steps, "node n1 down", "node n1 ready")
	}
	for task := range store.All(c.w.Snapshot(), v1.Tasks) {
		if v1.TaskNode(task) != "" && !v1.Observed(task).Terminal() && task.Desired.State == v1.TaskComplete {
			ref := fmt.Sprintf("status %s@%d ", v1.TaskName(task.Desired), task.Desired.Attempt)
			steps = append(steps, ref+"complete", ref+"failed")
		}
	}
	step := rapid.SampledFrom(steps).Draw(c.t, "step")
	if _, err := c.w.Do(step); err != nil {
		c.t.Fatalf("%s: %v", step, err)
	}
	if rapid.IntRange(0, 9).Draw(c.t, "leaderless") == 0 {
		return
	}
	if _, err := c.w.Do("settle"); err != nil {
		tasks, _ := c.w.Do("tasks")
		c.t.Fatalf("%s: %v\n%s", step, err, tasks)
	}
	c.look(step)
}

// look checks the runs that are new.
func (c *cronChecks) look(step string) {
	service, _ := store.Get(c.w.Snapshot(), v1.Services, "job")
	cron := service.Desired.Cron
	if !cron.Next.After(c.w.Now) {
		c.t.Fatalf("%s: next is %v, and it is %v", step, cron.Next, c.w.Now)
	}
	for _, run := range cron.Runs {
		if _, known := c.begun[run.Number]; known {
			continue
		}
		for _, other := range c.begun {
			if !run.Due.IsZero() && !run.Due.After(other.Due) {
				c.t.Fatalf("%s: run %d is due at %v, and run %d was at %v", step, run.Number, run.Due, other.Number, other.Due)
			}
		}
		c.begun[run.Number] = run
		if run.Due.IsZero() {
			continue
		}
		if late := run.At.Sub(run.Due); late < 0 || late > 45*time.Minute {
			c.t.Fatalf("%s: run %d begins %s late", step, run.Number, late)
		}
		if due := c.when.Next(run.Due.Add(-time.Second)); !due.Equal(run.Due) {
			c.t.Fatalf("%s: run %d is due at %v, which is no time of the schedule's: %v is", step, run.Number, run.Due, due)
		}
	}
	latest := c.when.Latest(c.next, c.w.Now)
	due := !c.next.IsZero() && !c.next.After(c.w.Now)
	made := slices.ContainsFunc(cron.Runs, func(run v1.CronRun) bool { return run.Due.Equal(latest) && !run.Due.IsZero() })
	if said := "the run of " + latest.UTC().Format(time.RFC3339); due && !made && (len(cron.Skipped) < len(said) || cron.Skipped[:len(said)] != said) {
		c.t.Fatalf("%s: %v was due, there is no run of it, and nobody says why: %q", step, latest, cron.Skipped)
	}
	c.next = cron.Next
}
