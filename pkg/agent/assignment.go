package agent

import (
	"bytes"
	"cmp"
	"encoding/json"
	"maps"
	"slices"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// assign takes a manager's message. One that is older than what is known is refused, all but the service revisions,
// secrets and configs in it, which the session will not send again. A complete one holds all the same: a session begins with a read of the store as it
// is now, so that an older revision there means a store that was restored from a backup.
func (a *Agent) assign(m v1.Assignment) {
	for _, r := range m.Services {
		if r != nil && r.Spec != nil {
			a.revisions[r.Meta.ID] = r
		}
	}
	a.takeData(m)
	renewed := a.takeLogins(m)
	for _, s := range m.Streams {
		a.stream(s)
	}
	a.released(m.Released)
	if m.Swarm != nil {
		a.marks.Store(m.Swarm.Images)
		if a.o.Told != nil {
			a.o.Told(*m.Swarm)
		}
	}
	if m.Revision < a.revision && m.Complete {
		a.log.Warn("the swarm's state is older than what this node was told: it was restored; following it", "revision", m.Revision, "had", a.revision)
	} else if m.Revision < a.revision {
		a.log.Warn("older assignment refused", "revision", m.Revision, "have", a.revision)
		return
	}
	a.revision = m.Revision
	a.place(m)
	a.takePeers(m)
	saved := a.state.number
	if !onlyPeers(m) { // which change often, and are kept in a file of their own
		saved = a.dirty()
	}
	changed := make(map[*task]bool, len(m.Tasks))
	a.meet(changed)
	if renewed {
		a.lookAgain(changed)
	}
	for _, t := range m.Tasks {
		if t == nil || t.Desired == nil || t.Meta.ID == "" {
			continue // not a task; a manager that sends such cannot be helped
		}
		known := a.take(t, saved)
		if changed[known] = true; m.Complete {
			a.catchUp(known, t.Status)
		}
	}
	for _, id := range m.Removed {
		if t := a.tasks[id]; t != nil {
			a.drop(t, saved)
			changed[t] = true
		}
	}
	if m.Complete {
		a.takeComplete(m, changed, saved)
	}
	if len(m.Services) > 0 {
		a.findRevisions(changed)
	}
	if m.Complete || len(a.revisions) > a.crowded {
		a.forgetRevisions(m)
	}
	a.forgetData()
	for _, t := range sorted(changed) {
		a.advance(t)
	}
}

// findRevisions is for tasks that came before what they run.
func (a *Agent) findRevisions(changed map[*task]bool) {
	for _, t := range a.tasks {
		if t.revision != nil || t.assigned == nil {
			continue
		}
		if t.revision = a.revisions[t.assigned.Desired.Revision]; t.revision != nil {
			changed[t] = true
		}
	}
}

// place takes note of where this node is.
func (a *Agent) place(m v1.Assignment) {
	if m.Node != nil && m.Node.Spec != nil {
		a.node = m.Node
		if a.o.OnNode != nil {
			a.o.OnNode(m.Node)
		}
	}
	a.pool, a.prefix6 = cmp.Or(m.GatewayPool, a.pool), cmp.Or(m.GatewayPrefix6, a.prefix6)
	a.setBlock()
}

// take takes a task that is new or changed. What is desired of it never goes back.
//
// An ID follows from a slot and an attempt's number, which a swarm that was restored from a backup counts once more. What is here
// by the ID of a task that was made at another time is not that task: it is stopped, and its end is told in the other's name, so that the
// managers make the next attempt.
func (a *Agent) take(assigned *v1.Task, saved uint64) *task {
	t := a.tasks[assigned.Meta.ID]
	if t == nil {
		t = &task{id: assigned.Meta.ID}
		a.tasks[t.id] = t
		a.begin(t, assigned)
	}
	if t.assigned != nil && !t.assigned.Meta.CreatedAt.Equal(assigned.Meta.CreatedAt) {
		t.other, t.wanted, t.gone, t.saved = true, false, false, saved
		a.noteStop(t)
		a.tell(t)
		return t
	}
	wanted := v1.Wanted(assigned.Desired)
	if t.assigned != nil && assigned.Desired.State < t.assigned.Desired.State {
		desired := *assigned.Desired
		desired.State = t.assigned.Desired.State
		assigned = &v1.Task{Meta: assigned.Meta, Desired: &desired}
	}
	t.assigned, t.wanted = &v1.Task{Meta: assigned.Meta, Desired: assigned.Desired}, wanted
	if t.gone { // it is wanted to be known of again; but one that was told to stop goes on stopping
		t.gone = false
		a.tell(t)
	}
	t.revision = a.revisions[assigned.Desired.Revision]
	t.saved = saved
	if assigned.Desired.State > v1.TaskComplete {
		a.noteStop(t)
	}
	return t
}

// begin is the first that is heard of a task. Where the manager says what became of it earlier, that holds: this agent may
// have lost its state, and must not run the task a second time.
func (a *Agent) begin(t *task, assigned *v1.Task) {
	if assigned.Status != nil {
		t.status, t.told = *assigned.Status, t.version
		if t.status.State.Terminal() {
			t.phase = phaseEnded
		}
	}
	if s, exists := a.strays[t.id]; exists || a.adopted {
		delete(a.strays, t.id)
		a.adopt(t, s, exists)
	}
	a.claimLink(t)
	a.observe(t, v1.TaskAccepted, "accepted", "")
}

// catchUp has a task told once more where the managers know less of it than this agent, though they were told: their store was
// restored from a backup, or forced to go on without those that knew. It is asked of every complete message, whatever came before.
func (a *Agent) catchUp(t *task, known *v1.TaskStatus) {
	switch {
	case t.told != t.version: // it is told anyway
	case known == nil, known.State < t.status.State, known.State == t.status.State && !sameStatus(known, &t.status):
		a.tell(t)
	}
}

// sameStatus tells whether a manager that was told of b would show a.
func sameStatus(a, b *v1.TaskStatus) bool {
	one, err := json.Marshal(a)
	if err != nil {
		return false
	}
	other, err := json.Marshal(b)
	return err == nil && bytes.Equal(one, other)
}

// noteStop takes note of the moment from which a task is to stop.
func (a *Agent) noteStop(t *task) {
	if t.stop() {
		return
	}
	t.stopAt = a.o.Now()
	a.leavePull(t)
}

// drop is for a task that is no longer assigned: it is stopped and forgotten, and nobody needs to be told.
func (a *Agent) drop(t *task, saved uint64) {
	t.gone, t.saved = true, saved
	a.noteStop(t)
}

// takeComplete drops what a complete assignment does not name, also containers that nobody has told this agent of.
func (a *Agent) takeComplete(m v1.Assignment, changed map[*task]bool, saved uint64) {
	a.complete = true
	a.relieve()
	named := make(map[string]bool, len(m.Tasks))
	for _, t := range m.Tasks {
		if t != nil {
			named[t.Meta.ID] = true
		}
	}
	for id, t := range a.tasks {
		if !named[id] {
			a.drop(t, saved)
			changed[t] = true
		}
	}
	a.dropStrays(changed)
}

// fewRevisions are kept in any case.
const fewRevisions = 64

// forgetRevisions drops those that no task runs which is assigned, nor came with the message. A session sends a revision again once the
// last task of it was removed, and not before.
func (a *Agent) forgetRevisions(m v1.Assignment) {
	used := make(map[string]bool)
	for _, t := range a.tasks {
		if t.assigned != nil && !t.gone {
			used[t.assigned.Desired.Revision] = true
		}
	}
	for _, r := range m.Services {
		if r != nil {
			used[r.Meta.ID] = true
		}
	}
	maps.DeleteFunc(a.revisions, func(id string, _ *v1.ServiceRevision) bool { return !used[id] })
	a.crowded = max(2*len(a.revisions), fewRevisions)
}

// sorted is a set of tasks in the order of their IDs, so that what is done does not depend on a map's order.
func sorted(set map[*task]bool) []*task {
	return slices.SortedFunc(maps.Keys(set), func(a, b *task) int { return cmp.Compare(a.id, b.id) })
}

// adopt takes over a container, or finds that there is none (exists false), according to what was known of the task.
func (a *Agent) adopt(t *task, s engine.State, exists bool) {
	if t.attachment() != nil {
		a.adoptAttachment(t)
		return
	}
	switch {
	case t.phase >= phaseEnded:
		if !exists && t.phase == phaseEnded {
			t.phase = phaseRemoved
		}
	case t.busy:
		if exists && s.Status == engine.Ended {
			t.ended = &s
		}
	case exists && s.Status != engine.Created:
		t.phase = max(t.phase, phaseStarted)
		if t.status.Container == nil || t.status.Container.PID != s.PID {
			t.container().PID = s.PID
			a.tell(t)
		}
		if s.Status == engine.Ended {
			t.ended = &s
		}
		a.watchHealth(t, s, t.status.State >= v1.TaskRunning)
	case t.phase >= phaseStarted, t.status.State >= v1.TaskRunning, !exists && t.status.State >= v1.TaskStarting,
		exists && a.state.rebooted:
		a.lost(t)
	case exists:
		t.phase = phaseCreated
	case t.phase == phaseCreated:
		t.phase = phaseLinked
	}
}

// lost is for a task whose container is not there, or not running, though it ran.
func (a *Agent) lost(t *task) {
	if t.stop() {
		a.end(t, v1.TaskShutdown, "shutdown", "")
		return
	}
	t.phase, t.lost = phaseStarted, true
	t.ended = &engine.State{ID: t.id, Status: engine.Ended, Ended: a.o.Now()}
}
