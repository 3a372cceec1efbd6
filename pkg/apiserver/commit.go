package apiserver

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// tries is how often a write is decided again when someone else wrote in between.
const tries = 20

// mostJitter bounds the time before a write is decided again, so that the same managers do not meet again and again.
const mostJitter = 20 * time.Millisecond

// commitTime is how long a write may take, the wait for those before it included; Docker's. A store without a quorum must not
// hold everybody up for ever.
const commitTime = 20 * time.Second

// specWrites is the claim that every write takes along whose decision goes by more than what it writes, on the condition that
// nobody took it since: of two that two managers decide at the same time, one is decided again. Its holder says which manager
// wrote last.
const specWrites = "SpecWrites"

// change is what a write would do, decided on one snapshot. Without operations there is nothing to do.
type change struct {
	id  string
	ops []store.Op
	// alone tells that the conditions of the operations say all that the decision goes by.
	alone bool
}

// write decides on a snapshot that is not older than the last write, commits, and returns the object as it then is (nil
// where it is gone). Only one write is under way at a time at this server, and of those of several servers one fails and is
// decided again, so that what was checked of other objects still holds. What is refused, or has nothing to do, was decided on
// what is so at the time of the call: another server may have written what this one has not seen yet.
func (b *backend) write(ctx context.Context, k v1.Kind, dry bool, decide func(*store.Snapshot) (change, error)) (v1.Object, change, error) {
	ctx, cancel := context.WithTimeout(ctx, commitTime)
	defer cancel()
	leave, err := b.writes.wait(ctx)
	if err != nil {
		return nil, change{}, err
	}
	defer leave()
	var conflict error
	synced := false
	for try := 0; try < tries; {
		if conflict != nil && !pause(ctx, rand.N(min(time.Duration(try)*time.Millisecond, mostJitter)+1)) {
			return nil, change{}, context.Cause(ctx)
		}
		snapshot, err := b.fresh(ctx, synced)
		if err != nil {
			return nil, change{}, err
		}
		c, err := decide(snapshot)
		if !synced && (err != nil || dry || len(c.ops) == 0) {
			synced = true
			continue
		}
		if err != nil {
			return nil, change{}, err
		}
		if len(c.ops) == 0 || dry {
			obj, err := would(snapshot, k, c)
			return obj, c, err
		}
		revision, err := b.store.Commit(ctx, store.Commit{Ops: b.claimed(snapshot, c)})
		if errors.Is(err, store.ErrConflict) {
			conflict, synced = err, true
			try++
			continue
		}
		if err != nil {
			return nil, change{}, err
		}
		b.lastWrite = revision
		obj, err := b.written(ctx, k, c.id, revision)
		name := ""
		if obj != nil {
			name = obj.GetMeta().Name
		}
		noteWrite(ctx, k, c.id, name, revision)
		return obj, c, err
	}
	return nil, change{}, fmt.Errorf("others keep writing in between, try again: %w", conflict)
}

// claimed are a change's operations, with the claim by which those of several managers do not pass each other.
func (b *backend) claimed(s *store.Snapshot, c change) []store.Op {
	if c.alone {
		return c.ops
	}
	now := b.server.now().UTC()
	op := store.Op{Kind: v1.KindClaim, ID: specWrites, Value: &v1.ClaimSpec{Holder: b.backing.Node},
		Meta: &v1.Meta{ID: specWrites, CreatedAt: now, UpdatedAt: now}, If: store.Absent()}
	if old, ok := store.Get(s, v1.Claims, specWrites); ok {
		op.Meta.CreatedAt, op.If = old.Meta.CreatedAt, store.AtRevision(old.Meta.Revisions[v1.SectionSpec])
	}
	return append(slices.Clip(c.ops), op)
}

// fresh is a snapshot that shows this server's own writes, and with synced everybody's up to now.
func (b *backend) fresh(ctx context.Context, synced bool) (*store.Snapshot, error) {
	atLeast := b.lastWrite
	if synced {
		revision, err := b.store.Sync(ctx)
		if err != nil {
			return nil, err
		}
		atLeast = max(atLeast, revision)
	}
	if least := b.freed.Swap(0); least != 0 {
		b.freeIndex = min(b.freeIndex, least)
	}
	return b.store.Snapshot(ctx, atLeast)
}

// resolve finds the object that a user means, also one that another server has made a moment ago.
func (b *backend) resolve(ctx context.Context, k v1.Kind, ref string) (v1.Object, error) {
	snapshot, err := b.store.Snapshot(ctx, 0)
	if err != nil {
		return nil, err
	}
	obj, err := snapshot.Resolve(k, ref)
	if _, missing := errors.AsType[*store.NotFoundError](err); !missing {
		return obj, err
	}
	revision, err := b.store.Sync(ctx)
	if err != nil {
		return nil, err
	}
	if snapshot, err = b.store.Snapshot(ctx, revision); err != nil {
		return nil, err
	}
	return snapshot.Resolve(k, ref)
}

// would is the object after a change that is not made.
func would(s *store.Snapshot, k v1.Kind, c change) (v1.Object, error) {
	if len(c.ops) > 0 {
		next, _, err := s.With(s.Revision()+1, c.ops)
		if err != nil {
			return nil, err
		}
		s = next
	}
	obj, _ := s.Lookup(k, c.id)
	return obj, nil
}

// written waits until this server shows a write, so that whoever made it reads it, and returns the object.
func (b *backend) written(ctx context.Context, k v1.Kind, id string, revision int64) (v1.Object, error) {
	snapshot, err := b.store.Snapshot(ctx, revision)
	if err != nil {
		return nil, err
	}
	obj, _ := snapshot.Lookup(k, id)
	return obj, nil
}
