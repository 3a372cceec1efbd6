package storetest

import (
	"errors"
	"fmt"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

func runCommitAll(t *testing.T, open Open) {
	t.Run("Many", func(t *testing.T) { testCommitAll(fix(t, open)) })
	t.Run("Conflict", func(t *testing.T) { testCommitAllConflict(fix(t, open)) })
	t.Run("None", func(t *testing.T) { testCommitAllNone(fix(t, open)) })
}

func testCommitAll(f *fixture) {
	const n = 3*store.MaxOps + 17
	ops := newTasks(n)
	for i := range n { // far from the creation, and must stay behind it
		ops = append(ops, status(ops[i].ID, "first", store.Always()), status(ops[i].ID, "last", store.Always()))
	}
	revision, err := store.CommitAll(f.ctx, f.Store, store.Commit{Ops: ops})
	if err != nil {
		f.Fatal(err)
	}
	s := f.at(revision)
	if s.Count(v1.KindTask) != n {
		f.Errorf("%d tasks of %d are there at the revision that was returned", s.Count(v1.KindTask), n)
	}
	for task := range store.All(s, v1.Tasks) {
		if task.Status == nil || task.Status.Message != "last" {
			f.Fatalf("task %s: status %+v", task.Meta.ID, task.Status)
		}
	}
}

func testCommitAllConflict(f *fixture) {
	const n = 2*store.MaxOps + 1
	f.commit(desired("task00000", 1, store.Absent()))
	revision, err := store.CommitAll(f.ctx, f.Store, store.Commit{Ops: newTasks(n)})
	if !errors.Is(err, store.ErrConflict) {
		f.Errorf("error %v", err)
	}
	s := f.at(revision)
	if _, ok := s.Lookup(v1.KindTask, fmt.Sprintf("task%05d", n-1)); !ok {
		f.Error("a part without conflict was not written")
	}
	if _, ok := s.Lookup(v1.KindTask, "task00001"); ok {
		f.Error("the part that conflicted was written in part")
	}
}

func testCommitAllNone(f *fixture) {
	revision, err := store.CommitAll(f.ctx, f.Store, store.Commit{})
	if err != nil {
		f.Fatal(err)
	}
	f.at(revision)
}
