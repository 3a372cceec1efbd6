package reconciletest

import (
	"fmt"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// Check tells what of a snapshot must never be, after the rules came to rest: a slot with two live tasks, but for the two
// of a start-first update, a drain or a move, a node that holds more than it has or has two tasks with one host port, and what
// checkNetworks says.
func Check(s *store.Snapshot) error {
	for o := range store.All(s, v1.Services) {
		if err := checkSlots(s, o); err != nil {
			return err
		}
		if err := checkRuns(s, o); err != nil {
			return err
		}
	}
	for n := range store.All(s, v1.Nodes) {
		if err := checkNode(s, n); err != nil {
			return err
		}
	}
	return checkNetworks(s)
}

func checkSlots(s *store.Snapshot, o *v1.Service) error {
	live, leaves := make(map[uint64]int), make(map[uint64]bool)
	for t := range s.TasksOfService(o.Meta.ID) {
		if v1.Live(t) {
			live[t.Desired.Slot]++
			n, _ := store.Get(s, v1.Nodes, v1.TaskNode(t))
			leaves[t.Desired.Slot] = leaves[t.Desired.Slot] || v1.NodeDrained(n) || t.Desired.Move != nil
		}
	}
	startFirst := o.Spec.Update != nil && o.Spec.Update.Order == v1.StartFirst || o.Spec.Rollback != nil && o.Spec.Rollback.Order == v1.StartFirst
	for number, n := range live {
		if n > 2 || n > 1 && !startFirst && !leaves[number] {
			return fmt.Errorf("%s.%d has %d live tasks", o.Meta.Name, number, n)
		}
	}
	return nil
}

// CheckStep tells which operations, that led from one snapshot to the next, let a task run while another of its slot that
// is to stop may still be running, or place one on a node that has not enough left; and what checkGiven says.
func CheckStep(before, after *store.Snapshot, ops []store.Op) error {
	if err := checkGiven(before, after, ops); err != nil {
		return err
	}
	type slot struct {
		service string
		number  uint64
	}
	stopping := make(map[slot]string)
	for t := range store.All(after, v1.Tasks) {
		node, _ := store.Get(after, v1.Nodes, v1.TaskNode(t))
		if t.Desired.State > v1.TaskComplete && !v1.Observed(t).Terminal() && !v1.NodeLost(node) {
			stopping[slot{t.Desired.Service, t.Desired.Slot}] = t.Meta.ID
		}
	}
	for _, op := range ops {
		d, ok := op.Value.(*v1.TaskDesired)
		if !ok {
			continue
		}
		was, existed := store.Get(before, v1.Tasks, op.ID)
		if d.Placement != nil && (!existed || was.Desired.Placement == nil) {
			node, known := store.Get(after, v1.Nodes, d.Placement.Node)
			if !known {
				return fmt.Errorf("%s is placed on node %s, which is not there", v1.TaskName(d), d.Placement.Node)
			}
			if err := within(node, after.LoadOf(node.Meta.ID)); err != nil {
				return fmt.Errorf("%s was placed: %w", v1.TaskName(d), err)
			}
		}
		if d.State != v1.TaskRunning && d.State != v1.TaskComplete {
			continue
		}
		if other := stopping[slot{d.Service, d.Slot}]; other != "" && other != op.ID && (!existed || was.Desired.State < v1.TaskRunning) {
			return fmt.Errorf("%s attempt %d is let run while task %s may not have stopped", v1.TaskName(d), d.Attempt, other)
		}
	}
	return nil
}

// checkNode looks at the tasks that are to stay: what is to stop may hold more until it has.
func checkNode(s *store.Snapshot, n *v1.Node) error {
	load := store.Load{Generic: make(v1.Generic)}
	ports := make(map[string]string)
	for t := range s.TasksOfNode(n.Meta.ID) {
		if !v1.Live(t) {
			continue
		}
		p := t.Desired.Placement
		load.CPUs += p.CPUs
		load.Memory += p.Memory
		load.Generic.Add(p.Generic, 1)
		for _, port := range p.HostPorts {
			if other := ports[port]; other != "" {
				return fmt.Errorf("node %s has the tasks %s and %s with the port %s", n.Meta.ID, other, t.Meta.ID, port)
			}
			ports[port] = t.Meta.ID
		}
	}
	return within(n, load)
}

func within(n *v1.Node, load store.Load) error {
	if n.Status == nil {
		return nil
	}
	have := n.Status.Description.Resources
	if load.CPUs > have.CPUs || load.Memory > have.Memory {
		return fmt.Errorf("node %s holds %s cpus and %d bytes, and has %s and %d", n.Meta.ID, load.CPUs, load.Memory, have.CPUs, have.Memory)
	}
	if !load.Generic.Within(have.Generic) {
		return fmt.Errorf("node %s holds %v, and has %v", n.Meta.ID, load.Generic, have.Generic)
	}
	return nil
}
