// Package scheduler decides where tasks run: filters say which nodes can take a task, an order says which of them is best,
// and where none can, the reasons are counted into the sentence that the user reads.
//
// It owns TaskDesired.Placement, Better, and Pending once a task has its addresses: before, it is not placed. It never moves a task
// that has a node, never makes or stops one, and never looks at how busy a node is: what counts is what was set aside.
//
// Reading order: scheduler.go (a service), depends.go (what it waits for), filter.go (which nodes), volume.go (which have its data), spread.go (which is best),
// rebalance.go (which has become better), explain.go (why not).
package scheduler

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/store"
)

// Rule is the scheduler.
type Rule struct{}

// Name implements reconcile.Rule.
func (Rule) Name() string { return "scheduler" }

// Keys implements reconcile.Rule: tasks wait for nodes, and for what other tasks hold there. Those that may move do, too, and for the
// service to be at rest.
func (Rule) Keys(s *store.Snapshot, c store.Change) []string {
	if _, _, changed := reconcile.NodeOf(c); changed {
		return waiting(s)
	}
	concerned := dependentsOf(s, c)
	if c.Kind == v1.KindService {
		return append(concerned, c.ID)
	}
	t, ok := reconcile.TaskOf(c)
	switch {
	case !ok:
	case t.Freed():
		return append(waiting(s), t.Service())
	case t.Decided(), t.Ended(), served(t) && v1.Rebalances(serviceOf(s, t.Service())):
		return append(concerned, t.Service())
	}
	return concerned
}

// waiting are the services with tasks that wait for a node, or for one that is better.
func waiting(s *store.Snapshot) []string {
	keys := slices.Collect(s.ServicesWithUnplaced())
	for service := range s.RebalancedServices() {
		keys = append(keys, service.Meta.ID)
	}
	return keys
}

// served tells whether a task has begun or ceased to serve, which says whether it may move.
func served(t reconcile.TaskChange) bool {
	return t.Old != nil && t.New != nil && v1.Serves(t.Old) != v1.Serves(t.New)
}

func serviceOf(s *store.Snapshot, id string) *v1.Service {
	service, _ := store.Get(s, v1.Services, id)
	return v1.Effective(service)
}

// Decide implements reconcile.Rule.
func (Rule) Decide(now time.Time, s *store.Snapshot, key string) reconcile.Plan {
	groups := unplaced(s, key)
	if _, ok := store.Get(s, v1.Attachments, key); ok {
		return settle(now, s, groups)
	}
	service := serviceOf(s, key)
	d := &decision{now: now, snapshot: s, key: key}
	if len(groups) > 0 && (service == nil || !v1.WaitsForPorts(service)) {
		d.lookAtNodes()
		d.placeAll(groups, service)
	}
	d.remark(service)
	return d.plan
}

// placeAll gives nodes to the tasks that wait for one.
func (d *decision) placeAll(groups []group, service *v1.Service) {
	waits := waitsFor(d.snapshot, service)
	for _, g := range groups {
		spec, ok := d.spec(service, g.revision)
		if !ok {
			d.explain(g.tasks, "service revision "+g.revision+" is not there", nobody)
			continue
		}
		g.tasks = slices.DeleteFunc(g.tasks, func(t *v1.Task) bool { return !v1.HasAddresses(t, &spec.Task) }) // rule address says why
		if waits != "" {
			d.explain(g.tasks, waits, nobody)
			continue
		}
		d.place(g, service, spec)
	}
}

// settle gives the tasks of an attachment the node that it is on, once they have their addresses, whatever else that node takes.
func settle(now time.Time, s *store.Snapshot, groups []group) reconcile.Plan {
	d := &decision{now: now, snapshot: s}
	for _, g := range groups {
		for _, t := range g.tasks {
			a := t.Desired.Attachment
			if a == nil || !v1.HasAddresses(t, a.Spec()) {
				continue // rule address says why
			}
			n, ok := store.Get(s, v1.Nodes, a.Node)
			if !ok {
				d.explain([]*v1.Task{t}, "node "+a.Node+" is not there", nobody)
				continue
			}
			d.assign(t, &node{Node: n}, needs{})
		}
	}
	return d.plan
}

// group is the tasks of one revision that wait for a node: any of them is as good as another.
type group struct {
	revision string
	tasks    []*v1.Task // lowest slots first
}

func unplaced(s *store.Snapshot, service string) []group {
	tasks := slices.Collect(s.Unplaced(service))
	slices.SortFunc(tasks, func(a, b *v1.Task) int {
		return cmp.Or(cmp.Compare(a.Desired.Revision, b.Desired.Revision), cmp.Compare(a.Desired.Slot, b.Desired.Slot),
			cmp.Compare(a.Desired.Attempt, b.Desired.Attempt))
	})
	var groups []group
	for start, end := 0, 0; start < len(tasks); start = end {
		revision := tasks[start].Desired.Revision
		for end = start; end < len(tasks) && tasks[end].Desired.Revision == revision; end++ {
		}
		groups = append(groups, group{revision, tasks[start:end]})
	}
	return groups
}

// decision is one under way.
type decision struct {
	now      time.Time
	snapshot *store.Snapshot
	key      string
	nodes    []*node             // nil until they are looked at
	moving   map[uint64]bool     // slots in which a task is to take over from one on another node
	latest   map[uint64]*v1.Task // of each slot, that has a node; nil where nobody asked
	plan     reconcile.Plan
}

// node is a node as the scheduler sees it, with what was placed on it in this decision.
type node struct {
	*v1.Node
	load store.Load
	ours int // live tasks of the service
	// leaving are those of them that another takes over from elsewhere.
	leaving int
	// failures are the service's recent ones, by revision; the first of them is forgotten at forgets.
	failures map[string]int
	forgets  time.Time
	failed   int     // those of the group that is being placed
	leaf     *branch // where it is in the tree
}

// stay counts the service's tasks that are to stay on the node.
func (n *node) stay() int { return n.ours - n.leaving }

// lookAtNodes finds all nodes, with what they hold of the service.
func (d *decision) lookAtNodes() {
	d.nodes = candidates(d.snapshot)
	d.countTasks()
	d.countLeaving()
}

func candidates(s *store.Snapshot) []*node {
	nodes := make([]node, 0, s.Count(v1.KindNode))
	found := make([]*node, 0, cap(nodes))
	for n := range store.All(s, v1.Nodes) {
		nodes = append(nodes, node{Node: n, load: s.LoadOf(n.Meta.ID)})
		found = append(found, &nodes[len(nodes)-1])
	}
	return found
}

// countTasks counts the service's tasks and recent failures on each node. Tasks on a drained node are about to leave it, and
// do not count for its branch. Failures are those that live tasks remember of their slots, so that they do not depend on how
// much history is kept.
func (d *decision) countTasks() {
	byID := make(map[string]*node, len(d.nodes))
	for _, n := range d.nodes {
		byID[n.Meta.ID] = n
	}
	for t := range d.snapshot.TasksOfService(d.key) {
		if t.Desired.State > v1.TaskComplete {
			continue
		}
		if n := byID[v1.TaskNode(t)]; n != nil && !v1.NodeDrained(n.Node) {
			n.ours++
		}
		if t.Desired.Restarts == nil {
			continue
		}
		for _, f := range t.Desired.Restarts.Recent {
			if n := byID[f.Node]; n != nil && d.now.Sub(f.At) < v1.FailureMemory {
				if n.failures == nil {
					n.failures = make(map[string]int)
				}
				n.failures[t.Desired.Revision]++
				n.forgets = reconcile.Sooner(n.forgets, f.At.Add(v1.FailureMemory))
			}
		}
	}
}

// countLeaving finds the slots that move to a better node. Their tasks on the old ones are about to leave, and do not count.
func (d *decision) countLeaving() {
	d.moving = make(map[uint64]bool)
	for t := range d.snapshot.TasksOfService(d.key) {
		if t.Desired.Move != nil && v1.Live(t) {
			d.moving[t.Desired.Slot] = true
		}
	}
	if len(d.moving) == 0 {
		return
	}
	for t := range d.snapshot.TasksOfService(d.key) {
		if t.Desired.Move != nil || !v1.Live(t) || !d.moving[t.Desired.Slot] {
			continue
		}
		if n, ok := d.nodeCalled(v1.TaskNode(t)); ok && !v1.NodeDrained(n.Node) {
			n.leaving++
		}
	}
}

// spec is what the tasks of a revision are placed by.
func (d *decision) spec(service *v1.Service, revision string) (*v1.ServiceRevisionSpec, bool) {
	if r, ok := store.Get(d.snapshot, v1.ServiceRevisions, revision); ok {
		return r.Spec, true
	}
	if service != nil && v1.RevisionID(service) == revision {
		return v1.RevisionOf(service), true
	}
	return nil, false
}

// place gives nodes to the tasks of a group: to those of a global service and those that move their own, to those whose volumes are somewhere that node, to
// others until no node is left.
func (d *decision) place(g group, service *v1.Service, spec *v1.ServiceRevisionSpec) {
	if len(g.tasks) == 0 {
		return
	}
	filters, needs := filtersFor(spec), needsOf(spec)
	var made []*v1.Task
	g.tasks = slices.DeleteFunc(g.tasks, func(t *v1.Task) bool {
		if madeFor(t) != "" {
			made = append(made, t)
		}
		return madeFor(t) != ""
	})
	d.placeOn(made, filters, needs)
	for _, n := range d.nodes {
		n.failed = n.failures[g.revision]
	}
	if g.tasks = d.placeHome(g.tasks, service, spec, filters, needs); len(g.tasks) == 0 {
		return
	}
	fit := make([]*node, 0, len(d.nodes))
	for _, n := range d.nodes {
		if firstNo(filters, n) < 0 {
			fit = append(fit, n)
		}
	}
	tree := grow(d.nodes, fit, preferences(spec))
	for i, t := range g.tasks {
		n := tree.next()
		if n == nil {
			d.explain(g.tasks[i:], reasons(filters, d.nodes), d.behind(filters))
			return
		}
		d.assign(t, n, needs)
		tree.placed(n, firstNo(filters, n) < 0)
	}
}

// madeFor is the node that a task was made for, or "".
func madeFor(t *v1.Task) string {
	if m := t.Desired.Move; m != nil {
		return m.Node
	}
	return t.Desired.Node
}

// placeOn gives each task the node that it was made for, where that can take it.
func (d *decision) placeOn(tasks []*v1.Task, filters []filter, needs needs) {
	if len(tasks) == 0 {
		return
	}
	byID := make(map[string]*node, len(d.nodes))
	for _, n := range d.nodes {
		byID[n.Meta.ID] = n
	}
	for i, t := range tasks {
		n := byID[madeFor(t)]
		switch {
		case n == nil:
			d.explain(tasks[i:i+1], "node "+madeFor(t)+" is not there", nobody)
		case firstNo(filters, n) >= 0:
			d.explain(tasks[i:i+1], reasons(filters, []*node{n}), d.behind(filters))
		default:
			d.assign(t, n, needs)
		}
	}
}

// needs are what a task reserves on its node.
type needs struct {
	cpus    v1.CPUs
	memory  v1.Bytes
	generic []v1.GenericResource
	ports   []string
}

func needsOf(spec *v1.ServiceRevisionSpec) needs {
	n := needs{ports: hostPorts(spec.Endpoint)}
	if r := spec.Task.Resources; r != nil && r.Reservations != nil {
		n.cpus, n.memory, n.generic = r.Reservations.CPUs, r.Reservations.Memory, r.Reservations.Generic
	}
	return n
}

// hostPorts are the ports published in host mode that are taken on a node, like "tcp/8080". One that asks for any port
// takes none that anybody could want.
func hostPorts(e *v1.EndpointSpec) []string {
	if e == nil {
		return nil
	}
	var ports []string
	for _, p := range e.Ports {
		if p.Mode == v1.PublishHost && p.Published != 0 {
			port := string(cmp.Or(p.Protocol, v1.TCP)) + "/" + strconv.Itoa(int(p.Published))
			if !slices.Contains(ports, port) { // it may answer at several places
				ports = append(ports, port)
			}
		}
	}
	return ports
}

// reserve counts a task onto the node, and returns which generic resources it gets. The load's maps belong to the snapshot and are not
// written through.
func (n *node) reserve(needs needs) []v1.GenericResource {
	n.ours++
	n.load.Tasks++
	n.load.CPUs += needs.cpus
	n.load.Memory += needs.memory
	var given []v1.GenericResource
	if len(needs.generic) > 0 {
		given, _ = n.load.Generic.Take(n.Status.Description.Resources.Generic, needs.generic) // the filter saw to it
		generic := make(v1.Generic, len(n.load.Generic)+len(given))
		maps.Copy(generic, n.load.Generic)
		generic.Add(given, 1)
		n.load.Generic = generic
	}
	if len(needs.ports) == 0 {
		return given
	}
	ports := make(map[string]int, len(n.load.HostPorts)+len(needs.ports))
	maps.Copy(ports, n.load.HostPorts)
	for _, p := range needs.ports {
		ports[p]++
	}
	n.load.HostPorts = ports
	return given
}

// assign gives a node to a task, and what the task needs of it.
func (d *decision) assign(t *v1.Task, n *node, needs needs) {
	given := n.reserve(needs)
	next := *t.Desired
	next.Pending = ""
	next.Placement = &v1.TaskPlacement{Node: n.Meta.ID, At: d.now, CPUs: needs.cpus, Memory: needs.memory, Generic: given,
		HostPorts: needs.ports}
	d.plan.Ops = append(d.plan.Ops, reconcile.SetTask(d.now, t, &next))
}
