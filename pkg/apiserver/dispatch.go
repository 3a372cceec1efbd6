package apiserver

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// sessions are the nodes that are connected, and those that just were.
type sessions struct {
	backend *backend
	encoder encoder

	mu      sync.Mutex
	open    map[string]*session
	lost    map[string]*time.Timer // nodes without a session that will soon be down
	stopped bool
}

func newSessions(b *backend) *sessions {
	return &sessions{backend: b, open: make(map[string]*session), lost: make(map[string]*time.Timer)}
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

// enter makes a session its node's, in the place of an older one. What it returns ends it.
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
	d.forget(se.node)
	return func() { d.leave(se) }, nil
}

// leave ends a session. A node that has no other is disconnected, and after a while down.
func (d *sessions) leave(se *session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open[se.node] != se {
		return
	}
	delete(d.open, se.node)
	if d.stopped {
		return
	}
	d.forget(se.node)
	d.backend.work.Go(func() { d.backend.nodeGone(se.node, v1.NodeDisconnected, "the agent's session ended") })
	d.expect(se.node, d.backend.server.limits.DownAfter, "no session for "+d.backend.server.limits.DownAfter.String())
}

// expect takes a node for down unless it has a session by then. The caller holds the lock.
func (d *sessions) expect(node string, within time.Duration, message string) {
	var timer *time.Timer
	timer = time.AfterFunc(within, func() {
		d.mu.Lock()
		mine := d.lost[node] == timer && !d.stopped
		if mine {
			delete(d.lost, node)
			d.backend.work.Go(func() { d.backend.nodeGone(node, v1.NodeDown, message) })
		}
		d.mu.Unlock()
	})
	d.lost[node] = timer
}

func (d *sessions) forget(node string) {
	if timer := d.lost[node]; timer != nil {
		timer.Stop()
		delete(d.lost, node)
	}
}

// expectAll is for the beginning: nodes that the store calls connected have some time to come back.
func (d *sessions) expectAll(s *store.Snapshot) {
	d.mu.Lock()
	defer d.mu.Unlock()
	grace := d.backend.server.limits.StartGrace
	for n := range store.All(s, v1.Nodes) {
		state := nodeState(n)
		if (state == v1.NodeReady || state == v1.NodeDisconnected) && d.open[n.Meta.ID] == nil && d.lost[n.Meta.ID] == nil && !d.stopped {
			d.expect(n.Meta.ID, grace, "no session for "+grace.String()+" after the manager started")
		}
	}
}

// reset makes every session compare everything.
func (d *sessions) reset(s *store.Snapshot) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for node, se := range d.open {
		if _, ok := s.Lookup(v1.KindNode, node); !ok {
			se.cancel(errNodeRemoved)
			continue
		}
		se.touchAll(s.Revision())
		se.rouse()
	}
}

// touch marks and wakes the sessions that a batch concerns.
func (d *sessions) touch(batch store.Batch) {
	touched := make(map[*session]struct{})
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.open) == 0 {
		return
	}
	for i := range batch.Changes {
		switch c := &batch.Changes[i]; c.Kind {
		case v1.KindTask:
			if se := d.taskOf(c); se != nil {
				now, _ := c.New.(*v1.Task)
				se.touch(c.ID, now, batch.Revision)
				touched[se] = struct{}{}
			}
		case v1.KindNode:
			se := d.open[c.ID]
			if se == nil {
				break
			}
			if c.New == nil {
				se.cancel(errNodeRemoved)
				break
			}
			m := c.New.GetMeta().Revisions
			if m[v1.SectionSpec] == batch.Revision || m[v1.SectionDesired] == batch.Revision {
				se.touchNode(batch.Revision)
				touched[se] = struct{}{}
			}
		case v1.KindCluster:
			for _, se := range d.open {
				se.touchNode(batch.Revision)
				touched[se] = struct{}{}
			}
		}
	}
	for se := range touched {
		se.rouse()
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

// stop ends liveness; sessions end with the backend's context.
func (d *sessions) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopped = true
	for node := range d.lost {
		d.forget(node)
	}
}

// nodeReady writes that a node is connected and what it is. It always writes: the revision is how others know.
func (b *backend) nodeReady(ctx context.Context, node, addr string, description v1.NodeDescription) (int64, error) {
	var missing error
	revision, err := b.reports.do(ctx, func(s *store.Snapshot) []store.Op {
		missing = nil
		n, ok := store.Get(s, v1.Nodes, node)
		if !ok {
			missing = &store.NotFoundError{Kind: v1.KindNode, Ref: clip(node)}
			return nil
		}
		status := v1.NodeStatus{State: v1.NodeReady, Addr: addr, Description: description, At: b.server.now().UTC()}
		if n.Status != nil {
			if addr == "" {
				status.Addr = n.Status.Addr
			}
			if n.Status.State == v1.NodeReady {
				status.At = n.Status.At
			}
		}
		return []store.Op{{Kind: v1.KindNode, ID: node, Section: v1.SectionStatus, Value: &status, If: store.Exists()}}
	})
	if err == nil {
		err = missing
	}
	return revision, err
}

// nodeGone writes that a node without a session is disconnected or down.
func (b *backend) nodeGone(node string, state v1.NodeState, message string) {
	_, err := b.reports.do(b.ctx, func(s *store.Snapshot) []store.Op {
		n, ok := store.Get(s, v1.Nodes, node)
		if !ok || n.Status == nil || b.sessions.of(node) != nil {
			return nil
		}
		if is := n.Status.State; is == state || is == v1.NodeDown {
			return nil
		}
		status := *n.Status
		status.State, status.Message, status.At = state, message, b.server.now().UTC()
		return []store.Op{{Kind: v1.KindNode, ID: node, Section: v1.SectionStatus, Value: &status, If: store.Exists()}}
	})
	if err != nil && b.ctx.Err() == nil {
		b.server.log.Warn("a node's state could not be written", "node.id", node, "state", state, "error", err)
	}
}

// nodeAddr is the address that a node is reached at: the one that it was told to give, or else the connection's.
func nodeAddr(r *http.Request, d *v1.NodeDescription) string {
	if net.ParseIP(d.Addr) != nil {
		return d.Addr
	}
	return remoteAddr(r)
}

// remoteAddr is the address that a request came from, or "" where it came over a socket of this machine.
func remoteAddr(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil || net.ParseIP(host) == nil {
		return ""
	}
	return host
}
