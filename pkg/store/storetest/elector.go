package storetest

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// ElectorStore is a store that holds elections.
type ElectorStore interface {
	store.Store
	store.Elector
}

// RunElector holds a store that holds elections to the contract of store.Elector and of fences.
func RunElector(t *testing.T, open func(t *testing.T) ElectorStore) {
	for name, test := range map[string]func(*fixture, ElectorStore){
		"Fence":           testFence,
		"OneLeads":        testOneLeads,
		"CanceledStandIn": testCanceledCandidate,
		"Close":           testElectorClose,
		"Revision":        testElectionRevision,
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			test(&fixture{t, testContext(t), s}, s)
		})
	}
}

func campaign(f *fixture, s ElectorStore, name string) store.Lead {
	f.Helper()
	lead, err := s.Campaign(f.ctx, name)
	if err != nil {
		f.Fatalf("campaign of %s: %v", name, err)
	}
	return lead
}

func testFence(f *fixture, s ElectorStore) {
	first := campaign(f, s, "first")
	fence := first.Fence()
	if _, err := f.Commit(f.ctx, store.Commit{Ops: []store.Op{desired("a", 1, store.Absent())}, Fence: &fence}); err != nil {
		f.Fatal(err)
	}
	for name, strange := range map[string]store.Fence{
		"zero": {}, "another key": {Key: "x", Revision: fence.Revision}, "another revision": {Key: fence.Key, Revision: fence.Revision + 1},
		"never": {Key: fence.Key},
	} {
		if _, err := f.Commit(f.ctx, store.Commit{Fence: &strange}); !errors.Is(err, store.ErrFenced) {
			f.Errorf("fence %s: %v", name, err)
		}
	}
	select {
	case <-first.Lost():
		f.Error("lost while leading")
	default:
	}
	for range 2 { // twice is as well as once
		if err := first.Resign(f.ctx); err != nil {
			f.Fatal(err)
		}
	}
	<-first.Lost()
	// A conflict as well, but the fence counts first: who has lost the lead must learn that.
	if _, err := f.Commit(f.ctx, store.Commit{Ops: []store.Op{desired("a", 2, store.Absent())}, Fence: &fence}); !errors.Is(err, store.ErrFenced) {
		f.Errorf("commit after resigning: %v", err)
	}
	second := campaign(f, s, "first")
	again := second.Fence()
	if again == fence {
		f.Error("the next lead has the same fence")
	}
	if _, err := f.Commit(f.ctx, store.Commit{Ops: []store.Op{desired("a", 3, store.Exists())}, Fence: &again}); err != nil {
		f.Error(err)
	}
	if _, err := f.Commit(f.ctx, store.Commit{Fence: &fence}); !errors.Is(err, store.ErrFenced) {
		f.Errorf("commit with the fence of a past lead: %v", err)
	}
	if got := f.task(f.now(), "a").Desired.Slot; got != 3 {
		f.Errorf("slot %d", got)
	}
}

// testOneLeads lets several campaign again and again: never do two lead at once.
func testOneLeads(f *fixture, s ElectorStore) {
	f.commit(desired("a", 0, store.Absent()))
	var leading atomic.Int64
	const candidates, each = 4, 5
	together(candidates, func(i int) {
		for range each {
			lead, err := s.Campaign(f.ctx, string(rune('a'+i)))
			if err != nil {
				f.Error(err)
				return
			}
			if leading.Add(1) != 1 {
				f.Error("two lead")
			}
			fence := lead.Fence()
			task := f.task(f.now(), "a")
			_, err = f.Commit(f.ctx, store.Commit{Fence: &fence, Ops: []store.Op{
				desired("a", task.Desired.Slot+1, store.AtRevision(task.Meta.Revisions[v1.SectionDesired]))}})
			if err != nil {
				f.Error(err)
			}
			leading.Add(-1)
			if err := lead.Resign(f.ctx); err != nil {
				f.Error(err)
			}
		}
	})
	if got := f.task(f.now(), "a").Desired.Slot; got != candidates*each {
		f.Errorf("%d of %d leads wrote", got, candidates*each)
	}
}

// testCanceledCandidate: who gives up waiting is no candidate any more.
func testCanceledCandidate(f *fixture, s ElectorStore) {
	first := campaign(f, s, "first")
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(f.ctx)
	done := make(chan error)
	go func() {
		_, err := s.Campaign(ctx, "second")
		done <- err
	}()
	cancel(why)
	if err := <-done; !errors.Is(err, why) && !errors.Is(err, context.Canceled) {
		f.Errorf("campaign ended with %v", err)
	}
	if err := first.Resign(f.ctx); err != nil {
		f.Fatal(err)
	}
	third := campaign(f, s, "third")
	fence := third.Fence()
	if _, err := f.Commit(f.ctx, store.Commit{Ops: newTasks(1), Fence: &fence}); err != nil {
		f.Error(err)
	}
}

func testElectorClose(f *fixture, s ElectorStore) {
	lead := campaign(f, s, "first")
	done := make(chan error)
	go func() {
		_, err := s.Campaign(f.ctx, "second")
		done <- err
	}()
	if err := f.Close(); err != nil {
		f.Fatal(err)
	}
	<-lead.Lost()
	if err := <-done; !errors.Is(err, store.ErrClosed) {
		f.Errorf("campaign ended with %v", err)
	}
	if _, err := s.Campaign(f.ctx, "third"); !errors.Is(err, store.ErrClosed) {
		f.Errorf("campaign on a closed store: %v", err)
	}
}

// testElectionRevision: revisions that only an election used are reached by the snapshot as well.
func testElectionRevision(f *fixture, s ElectorStore) {
	for range 3 {
		lead := campaign(f, s, "first")
		f.now()
		if err := lead.Resign(f.ctx); err != nil {
			f.Fatal(err)
		}
		f.now()
	}
}
