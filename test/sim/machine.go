package sim

import (
	"fmt"
	"maps"
	"slices"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// machine is a node: its containers, which outlive its agent, and the agent, as pkg/agent behaves.
type machine struct {
	w      *World
	number int
	id     string
	skew   time.Duration
	life   int // counts the agent's processes: what belongs to an earlier one does not happen

	up  bool // the agent's process runs
	cut bool // no message gets through
	// dead machines never come back, whatever still runs on them.
	dead bool

	telling, again bool // a report is about to be made

	session    *session
	containers map[string]*container

	// On the agent's disk.
	tasks    map[string]*task
	revision int64 // of the latest assignment; older ones are refused
}

// container is a process, or what is left of one.
type container struct {
	running bool
	exited  bool
	code    int
}

// phase is how far a task has come on its machine.
type phase uint8

const (
	phaseNew phase = iota
	phaseCreated
	phaseRunning
	phaseEnded
	phaseRemoved // the container is gone too
)

// task is what an agent knows of one.
type task struct {
	id      string
	desired *v1.TaskDesired
	gone    bool
	stop    bool
	phase   phase
	status  v1.TaskStatus
	told    bool
	busy    bool // something is being done about it
	waiting bool // for the time from which on it may start
}

// report is one task's status under way.
type report struct {
	id     string
	status v1.TaskStatus
}

func newMachine(w *World, i int) *machine {
	return &machine{w: w, number: i, id: fmt.Sprintf("node%d", i+1), containers: make(map[string]*container), tasks: make(map[string]*task)}
}

// boot makes the node and starts its agent for the first time.
func (m *machine) boot() {
	m.skew = m.w.between(-time.Second, time.Second)
	labels := map[string]string{"zone": []string{"east", "west"}[m.number%2]}
	m.w.userCommit(store.Op{Kind: v1.KindNode, ID: m.id, Value: &v1.NodeSpec{Role: v1.RoleWorker, Availability: v1.AvailabilityActive, Index: uint32(m.number + 1)},
		Meta: &v1.Meta{Labels: labels}, If: store.Absent()})
	m.up = true
	m.connect()
}

// crash kills the agent. What it was doing may have been done: it will not know.
func (m *machine) crash() {
	if !m.up {
		return
	}
	m.w.trace("%s: the agent crashes", m.id)
	m.up, m.telling, m.again = false, false, false
	m.life++
	for _, t := range m.sorted() {
		if !t.busy {
			continue
		}
		t.busy = false
		c := m.containers[t.id]
		switch {
		case m.w.chance(0.5):
		case t.phase == phaseNew && !t.stop:
			m.containers[t.id] = &container{}
		case t.phase == phaseCreated && c != nil && !t.stop && !t.gone:
			m.startContainer(t)
		case t.phase == phaseRunning && c != nil:
			c.running, c.exited, c.code = false, true, 137
		}
	}
	m.session.end(m.cut)
	m.w.after(m.w.between(100*time.Millisecond, 20*time.Second), m.restart)
}

// reboot takes the containers down too.
func (m *machine) reboot() {
	m.w.trace("%s reboots", m.id)
	for _, c := range m.containers {
		c.running = false
	}
	m.crash()
	for _, c := range m.containers {
		c.running = false // one that was started in the last moment
	}
}

// restart starts the agent again: it takes over what it finds.
func (m *machine) restart() {
	if m.up {
		return
	}
	m.w.trace("%s: the agent starts", m.id)
	m.up = true
	for _, t := range m.sorted() {
		t.told, t.waiting = t.phase == phaseNew, false
		c := m.containers[t.id]
		switch {
		case t.phase >= phaseEnded:
		case c != nil && (c.running || c.exited):
			if t.phase != phaseRunning {
				t.phase = phaseRunning
				m.observe(t, v1.TaskRunning, "")
			}
			if c.exited {
				m.exited(t)
			} else if t.status.State < v1.TaskRunning {
				m.prove(t)
			}
		case t.phase == phaseRunning:
			m.end(t, v1.TaskFailed, "lost")
		case c != nil:
			t.phase = phaseCreated
		default:
			t.phase = phaseNew
		}
		m.advance(t)
	}
	m.tell()
	m.connect()
}

func (m *machine) sorted() []*task {
	tasks := make([]*task, 0, len(m.tasks))
	for _, id := range slices.Sorted(maps.Keys(m.tasks)) {
		tasks = append(tasks, m.tasks[id])
	}
	return tasks
}

// assign takes a message of a manager.
func (m *machine) assign(a assignment) {
	if a.revision < m.revision {
		m.w.trace("%s refuses r%d, it has r%d", m.id, a.revision, m.revision)
		return
	}
	m.revision = a.revision
	named := make(map[string]bool, len(a.tasks))
	for _, t := range a.tasks {
		named[t.Meta.ID] = true
		m.take(t)
	}
	for _, id := range a.removed {
		if t := m.tasks[id]; t != nil {
			t.gone, t.stop = true, true
			m.advance(t)
		}
	}
	if !a.complete {
		return
	}
	for _, t := range m.sorted() {
		if !named[t.id] {
			t.gone, t.stop = true, true
			m.advance(t)
		}
	}
}

func (m *machine) take(assigned *v1.Task) {
	t := m.tasks[assigned.Meta.ID]
	if t == nil {
		t = &task{id: assigned.Meta.ID, told: true}
		m.tasks[t.id] = t
		if assigned.Status != nil {
			t.status = *assigned.Status
			if t.status.State.Terminal() {
				t.phase = phaseRemoved
			} else if t.status.State >= v1.TaskStarting {
				t.desired = assigned.Desired
				m.end(t, v1.TaskFailed, "lost")
			}
		}
	}
	if t.desired == nil || assigned.Desired.State >= t.desired.State {
		t.desired = assigned.Desired
	}
	t.gone = false
	t.stop = t.stop || t.desired.State > v1.TaskComplete
	if t.phase == phaseNew {
		m.observe(t, v1.TaskAccepted, "")
	}
	m.advance(t)
}

// advance begins what a task needs next.
func (m *machine) advance(t *task) {
	if t.busy || !m.up || m.tasks[t.id] != t {
		return
	}
	switch {
	case t.phase == phaseNew && t.stop:
		m.end(t, v1.TaskShutdown, "")
		m.advance(t)
	case t.phase == phaseNew:
		m.do(t, m.w.between(5*time.Millisecond, 500*time.Millisecond), m.prepared)
	case t.phase == phaseCreated && t.stop:
		m.end(t, v1.TaskShutdown, "")
		m.advance(t)
	case t.phase == phaseCreated && t.desired.State >= v1.TaskRunning:
		if wait := t.desired.StartAfter.Sub(m.w.time(m.skew)); wait > 0 {
			m.wait(t, wait)
			return
		}
		m.do(t, m.w.between(time.Millisecond, 50*time.Millisecond), m.started)
	case t.phase == phaseRunning && t.stop:
		m.do(t, m.w.between(time.Millisecond, 2*time.Second), m.stopped)
	case t.phase == phaseEnded:
		m.do(t, m.w.between(time.Millisecond, 50*time.Millisecond), func(t *task) {
			delete(m.containers, t.id)
			t.phase = phaseRemoved
		})
	case t.phase == phaseRemoved && t.gone:
		delete(m.tasks, t.id)
	}
}

// do has something done about a task after a while, if the agent lives then.
func (m *machine) do(t *task, d time.Duration, then func(*task)) {
	life := m.life
	t.busy = true
	m.w.after(d, func() {
		if m.life == life {
			t.busy = false
			then(t)
			m.advance(t)
		}
	})
}

// wait looks at a task again when it may start.
func (m *machine) wait(t *task, d time.Duration) {
	if t.waiting {
		return
	}
	life := m.life
	t.waiting = true
	m.w.after(d, func() {
		if m.life == life {
			t.waiting = false
			m.advance(t)
		}
	})
}

func (m *machine) prepared(t *task) {
	if t.stop {
		return
	}
	if !m.w.calm && m.w.chance(0.02) {
		m.end(t, v1.TaskRejected, "no such image")
		return
	}
	m.containers[t.id] = &container{}
	t.phase = phaseCreated
	m.observe(t, v1.TaskReady, "")
}

func (m *machine) started(t *task) {
	if t.stop {
		return
	}
	m.startContainer(t)
	t.phase = phaseRunning
	if m.w.chance(0.3) {
		m.observe(t, v1.TaskStarting, "")
		m.prove(t)
	} else {
		m.observe(t, v1.TaskRunning, "")
	}
	if !m.w.calm && m.w.chance(0.06) {
		m.w.after(m.w.between(time.Millisecond, 8*time.Second), func() { m.exit(t.id, m.w.rng.IntN(3)) })
	}
}

// prove has a task that is starting found healthy after a while, or not.
func (m *machine) prove(t *task) {
	life := m.life
	m.w.after(m.w.between(0, 4*time.Second), func() {
		c := m.containers[t.id]
		switch {
		case m.life != life || m.tasks[t.id] != t || t.phase != phaseRunning || t.stop || c == nil || !c.running:
		case !m.w.calm && m.w.chance(0.1):
			c.running, c.exited, c.code = false, true, 143
			m.end(t, v1.TaskFailed, "task: unhealthy container")
			m.advance(t)
		default:
			m.observe(t, v1.TaskRunning, "")
		}
	})
}

func (m *machine) startContainer(t *task) {
	m.containers[t.id].running = true
	m.w.trace("%s starts %s", m.id, nameOf(t.desired))
	m.w.checks.started(m.w, m, t)
	if t.desired.State == v1.TaskComplete {
		m.works(t)
	}
}

func (m *machine) stopped(t *task) {
	if t.phase != phaseRunning {
		return // it ended by itself
	}
	if c := m.containers[t.id]; c != nil {
		c.running, c.exited = false, true
	}
	m.end(t, v1.TaskShutdown, "")
}

// exit ends a container's process by itself.
func (m *machine) exit(id string, code int) {
	if !m.w.calm {
		m.finish(id, code)
	}
}

// finish is the end of a container's process.
func (m *machine) finish(id string, code int) {
	c, t := m.containers[id], m.tasks[id]
	if c == nil || t == nil || !c.running || m.dead {
		return
	}
	c.running, c.exited, c.code = false, true, code
	m.w.trace("%s: container of %s exits with %d", m.id, nameOf(t.desired), code)
	if m.up {
		life := m.life
		m.w.after(m.w.between(0, 20*time.Millisecond), func() {
			if m.life == life && m.tasks[id] == t && t.phase == phaseRunning {
				m.exited(t)
				m.advance(t)
			}
		})
	}
}

// exited tells how a task ended whose process did.
func (m *machine) exited(t *task) {
	switch c := m.containers[t.id]; {
	case t.stop:
		m.end(t, v1.TaskShutdown, "")
	case c.code == 0:
		m.end(t, v1.TaskComplete, "")
	default:
		m.end(t, v1.TaskFailed, fmt.Sprintf("task: non-zero exit (%d)", c.code))
	}
}

func (m *machine) end(t *task, state v1.TaskState, err string) {
	if t.phase >= phaseEnded {
		return
	}
	if !t.status.State.Terminal() {
		ran := v1.Duration(0)
		if t.status.State == v1.TaskRunning {
			ran = v1.Duration(max(0, m.w.time(m.skew).Sub(t.status.At)))
		}
		t.status.Ran = &ran
	}
	t.phase = phaseEnded
	m.observe(t, state, err)
}

// observe sets a task's state, which never goes back, and has it reported.
func (m *machine) observe(t *task, state v1.TaskState, err string) {
	if state <= t.status.State {
		return
	}
	m.w.trace("%s: %s is %s %s", m.id, nameOf(t.desired), state, err)
	t.status.State, t.status.Err, t.status.At = state, err, m.w.time(m.skew)
	t.told = false
	if m.telling {
		return
	}
	m.telling = true
	life := m.life
	m.w.after(m.w.lag(), func() {
		if m.life == life {
			m.telling = false
			m.tell()
		}
	})
}

// same tells whether two statuses of a task are the same report.
func same(a, b v1.TaskStatus) bool { return a.State == b.State && a.At.Equal(b.At) && a.Err == b.Err }

// tell reports what was not told yet, and again until somebody confirms it. A report may arrive twice, and late.
func (m *machine) tell() {
	if !m.up {
		return
	}
	var list []report
	for _, t := range m.sorted() {
		if !t.told && !t.gone {
			list = append(list, report{t.id, t.status})
		}
	}
	if len(list) == 0 {
		return
	}
	life, told := m.life, m.revision
	m.tellAgain()
	if m.cut {
		return
	}
	to := m.w.servers[m.w.rng.IntN(len(m.w.servers))]
	m.w.after(m.w.lag(), func() {
		if !to.report(m.id, told, list) || m.cut || m.life != life || !m.w.calm && m.w.chance(0.05) {
			return
		}
		for _, r := range list {
			if t := m.tasks[r.id]; t != nil && same(t.status, r.status) {
				t.told = true
			}
		}
	})
	if !m.w.calm && m.w.chance(0.1) {
		m.w.after(m.w.between(0, 10*time.Second), func() { to.report(m.id, told, list) })
	}
}

// tellAgain reports what is not confirmed by then.
func (m *machine) tellAgain() {
	if m.again {
		return
	}
	m.again = true
	life := m.life
	m.w.after(time.Second, func() {
		if m.life == life {
			m.again = false
			m.tell()
		}
	})
}

func nameOf(d *v1.TaskDesired) string {
	return fmt.Sprintf("%s.%d#%d(%.4s)", d.ServiceName, d.Slot, d.Attempt, d.Service)
}
