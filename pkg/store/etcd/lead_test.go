package etcd_test

import (
	"context"
	"errors"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// elected is a host whose candidate leads.
type elected struct {
	*host
	store.Lead
}

// campaign lets all hosts stand, and tells who leads one after the other.
func campaign(l *lab, hosts ...*host) <-chan elected {
	won := make(chan elected, 100)
	for _, h := range hosts {
		s := h.store
		go func() {
			for {
				lead, err := s.Campaign(l.ctx, h.name)
				if err != nil {
					return
				}
				won <- elected{h, lead}
				<-lead.Lost()
			}
		}()
	}
	return won
}

func fenced(h *host, id string, f store.Fence) error {
	_, err := h.store.Commit(h.ctx, store.Commit{Fence: &f, Ops: []store.Op{{Kind: v1.KindSecret, ID: id, Section: v1.SectionSpec, If: store.Always(),
		Value: &v1.SecretSpec{}, Meta: &v1.Meta{Name: id}}}})
	return err
}

// TestLead: whoever leads raft leads; when it resigns, is told to or dies, another does, and what it commits later is refused.
func TestLead(t *testing.T) {
	l, a, b, c := three(t)
	won := campaign(l, a, b, c)
	first := <-won
	if first.name != "a" {
		t.Errorf("%s leads, and a leads raft", first.name)
	}
	if err := fenced(b, "x", first.Fence()); err != nil { // through any member
		t.Error(err)
	}
	if err := first.Resign(l.ctx); err != nil {
		t.Fatal(err)
	}
	second := <-won
	if second.host == first.host {
		t.Error("who resigned leads on")
	}
	if err := fenced(a, "y", first.Fence()); !errors.Is(err, store.ErrFenced) {
		t.Errorf("the first one's commit: %v", err)
	}
	if err := c.store.TransferLead(l.ctx, "a"); err != nil {
		t.Fatal(err)
	}
	<-second.Lost()
	third := <-won
	if third.name != "a" {
		t.Errorf("%s leads after a was made to", third.name)
	}
	if err := fenced(second.host, "y", second.Fence()); !errors.Is(err, store.ErrFenced) {
		t.Errorf("the second one's commit: %v", err)
	}
	if err := third.Resign(l.ctx); err != nil {
		t.Fatal(err)
	}
	fourth := <-won
	fourth.kill()
	<-fourth.Lost()
	fifth := <-won
	if fifth.host == fourth.host {
		t.Error("a dead one leads")
	}
	if err := fenced(fifth.host, "z", fourth.Fence()); !errors.Is(err, store.ErrFenced) {
		t.Errorf("the dead one's commit: %v", err)
	}
	if err := fenced(fifth.host, "z", fifth.Fence()); err != nil {
		t.Error(err)
	}
}

// TestClosedLeader: a leader that is closed hands the lead over, so that nobody waits for an election.
func TestClosedLeader(t *testing.T) {
	l, a, b, c := three(t)
	won := campaign(l, a, b, c)
	first := <-won
	if err := first.store.Close(); err != nil {
		t.Fatal(err)
	}
	next := <-won
	if err := fenced(next.host, "x", next.Fence()); err != nil {
		t.Error(err)
	}
}

// TestPartition: a leader that is cut off learns that it leads no more and can write nothing, the others go on, and when it is back
// it has what they wrote.
func TestPartition(t *testing.T) {
	l, a, b, c := three(t)
	won := campaign(l, a, b, c)
	first := <-won
	first.partition(true)
	<-first.Lost()
	second := <-won
	if second.host == first.host {
		t.Fatal("the one that is cut off leads")
	}
	second.until("the others write", func() bool { return fenced(second.host, "there", second.Fence()) == nil })
	ctx, cancel := context.WithTimeout(l.ctx, 300*time.Millisecond)
	defer cancel()
	fence := first.Fence()
	if _, err := first.store.Commit(ctx, store.Commit{Fence: &fence}); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("the one that is cut off commits: %v", err)
	}
	if _, err := first.store.Sync(ctx); err == nil {
		t.Error("the one that is cut off knows what is current")
	}
	if _, err := first.store.Snapshot(l.ctx, 0); err != nil {
		t.Errorf("it cannot even read what it has: %v", err)
	}
	second.until("the cut is seen", func() bool {
		list, err := second.store.Members(l.ctx)
		return err == nil && !list[0].Reachable == (first.name == "a")
	})
	first.partition(false)
	first.until("it is back", func() bool { return fenced(first.host, "back", second.Fence()) == nil })
	if err := fenced(first.host, "y", first.Fence()); !errors.Is(err, store.ErrFenced) {
		t.Errorf("the old fence: %v", err)
	}
	snapshot, err := first.store.Snapshot(l.ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := store.Get(snapshot, v1.Secrets, "there"); !ok {
		t.Error("it lacks what was written meanwhile")
	}
}

// TestLeaseOverLeaders: a lease outlives the leader that it was granted by, and is renewed through any member.
func TestLeaseOverLeaders(t *testing.T) {
	l, a, b, c := three(t)
	kept, err := b.store.Grant(l.ctx, 3*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	lost, err := b.store.Grant(l.ctx, 3*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var ops []store.Op
	for id, lease := range map[string]store.LeaseID{"kept": kept, "lost": lost} {
		ops = append(ops, store.Op{Kind: v1.KindPresence, ID: id, Section: v1.SectionStatus, If: store.Absent(), Lease: lease,
			Value: &v1.PresenceStatus{Session: id}})
	}
	revision, err := c.store.Commit(l.ctx, store.Commit{Ops: ops})
	if err != nil {
		t.Fatal(err)
	}
	a.kill()
	ctx, stop := context.WithCancel(l.ctx)
	defer stop()
	for _, h := range []*host{b, c} {
		s := h.store
		go func() {
			for ctx.Err() == nil {
				if err := s.Renew(ctx, kept); err != nil && ctx.Err() == nil {
					t.Errorf("renew: %v", err)
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
		}()
	}
	for batch, err := range c.store.Watch(l.ctx, revision) {
		if err != nil {
			t.Fatal(err)
		}
		for _, change := range batch.Changes {
			if change.ID != "lost" || change.New != nil {
				t.Errorf("changed: %+v", change)
			}
		}
		break
	}
	stop()
	if err := c.store.Revoke(l.ctx, kept); err != nil {
		t.Error(err)
	}
	if err := c.store.Renew(l.ctx, kept); !errors.Is(err, store.ErrNoLease) {
		t.Errorf("renew: %v", err)
	}
}
