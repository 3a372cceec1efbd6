package store

import (
	"context"
	"errors"
	"fmt"
	"sync"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// inFlight is how many parts CommitAll has under way at once: etcd puts what waits together into one write to disk, and
// more than a few gain nothing.
const inFlight = 4

// CommitAll commits more operations than one commit may hold, cut into parts that each happen or not on their own, with
// the same fence. Only what may stand alone may be given to it; operations on the same object stay together and in
// order, others may happen in any order.
//
// It returns the highest revision that was written, also with an error. A part that conflicts does not keep the others
// from being tried; any other error does. The error is that of the first part that failed.
func CommitAll(ctx context.Context, s Store, c Commit) (revision int64, err error) {
	if len(c.Ops) <= partSize(s) {
		revision, err := s.Commit(ctx, c)
		if !errors.Is(err, ErrTooLarge) || len(c.Ops) < 2 {
			return revision, err
		}
	}
	a := &allCommit{store: s, fence: c.Fence, slots: make(chan struct{}, inFlight)}
	for _, part := range cut(c.Ops, partSize(s)) {
		if !a.start(ctx, part) {
			break
		}
	}
	a.wait.Wait()
	if a.err != nil {
		return a.revision, fmt.Errorf("%w (one of %d parts that failed)", a.err, a.failed)
	}
	return a.revision, context.Cause(ctx)
}

// Limited is a Store that takes fewer operations in one commit than MaxOps.
type Limited interface {
	// MaxOps is the most operations that one Commit takes, whatever they are.
	MaxOps() int
}

func partSize(s Store) int {
	if l, ok := s.(Limited); ok {
		return max(1, min(l.MaxOps(), MaxOps))
	}
	return MaxOps / 2 // larger transactions are not faster, and hold others up for longer
}

type allCommit struct {
	store Store
	fence *Fence
	slots chan struct{}
	wait  sync.WaitGroup

	mu       sync.Mutex
	revision int64
	err      error
	failed   int
	stop     bool
}

// start commits a part when there is a place, and tells whether to go on.
func (a *allCommit) start(ctx context.Context, part []Op) bool {
	select {
	case a.slots <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	a.mu.Lock()
	stop := a.stop
	a.mu.Unlock()
	if stop {
		return false
	}
	a.wait.Go(func() {
		defer func() { <-a.slots }()
		a.commit(ctx, part)
	})
	return true
}

func (a *allCommit) commit(ctx context.Context, part []Op) {
	revision, err := a.store.Commit(ctx, Commit{Ops: part, Fence: a.fence})
	if errors.Is(err, ErrTooLarge) {
		if halves := cut(part, (len(part)+1)/2); len(halves) > 1 {
			for _, half := range halves {
				a.commit(ctx, half)
			}
			return
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.revision = max(a.revision, revision)
	if err != nil {
		a.failed++
		if a.err == nil || !a.stop && !errors.Is(err, ErrConflict) {
			a.err = err
		}
		a.stop = a.stop || !errors.Is(err, ErrConflict)
	}
}

// cut makes parts of at most size operations, more only where one object needs more.
func cut(ops []Op, size int) [][]Op {
	var (
		order  [][]Op
		groups = make(map[objectKey]int, len(ops))
	)
	for _, op := range ops {
		key := objectKey{op.Kind, op.ID}
		at, seen := groups[key]
		if !seen {
			at = len(order)
			groups[key] = at
			order = append(order, nil)
		}
		order[at] = append(order[at], op)
	}
	var parts [][]Op
	part := make([]Op, 0, min(size, len(ops)))
	for _, group := range order {
		if len(part) > 0 && len(part)+len(group) > size {
			parts = append(parts, part)
			part = make([]Op, 0, size)
		}
		part = append(part, group...)
	}
	return append(parts, part)
}

// CheckOps refuses operations that no state could make right: unknown kinds, sections that the kind does not have, values
// of another type, IDs that are no IDs. The error is ErrInvalid.
func CheckOps(ops []Op) error {
	for i := range ops {
		if err := checkOp(&ops[i]); err != nil {
			return fmt.Errorf("%w: %s %q: %w", ErrInvalid, ops[i].Kind, ops[i].ID, err)
		}
	}
	return nil
}

// maxID bounds an object's ID, in bytes. Claims hold a kind and a name.
const maxID = 512

func checkOp(op *Op) error {
	d, ok := v1.Describe(op.Kind)
	switch {
	case !ok:
		return errors.New("no such kind")
	case op.ID == "" || len(op.ID) > maxID:
		return fmt.Errorf("an ID has 1 to %d bytes", maxID)
	case !d.Has(op.Section):
		return fmt.Errorf("no section %s", op.Section)
	case op.Value != nil && !d.Holds(op.Section, op.Value):
		return fmt.Errorf("section %s cannot hold %T", op.Section, op.Value)
	case op.Lease != 0 && (op.Value == nil || op.Section != d.Home()):
		return errors.New("a lease goes with a write of the home section")
	case op.Lease != 0 && sections(d) > 1:
		return errors.New("a lease goes with kinds of one section: it would remove the home section alone")
	}
	for i := range len(op.ID) {
		if op.ID[i] < ' ' || op.ID[i] == 0x7f {
			return errors.New("an ID has no control characters")
		}
	}
	return nil
}

func sections(d v1.Descriptor) int {
	n := 0
	for s := range v1.Section(v1.SectionCount) {
		if d.Has(s) {
			n++
		}
	}
	return n
}
