package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/store"
)

// fragile is a store that takes few operations in one commit, and fails the nth commit and, unless that is a conflict, all
// that come after.
type fragile struct {
	*store.Memory
	most  int // operations
	nth   int // 0 is none
	cause error
	limit bool // most is told in advance

	mu      sync.Mutex
	commits int
	wrote   map[string]int64 // the revision at which an object was written or removed
}

func newFragile(most int) *fragile {
	return &fragile{Memory: store.NewMemory(), most: most, limit: true, wrote: make(map[string]int64)}
}

// MaxOps implements store.Limited.
func (f *fragile) MaxOps() int {
	if f.limit {
		return f.most
	}
	return store.MaxOps
}

// Commit implements store.Store.
func (f *fragile) Commit(ctx context.Context, c store.Commit) (int64, error) {
	if len(c.Ops) > f.most {
		return 0, store.ErrTooLarge
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.commits++
	if f.nth > 0 && (f.commits == f.nth || f.commits > f.nth && !errors.Is(f.cause, store.ErrConflict)) {
		return 0, f.cause
	}
	revision, err := f.Memory.Commit(ctx, c)
	if err != nil {
		return 0, err
	}
	for _, op := range c.Ops {
		f.wrote[op.ID] = revision
	}
	return revision, nil
}

// inPhases are operations of every phase, as many of each, in the wrong order; their IDs begin with the phase.
func inPhases(each int) []store.Op {
	var ops []store.Op
	for i := range each {
		id := func(phase int) string { return fmt.Sprintf("%d-%04d", phase, i) }
		task := func(phase int, state v1.TaskState) store.Op {
			return store.Op{Kind: v1.KindTask, ID: id(phase), Section: v1.SectionDesired, If: store.Always(),
				Value: &v1.TaskDesired{Service: "web", Slot: uint64(i), State: state}}
		}
		ops = append(ops,
			store.Op{Kind: v1.KindService, ID: id(5), Section: v1.SectionSpec, If: store.Always()},
			store.Op{Kind: v1.KindServiceRevision, ID: id(4), Section: v1.SectionSpec, If: store.Always()},
			store.Op{Kind: v1.KindTask, ID: id(3), Section: v1.SectionDesired, If: store.Always()},
			task(2, v1.TaskRunning), task(1, v1.TaskShutdown),
			store.Op{Kind: v1.KindServiceRevision, ID: id(0), Section: v1.SectionSpec, If: store.Always(),
				Value: &v1.ServiceRevisionSpec{Service: "web"}})
	}
	return ops
}

// TestPhasesAreInOrder has each kind of operation, and some that are easily taken for another.
func TestPhasesAreInOrder(t *testing.T) {
	ops := append(inPhases(2),
		store.Op{Kind: v1.KindService, ID: "0-desired", Section: v1.SectionDesired, Value: &v1.ServiceDesired{Attempts: 3}},
		store.Op{Kind: v1.KindService, ID: "0-cleared", Section: v1.SectionDesired},
		store.Op{Kind: v1.KindTask, ID: "1-given-up", Section: v1.SectionDesired, Value: &v1.TaskDesired{State: v1.TaskRemove}},
		store.Op{Kind: v1.KindTask, ID: "2-complete", Section: v1.SectionDesired, Value: &v1.TaskDesired{State: v1.TaskComplete}},
		store.Op{Kind: v1.KindClaim, ID: "4-claim", Section: v1.SectionSpec})
	sorted := reconcile.Phases(ops)
	if len(sorted) != 6 {
		t.Fatalf("got %d phases, want 6", len(sorted))
	}
	found := 0
	for i, phase := range sorted {
		for _, op := range phase {
			if found++; !strings.HasPrefix(op.ID, fmt.Sprint(i, "-")) {
				t.Errorf("%s is in phase %d", op.ID, i)
			}
		}
	}
	if found != len(ops) {
		t.Errorf("got %d operations, want all %d", found, len(ops))
	}
	if none := reconcile.Phases(nil); len(none) != 0 {
		t.Errorf("got %d phases of nothing", len(none))
	}
}

func TestCommitOfFewIsOne(t *testing.T) {
	ops := inPhases(16)
	f := newFragile(store.MaxOps)
	f.nth, f.cause = 1, store.ErrConflict
	e := reconcile.New(f, nil, reconcile.Options{})
	if _, err := e.Commit(t.Context(), ops, nil); !errors.Is(err, store.ErrConflict) || len(f.wrote) != 0 {
		t.Errorf("got %v with %d operations written, want a conflict and none", err, len(f.wrote))
	}
	if _, err := e.Commit(t.Context(), ops, nil); err != nil || f.commits != 2 || len(f.wrote) != len(ops) {
		t.Errorf("got %v, %d commits, %d written; want all %d in one", err, f.commits-1, len(f.wrote), len(ops))
	}
}

// TestCommitIsCutBetweenPhases fails each part of a commit in turn: of no phase is anything written unless those before it
// are whole. It does so for many operations, and for few that a store refuses as too large though nothing said so.
func TestCommitIsCutBetweenPhases(t *testing.T) {
	for name, c := range map[string]struct {
		each, most int
		limit      bool
	}{"many": {60, 25, true}, "few but large": {16, 5, false}} {
		whole := newFragile(c.most)
		whole.limit = c.limit
		if _, err := reconcile.New(whole, nil, reconcile.Options{}).Commit(t.Context(), inPhases(c.each), nil); err != nil {
			t.Fatal(err)
		}
		if whole.commits < 12 || len(whole.wrote) != 6*c.each {
			t.Fatalf("%s: %d operations in %d parts, want all %d in at least two for each phase", name, len(whole.wrote), whole.commits, 6*c.each)
		}
		checkCut(t, whole, c.each)
		for _, cause := range []error{store.ErrConflict, store.ErrUnavailable, store.ErrFenced} {
			for nth := range whole.commits {
				t.Run(fmt.Sprintf("%s, part %d, %v", name, nth+1, cause), func(t *testing.T) {
					f := newFragile(c.most)
					f.limit, f.nth, f.cause = c.limit, nth+1, cause
					revision, err := reconcile.New(f, nil, reconcile.Options{}).Commit(t.Context(), inPhases(c.each), nil)
					if !errors.Is(err, cause) {
						t.Errorf("got %v, want %v", err, cause)
					}
					if newest, _ := f.Snapshot(t.Context(), 0); nth > 0 && revision != newest.Revision() {
						t.Errorf("was told revision %d, and %d was written", revision, newest.Revision())
					}
					if len(f.wrote) == 6*c.each {
						t.Error("everything was written, though a part failed")
					}
					checkCut(t, f, c.each)
				})
			}
		}
	}
}

// checkCut checks that whatever was written came after all of the phases before it.
func checkCut(t *testing.T, f *fragile, each int) {
	t.Helper()
	var written [6]int
	var first, last [6]int64
	for id, revision := range f.wrote {
		p := id[0] - '0'
		written[p]++
		last[p] = max(last[p], revision)
		if first[p] == 0 || revision < first[p] {
			first[p] = revision
		}
	}
	for p := 1; p < len(written); p++ {
		if written[p] > 0 && (written[p-1] != each || first[p] < last[p-1]) {
			t.Errorf("phase %d was begun at %d, when %d of %d of the one before were written, up to %d",
				p, first[p], written[p-1], each, last[p-1])
		}
	}
}
