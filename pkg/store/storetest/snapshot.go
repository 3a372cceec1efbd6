package storetest

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

func runSnapshot(t *testing.T, open Open) {
	t.Run("ReadYourWrites", func(t *testing.T) { testReadYourWrites(fix(t, open)) })
	t.Run("Waits", func(t *testing.T) { testWaits(fix(t, open)) })
	t.Run("SyncIsNeverStale", func(t *testing.T) { testSync(fix(t, open)) })
	t.Run("NeverChanges", func(t *testing.T) { testNeverChanges(fix(t, open)) })
}

func testReadYourWrites(f *fixture) {
	f.commit(desired("a", 0, store.Absent()))
	for i := range uint64(50) {
		if got := f.task(f.at(f.commit(desired("a", i, store.Exists()))), "a").Desired.Slot; got != i {
			f.Fatalf("%d instead of %d", got, i)
		}
	}
}

func testWaits(f *fixture) {
	revision := f.commit(desired("a", 1, store.Absent()))
	got := make(chan *store.Snapshot)
	go func() {
		defer close(got)
		s, err := f.Snapshot(f.ctx, revision+1)
		if err != nil {
			f.Error(err)
			return
		}
		got <- s
	}()
	f.commit(status("a", "", store.Exists()))
	if s := <-got; s != nil && f.task(s, "a").Status == nil {
		f.Error("the snapshot came before what it waited for")
	}
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(f.ctx)
	done := make(chan error)
	go func() {
		_, err := f.Snapshot(ctx, revision+1000)
		done <- err
	}()
	cancel(why)
	if err := <-done; !errors.Is(err, why) && !errors.Is(err, context.Canceled) {
		f.Errorf("waiting ended with %v", err)
	}
}

// testSync: what was committed before Sync was called is in the snapshot that it leads to.
func testSync(f *fixture) {
	f.commit(desired("a", 0, store.Absent()))
	together(4, func(i int) {
		for n := range 20 {
			revision, err := f.Commit(f.ctx, store.Commit{Ops: []store.Op{desired(fmt.Sprint(i, "-", n), 1, store.Absent())}})
			if err != nil {
				f.Error(err)
				return
			}
			now, err := f.Sync(f.ctx)
			if err != nil || now < revision {
				f.Errorf("sync after %d: %d %v", revision, now, err)
				return
			}
			s, err := f.Snapshot(f.ctx, now)
			if err != nil {
				f.Error(err)
				return
			}
			if _, ok := s.Lookup(v1.KindTask, fmt.Sprint(i, "-", n)); !ok {
				f.Errorf("what was committed at %d is not in the snapshot at %d", revision, s.Revision())
			}
		}
	})
}

// testNeverChanges takes snapshots while others write, and looks at them again.
func testNeverChanges(f *fixture) {
	f.commit(newTasks(30)...)
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for w := range 3 {
		writers.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				op := status(fmt.Sprintf("task%05d", (n*7+w)%30), fmt.Sprint(n), store.Exists())
				if n%5 == w {
					op = desired(op.ID, uint64(n), store.Exists())
				}
				if _, err := f.Commit(f.ctx, store.Commit{Ops: []store.Op{op}}); err != nil {
					f.Error(err)
					return
				}
			}
		})
	}
	type taken struct {
		s   *store.Snapshot
		sum [32]byte
	}
	var all []taken
	revision := int64(0)
	for range 40 {
		s := f.at(revision + 1)
		revision = s.Revision()
		all = append(all, taken{s, digest(f.T, s)})
	}
	for _, t := range all {
		if digest(f.T, t.s) != t.sum {
			f.Errorf("the snapshot at %d changed", t.s.Revision())
		}
	}
	close(stop)
	writers.Wait()
}

// digest sums up all that a snapshot shows.
func digest(t *testing.T, s *store.Snapshot) [32]byte {
	t.Helper()
	h := sha256.New()
	enc := json.NewEncoder(h)
	show := func(v any) {
		if err := enc.Encode(v); err != nil {
			t.Error(err)
		}
	}
	show(s.Revision())
	for _, d := range v1.Kinds {
		for o := range s.Objects(d.Kind()) {
			show(o)
		}
	}
	for task := range s.TasksOfService("web") {
		show(task)
	}
	show(s.CountsOf("web"))
	return [32]byte(h.Sum(nil))
}
