package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// appended makes a history with batches of one change at the revisions 2 to n. They are changes of the same ten objects.
func appended(t *testing.T, limit int, n int64) *store.History {
	t.Helper()
	s := store.NewSnapshot()
	h := store.NewHistory(s, limit)
	for r := int64(2); r <= n; r++ {
		appendOne(t, h, r)
	}
	return h
}

func appendOne(t *testing.T, h *store.History, revision int64) {
	t.Helper()
	appendOf(t, h, revision, fmt.Sprint(revision%10))
}

func appendOf(t *testing.T, h *store.History, revision int64, id string) {
	t.Helper()
	op := store.Op{Kind: v1.KindSecret, ID: id, Value: &v1.SecretSpec{}}
	next, changes, err := h.Newest().With(revision, []store.Op{op})
	if err != nil {
		t.Fatal(err)
	}
	h.Append(next, store.Batch{Revision: revision, Changes: changes})
}

// follow takes what a watch has at once.
func follow(ctx context.Context, h *store.History, after int64, n int) (got []int64, err error) {
	for b, err := range h.Watch(ctx, after) {
		if err != nil {
			return got, err
		}
		if got = append(got, b.Revision); len(got) == n {
			break
		}
	}
	return got, nil
}

func TestHistoryForgets(t *testing.T) {
	h := appended(t, 10, 1000)
	for after := int64(0); after < 990; after += 30 {
		if got, err := follow(t.Context(), h, after, 1); !errors.Is(err, store.ErrCompacted) {
			t.Fatalf("watch after %d: %v %v", after, got, err)
		}
	}
	for after := int64(990); after < 1000; after++ {
		got, err := follow(t.Context(), h, after, int(1000-after))
		if err != nil || got[0] != after+1 || got[len(got)-1] != 1000 {
			t.Fatalf("watch after %d: %v %v", after, got, err)
		}
	}
}

// TestHistoryGrowsWithTheState: where there are more objects than the limit, a change of each is remembered.
func TestHistoryGrowsWithTheState(t *testing.T) {
	h := store.NewHistory(store.NewSnapshot(), 10)
	for r := int64(2); r <= 1000; r++ {
		appendOf(t, h, r, fmt.Sprint(r%100))
	}
	if got, err := follow(t.Context(), h, 900, 100); err != nil || len(got) != 100 {
		t.Errorf("watch after 900, with 100 objects: %d batches, %v", len(got), err)
	}
	if got, err := follow(t.Context(), h, 899, 1); !errors.Is(err, store.ErrCompacted) {
		t.Errorf("watch after 899, with 100 objects: %v, %v", got, err)
	}
}

// TestHistorySlowWatch: a watch that is overtaken learns that it was, and misses nothing in silence.
func TestHistorySlowWatch(t *testing.T) {
	h := appended(t, 300, 300)
	last := int64(1)
	for b, err := range h.Watch(t.Context(), 1) {
		if err != nil {
			if !errors.Is(err, store.ErrCompacted) || last < 200 {
				t.Errorf("after %d: %v", last, err)
			}
			return
		}
		if b.Revision != last+1 {
			t.Fatalf("%d after %d", b.Revision, last)
		}
		if last = b.Revision; last == 100 {
			for r := int64(301); r <= 2000; r++ {
				appendOne(t, h, r)
			}
		}
	}
}

func TestHistoryLargeBatch(t *testing.T) {
	h := appended(t, 3, 1)
	var ops []store.Op
	for i := range 10 {
		ops = append(ops, store.Op{Kind: v1.KindSecret, ID: fmt.Sprint(i), Value: &v1.SecretSpec{}})
	}
	next, changes, err := h.Newest().With(2, ops)
	if err != nil {
		t.Fatal(err)
	}
	h.Append(next, store.Batch{Revision: 2, Changes: changes})
	if got, err := follow(t.Context(), h, 0, 1); err != nil || got[0] != 2 {
		t.Errorf("the one batch is not kept: %v %v", got, err)
	}
}

func TestHistoryWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := appended(t, 100, 5)
		got := make(chan int64, 2)
		for _, want := range []int64{6, 7} {
			go func() {
				s, err := h.Wait(t.Context(), want)
				if err != nil {
					t.Error(err)
				}
				got <- s.Revision()
			}()
		}
		synctest.Wait()
		appendOne(t, h, 6)
		synctest.Wait()
		if len(got) != 1 {
			t.Fatalf("%d were woken by revision 6, want one", len(got))
		}
		// A revision without changes is one as well: of an election, or of somebody else's key.
		next, _, err := h.Newest().With(9, nil)
		if err != nil {
			t.Fatal(err)
		}
		h.Append(next, store.Batch{Revision: 9})
		if a, b := <-got, <-got; a != 6 || b != 9 {
			t.Errorf("woken at %d and %d", a, b)
		}
	})
}

func TestHistoryBreaksAndMends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := appended(t, 100, 5)
		broken := errors.New("broken")
		ended := make(chan error, 2)
		go func() {
			_, err := follow(t.Context(), h, 5, 1)
			ended <- err
		}()
		go func() {
			_, err := h.Wait(t.Context(), 6)
			ended <- err
		}()
		synctest.Wait()
		h.Break(broken)
		for range 2 {
			if err := <-ended; !errors.Is(err, broken) {
				t.Errorf("ended with %v", err)
			}
		}
		appendOne(t, h, 6) // what is broken takes no more
		if _, err := h.Wait(t.Context(), 0); !errors.Is(err, broken) {
			t.Errorf("broken, and a snapshot is given: %v", err)
		}
		later, _, err := store.NewSnapshot().With(8, nil)
		if err != nil {
			t.Fatal(err)
		}
		h.Reset(later)
		if s, err := h.Wait(t.Context(), 8); err != nil || s != later {
			t.Errorf("mended: %v", err)
		}
		if _, err := follow(t.Context(), h, 5, 1); !errors.Is(err, store.ErrCompacted) {
			t.Errorf("a watch from before ended with %v", err)
		}
		h.Close(store.ErrClosed)
		h.Reset(later)
		h.Break(broken)
		if _, err := h.Wait(t.Context(), 0); !errors.Is(err, store.ErrClosed) {
			t.Errorf("closed, and then: %v", err)
		}
	})
}

func TestBuilder(t *testing.T) {
	b := store.NewBuilder()
	for _, step := range []struct {
		op       store.Op
		revision int64
	}{
		{store.Op{Kind: v1.KindTask, ID: "a", Section: v1.SectionDesired, Value: &v1.TaskDesired{Service: "s"}, Meta: &v1.Meta{Name: "x"}}, 3},
		{store.Op{Kind: v1.KindTask, ID: "a", Section: v1.SectionStatus, Value: &v1.TaskStatus{}}, 9},
		{store.Op{Kind: v1.KindNode, ID: "a", Section: v1.SectionStatus, Value: &v1.NodeStatus{}}, 5},
		{store.Op{Kind: v1.KindNode, ID: "a", Section: v1.SectionSpec, Value: &v1.NodeSpec{}}, 4},
	} {
		if err := b.Add(step.op, step.revision); err != nil {
			t.Fatal(err)
		}
	}
	s, err := b.Snapshot(12)
	if err != nil {
		t.Fatal(err)
	}
	task, _ := store.Get(s, v1.Tasks, "a")
	if s.Revision() != 12 || task == nil || task.Meta.Revisions != (v1.Revisions{0, 3, 9}) || task.Meta.ID != "a" || s.CountsOf("s").Total != 1 {
		t.Errorf("built %+v", task)
	}
	if node, _ := store.Get(s, v1.Nodes, "a"); node == nil || node.Meta.Revisions != (v1.Revisions{4, 0, 5}) {
		t.Errorf("built %+v", node)
	}
	for name, ops := range map[string][]store.Op{
		"section without its object": {{Kind: v1.KindTask, ID: "a", Section: v1.SectionStatus, Value: &v1.TaskStatus{}}},
		"unknown kind":               {{Kind: "Pod", ID: "a"}},
		"wrong type":                 {{Kind: v1.KindSecret, ID: "a", Value: &v1.ConfigSpec{}}},
		"twice":                      {{Kind: v1.KindSecret, ID: "a", Value: &v1.SecretSpec{}}, {Kind: v1.KindSecret, ID: "b", Value: &v1.SecretSpec{}}, {Kind: v1.KindSecret, ID: "a", Value: &v1.SecretSpec{}}},
	} {
		b, err := store.NewBuilder(), error(nil)
		for _, op := range ops {
			if e := b.Add(op, 1); err == nil {
				err = e
			}
		}
		if _, e := b.Snapshot(1); err == nil && e == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
