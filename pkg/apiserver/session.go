package apiserver

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// session is one node's connection. Others only leave marks on it and wake it; what was sent, and writing, is its own
// goroutine's.
type session struct {
	node   string
	wake   chan struct{} // holds one
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	marks   marks
	streams []v1.StreamRequest

	// The session's goroutine alone uses these.
	sent      map[string]int64 // task → the revision of its desired section
	revisions map[string]int64 // service revisions, and at which revision of the store: their labels may change
	nodeAt    int64            // the revision of the node's spec and desired section
	pool      string           // the gateway pool
}

// marks say what to look at again.
type marks struct {
	revision int64   // at which
	tasks    []touch // these tasks
	all      bool    // or everything
	node     bool    // the node itself, or the cluster's settings
}

// touch is a task as it is since the revision of its mark: nil where it is gone.
type touch struct {
	id   string
	task *v1.Task
}

// maxMarks is how many tasks are noted before it is cheaper to compare all.
const maxMarks = 2048

// touch marks a task.
func (se *session) touch(id string, task *v1.Task, revision int64) {
	se.mu.Lock()
	defer se.mu.Unlock()
	se.marks.revision = max(se.marks.revision, revision)
	if se.marks.all {
		return
	}
	if len(se.marks.tasks) == maxMarks {
		se.marks.all, se.marks.tasks = true, nil
		return
	}
	se.marks.tasks = append(se.marks.tasks, touch{id, task})
}

func (se *session) touchNode(revision int64) {
	se.mu.Lock()
	defer se.mu.Unlock()
	se.marks.revision = max(se.marks.revision, revision)
	se.marks.node = true
}

func (se *session) touchAll(revision int64) {
	se.mu.Lock()
	defer se.mu.Unlock()
	se.marks.revision = max(se.marks.revision, revision)
	se.marks.all, se.marks.node, se.marks.tasks = true, true, nil
}

// ask wants a stream of the node, unless it is asked for too many already.
func (se *session) ask(r v1.StreamRequest) bool {
	se.mu.Lock()
	room := len(se.streams) < maxRequests
	if room {
		se.streams = append(se.streams, r)
	}
	se.mu.Unlock()
	se.rouse()
	return room
}

func (se *session) rouse() {
	select {
	case se.wake <- struct{}{}:
	default:
	}
}

// take takes the marks and the wanted streams.
func (se *session) take() (marks, []v1.StreamRequest) {
	se.mu.Lock()
	defer se.mu.Unlock()
	m, streams := se.marks, se.streams
	se.marks, se.streams = marks{}, nil
	return m, streams
}

// Reasons for which a session ends.
var (
	errReplaced    = problemf(http.StatusConflict, "a newer session of this node has taken this one's place")
	errNodeRemoved = problemf(http.StatusNotFound, "this node was removed from the swarm")
)

// session serves one session from its beginning to its end.
func (s *Server) session(w http.ResponseWriter, r *http.Request) error {
	b, err := s.attached()
	if err != nil {
		return err
	}
	body, err := s.readBody(w, r, maxBody)
	if err != nil {
		return err
	}
	var description v1.NodeDescription
	if err := v1.DecodeStrict(body, &description); err != nil {
		return err
	}
	ctx, cancel := b.bind(r.Context())
	defer cancel(nil)
	se := &session{
		node: r.PathValue("ref"), wake: make(chan struct{}, 1), cancel: cancel,
		sent: make(map[string]int64), revisions: make(map[string]int64),
	}
	leave, err := b.sessions.enter(se)
	if err != nil {
		return err
	}
	defer leave()
	revision, err := b.nodeReady(ctx, se.node, nodeAddr(r, &description), description)
	if err != nil {
		return err
	}
	// A node that comes back must not be told of an earlier time: what was replaced meanwhile would start again.
	now, err := b.store.Sync(ctx)
	if err != nil {
		return err
	}
	se.touchAll(max(revision, now))
	se.rouse()
	err = s.speak(ctx, b, se, s.newStream(w, r))
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return err
}

// speak sends what the node has to know whenever there is some of it.
func (s *Server) speak(ctx context.Context, b *backend, se *session, out *lineStream) error {
	every := 2 * s.limits.Keepalive // there are many sessions, and each beat of them costs
	keepalive := time.NewTimer(every)
	defer keepalive.Stop()
	gap := time.NewTimer(0)
	defer gap.Stop()
	<-gap.C
	complete := true
	for {
		select {
		case <-se.wake:
		case <-keepalive.C:
			if err := out.write([]byte{'\n'}); err != nil {
				return err
			}
			keepalive.Reset(every)
			continue
		case <-ctx.Done():
			return farewell(out, context.Cause(ctx))
		}
		wrote, err := s.assign(ctx, b, se, out, complete)
		if err != nil {
			return farewell(out, err)
		}
		complete = false
		if !wrote {
			continue
		}
		keepalive.Reset(every)
		gap.Reset(b.sessions.gap())
		select {
		case <-gap.C:
		case <-ctx.Done():
			return farewell(out, context.Cause(ctx))
		}
	}
}

// farewell tells the agent why its session ends, if it is still there.
func farewell(out *lineStream, cause error) error {
	if errors.Is(cause, context.Canceled) || !out.begun {
		return cause
	}
	buf := takeBuffer()
	defer giveBuffer(buf)
	*buf = appendFarewell(*buf, problemOf(cause))
	_ = out.write(*buf) // it ends either way
	return cause
}

// assign sends the difference between what the node was told and what the snapshot says.
func (s *Server) assign(ctx context.Context, b *backend, se *session, out *lineStream, complete bool) (bool, error) {
	m, streams := se.take()
	snapshot, err := b.store.Snapshot(ctx, m.revision)
	if err != nil {
		return false, err
	}
	a := assignment{Revision: snapshot.Revision(), Complete: complete, Streams: streams}
	se.compare(snapshot, m, &a)
	if a.empty() {
		return false, nil
	}
	buf := takeBuffer()
	defer giveBuffer(buf)
	if *buf, err = b.sessions.encoder.append(*buf, &a); err != nil {
		return false, err
	}
	if err := out.write(*buf); err != nil {
		return false, err
	}
	s.metrics.messages.Inc()
	s.metrics.bytes.Add(float64(len(*buf)))
	s.metrics.sent(m.revision)
	return true, nil
}

// compare notes in the assignment what of the marked is new, changed or gone.
func (se *session) compare(s *store.Snapshot, m marks, a *assignment) {
	if m.node || m.all {
		se.compareNode(s, a)
	}
	if !m.all {
		for _, t := range latest(m.tasks) {
			if t.task != nil && v1.TaskNode(t.task) == se.node {
				se.compareTask(s, t.task, a)
			} else if _, was := se.sent[t.id]; was {
				delete(se.sent, t.id)
				a.Removed = append(a.Removed, t.id)
			}
		}
		return
	}
	n := 0
	for t := range s.TasksOfNode(se.node) {
		n++
		se.compareTask(s, t, a)
	}
	if len(se.sent) == n {
		return
	}
	for id := range se.sent {
		if t, ok := store.Get(s, v1.Tasks, id); !ok || v1.TaskNode(t) != se.node {
			delete(se.sent, id)
			a.Removed = append(a.Removed, id)
		}
	}
}

// latest leaves the last mark of each task.
func latest(marks []touch) []touch {
	if len(marks) < 2 {
		return marks
	}
	last := make(map[string]int, len(marks))
	for i, t := range marks {
		last[t.id] = i
	}
	if len(last) == len(marks) {
		return marks
	}
	kept := marks[:0]
	for i, t := range marks {
		if last[t.id] == i {
			kept = append(kept, t)
		}
	}
	return kept
}

func (se *session) compareTask(s *store.Snapshot, t *v1.Task, a *assignment) {
	desired := t.Meta.Revisions[v1.SectionDesired]
	if se.sent[t.Meta.ID] == desired {
		return
	}
	se.sent[t.Meta.ID] = desired
	a.Tasks = append(a.Tasks, t)
	r, ok := store.Get(s, v1.ServiceRevisions, t.Desired.Revision)
	if !ok {
		return
	}
	if at := r.Meta.Revisions.Max(); se.revisions[r.Meta.ID] != at {
		se.revisions[r.Meta.ID] = at
		a.Services = append(a.Services, r)
	}
}

func (se *session) compareNode(s *store.Snapshot, a *assignment) {
	if n, ok := store.Get(s, v1.Nodes, se.node); ok {
		at := max(n.Meta.Revisions[v1.SectionSpec], n.Meta.Revisions[v1.SectionDesired])
		if at != se.nodeAt {
			se.nodeAt = at
			a.Node = n
		}
	}
	if pool := gatewayPool(s); pool != se.pool {
		se.pool = pool
		a.GatewayPool = pool
	}
}

// gatewayPool is the cluster's.
func gatewayPool(s *store.Snapshot) string {
	if c, ok := store.Get(s, v1.Clusters, v1.ClusterName); ok && c.Spec.GatewayPool != "" {
		return c.Spec.GatewayPool
	}
	return v1.DefaultGatewayPool
}
