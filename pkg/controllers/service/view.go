package service

import (
	"cmp"
	"slices"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/store"
)

// view is one service as a decision sees it, and the plan that grows from it.
type view struct {
	now      time.Time
	snapshot *store.Snapshot
	service  *v1.Service
	// target is the revision that the spec asks for; admitted is the highest slot that may move to it.
	target   string
	admitted uint64
	// goal is the state that tasks are to reach: running, or complete where the service is a job, of which iteration is the number.
	goal      v1.TaskState
	iteration uint64
	// slots are those that have tasks, in ascending order.
	slots []*slot
	// leavers are those of them that a drain moves.
	leavers []leaver
	// movers are those with a task that may move to a better node; moving counts those on their way.
	movers    []mover
	moving    int
	nodes     map[string]node
	revisions map[string]*revision
	// contested: some address has two holders, whosever.
	contested bool
	plan      reconcile.Plan
}

// slot is a replica's number and the tasks it has and had, by ascending attempt.
type slot struct {
	number uint64
	tasks  []*v1.Task
	// node is the one that the slot is of, where the service is global.
	node string
	// after are slots that have to be empty before a task starts here; reason is why the slot rests, where it has one of its own.
	after  []*slot
	reason string
	// closed: it keeps the task that it has, as it is, and gets no other.
	closed bool
	// move is what the next task is made by where it is to take over from one that runs on another node.
	move *v1.TaskMove
}

// node is what matters of a node here.
type node struct {
	*v1.Node
	lost, drained bool
	// beyond are the tasks that it has not enough resources for.
	beyond map[string]bool
}

// revision is what tasks of a revision run, and how it compares with what the spec asks for.
type revision struct {
	// spec is nil where the revision is not in the store.
	spec *v1.ServiceRevisionSpec
	// current: a task of this revision needs no replacement. samePlacement: wherever it runs.
	current, samePlacement bool
	// others: a task of this revision, which needs no replacement, has other secrets and configs.
	others bool
	// own are the constraints that the tasks were placed by, wanted those of the spec.
	own, wanted []v1.Constraint
	// unfit remembers which nodes do not satisfy own.
	unfit map[string]bool
}

func look(now time.Time, s *store.Snapshot, service *v1.Service) *view {
	v := &view{now: now, snapshot: s, service: service, target: v1.RevisionID(service), admitted: v1.UpdateEverySlot, goal: v1.TaskRunning,
		nodes: make(map[string]node), revisions: make(map[string]*revision)}
	for range s.Contests() {
		v.contested = true
		break
	}
	if v1.Job(service) {
		if v.goal = v1.TaskComplete; !v1.Cron(service) {
			v.iteration = service.Meta.Generation
		}
	} else if d := service.Desired; d != nil && d.Update != nil && d.Update.Revision == v.target {
		v.admitted = d.Update.Admitted
	}
	v.slots = group(slices.Collect(s.TasksOfService(service.Meta.ID)))
	return v
}

// group sorts tasks into slots, in ascending order.
func group(tasks []*v1.Task) []*slot {
	tasks = bySlot(tasks)
	slots := make([]slot, 0, len(tasks))
	for start, end := 0, 0; start < len(tasks); start = end {
		number := tasks[start].Desired.Slot
		for end = start; end < len(tasks) && tasks[end].Desired.Slot == number; end++ {
		}
		slots = append(slots, slot{number: number, tasks: tasks[start:end]})
	}
	pointers := make([]*slot, len(slots))
	for i := range slots {
		pointers[i] = &slots[i]
		if of := slots[i].tasks; len(of) > 1 {
			slices.SortFunc(of, func(a, b *v1.Task) int { return cmp.Compare(a.Desired.Attempt, b.Desired.Attempt) })
		}
	}
	return pointers
}

// bySlot sorts tasks by slot. Slots are numbered from 1 without many gaps, so that counting them takes a fraction of the
// time that comparing does; where somebody made other numbers, they are compared.
func bySlot(tasks []*v1.Task) []*v1.Task {
	highest := uint64(0)
	for _, t := range tasks {
		highest = max(highest, t.Desired.Slot)
	}
	if highest > uint64(4*len(tasks)+1024) {
		slices.SortFunc(tasks, func(a, b *v1.Task) int { return cmp.Compare(a.Desired.Slot, b.Desired.Slot) })
		return tasks
	}
	next := make([]int32, highest+2) // where the next task of a slot goes
	for _, t := range tasks {
		next[t.Desired.Slot+1]++
	}
	for i := 1; i < len(next); i++ {
		next[i] += next[i-1]
	}
	sorted := make([]*v1.Task, len(tasks))
	for _, t := range tasks {
		sorted[next[t.Desired.Slot]] = t
		next[t.Desired.Slot]++
	}
	return sorted
}

// nodeOf is the node that a task was given; known is false where it was given none.
func (v *view) nodeOf(t *v1.Task) (n node, known bool) {
	id := v1.TaskNode(t)
	if id == "" {
		return n, false
	}
	n, seen := v.nodes[id]
	if !seen {
		found, _ := store.Get(v.snapshot, v1.Nodes, id)
		n = node{Node: found, lost: v1.NodeLost(found), drained: v1.NodeDrained(found)}
		if found != nil && found.Status != nil {
			n.beyond = v.beyond(found)
		}
		v.nodes[id] = n
	}
	return n, true
}

// beyond are the live tasks, of whatever service, that a node has not enough for since it has less than it had: those that
// were placed last.
func (v *view) beyond(n *v1.Node) map[string]bool {
	load, have := v.snapshot.LoadOf(n.Meta.ID), n.Status.Description.Resources
	if load.CPUs <= have.CPUs && load.Memory <= have.Memory && load.Generic.Within(have.Generic) {
		return nil
	}
	var live []*v1.Task
	for t := range v.snapshot.TasksOfNode(n.Meta.ID) {
		if p := t.Desired.Placement; v1.Live(t) && (p.CPUs > 0 || p.Memory > 0 || len(p.Generic) > 0) {
			live = append(live, t)
		}
	}
	slices.SortFunc(live, func(a, b *v1.Task) int {
		return cmp.Or(a.Desired.Placement.At.Compare(b.Desired.Placement.At), cmp.Compare(a.Meta.ID, b.Meta.ID))
	})
	beyond, held := make(map[string]bool), make(v1.Generic)
	for _, t := range live {
		p := t.Desired.Placement
		held.Add(p.Generic, 1)
		if p.CPUs > have.CPUs || p.Memory > have.Memory || !held.Within(have.Generic) {
			held.Add(p.Generic, -1)
			beyond[t.Meta.ID] = true
			continue
		}
		have.CPUs -= p.CPUs
		have.Memory -= p.Memory
	}
	return beyond
}

func (v *view) revision(id string) *revision {
	if r, seen := v.revisions[id]; seen {
		return r
	}
	r := &revision{unfit: make(map[string]bool)}
	v.revisions[id] = r
	if found, ok := store.Get(v.snapshot, v1.ServiceRevisions, id); ok {
		r.spec = found.Spec
	}
	if id == v.target {
		r.spec, r.current, r.samePlacement = v1.RevisionOf(v.service), true, true
	}
	if r.spec == nil {
		return r
	}
	r.own = v1.Constraints(&r.spec.Task)
	if id != v.target && v1.SameButPlacement(r.spec, v.service.Spec) {
		r.current, r.wanted = true, v1.Constraints(&v.service.Spec.Task)
		r.others = !v1.SameFiles(r.spec, v.service.Spec)
	}
	return r
}

// clean tells whether the task runs what the spec asks for. One that differs in its placement only does where its node
// satisfies the new one.
func (v *view) clean(t *v1.Task) bool {
	r := v.revision(t.Desired.Revision)
	if r.samePlacement || !r.current {
		return r.current
	}
	n, placed := v.nodeOf(t)
	return placed && !n.lost && v1.Satisfies(n.Node, r.wanted)
}

// fits tells whether a task's node still satisfies the constraints that it was placed by, and has what was set aside for
// it. Nodes that take no new tasks are not looked at: those that are there may stay.
func (v *view) fits(t *v1.Task, n node) bool {
	if n.Node == nil || n.Spec == nil || n.Spec.Availability == v1.AvailabilityPause {
		return true
	}
	if n.beyond[t.Meta.ID] {
		return false
	}
	r := v.revision(t.Desired.Revision)
	if len(r.own) == 0 {
		return true
	}
	unfit, seen := r.unfit[n.Meta.ID]
	if !seen {
		unfit = !v1.Satisfies(n.Node, r.own)
		r.unfit[n.Meta.ID] = unfit
	}
	return !unfit
}

// ended tells whether nothing of a task can run any more: it ended, it was never given a node, or its node is lost and
// nobody can know.
func (v *view) ended(t *v1.Task) bool {
	if v1.Observed(t).Terminal() {
		return true
	}
	n, placed := v.nodeOf(t)
	return !placed || n.lost
}

// set plans a new desired section for a task.
func (v *view) set(t *v1.Task, d *v1.TaskDesired) {
	v.plan.Ops = append(v.plan.Ops, reconcile.SetTask(v.now, t, d))
}

// stop plans that a task is to stop, unless it is to already. States never go back.
func (v *view) stop(t *v1.Task, state v1.TaskState, reason string) {
	if t.Desired.State >= state {
		return
	}
	d := *t.Desired
	d.State = state
	if d.Reason == "" {
		d.Reason = reason
	}
	d.Pending = "" // it waits for nothing now
	v.set(t, &d)
}

// ensureRevision plans the revision that new tasks refer to.
func (v *view) ensureRevision() {
	if _, ok := store.Get(v.snapshot, v1.ServiceRevisions, v.target); ok {
		return
	}
	v.plan.Ops = append(v.plan.Ops, store.Op{Kind: v1.KindServiceRevision, ID: v.target, Section: v1.SectionSpec,
		Value: v1.RevisionOf(v.service), Meta: &v1.Meta{ID: v.target, CreatedAt: v.now, UpdatedAt: v.now}, If: store.Absent()})
}
