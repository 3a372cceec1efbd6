// Package storetest is the contract of a store.Store as tests: every implementation is held to it.
//
// It owns the tests and what they need. It knows no implementation, and sleeps never: it waits for revisions.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// Open opens a store of its own for one test, which may hold objects already, and closes it with the test.
type Open func(t *testing.T) store.Store

// Run holds a store to the contract.
func Run(t *testing.T, open Open) {
	t.Run("Commit", func(t *testing.T) { runCommit(t, open) })
	t.Run("Contention", func(t *testing.T) { runContention(t, open) })
	t.Run("Refuse", func(t *testing.T) { runRefuse(t, open) })
	t.Run("Snapshot", func(t *testing.T) { runSnapshot(t, open) })
	t.Run("Watch", func(t *testing.T) { runWatch(t, open) })
	t.Run("End", func(t *testing.T) { runEnd(t, open) })
	t.Run("CommitAll", func(t *testing.T) { runCommitAll(t, open) })
	t.Run("SameAsMemory", func(t *testing.T) { testSameAsMemory(t, open(t)) })
}

// patience bounds what would otherwise wait for ever. No test passes by its running out.
const patience = time.Minute

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// fixture is a store and what tests do with it.
type fixture struct {
	*testing.T
	ctx context.Context
	store.Store
}

func fix(t *testing.T, open Open) *fixture { return &fixture{t, testContext(t), open(t)} }

// commit commits what must succeed.
func (f *fixture) commit(ops ...store.Op) int64 {
	f.Helper()
	revision, err := f.Commit(f.ctx, store.Commit{Ops: ops})
	if err != nil {
		f.Fatalf("commit: %v", err)
	}
	return revision
}

// fails commits what must fail, and must change nothing.
func (f *fixture) fails(want error, ops ...store.Op) {
	f.Helper()
	before := f.now()
	_, err := f.Commit(f.ctx, store.Commit{Ops: ops})
	if !errors.Is(err, want) {
		f.Fatalf("commit: %v, want %v", err, want)
	}
	if after := f.now(); after.Revision() != before.Revision() {
		f.Fatalf("a commit that failed moved the revision from %d to %d", before.Revision(), after.Revision())
	}
}

// at is the snapshot at least at the revision.
func (f *fixture) at(revision int64) *store.Snapshot {
	f.Helper()
	s, err := f.Snapshot(f.ctx, revision)
	if err != nil {
		f.Fatalf("snapshot at %d: %v", revision, err)
	}
	if s.Revision() < revision {
		f.Fatalf("snapshot is at %d, want at least %d", s.Revision(), revision)
	}
	return s
}

// now is a snapshot that is not stale.
func (f *fixture) now() *store.Snapshot {
	f.Helper()
	revision, err := f.Sync(f.ctx)
	if err != nil {
		f.Fatalf("sync: %v", err)
	}
	return f.at(revision)
}

func (f *fixture) task(s *store.Snapshot, id string) *v1.Task {
	f.Helper()
	task, ok := store.Get(s, v1.Tasks, id)
	if !ok {
		f.Fatalf("task %q is not there at %d", id, s.Revision())
	}
	return task
}

// Operations on a task, whose home section is desired.

func desired(id string, slot uint64, c store.Condition) store.Op {
	return store.Op{Kind: v1.KindTask, ID: id, Section: v1.SectionDesired, If: c,
		Value: &v1.TaskDesired{Service: "web", ServiceName: "web", Slot: slot, Attempt: 1, State: v1.TaskRunning}}
}

func status(id, message string, c store.Condition) store.Op {
	return store.Op{Kind: v1.KindTask, ID: id, Section: v1.SectionStatus, If: c,
		Value: &v1.TaskStatus{State: v1.TaskRunning, Message: message}}
}

func remove(id string, s v1.Section, c store.Condition) store.Op {
	return store.Op{Kind: v1.KindTask, ID: id, Section: s, If: c}
}

func named(op store.Op, name string) store.Op {
	op.Meta = &v1.Meta{Name: name, CreatedAt: time.Unix(1e9, 0).UTC()}
	return op
}

func newTasks(n int) []store.Op {
	ops := make([]store.Op, n)
	for i := range ops {
		ops[i] = desired(fmt.Sprintf("task%05d", i), uint64(i), store.Absent())
	}
	return ops
}
