package apiserver

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// backend is all that lives as long as one store is attached.
type backend struct {
	server  *Server
	store   store.Store
	backing Backing
	ctx     context.Context
	cancel  context.CancelCauseFunc
	work    sync.WaitGroup

	sessions *sessions
	reports  *reporter
	streams  *streams
	counts   *counts
	ready    atomic.Bool  // the first snapshot was seen
	behind   atomic.Int64 // until when this server takes itself for behind the others, in nanoseconds since 1970

	writes    gate   // one write of specs at a time, so that checks across objects hold when it commits
	lastWrite int64  // the revision of the latest
	freeIndex uint32 // node indexes below are taken
}

func newBackend(s *Server, st store.Store, backing Backing) *backend {
	b := &backend{server: s, store: st, backing: backing, freeIndex: 1, counts: newCounts(), writes: newGate(1, "writes")}
	b.ctx, b.cancel = context.WithCancelCause(context.Background())
	b.sessions = newSessions(b)
	b.reports = newReporter(b)
	b.streams = newStreams()
	b.work.Go(b.follow)
	b.work.Go(b.reports.run)
	return b
}

func (b *backend) close() {
	b.cancel(errDetached)
	b.sessions.stop()
	b.work.Wait()
}

// bind is a request's context that ends also with the backend.
func (b *backend) bind(ctx context.Context) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(b.ctx, func() { cancel(errDetached) })
	return ctx, func(cause error) {
		stop()
		cancel(cause)
	}
}

// follow is the one watch of the store that everything here lives from: sessions, counts, the time of each revision. When
// its place in history is gone it begins again, and every session compares all it sent.
func (b *backend) follow() {
	for b.ctx.Err() == nil {
		err := b.followFrom()
		if b.ctx.Err() != nil {
			return
		}
		if !errors.Is(err, store.ErrCompacted) {
			b.server.log.Warn("the watch of the store broke off and begins again", "error", err)
		}
		select {
		case <-b.ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (b *backend) followFrom() error {
	snapshot, err := b.store.Snapshot(b.ctx, 0)
	if err != nil {
		return err
	}
	b.counts.reset(snapshot)
	b.sessions.reset(snapshot)
	if !b.ready.Swap(true) {
		b.sessions.expectAll(snapshot)
	}
	for batch, err := range b.store.Watch(b.ctx, snapshot.Revision()) {
		if err != nil {
			return err
		}
		b.server.metrics.saw(batch.Revision)
		b.counts.change(batch.Changes)
		b.sessions.touch(batch)
	}
	return nil
}

// counts are how many objects are in which state, kept up to date by changes so that a scrape costs nothing.
type counts struct {
	mu       sync.Mutex
	tasks    map[v1.TaskState]int
	nodes    map[v1.NodeState]int
	services int
	managers int
}

func newCounts() *counts {
	return &counts{tasks: make(map[v1.TaskState]int), nodes: make(map[v1.NodeState]int)}
}

func (c *counts) reset(s *store.Snapshot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.tasks)
	clear(c.nodes)
	c.services, c.managers = 0, 0
	for t := range store.All(s, v1.Tasks) {
		c.add(t, 1)
	}
	for n := range store.All(s, v1.Nodes) {
		c.add(n, 1)
	}
	for o := range store.All(s, v1.Services) {
		c.add(o, 1)
	}
}

func (c *counts) change(changes []store.Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range changes {
		c.add(changes[i].Old, -1)
		c.add(changes[i].New, +1)
	}
}

func (c *counts) add(o v1.Object, by int) {
	switch o := o.(type) {
	case *v1.Task:
		c.tasks[v1.Observed(o)] += by
	case *v1.Node:
		c.nodes[nodeState(o)] += by
		if o.Spec != nil && o.Spec.Role == v1.RoleManager {
			c.managers += by
		}
	case *v1.Service:
		if o.Meta.Deleting.IsZero() {
			c.services += by
		}
	}
}

func nodeState(n *v1.Node) v1.NodeState {
	if n.Status == nil || n.Status.State == "" {
		return v1.NodeUnknown
	}
	return n.Status.State
}
