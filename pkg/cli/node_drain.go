package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

// drainPoll is how often a node is looked at that is being emptied.
const drainPoll = 500 * time.Millisecond

// drain is a node that is being emptied, as it is now.
type drain struct {
	node *v1.Node
	// left are the node's tasks that have not stopped yet, by name.
	left []*v1.Task
	// coming are tasks of the same services that do not run yet.
	coming []*v1.Task
}

// beforeRunning are the states of tasks that may come to run.
var beforeRunning = []string{"new", "pending", "assigned", "accepted", "preparing", "ready", "starting"}

// liveStates are the states of tasks that have not ended.
var liveStates = append(slices.Clone(beforeRunning), "running")

func lookAtDrain(ctx context.Context, c *client.Client, id string) (*drain, error) {
	n, err := client.Get(ctx, c, v1.Nodes, id)
	if err != nil {
		return nil, apiError(err, v1.KindNode, id)
	}
	d := &drain{node: n}
	if d.left, err = client.List(ctx, c, v1.Tasks, v1.Filter{"node": {id}}); err != nil {
		return nil, daemonError(err)
	}
	d.left = slices.DeleteFunc(d.left, func(t *v1.Task) bool {
		return t.Desired == nil || t.Desired.Attachment != nil || v1.Observed(t).Terminal() // attachments stay
	})
	if len(d.left) == 0 {
		return d, nil
	}
	slices.SortFunc(d.left, func(x, y *v1.Task) int { return naturalCompare(v1.TaskName(x.Desired), v1.TaskName(y.Desired)) })
	filter := v1.Filter{"state": beforeRunning}
	for _, t := range d.left {
		if service := t.Desired.Service; !slices.Contains(filter["service"], service) && len(filter["service"]) < maxBars {
			filter = filter.Add("service", service)
		}
	}
	if d.coming, err = client.List(ctx, c, v1.Tasks, filter); err != nil {
		return nil, daemonError(err)
	}
	d.coming = slices.DeleteFunc(d.coming, func(t *v1.Task) bool { return t.Desired == nil || v1.TaskNode(t) == id })
	return d, nil
}

// why says what a task of the node is waiting for.
func (d *drain) why(t *v1.Task) string {
	if t.Desired.State > v1.TaskRunning {
		return "stopping"
	}
	var other *v1.Task
	for _, o := range d.coming {
		same := o.Desired.Service == t.Desired.Service && o.Desired.Slot == t.Desired.Slot && t.Desired.Slot != 0
		if same && (other == nil || o.Desired.Attempt > other.Desired.Attempt) {
			other = o
		}
	}
	switch {
	case other == nil:
		return "waits for its turn"
	case other.Desired.Pending != "":
		return "its replacement has no place: " + other.Desired.Pending
	}
	return "its replacement is " + v1.Observed(other).String()
}

// reasons are what the tasks that are left wait for, after a colon.
func (d *drain) reasons() string {
	var all []string
	for _, t := range d.left[:min(len(d.left), maxBars)] {
		all = append(all, v1.TaskName(t.Desired)+" "+oneLine(d.why(t)))
	}
	if len(all) == 0 {
		return ""
	}
	return ": " + strings.Join(all, ", ")
}

// awaitDrain waits until a node that was told to give its tasks up has none left, and shows how it goes.
func (a *app) awaitDrain(ctx context.Context, c *client.Client, id string, timeout time.Duration) error {
	p := a.newProgress(false)
	defer p.end()
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	var late <-chan time.Time
	if timeout > 0 {
		t := time.NewTimer(timeout)
		defer t.Stop()
		late = t.C
	}
	var trouble patience
	d := new(drain)
	for shown := make(map[string]bool); ; {
		now, err := lookAtDrain(ctx, c, id)
		if err == nil {
			d = now
		}
		switch {
		case ctx.Err() != nil:
			a.printf("Operation continuing in background.\nUse `swarmctl node ps %s` to check progress.\n", id)
			return &exitError{code: 130}
		case !trouble.bears(err):
			return err
		case err != nil:
		case d.node.Spec.Availability != v1.AvailabilityDrain:
			return fmt.Errorf("node %s is no longer being drained: somebody made it %s", nodeName(d.node), d.node.Spec.Availability)
		case a.showDrain(p, d, shown):
			p.set("verify", "Node "+nodeName(d.node)+" is empty", 0)
			return nil
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		case <-late:
			if d.node == nil {
				return fmt.Errorf("whether the node is empty could not be told within %s: %w", timeout, err)
			}
			return fmt.Errorf("node %s is not empty after %s: %d %s left%s; the drain goes on in the background",
				nodeName(d.node), timeout, len(d.left), plural("task", len(d.left)), d.reasons())
		}
	}
}

// showDrain shows the tasks that are left, each with what it waits for, and tells whether there are none.
func (a *app) showDrain(p *progress, d *drain, shown map[string]bool) bool {
	text := fmt.Sprintf("%d %s left", len(d.left), plural("task", len(d.left)))
	if since := downSince(d.node, a.Now()); since != "" {
		text += "; the node is not there to stop them" + since
	}
	p.set(overall, text, 0)
	there := make(map[string]bool)
	for _, t := range d.left {
		name := v1.TaskName(t.Desired)
		there[name] = true
		if shown[name] || len(shown) < maxBars {
			shown[name] = true
			p.set(name, oneLine(d.why(t)), 0)
		}
	}
	for name := range shown {
		if !there[name] {
			p.set(name, "gone", 0)
		}
	}
	return len(d.left) == 0
}
