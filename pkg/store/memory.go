package store

import (
	"context"
	"fmt"
	"iter"
	"sync"
)

// Memory is a Store in memory, with an Elector: for tests, simulation, and as the plainest statement of the contract.
type Memory struct {
	mu        sync.Mutex // one commit at a time
	history   *History
	closed    bool
	leader    *memoryLead
	vacated   chan struct{} // closed when the leader goes
	elections int64
	leases    map[LeaseID]*memoryLease
	under     map[leased]LeaseID // what lives under a lease, and which
	granted   LeaseID
}

// NewMemory is an empty store at revision 1.
func NewMemory() *Memory {
	s := NewSnapshot()
	s.revision = 1
	return &Memory{history: NewHistory(s, HistoryLimit), vacated: make(chan struct{}),
		leases: make(map[LeaseID]*memoryLease), under: make(map[leased]LeaseID)}
}

// Snapshot implements Store.
func (m *Memory) Snapshot(ctx context.Context, atLeast int64) (*Snapshot, error) {
	return m.history.Wait(ctx, atLeast)
}

// Sync implements Store.
func (m *Memory) Sync(ctx context.Context) (int64, error) {
	s, err := m.history.Wait(ctx, 0)
	if err != nil {
		return 0, err
	}
	return s.Revision(), nil
}

// Commit implements Store.
func (m *Memory) Commit(ctx context.Context, c Commit) (int64, error) {
	if err := context.Cause(ctx); err != nil {
		return 0, err
	}
	if len(c.Ops) > MaxOps {
		return 0, fmt.Errorf("%w: %d operations, at most %d", ErrTooLarge, len(c.Ops), MaxOps)
	}
	if err := CheckOps(c.Ops); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return 0, ErrClosed
	}
	if c.Fence != nil && (m.leader == nil || *c.Fence != m.leader.fence) {
		return 0, ErrFenced
	}
	if err := m.checkLeases(c.Ops); err != nil {
		return 0, err
	}
	revision, err := m.apply(c.Ops)
	if err == nil {
		m.lease(c.Ops)
	}
	return revision, err
}

// apply does the operations, or nothing.
func (m *Memory) apply(ops []Op) (int64, error) {
	base := m.history.Newest()
	for i := range ops {
		if !base.Check(&ops[i]) {
			return 0, Conflict(&ops[i])
		}
	}
	next, changes, err := base.With(base.Revision()+1, ops)
	if err != nil {
		return 0, err
	}
	if len(changes) == 0 {
		return base.Revision(), nil // as etcd does
	}
	m.history.Append(next, Batch{Revision: next.Revision(), Changes: changes})
	return next.Revision(), nil
}

// Conflict is the ErrConflict that names the operation whose condition did not hold.
func Conflict(op *Op) error {
	return fmt.Errorf("%w: %s %s, section %s: condition %q does not hold", ErrConflict, op.Kind, op.ID, op.Section, op.If.Kind())
}

// Watch implements Store.
func (m *Memory) Watch(ctx context.Context, after int64) iter.Seq2[Batch, error] {
	return m.history.Watch(ctx, after)
}

// Close implements Store.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.history.Close(ErrClosed)
	m.vacate()
	for id := range m.leases {
		m.forget(id)
	}
	return nil
}

// memoryLead is a Lead of a Memory store.
type memoryLead struct {
	store *Memory
	fence Fence
	lost  chan struct{}
}

// Campaign implements Elector.
func (m *Memory) Campaign(ctx context.Context, candidate string) (Lead, error) {
	for {
		m.mu.Lock()
		if m.closed {
			m.mu.Unlock()
			return nil, ErrClosed
		}
		if m.leader == nil {
			m.elections++
			m.leader = &memoryLead{m, Fence{candidate, m.elections}, make(chan struct{})}
			lead := m.leader
			m.mu.Unlock()
			return lead, nil
		}
		vacated := m.vacated
		m.mu.Unlock()
		select {
		case <-vacated:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Depose takes the lead from whoever has it.
func (m *Memory) Depose() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.vacate()
}

// vacate ends the lead, if there is one, and wakes who waits for it.
func (m *Memory) vacate() {
	if m.leader == nil {
		return
	}
	close(m.leader.lost)
	m.leader = nil
	close(m.vacated)
	m.vacated = make(chan struct{})
}

// Fence implements Lead.
func (l *memoryLead) Fence() Fence { return l.fence }

// Lost implements Lead.
func (l *memoryLead) Lost() <-chan struct{} { return l.lost }

// Resign implements Lead.
func (l *memoryLead) Resign(context.Context) error {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	if l.store.leader == l {
		l.store.vacate()
	}
	return nil
}
