package storetest

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

func runContention(t *testing.T, open Open) {
	t.Run("OneCreates", func(t *testing.T) { testOneCreates(fix(t, open)) })
	t.Run("NoLostUpdate", func(t *testing.T) { testNoLostUpdate(fix(t, open)) })
	t.Run("SectionsDoNotConflict", func(t *testing.T) { testSections(fix(t, open)) })
	t.Run("MetaIsNotLost", func(t *testing.T) { testMetaNotLost(fix(t, open)) })
}

// together runs a function n times at once.
func together(n int, do func(i int)) {
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() { do(i) })
	}
	wait.Wait()
}

func testOneCreates(f *fixture) {
	for round := range 10 {
		id := fmt.Sprint("task", round)
		var winner atomic.Int64
		together(8, func(i int) {
			_, err := f.Commit(f.ctx, store.Commit{Ops: []store.Op{desired(id, uint64(i+1), store.Absent())}})
			switch {
			case err == nil:
				if !winner.CompareAndSwap(0, int64(i+1)) {
					f.Errorf("%s: two created it", id)
				}
			case !errors.Is(err, store.ErrConflict):
				f.Errorf("%s: %v", id, err)
			}
		})
		if got := f.task(f.now(), id).Desired.Slot; got != uint64(winner.Load()) {
			f.Errorf("%s: %d won and %d is there", id, winner.Load(), got)
		}
	}
}

func testNoLostUpdate(f *fixture) {
	const writers, each = 4, 25
	first := f.commit(desired("a", 0, store.Absent()))
	together(writers, func(int) {
		for done := 0; done < each; {
			s, err := f.Snapshot(f.ctx, first)
			if err != nil {
				f.Error(err)
				return
			}
			task, _ := store.Get(s, v1.Tasks, "a")
			_, err = f.Commit(f.ctx, store.Commit{Ops: []store.Op{
				desired("a", task.Desired.Slot+1, store.AtRevision(task.Meta.Revisions[v1.SectionDesired]))}})
			switch {
			case err == nil:
				done++
			case !errors.Is(err, store.ErrConflict):
				f.Error(err)
				return
			}
		}
	})
	if got := f.task(f.now(), "a").Desired.Slot; got != writers*each {
		f.Errorf("%d of %d updates are there", got, writers*each)
	}
}

// testSections lets two writers write their own sections of one object: neither ever conflicts.
func testSections(f *fixture) {
	const each = 50
	first := f.commit(desired("a", 0, store.Absent()), status("a", "", store.Always()))
	together(2, func(i int) {
		at := first
		for n := range each {
			op := desired("a", uint64(n), store.AtRevision(at))
			if i == 1 {
				op = status("a", fmt.Sprint(n), store.AtRevision(at))
			}
			revision, err := f.Commit(f.ctx, store.Commit{Ops: []store.Op{op}})
			if err != nil {
				f.Errorf("writer %d: %v", i, err)
				return
			}
			at = revision
		}
	})
	if task := f.task(f.now(), "a"); task.Desired.Slot != each-1 || task.Status.Message != fmt.Sprint(each-1) {
		f.Errorf("the last writes are not there: %+v %+v", task.Desired, task.Status)
	}
}

// testMetaNotLost lets one writer write the Meta, and another the same section without: that one never changes the Meta.
func testMetaNotLost(f *fixture) {
	const each = 40
	first := f.commit(named(desired("a", 0, store.Absent()), "0"))
	together(2, func(i int) {
		for n := range each {
			op := named(desired("a", 0, store.Exists()), fmt.Sprint(n+1))
			if i == 1 {
				op = desired("a", uint64(n+1), store.Always())
			}
			if _, err := f.Commit(f.ctx, store.Commit{Ops: []store.Op{op}}); err != nil {
				f.Errorf("writer %d: %v", i, err)
				return
			}
		}
	})
	last := f.now().Revision()
	for b, err := range f.Watch(f.ctx, first) {
		if err != nil {
			f.Fatal(err)
		}
		was, is := b.Changes[0].Old.(*v1.Task), b.Changes[0].New.(*v1.Task)
		before, after := was.Meta, is.Meta
		before.Revisions, after.Revisions = v1.Revisions{}, v1.Revisions{}
		if diff := cmp.Diff(before, after); is.Desired.Slot != 0 && diff != "" {
			f.Errorf("a write without Meta at %d changed it:\n%s", b.Revision, diff)
		}
		if b.Revision == last {
			break
		}
	}
}
