package sim

import (
	"context"
	"errors"
	"slices"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// server is the API server of a manager, as far as it writes what agents report, and that they are there.
type server struct {
	w       *World
	number  int
	written int64 // its own latest commit, which it always sees
}

// generic is what every machine says it has.
var generic = []v1.GenericResource{{Kind: "GPU", Value: "a"}, {Kind: "GPU", Value: "b"}, {Kind: "GPU", Value: "c"}, {Kind: "GPU", Value: "d"}, {Kind: "SSD", Count: 4}}

// present writes that a session's node is there, for as long as the session lasts. With a node's first session it is ready.
func (s *session) present() {
	w, id := s.machine.w, s.machine.id
	lease, err := w.memory.Grant(context.Background(), 24*time.Hour) // the simulation's time is not the store's
	if err != nil {
		w.fail("grant: %v", err)
		return
	}
	s.lease = lease
	ops := []store.Op{{Kind: v1.KindPresence, ID: id, Section: v1.SectionStatus, Value: &v1.PresenceStatus{Session: s.name, Since: w.time(0)},
		Meta: &v1.Meta{ID: id}, If: store.Always(), Lease: lease}}
	if n, ok := store.Get(w.current(), v1.Nodes, id); ok && n.Status == nil {
		ops = append(ops, store.Op{Kind: v1.KindNode, ID: id, Section: v1.SectionStatus, Value: &v1.NodeStatus{State: v1.NodeReady,
			Description: v1.NodeDescription{Resources: v1.NodeResources{CPUs: 4e9, Memory: 4 << 30, Generic: generic},
				Platform: v1.Platform{Architecture: "amd64", OS: "linux"}}}, If: store.Exists()})
	}
	if _, err := w.commit(actorServer, store.Commit{Ops: ops}); err != nil {
		w.fail("%s is there: %v", id, err)
	}
}

// leave leaves the session's lease to end when its time is over, which is a few seconds after its last heartbeat, or later.
func (s *session) leave() { s.expire(s.machine.w.between(time.Second, 9*time.Second)) }

// expire ends the lease after a while.
func (s *session) expire(after time.Duration) {
	w := s.machine.w
	s.ends = w.now + after
	w.ending = append(w.ending, s)
	w.after(after, s.expired)
}

func (s *session) expired() {
	w := s.machine.w
	if w.now < s.ends {
		w.after(s.ends-w.now, s.expired)
		return
	}
	w.ending = slices.DeleteFunc(w.ending, func(o *session) bool { return o == s })
	w.expire(s.lease, s.machine.id)
}

// lengthenLeases gives some of those that are about to end more time, as a new leader of the store may.
func (w *World) lengthenLeases() {
	for _, s := range w.ending {
		if w.chance(0.5) {
			s.ends += w.between(0, 5*time.Second)
		}
	}
}

// miss ends a lease though the session is open, because its server did not come to keep it. It makes up for that with one of
// the next heartbeats.
func (m *machine) miss() {
	s := m.session
	if s == nil || !s.open {
		return
	}
	m.w.trace("the lease of %s ends", m.id)
	m.w.expire(s.lease, m.id)
	m.w.after(m.w.between(100*time.Millisecond, 3*time.Second), func() {
		if s.open && !m.cut {
			s.present()
		}
	})
}

// crash ends the server's sessions: their agents see it, and the leases are left.
func (s *server) crash() {
	for _, m := range s.w.machines {
		if m.session == nil || !m.session.open || m.session.server != s {
			continue
		}
		m.session.open = false
		m.session.leave()
		s.w.after(s.w.between(50*time.Millisecond, 2*time.Second), m.connect)
	}
}

// report writes what an agent reported, by the rules of the API server: a task has to be the node's, its state never goes
// back. It sees at least what the agent was told when it reported, or it would take the agent's tasks for unknown ones. It
// returns false where the agent is not to be told that it was written.
func (s *server) report(node string, told int64, statuses []report) bool {
	least := max(1, s.written, s.w.newest()-200)
	if !s.w.o.NoReportRevision {
		least = max(least, told)
	}
	view := s.w.stale(least)
	for range 3 {
		snapshot := s.w.at(view)
		var ops []store.Op
		for _, r := range statuses {
			t, ok := store.Get(snapshot, v1.Tasks, r.id)
			if !ok || v1.TaskNode(t) != node || t.Status != nil && (r.status.State < t.Status.State || same(*t.Status, r.status)) {
				continue
			}
			status := r.status
			op := store.Op{Kind: v1.KindTask, ID: r.id, Section: v1.SectionStatus, Value: &status,
				If: store.AtRevision(t.Meta.Revisions[v1.SectionStatus])}
			if s.w.o.NoReportCondition {
				op.If = store.Exists()
			}
			ops = append(ops, op)
		}
		if len(ops) == 0 {
			return true
		}
		revision, err := s.w.commit(actor(node), store.Commit{Ops: ops})
		if err == nil {
			s.written = revision
			return true
		}
		if !errors.Is(err, store.ErrConflict) {
			return false
		}
		view = s.w.newest()
	}
	return false
}
