package sim

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// actor is who writes.
type actor string

// The actors; every machine's agent is one too, by the name of its node.
const (
	actorUser   actor = "user"
	actorLeader actor = "leader"
	actorServer actor = "server"
)

// checks remember what the invariants need of the past.
type checks struct {
	made map[string]bool     // the IDs of all tasks that there ever were
	lost map[string][]int64  // by node: the revisions at which it was taken for lost
	born map[string]birth    // tasks, by ID
	fits map[string]fitCheck // what revisions ask of nodes, by ID
	// drained are the revisions at which a node was drained last, by ID; ended the attempts of a slot that ended by themselves.
	drained map[string]int64
	ended   map[string][]uint64
	held    map[spot]string      // who has an address
	due     map[string]time.Time // when the latest run of a service was due that began, by ID
}

// birth is where a task comes from.
type birth struct {
	revision int64
	slot     string
	desired  *v1.TaskDesired
}

func newChecks() checks {
	return checks{made: make(map[string]bool), lost: make(map[string][]int64), born: make(map[string]birth), fits: make(map[string]fitCheck),
		drained: make(map[string]int64), ended: make(map[string][]uint64), held: make(map[spot]string), due: make(map[string]time.Time)}
}

// mayWrite tells whether sections are written by nobody but their writers.
func (c *checks) mayWrite(w *World, who actor, ops []store.Op) error {
	for _, op := range ops {
		ok := false
		switch {
		case who == actorUser:
			ok = op.Section == v1.SectionSpec && (op.Kind == v1.KindService || op.Kind == v1.KindClaim || op.Kind == v1.KindNode || op.Kind == v1.KindNetwork)
		case who == actorServer:
			ok = op.Section == v1.SectionStatus && (op.Kind == v1.KindPresence || op.Kind == v1.KindNode)
		case who == actorLeader:
			ok = op.Section == v1.SectionDesired && (op.Kind == v1.KindTask || op.Kind == v1.KindService || op.Kind == v1.KindNode || op.Kind == v1.KindNetwork) ||
				op.Kind == v1.KindServiceRevision || op.Value == nil && (op.Kind == v1.KindService || op.Kind == v1.KindClaim)
		default:
			t, found := store.Get(w.current(), v1.Tasks, op.ID)
			ok = op.Kind == v1.KindTask && op.Section == v1.SectionStatus && op.Value != nil && (!found || v1.TaskNode(t) == string(who))
		}
		if !ok {
			return fmt.Errorf("%s writes the section %s of %s %s, which is not its own", who, op.Section, op.Kind, op.ID)
		}
	}
	return nil
}

// changed checks what a commit did.
func (c *checks) changed(w *World, changes []store.Change) {
	c.addresses(w, changes)
	nodes := make(map[string]bool)
	for _, change := range changes {
		switch change.Kind {
		case v1.KindTask:
			before, _ := change.Old.(*v1.Task)
			after, _ := change.New.(*v1.Task)
			c.task(w, before, after)
			if after != nil && v1.TaskNode(after) != "" && (before == nil || v1.TaskNode(before) == "") {
				nodes[v1.TaskNode(after)] = true
				c.placed(w, after)
				c.equipped(w, after)
			}
		case v1.KindNode:
			before, _ := change.Old.(*v1.Node)
			after, _ := change.New.(*v1.Node)
			c.node(w, before, after)
		case v1.KindNetwork:
			after, _ := change.New.(*v1.Network)
			c.network(w, after)
		case v1.KindService:
			before, _ := change.Old.(*v1.Service)
			after, _ := change.New.(*v1.Service)
			c.rollout(w, before, after)
			c.schedule(w, before, after)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(nodes)) {
		c.load(w, id)
	}
}

// task checks a change of one task: an ID is given once, what was decided stays, and states only move forward.
func (c *checks) task(w *World, before, after *v1.Task) {
	if after == nil {
		c.removed(w, before)
		return
	}
	id, d := after.Meta.ID, after.Desired
	if before == nil {
		if c.made[id] {
			w.fail("the ID %s of %s is used a second time", id, nameOf(d))
		}
		c.made[id] = true
		c.born[id] = birth{w.newest(), fmt.Sprintf("%s/%d", d.Service, d.Slot), d}
		if strings.HasSuffix(d.Pending, "are in use)") {
			w.stats.Waited++
		}
		return
	}
	was := before.Desired
	if strings.HasSuffix(d.Pending, "are in use)") && was.Pending == "" {
		w.stats.Waited++
	}
	if state := v1.Observed(after); state != v1.Observed(before) &&
		(state == v1.TaskFailed || state == v1.TaskRejected || state == v1.TaskComplete) {
		slot := c.born[id].slot
		c.ended[slot] = append(c.ended[slot], d.Attempt)
	}
	switch {
	case d.State < was.State:
		w.fail("%s: the desired state goes back from %s to %s", nameOf(d), was.State, d.State)
	case before.Status != nil && (after.Status == nil || after.Status.State < before.Status.State):
		w.fail("%s: the observed state goes back from %s", nameOf(d), before.Status.State)
	case d.Service != was.Service || d.Slot != was.Slot || d.Attempt != was.Attempt || d.Revision != was.Revision:
		w.fail("%s: becomes another task", nameOf(was))
	case v1.TaskNode(before) != "" && v1.TaskNode(after) != v1.TaskNode(before):
		w.fail("%s: moves from %s to %s", nameOf(d), v1.TaskNode(before), v1.TaskNode(after))
	}
}

// node remembers when a node was lost, and when it was drained.
func (c *checks) node(w *World, before, after *v1.Node) {
	if after == nil {
		return // the user removed it
	}
	if v1.NodeDrained(before) || v1.NodeDrained(after) {
		c.drained[after.Meta.ID] = w.newest()
	}
	if v1.NodeLost(after) {
		if !v1.NodeLost(before) {
			w.stats.Lost++
		}
		c.lost[after.Meta.ID] = append(c.lost[after.Meta.ID], w.newest())
	}
}

// removed checks that a task is only forgotten once nothing of it can run, as far as its node could tell.
func (c *checks) removed(w *World, t *v1.Task) {
	for _, m := range w.machines {
		if box := m.containers[t.Meta.ID]; box != nil && box.running && !c.lostSince(w, m.id, c.born[t.Meta.ID].revision) {
			w.fail("%s is removed while its container runs on %s", nameOf(t.Desired), m.id)
		}
	}
}

// started checks a container that was started: it is the only one of its slot, or, where new tasks start first, for that is how
// the service is updated or because it takes over from one on a drained node, or on a node that has too many, one of two.
// Those do not count whose node was taken for lost since they were decided, whether or not it is back: nobody could stop
// them, so the swarm went on without them, and they are stopped as soon as their node hears of it.
func (c *checks) started(w *World, m *machine, t *task) {
	w.stats.Starts++
	c.apart(w, t)
	mine, known := c.born[t.id]
	if !known {
		w.fail("%s starts %s, which was never decided", m.id, t.id)
		return
	}
	if c.lostSince(w, m.id, mine.revision) {
		return
	}
	most := 1
	if c.startsFirst(w, mine.desired.Service) {
		most = 2
	}
	var running []string
	for _, other := range w.machines {
		for id, box := range other.containers {
			if b := c.born[id]; box.running && b.slot == mine.slot && !c.lostSince(w, other.id, b.revision) {
				running = append(running, nameOf(b.desired)+" on "+other.id)
				if c.drainedSince(w, other.id, b.revision) || b.desired.Move != nil {
					most = 2
				}
			}
		}
	}
	if len(running) > most {
		slices.Sort(running)
		w.fail("a slot has %d containers, at most %d may be: %s", len(running), most, strings.Join(running, ", "))
	}
}

// startsFirst tells whether a service's tasks start before those that they replace stop. No user here changes that.
func (c *checks) startsFirst(w *World, service string) bool {
	for i := len(w.log) - 1; i >= 0; i -= 50 {
		if s, ok := store.Get(w.log[i].snapshot, v1.Services, service); ok {
			return !v1.Job(s) && (s.Spec.Update.Order == v1.StartFirst || s.Spec.Rollback.Order == v1.StartFirst)
		}
	}
	return false
}

// lostSince tells whether a node was taken for lost at a revision or later: what was placed there by somebody who did not
// know yet is as lost as what was there before.
func (c *checks) lostSince(w *World, node string, revision int64) bool {
	times := c.lost[node]
	if len(times) > 0 && times[len(times)-1] >= revision {
		return true
	}
	n, ok := store.Get(w.at(revision), v1.Nodes, node)
	return ok && v1.NodeLost(n)
}

// fitCheck is what a revision asks of nodes.
type fitCheck struct {
	constraints []v1.Constraint
	max         uint64
}

// placed checks that a node that a task was given may have it.
func (c *checks) placed(w *World, t *v1.Task) {
	d := t.Desired
	fit, known := c.fits[d.Revision]
	if !known {
		r, ok := store.Get(w.current(), v1.ServiceRevisions, d.Revision)
		if !ok {
			return
		}
		fit.constraints = v1.Constraints(&r.Spec.Task)
		if p := r.Spec.Task.Placement; p != nil {
			fit.max = p.MaxReplicas
		}
		c.fits[d.Revision] = fit
	}
	if d.Node != "" && d.Node != d.Placement.Node {
		w.fail("%s was made for %s, and is placed on %s", nameOf(d), d.Node, d.Placement.Node)
	}
	node, ok := store.Get(w.current(), v1.Nodes, d.Placement.Node)
	if !ok || !v1.Satisfies(node, fit.constraints) {
		w.fail("%s is placed on %s, which its constraints do not allow", nameOf(d), d.Placement.Node)
	}
	if fit.max == 0 {
		return
	}
	var there uint64
	for other := range w.current().TasksOfNode(d.Placement.Node) {
		if other.Desired.Service == d.Service && other.Desired.State <= v1.TaskComplete && !v1.Observed(other).Terminal() {
			there++
		}
	}
	if there > fit.max {
		w.fail("%s is placed on %s, which has %d of its service; at most %d may be", nameOf(d), d.Placement.Node, there, fit.max)
	}
}

// load checks that what was set aside on a node is there, by counting anew.
func (c *checks) load(w *World, id string) {
	node, ok := store.Get(w.current(), v1.Nodes, id)
	if !ok {
		return
	}
	var cpus v1.CPUs
	var memory v1.Bytes
	ports, held := make(map[string]string), make(v1.Generic)
	for t := range w.current().TasksOfNode(id) {
		if !v1.HoldsPlacement(t) {
			continue
		}
		p := t.Desired.Placement
		held.Add(p.Generic, 1)
		cpus += p.CPUs
		memory += p.Memory
		for _, port := range p.HostPorts {
			if other, taken := ports[port]; taken {
				w.fail("%s and %s both have %s on %s", other, nameOf(t.Desired), port, id)
			}
			ports[port] = nameOf(t.Desired)
		}
	}
	if have := node.Status.Description.Resources; !held.Within(have.Generic) {
		w.fail("%s has %v, but %v is set aside", id, have.Generic, held)
	} else if cpus > have.CPUs || memory > have.Memory {
		w.fail("%s has %s cpus and %d bytes, but %s and %d are set aside", id, have.CPUs, have.Memory, cpus, memory)
	}
}

// describeOps says what operations do.
func describeOps(ops []store.Op) string {
	words := make([]string, 0, len(ops))
	for _, op := range ops {
		switch v := op.Value.(type) {
		case *v1.TaskDesired:
			word := nameOf(v) + " " + v.State.String()
			if len(v.Networks) > 0 {
				word += fmt.Sprintf(" at %v", spotsIn(v.Networks))
			}
			if v.Placement != nil {
				word += " on " + v.Placement.Node
			} else if v.Pending != "" {
				word += " (" + v.Pending + ")"
			}
			words = append(words, word)
		case *v1.ServiceDesired:
			word := "service"
			if u := v.Update; u != nil {
				word += fmt.Sprintf(" %s up to %d", u.State, u.Admitted)
			}
			if len(v.VIPs) > 0 {
				word += fmt.Sprintf(" at %v", spotsIn(v.VIPs))
			}
			words = append(words, word)
		case nil:
			words = append(words, fmt.Sprintf("remove %s %.8s", op.Kind, op.ID))
		default:
			words = append(words, fmt.Sprintf("%s %.8s", op.Kind, op.ID))
		}
	}
	return strings.Join(words, "; ")
}
