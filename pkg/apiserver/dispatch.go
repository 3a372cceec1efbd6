package apiserver

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// sessions are the nodes that are connected to this server.
type sessions struct {
	backend *backend
	encoder encoder
	told    peerCache
	// nextChange is when another session may change its lease, in nanoseconds since 1970. It needs no lock.
	nextChange atomic.Int64

	mu   sync.Mutex
	open map[string]*session
	news *news // nil before the store was read
	// audience is who listens to which networks.
	audience audience
	// stirred is closed when a session may follow more than before, where somebody waits for that.
	stirred chan struct{}
	waiting atomic.Int64
	// stopped tells that no more work may begin.
	stopped bool
}

func newSessions(b *backend) *sessions {
	return &sessions{backend: b, open: make(map[string]*session), audience: newAudience(), stirred: make(chan struct{})}
}

func (d *sessions) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.open)
}

// The least time between two messages of one session: shortest, and longer by share with each node that is connected, so that
// what a thousand nodes are told at once gathers while a few nodes are told at once.
const (
	shortestGap = 5 * time.Millisecond
	gapShare    = 50 * time.Microsecond
)

func (d *sessions) gap() time.Duration {
	return min(shortestGap+time.Duration(d.count())*gapShare, d.backend.server.limits.SessionGap)
}

// of is a node's session, or nil.
func (d *sessions) of(node string) *session {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.open[node]
}

// enter makes a session its node's at this server, in the place of an older one. What it returns ends it.
func (d *sessions) enter(se *session) (leave func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.open[se.node]
	switch {
	case d.stopped:
		return nil, errDetached
	case old != nil:
		old.cancel(errReplaced)
	case len(d.open) >= d.backend.server.limits.Sessions:
		return nil, problemf(http.StatusTooManyRequests, "there are too many sessions already (at most %d): try again later", len(d.open))
	}
	d.open[se.node] = se
	return func() { d.leave(se) }, nil
}

func (d *sessions) leave(se *session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open[se.node] == se {
		delete(d.open, se.node)
	}
	d.audience.forget(se)
}

// latest is what nodes are told of the swarm.
func (d *sessions) latest() *news {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.news
}

// newsAt is what nodes are told of the swarm, at least as new as where nothing was read before.
func (d *sessions) newsAt(s *store.Snapshot) *news {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.news == nil {
		d.news = newsOf(s, nil)
	}
	return d.news
}

// reset makes every session compare everything.
func (d *sessions) reset(s *store.Snapshot) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.news = newsOf(s, d.news)
	d.audience.reset(s)
	for node, se := range d.open {
		if _, ok := s.Lookup(v1.KindNode, node); !ok {
			se.cancel(errNodeRemoved)
			continue
		}
		if err := se.displaced(s); err != nil {
			se.cancel(err)
			continue
		}
		se.touchAll(s.Revision())
		se.rouse()
	}
}

// touch marks and wakes the sessions that a batch concerns. It returns the tasks of nodes that are connected here which are to stop by
// that batch.
func (d *sessions) touch(batch store.Batch) (leaving []*v1.Task) {
	touched := make(map[*session]struct{})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.touchPeers(batch, touched)
	if len(d.open) == 0 {
		return nil
	}
	for i := range batch.Changes {
		switch c := &batch.Changes[i]; c.Kind {
		case v1.KindTask:
			if se := d.taskOf(c); se != nil {
				now, _ := c.New.(*v1.Task)
				se.touch(c.ID, now, batch.Revision)
				touched[se] = struct{}{}
				if was, _ := c.Old.(*v1.Task); now != nil && was != nil && !leaves(was) && leaves(now) {
					leaving = append(leaving, now)
				}
			}
		case v1.KindNode:
			if se := d.open[c.ID]; se != nil && d.nodeChanged(se, c, batch.Revision) {
				touched[se] = struct{}{}
			}
		case v1.KindCluster, v1.KindAuthority:
			d.touchNodes(batch.Revision)
		case v1.KindRegistry:
			for _, se := range d.open {
				se.touchLogins(batch.Revision)
				touched[se] = struct{}{}
			}
		}
	}
	for i := range batch.Changes { // after the nodes: one that was removed goes with its presence
		if c := &batch.Changes[i]; c.Kind == v1.KindPresence && d.open[c.ID] != nil {
			d.open[c.ID].presenceChanged(c, batch.Revision)
		}
	}
	for se := range touched {
		se.rouse()
	}
	return leaving
}

// nodeChanged takes note of a change of a session's node, and tells whether the node has to be told.
func (d *sessions) nodeChanged(se *session, c *store.Change, revision int64) bool {
	if c.New == nil {
		se.cancel(errNodeRemoved)
		return false
	}
	m := c.New.GetMeta().Revisions
	if m[v1.SectionSpec] != revision && m[v1.SectionDesired] != revision {
		return false
	}
	se.touchNode(revision)
	return true
}

// presenceChanged ends a session that the store no longer shows.
func (se *session) presenceChanged(c *store.Change, revision int64) {
	se.mu.Lock()
	shown := se.lease.shown
	se.mu.Unlock()
	if shown == 0 || revision <= shown {
		return // of an earlier session
	}
	if p, ok := c.New.(*v1.Presence); !ok {
		se.cancel(errSilent)
	} else if p.Status.Session != se.id {
		se.cancel(errReplaced)
	}
}

// touchNodes has every session compare what is not tasks. The caller holds the lock.
func (d *sessions) touchNodes(revision int64) {
	for _, se := range d.open {
		se.touchNode(revision)
		se.rouse()
	}
}

// announce finds out whether a batch is news for all nodes, and has them told.
func (d *sessions) announce(s *store.Snapshot) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := newsOf(s, d.news); n != d.news {
		d.news = n
		d.touchNodes(s.Revision())
	}
}

// taskOf is the session that a task's change concerns: its node's, unless only the status changed.
func (d *sessions) taskOf(c *store.Change) *session {
	old, _ := c.Old.(*v1.Task)
	now, _ := c.New.(*v1.Task)
	if old != nil && now != nil && old.Meta.Revisions[v1.SectionDesired] == now.Meta.Revisions[v1.SectionDesired] {
		return nil
	}
	node := ""
	if now != nil {
		node = v1.TaskNode(now)
	}
	if node == "" && old != nil {
		node = v1.TaskNode(old)
	}
	return d.open[node]
}

// stop lets no more work begin. Sessions end with the backend's context.
func (d *sessions) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopped = true
}

// spawn has something done that lasts no longer than the backend, unless that is over.
func (b *backend) spawn(do func()) {
	b.sessions.mu.Lock()
	defer b.sessions.mu.Unlock()
	if !b.sessions.stopped {
		b.work.Go(do)
	}
}
