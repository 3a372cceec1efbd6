package scheduler

import (
	"cmp"
	"container/heap"
	"slices"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/reconcile"
)

// A service that rebalances gives a node that comes its share: a task that runs, and was placed before the node came, is marked with it
// where the service is more even once it is there, by the preferences first and then by the nodes. The service rule makes the task that
// takes over, when it may. Each move makes the service more even, so that moves end, whatever the clocks say; and a service that is uneven
// for another reason, such as a scale-down, stays as it is until a node comes.
//
// What makes a node better is the spread alone. How much else is there does not: then two services could chase each other for ever.

const (
	// moveTries is how many moves of a service to a node may fail until that comes again, or the service changes.
	moveTries = 3
	// maxMarks bounds how many tasks are marked at a time.
	maxMarks = 100
)

// remark marks the tasks of the service that had better be elsewhere, as many as may move now, and unmarks the others.
func (d *decision) remark(service *v1.Service) {
	marks := d.better(service)
	for t := range d.snapshot.TasksOfService(d.key) {
		if t.Desired.Better == marks[t.Meta.ID] || !v1.Live(t) {
			continue
		}
		next := *t.Desired
		next.Better = marks[t.Meta.ID]
		d.plan.Ops = append(d.plan.Ops, reconcile.SetTask(d.now, t, &next))
	}
}

// better finds which tasks are to move, by ID, and to which node each.
func (d *decision) better(service *v1.Service) map[string]string {
	if !v1.MayRebalance(service) {
		return nil
	}
	if d.nodes == nil {
		d.lookAtNodes()
	}
	room := maxMarks
	if u := service.Spec.Update; u == nil || u.Parallelism == nil {
		room = 1
	} else if *u.Parallelism > 0 {
		room = int(min(*u.Parallelism, maxMarks))
	}
	m := moves{decision: d, service: service, spec: v1.RevisionOf(service), from: make(map[*node][]*v1.Task), coming: make(map[*node][]*v1.Task)}
	if room -= len(d.moving); room <= 0 || !m.collect() {
		return nil
	}
	return m.choose(room)
}

// moves are the moves that would make a service more even.
type moves struct {
	*decision
	service *v1.Service
	spec    *v1.ServiceRevisionSpec
	from    map[*node][]*v1.Task // what may move, the first first
	coming  map[*node][]*v1.Task // what is on its way there, and may move on once it has taken over
}

// collect finds the tasks that may move, and tells whether there are any. Where a drain is at work there are none.
func (m *moves) collect() bool {
	byID := make(map[string]*node, len(m.nodes))
	for _, n := range m.nodes {
		byID[n.Meta.ID] = n
	}
	live := make(map[uint64]int)
	for t := range m.snapshot.TasksOfService(m.key) {
		if v1.Live(t) {
			live[t.Desired.Slot]++
		}
	}
	for t := range m.snapshot.TasksOfService(m.key) {
		n := byID[v1.TaskNode(t)]
		if n == nil || !v1.Live(t) {
			continue
		}
		if v1.NodeDrained(n.Node) {
			return false
		}
		if t.Desired.Move != nil {
			m.coming[n] = append(m.coming[n], t)
		}
		if names, _ := volumesOf(t, m.service, m.spec); live[t.Desired.Slot] == 1 && v1.Serves(t) && len(names) == 0 && !v1.NodeLost(n.Node) {
			m.from[n] = append(m.from[n], t)
		}
	}
	for _, tasks := range m.from {
		slices.SortFunc(tasks, func(a, b *v1.Task) int { return cmp.Compare(a.Desired.Slot, b.Desired.Slot) })
	}
	return len(m.from) > 0
}

// choose takes the best node that came, then the task that is best moved there, and so on.
func (m *moves) choose(room int) map[string]string {
	filters, needs := filtersFor(m.spec), needsOf(m.spec)
	var fit []*node
	for _, n := range m.came() {
		if firstNo(filters, n) < 0 {
			fit = append(fit, n)
		}
	}
	if len(fit) == 0 {
		return nil
	}
	tree := grow(m.nodes, fit, preferences(m.spec))
	marks := make(map[string]string)
	for len(marks) < room {
		to := tree.next()
		if to == nil {
			break
		}
		from := m.source(to)
		if from == nil {
			heap.Pop(&to.leaf.nodes)
			continue
		}
		i := slices.IndexFunc(m.from[from], func(t *v1.Task) bool { return before(t, to) })
		marks[m.from[from][i].Meta.ID] = to.Meta.ID
		m.from[from] = slices.Delete(m.from[from], i, i+1)
		to.reserve(needs)
		tree.placed(to, firstNo(filters, to) < 0)
		from.leave()
	}
	return marks
}

// came are the nodes that take tasks and that moves do not fail on.
func (m *moves) came() []*node {
	target := v1.RevisionID(m.service)
	tries := make(map[string]map[uint64]uint32) // by node and slot: the latest try says how many there were
	for t := range m.snapshot.TasksOfService(m.key) {
		if d := t.Desired; v1.MoveDropped(t) && d.Revision == target {
			n, ok := m.nodeCalled(d.Move.Node)
			if !ok || t.Meta.CreatedAt.Before(n.Desired.Since) {
				continue
			}
			if tries[n.Meta.ID] == nil {
				tries[n.Meta.ID] = make(map[uint64]uint32)
			}
			tries[n.Meta.ID][d.Slot] = max(tries[n.Meta.ID][d.Slot], d.Move.Tries)
		}
	}
	var came []*node
	for _, n := range m.nodes {
		if n.Desired == nil || n.Desired.Since.IsZero() {
			continue
		}
		var failed uint32
		for _, of := range tries[n.Meta.ID] {
			failed += of
		}
		n.failed = n.failures[target]
		if n.failed >= manyFailures {
			m.plan.Again = reconcile.Sooner(m.plan.Again, n.forgets)
			continue
		}
		if failed < moveTries {
			came = append(came, n)
		}
	}
	return came
}

// nodeCalled is the node of that ID that takes tasks.
func (d *decision) nodeCalled(id string) (*node, bool) {
	for _, n := range d.nodes {
		if n.Meta.ID == id {
			return n, n.Desired != nil
		}
	}
	return nil, false
}

// source is the node that a task had best come from to another: the one with the most of those where that makes the service more even. There
// is none where that one's tasks are still on their way to it: to take another node's instead would leave the two uneven, for good.
func (m *moves) source(to *node) (most *node) {
	some := func(tasks []*v1.Task) bool {
		return slices.ContainsFunc(tasks, func(t *v1.Task) bool { return before(t, to) })
	}
	for _, n := range m.nodes {
		if n == to || !evens(n, to) || !some(m.from[n]) && !some(m.coming[n]) {
			continue
		}
		if most == nil || fuller(n, most) || !fuller(most, n) && !some(m.from[most]) {
			most = n
		}
	}
	if most != nil && !some(m.from[most]) {
		return nil
	}
	return most
}

// before tells whether a task was placed before a node came.
func before(t *v1.Task, n *node) bool { return t.Desired.Placement.At.Before(n.Desired.Since) }

// evens tells whether a service is more even once a task has moved from one node to another.
func evens(from, to *node) bool {
	here, there := parted(from, to)
	return there+1 < here
}

// fuller tells whether one node has more tasks of the service than another, or is in a branch that has.
func fuller(a, b *node) bool {
	here, there := parted(a, b)
	return cmp.Or(cmp.Compare(here, there), cmp.Compare(a.stay(), b.stay())) > 0
}

// parted counts the tasks of the service on two nodes, or in the branches that part them.
func parted(a, b *node) (int, int) {
	if a.leaf == b.leaf {
		return a.stay(), b.stay()
	}
	x, y := a.leaf, b.leaf
	for x.parent != y.parent {
		x, y = x.parent, y.parent
	}
	return x.tasks, y.tasks
}

// leave counts a task that is about to leave the node.
func (n *node) leave() {
	n.leaving++
	for at := n.leaf; at != nil; at = at.parent {
		at.tasks--
	}
	heap.Init(&n.leaf.nodes)
}
