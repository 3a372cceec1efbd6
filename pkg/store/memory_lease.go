package store

import (
	"context"
	"fmt"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// minLease is the shortest time of a lease.
const minLease = 2 * time.Second

// memoryLease is a lease of a Memory store.
type memoryLease struct {
	ttl     time.Duration
	timer   *time.Timer
	objects map[leased]struct{}
}

// leased is an object under a lease.
type leased struct {
	kind v1.Kind
	id   string
}

// Grant implements Leaser.
func (m *Memory) Grant(ctx context.Context, ttl time.Duration) (LeaseID, error) {
	if err := context.Cause(ctx); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return 0, ErrClosed
	}
	m.granted++
	id := m.granted
	ttl = max((ttl + time.Second - 1).Truncate(time.Second), minLease)
	m.leases[id] = &memoryLease{ttl: ttl, timer: time.AfterFunc(ttl, func() { m.Expire(id) }), objects: make(map[leased]struct{})}
	return id, nil
}

// Renew implements Leaser.
func (m *Memory) Renew(ctx context.Context, id LeaseID) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	l, ok := m.leases[id]
	switch {
	case m.closed:
		return ErrClosed
	case !ok:
		return fmt.Errorf("%w: %x", ErrNoLease, int64(id))
	}
	l.timer.Reset(l.ttl)
	return nil
}

// Revoke implements Leaser.
func (m *Memory) Revoke(ctx context.Context, id LeaseID) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	m.expire(id)
	return nil
}

// Expire ends a lease as if its time were over. One that has ended already stays so.
func (m *Memory) Expire(id LeaseID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		m.expire(id)
	}
}

func (m *Memory) expire(id LeaseID) {
	l, ok := m.leases[id]
	if !ok {
		return
	}
	m.forget(id)
	var ops []Op
	for o := range l.objects {
		d, _ := v1.Describe(o.kind)
		ops = append(ops, Op{Kind: o.kind, ID: o.id, Section: d.Home(), If: Always()})
	}
	if len(ops) > 0 {
		_, _ = m.apply(ops) // operations without conditions, on kinds that there are, cannot fail
	}
}

func (m *Memory) forget(id LeaseID) {
	for o := range m.leases[id].objects {
		delete(m.under, o)
	}
	m.leases[id].timer.Stop()
	delete(m.leases, id)
}

// checkLeases refuses operations under leases that are not there.
func (m *Memory) checkLeases(ops []Op) error {
	for i := range ops {
		if id := ops[i].Lease; id != 0 && m.leases[id] == nil {
			return fmt.Errorf("%w: %x", ErrNoLease, int64(id))
		}
	}
	return nil
}

// lease puts what was written under its lease, and takes it from the one before.
func (m *Memory) lease(ops []Op) {
	for i := range ops {
		op := &ops[i]
		if d, ok := v1.Describe(op.Kind); !ok || op.Section != d.Home() {
			continue
		}
		at := leased{op.Kind, op.ID}
		if before, ok := m.under[at]; ok {
			delete(m.leases[before].objects, at)
			delete(m.under, at)
		}
		if op.Lease != 0 {
			m.leases[op.Lease].objects[at] = struct{}{}
			m.under[at] = op.Lease
		}
	}
}
