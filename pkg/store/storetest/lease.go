package storetest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// LeaseStore is a store that gives leases.
type LeaseStore interface {
	store.Store
	store.Leaser
}

// RunLeases holds a store that gives leases to the contract of store.Leaser and of operations under leases.
func RunLeases(t *testing.T, open func(t *testing.T) LeaseStore) {
	for name, test := range map[string]func(*fixture, LeaseStore){
		"Revoke": testRevoke,
		"Expire": testExpire,
		"Renew":  testRenew,
		"Move":   testMoveLease,
		"None":   testNoLease,
		"Refuse": testRefuseLease,
		"End":    testLeaseEnd,
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			test(&fixture{t, testContext(t), s}, s)
		})
	}
}

// presence is an operation on an object of one section.
func presence(id string, lease store.LeaseID) store.Op {
	return store.Op{Kind: v1.KindPresence, ID: id, Section: v1.SectionStatus, If: store.Always(), Lease: lease,
		Value: &v1.PresenceStatus{Session: "of " + id}}
}

func grant(f *fixture, s LeaseStore, ttl time.Duration) store.LeaseID {
	f.Helper()
	id, err := s.Grant(f.ctx, ttl)
	if err != nil || id == 0 {
		f.Fatalf("grant: %d %v", id, err)
	}
	return id
}

// present are the IDs of the presences that are there.
func present(s *store.Snapshot) string {
	var ids []string
	for p := range store.All(s, v1.Presences) {
		ids = append(ids, p.Meta.ID)
	}
	return strings.Join(ids, "")
}

// removal waits for the batch after the revision that removes an object.
func removal(f *fixture, after int64, id string) store.Batch {
	f.Helper()
	for b, err := range f.Watch(f.ctx, after) {
		if err != nil {
			f.Fatalf("watch: %v", err)
		}
		for _, c := range b.Changes {
			if c.ID == id && c.New == nil {
				return b
			}
		}
	}
	return store.Batch{}
}

// testRevoke: what lives under a lease goes with it, at one revision, as a batch like others.
func testRevoke(f *fixture, s LeaseStore) {
	id, other := grant(f, s, time.Hour), grant(f, s, time.Hour)
	f.commit(presence("a", id), presence("b", id), presence("c", other))
	revision := f.commit(presence("d", 0))
	for range 2 { // twice is as well as once
		if err := s.Revoke(f.ctx, id); err != nil {
			f.Fatal(err)
		}
	}
	b := removal(f, revision, "a")
	if len(b.Changes) != 2 || b.Revision <= revision {
		f.Errorf("the lease's end is %d changes at %d, after %d", len(b.Changes), b.Revision, revision)
	}
	for _, c := range b.Changes {
		if old, ok := c.Old.(*v1.Presence); !ok || old.Status.Session != "of "+c.ID {
			f.Errorf("removed %+v", c)
		}
	}
	if got := present(f.now()); got != "cd" {
		f.Errorf("there is %s", got)
	}
	f.commit(presence("a", other)) // as if it had never been
	if got := present(f.now()); got != "acd" {
		f.Errorf("there is %s", got)
	}
}

// testExpire: nobody has to do anything.
func testExpire(f *fixture, s LeaseStore) {
	id := grant(f, s, time.Nanosecond)
	revision := f.commit(presence("a", id))
	if got := present(f.at(revision)); got != "a" {
		f.Errorf("there is %s", got)
	}
	removal(f, revision, "a")
	if err := s.Renew(f.ctx, id); !errors.Is(err, store.ErrNoLease) {
		f.Errorf("renew: %v", err)
	}
	f.fails(store.ErrNoLease, presence("a", id), desired("task", 1, store.Absent()))
}

// testRenew: a lease that is renewed outlives those that are not.
func testRenew(f *fixture, s LeaseStore) {
	ctx, stop := context.WithCancel(f.ctx)
	kept := grant(f, s, 3*time.Second)
	f.commit(presence("kept", kept))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if err := s.Renew(ctx, kept); err != nil && ctx.Err() == nil {
				f.Errorf("renew: %v", err)
				return
			}
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}()
	for range 2 {
		removal(f, f.commit(presence("lost", grant(f, s, 2*time.Second))), "lost")
	}
	stop()
	<-done
	if got := present(f.now()); got != "kept" {
		f.Errorf("there is %s", got)
	}
}

// testMoveLease: the last write says under which lease an object lives.
func testMoveLease(f *fixture, s LeaseStore) {
	first, second := grant(f, s, time.Hour), grant(f, s, time.Hour)
	f.commit(presence("free", first), presence("moved", first), presence("gone", first), presence("stays", second))
	f.commit(presence("free", 0), presence("moved", second),
		store.Op{Kind: v1.KindPresence, ID: "gone", Section: v1.SectionStatus})
	f.commit(presence("gone", 0))
	if err := s.Revoke(f.ctx, first); err != nil {
		f.Fatal(err)
	}
	if got := present(f.now()); got != "freegonemovedstays" {
		f.Errorf("there is %s", got)
	}
	if err := s.Revoke(f.ctx, second); err != nil {
		f.Fatal(err)
	}
	if got := present(f.now()); got != "freegone" {
		f.Errorf("there is %s", got)
	}
}

// testNoLease: under a lease that there is not, nothing is written.
func testNoLease(f *fixture, s LeaseStore) {
	const never = 12345
	f.fails(store.ErrNoLease, presence("a", never), desired("task", 1, store.Absent()))
	if err := s.Renew(f.ctx, never); !errors.Is(err, store.ErrNoLease) {
		f.Errorf("renew: %v", err)
	}
	if err := s.Revoke(f.ctx, never); err != nil {
		f.Errorf("revoke: %v", err)
	}
	id := grant(f, s, time.Hour)
	if err := s.Revoke(f.ctx, id); err != nil {
		f.Fatal(err)
	}
	f.fails(store.ErrNoLease, presence("a", id))
}

// testRefuseLease: a lease goes with whole objects only.
func testRefuseLease(f *fixture, s LeaseStore) {
	id := grant(f, s, time.Hour)
	task, state := desired("a", 1, store.Absent()), status("a", "", store.Always())
	task.Lease, state.Lease = id, id
	removed := presence("a", id)
	removed.Value = nil
	for _, op := range []store.Op{task, state, removed} {
		f.fails(store.ErrInvalid, op)
	}
}

func testLeaseEnd(f *fixture, s LeaseStore) {
	id := grant(f, s, time.Hour)
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(f.ctx)
	cancel(why)
	ended := func(want error, ctx context.Context) {
		f.Helper()
		_, err := s.Grant(ctx, time.Hour)
		for call, err := range map[string]error{"grant": err, "renew": s.Renew(ctx, id), "revoke": s.Revoke(ctx, id)} {
			if !errors.Is(err, want) {
				f.Errorf("%s: %v, want %v", call, err, want)
			}
		}
	}
	ended(why, ctx)
	if err := f.Close(); err != nil {
		f.Fatal(err)
	}
	ended(store.ErrClosed, f.ctx)
}
