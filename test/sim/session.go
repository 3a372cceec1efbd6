package sim

import (
	"fmt"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// session is one connection of an agent to a manager's API server. Its messages arrive in order, or not at all. While it is
// open, the server keeps the lease that the node's presence is under.
type session struct {
	machine *machine
	server  *server
	name    string
	lease   store.LeaseID
	ends    time.Duration // when the lease ends, once nobody keeps it
	sent    int64         // the revision up to which the agent was told, or will be by what is under way
	last    time.Duration // when the latest message arrives
	open    bool
	pushing bool
}

// assignment is what a session says: v1.Assignment as far as it matters here.
type assignment struct {
	revision int64
	complete bool
	tasks    []*v1.Task
	removed  []string
}

// connect opens a session, at a server that may be behind.
func (m *machine) connect() {
	if !m.up || m.cut || m.session != nil && m.session.open {
		return
	}
	m.w.sessions++
	s := &session{machine: m, server: m.w.servers[m.w.rng.IntN(len(m.w.servers))], name: fmt.Sprint(m.w.sessions), open: true, last: m.w.now}
	m.session = s
	s.present()
	snapshot := m.w.at(m.w.stale(max(1, m.w.newest()-200)))
	a := assignment{revision: snapshot.Revision(), complete: true}
	for t := range snapshot.TasksOfNode(m.id) {
		a.tasks = append(a.tasks, t)
	}
	s.sent = a.revision
	m.w.trace("%s opens a session at r%d", m.id, a.revision)
	s.send(a)
	s.schedule()
}

// send delivers a message a while later, after those before it.
func (s *session) send(a assignment) {
	m := s.machine
	s.last = max(s.last, m.w.now+m.w.lag())
	m.w.after(s.last-m.w.now, func() {
		if s.open && m.up && !m.cut {
			m.assign(a)
		}
	})
}

// push has the agent told of what changed.
func (m *machine) push() {
	if m.session != nil {
		m.session.schedule()
	}
}

func (s *session) schedule() {
	if !s.open || s.pushing || s.sent >= s.machine.w.newest() {
		return
	}
	s.pushing = true
	s.machine.w.after(s.machine.w.lag(), func() {
		s.pushing = false
		if s.open {
			s.advance()
		}
	})
}

// advance tells the agent what changed up to some revision.
func (s *session) advance() {
	w, m := s.machine.w, s.machine
	upTo := w.stale(s.sent)
	if upTo > s.sent {
		a := assignment{revision: upTo}
		latest := make(map[string]int)
		for _, r := range w.changes(s.sent, upTo) {
			for _, c := range r.changes {
				a.add(m.id, c, latest)
			}
		}
		s.sent = upTo
		if len(a.tasks)+len(a.removed) > 0 {
			s.send(a)
		}
	}
	s.schedule()
}

// add puts a change into the message, over an earlier one of the same task.
func (a *assignment) add(node string, c store.Change, latest map[string]int) {
	if old, ok := c.Old.(*v1.Task); ok && c.New == nil && v1.TaskNode(old) == node {
		a.removed = append(a.removed, old.Meta.ID)
		return
	}
	t, ok := c.New.(*v1.Task)
	if !ok || v1.TaskNode(t) != node {
		return
	}
	if old, was := c.Old.(*v1.Task); was && old.Desired == t.Desired {
		return // the agent's own report
	}
	if i, seen := latest[t.Meta.ID]; seen {
		a.tasks[i] = t
		return
	}
	latest[t.Meta.ID] = len(a.tasks)
	a.tasks = append(a.tasks, t)
}

// disconnect closes the machine's session; another is opened a while later.
func (m *machine) disconnect() {
	if m.session == nil || !m.session.open {
		return
	}
	m.session.end(m.cut)
	m.w.after(m.w.between(50*time.Millisecond, 2*time.Second), m.connect)
}

// end closes a session. Its server sees that, and waits a moment for another; or sees nothing.
func (s *session) end(unseen bool) {
	if s == nil || !s.open {
		return
	}
	s.open = false
	if unseen {
		s.leave()
	} else {
		s.expire(s.machine.w.between(500*time.Millisecond, 600*time.Millisecond))
	}
}
