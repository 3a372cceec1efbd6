package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

func runWatch(t *testing.T, open Open) {
	t.Run("EveryChangeInOrder", func(t *testing.T) { testWatchOrder(fix(t, open)) })
	t.Run("Resumes", func(t *testing.T) { testWatchResumes(fix(t, open)) })
	t.Run("Future", func(t *testing.T) { testWatchFuture(fix(t, open)) })
	t.Run("Compacted", func(t *testing.T) { testWatchCompacted(fix(t, open)) })
	t.Run("Canceled", func(t *testing.T) { testWatchCanceled(fix(t, open)) })
}

// testWatchOrder rebuilds the state from what the watch told while several wrote, and compares.
func testWatchOrder(f *fixture) {
	start := f.now()
	state := make(map[string]v1.Object)
	together(4, func(i int) {
		for n := range 30 {
			id := fmt.Sprint("task", (n+i)%7)
			ops := []store.Op{desired(id, uint64(n), store.Always()), status(id, fmt.Sprint(i), store.Always())}
			if n%4 == 3 {
				ops = []store.Op{remove(id, v1.SectionDesired, store.Always())}
			}
			if _, err := f.Commit(f.ctx, store.Commit{Ops: ops}); err != nil {
				f.Error(err)
			}
		}
	})
	last := f.commit(desired("last", 1, store.Absent()))
	end := f.at(last)
	after := start.Revision()
	for b, err := range f.Watch(f.ctx, start.Revision()) {
		if err != nil {
			f.Fatal(err)
		}
		if b.Revision <= after || len(b.Changes) == 0 {
			f.Errorf("batch at %d after %d with %d changes", b.Revision, after, len(b.Changes))
		}
		after = b.Revision
		for _, c := range b.Changes {
			if state[c.ID] != c.Old {
				f.Errorf("%d: %s was %v before, says the change, and not what the last change left", b.Revision, c.ID, c.Old)
			}
			state[c.ID] = c.New
			if c.New == nil {
				delete(state, c.ID)
			} else if c.New.GetMeta().Revisions.Max() != b.Revision {
				f.Errorf("%d: %s has revisions %v", b.Revision, c.ID, c.New.GetMeta().Revisions)
			}
		}
		if b.Revision == last {
			break
		}
	}
	if len(state) != end.Count(v1.KindTask) {
		f.Errorf("the watch leads to %d tasks, the snapshot has %d", len(state), end.Count(v1.KindTask))
	}
	for task := range store.All(end, v1.Tasks) {
		if state[task.Meta.ID] != v1.Object(task) {
			f.Errorf("the watch leads to another %s", task.Meta.ID)
		}
	}
}

func testWatchResumes(f *fixture) {
	start := f.now().Revision()
	var committed []int64
	for i := range 20 {
		committed = append(committed, f.commit(desired(fmt.Sprint(i), 1, store.Absent())))
	}
	after := start
	for i := range committed { // one watch for each
		for b, err := range f.Watch(f.ctx, after) {
			if err != nil || b.Revision != committed[i] {
				f.Fatalf("batch %d is at %d (%v), want %d", i, b.Revision, err, committed[i])
			}
			after = b.Revision
			break
		}
	}
}

func testWatchFuture(f *fixture) {
	first := f.commit(desired("a", 1, store.Absent()))
	got := make(chan store.Batch, 1)
	go func() {
		defer close(got)
		for b, err := range f.Watch(f.ctx, first+1) {
			if err != nil {
				f.Error(err)
				return
			}
			got <- b
			return
		}
	}()
	f.commit(status("a", "1", store.Exists()))
	last := f.commit(status("a", "2", store.Exists()))
	if b := <-got; b.Revision != last {
		f.Errorf("batch at %d, want %d", b.Revision, last)
	}
}

func testWatchCompacted(f *fixture) {
	f.commit(desired("a", 1, store.Absent()))
	n := 0
	for _, err := range f.Watch(f.ctx, -1) {
		n++
		if !errors.Is(err, store.ErrCompacted) {
			f.Errorf("watch from before the beginning: %v", err)
			break
		}
	}
	if n != 1 {
		f.Errorf("%d steps, want the error alone", n)
	}
}

func testWatchCanceled(f *fixture) {
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(f.ctx)
	done := make(chan error, 1)
	revision := f.now().Revision()
	go func() {
		var last error
		for _, err := range f.Watch(ctx, revision) {
			last = err
		}
		done <- last
	}()
	cancel(why)
	if err := <-done; !errors.Is(err, why) && !errors.Is(err, context.Canceled) {
		f.Errorf("the watch ended with %v", err)
	}
}
