package apiserver

import (
	"context"
	"errors"
	"slices"
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
	leaser  store.Leaser // nil where the store gives no leases
	backing Backing
	ctx     context.Context
	cancel  context.CancelCauseFunc
	work    sync.WaitGroup

	sessions  *sessions
	reports   *reporter
	streams   *streams
	meetings  *meetings
	relays    *relays
	departs   gate // waits of tasks that are to stop, and of other managers for the nodes here
	departing *departing
	counts    *counts
	guests    *guests

	allowances *allowances
	ready      atomic.Bool // the first snapshot was seen

	writes    gate          // one write of specs at a time, so that checks across objects hold when it commits
	lastWrite int64         // the revision of the latest
	freeIndex uint32        // node indexes below are taken
	freed     atomic.Uint32 // the least node index that became free since freeIndex was looked at; 0 for none
}

func newBackend(s *Server, st store.Store, backing Backing) *backend {
	b := &backend{server: s, store: st, backing: backing, freeIndex: 1, counts: newCounts(), writes: newGate(1, "writes")}
	b.leaser, _ = st.(store.Leaser)
	b.ctx, b.cancel = context.WithCancelCause(context.Background())
	b.sessions = newSessions(b)
	b.reports = newReporter(b)
	b.streams, b.meetings = newStreams(), newMeetings()
	b.relays = newRelays(backing)
	b.departs = newGate(maxDeparts, "waits for nodes that follow")
	b.departing = &departing{tasks: make(map[string]bool)}
	b.guests = newGuests(b)
	b.allowances = newAllowances(s.now)
	b.work.Go(b.follow)
	b.work.Go(b.reports.run)
	return b
}

func (b *backend) close() {
	b.cancel(errDetached)
	b.sessions.stop()
	b.work.Wait()
	b.relays.close()
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
	if err := b.guests.reset(snapshot.Revision()); err != nil {
		return err
	}
	b.ready.Store(true)
	for batch, err := range b.store.Watch(b.ctx, snapshot.Revision()) {
		if err != nil {
			return err
		}
		b.server.metrics.saw(batch.Revision)
		b.counts.change(batch.Changes)
		b.noteFreed(batch.Changes)
		b.depart(batch.Revision, b.sessions.touch(batch))
		if err := b.guests.touch(batch); err != nil {
			return err
		}
		if !slices.ContainsFunc(batch.Changes, func(c store.Change) bool { return concernsAll(&c) }) {
			continue
		}
		now, err := b.store.Snapshot(b.ctx, batch.Revision)
		if err != nil {
			return err
		}
		b.sessions.announce(now)
	}
	return nil
}

// noteFreed takes note of node indexes that are free again, whichever manager removed the nodes.
func (b *backend) noteFreed(changes []store.Change) {
	for i := range changes {
		n, ok := changes[i].Old.(*v1.Node)
		if !ok || changes[i].New != nil || n.Spec == nil {
			continue
		}
		for {
			least := b.freed.Load()
			if least != 0 && least <= n.Spec.Index || b.freed.CompareAndSwap(least, n.Spec.Index) {
				break
			}
		}
	}
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

// nodeState is what a node is to people: what its manager wrote when it came, unless the rules took it for lost since.
func nodeState(n *v1.Node) v1.NodeState {
	switch {
	case n.Status == nil || n.Status.State == "":
		return v1.NodeUnknown
	case v1.NodeLost(n):
		return v1.NodeDown
	}
	return n.Status.State
}
