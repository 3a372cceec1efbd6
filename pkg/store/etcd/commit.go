package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/swarmd/swarmd/pkg/store"
)

// counters are what Stats tells, and seen, the keys that anybody wrote or removed, with seenBytes, what they and their values take.
type counters struct {
	commits, failed, keys, compacted, defragmented, seen, seenBytes atomic.Int64
}

// Commit implements store.Store.
func (s *Store) Commit(ctx context.Context, c store.Commit) (int64, error) {
	start := time.Now()
	revision, err := s.commit(ctx, &c)
	if err != nil {
		s.counters.failed.Add(1)
	} else {
		s.counters.commits.Add(1)
	}
	if s.cfg.OnCommit != nil {
		s.cfg.OnCommit(CommitStats{Ops: len(c.Ops), Took: time.Since(start), Err: err})
	}
	return revision, err
}

func (s *Store) commit(ctx context.Context, c *store.Commit) (int64, error) {
	if err := context.Cause(ctx); err != nil {
		return 0, err
	}
	if len(c.Ops) > store.MaxOps {
		return 0, fmt.Errorf("%w: %d operations, at most %d", store.ErrTooLarge, len(c.Ops), store.MaxOps)
	}
	if err := store.CheckOps(c.Ops); err != nil {
		return 0, err
	}
	if err := s.Err(); err != nil {
		return 0, err
	}
	if c.Fence != nil && c.Fence.Revision <= 0 {
		return 0, store.ErrFenced // to etcd, a key that is not there has revision 0
	}
	if err := s.fits(c); err != nil {
		return 0, err
	}
	ctx, cancel := s.joined(ctx)
	defer cancel()
	view := s.history.Newest()
	for range turns {
		revision, done, err := s.try(ctx, view, c)
		if err != nil || done {
			return revision, err
		}
		if view, err = s.failed(ctx, c, revision); err != nil {
			return 0, err
		}
	}
	return 0, fmt.Errorf("%w: %d times, others wrote the same objects in between", store.ErrConflict, turns)
}

// turns bounds how often a commit is planned. It is planned again where what the view showed was old, and has seen then
// what it was beaten by: somebody else made progress.
const turns = 100

// try commits once. It tells the revision at which it was done, or at which its conditions did not hold.
func (s *Store) try(ctx context.Context, view *store.Snapshot, c *store.Commit) (revision int64, done bool, err error) {
	p, err := s.makePlan(view, c)
	if err != nil {
		return 0, false, err
	}
	if n := max(len(p.compares), len(p.ops)); n > s.txnOps {
		return 0, false, fmt.Errorf("%w: it needs %d conditions or writes, and etcd takes %d: raise its --max-txn-ops to at least %d",
			store.ErrTooLarge, n, s.txnOps, n)
	}
	var resp *clientv3.TxnResponse
	err = s.propose(ctx, func(ctx context.Context) (err error) {
		resp, err = s.client.Txn(ctx).If(p.compares...).Then(p.ops...).Commit()
		return err
	})
	if err != nil {
		return 0, false, s.writeError(ctx, err)
	}
	if resp.Succeeded {
		s.counters.keys.Add(int64(len(p.ops)))
	}
	return resp.Header.Revision, resp.Succeeded, nil
}

// failed finds out what kept a commit from happening. Where the fence and the conditions hold by now, it returns the view
// to plan again with. The answer is of a moment after the commit failed and before the call ends, which is as good.
func (s *Store) failed(ctx context.Context, c *store.Commit, at int64) (*store.Snapshot, error) {
	if c.Fence != nil {
		var got *clientv3.GetResponse
		err := s.read(ctx, func(ctx context.Context) (err error) {
			got, err = s.client.Get(ctx, leaders+c.Fence.Key, clientv3.WithKeysOnly())
			return err
		})
		if err != nil {
			return nil, s.readError(ctx, "find out who leads", err)
		}
		if len(got.Kvs) == 0 || got.Kvs[0].CreateRevision != c.Fence.Revision {
			return nil, store.ErrFenced
		}
	}
	view, err := s.Snapshot(ctx, at)
	if err != nil {
		return nil, err
	}
	for i := range c.Ops {
		if !view.Check(&c.Ops[i]) {
			return nil, store.Conflict(&c.Ops[i])
		}
	}
	return view, nil
}

// writeError maps the error of a transaction. What etcd refused did not happen; of anything else that cannot be known.
func (s *Store) writeError(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		return fmt.Errorf("%w: commit", store.ErrNoLease)
	case errors.Is(err, rpctypes.ErrTooManyOps):
		return fmt.Errorf("%w: etcd refuses so many operations: raise its --max-txn-ops", store.ErrTooLarge)
	case errors.Is(err, rpctypes.ErrRequestTooLarge) && s.member != nil:
		return fmt.Errorf("%w: a commit holds at most %d MB", store.ErrTooLarge, memberRequestBytes>>20)
	case errors.Is(err, rpctypes.ErrRequestTooLarge), tooLargeToSend(err):
		return fmt.Errorf("%w: etcd refuses so many bytes: raise its --max-request-bytes", store.ErrTooLarge)
	}
	if ended := s.Err(); ended != nil {
		return ended
	}
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("%w: commit: %w", store.ErrUnavailable, cause)
	}
	if errors.Is(err, rpctypes.ErrNoSpace) {
		return fmt.Errorf("%w: commit: etcd's space is used up, and it takes nothing until there is room: %w",
			store.ErrUnavailable, err)
	}
	return fmt.Errorf("%w: commit: %w", store.ErrUnavailable, err)
}

// tooLargeToSend recognises gRPC's own limit, on either side of the connection.
func tooLargeToSend(err error) bool {
	return status.Code(err) == codes.ResourceExhausted && !errors.Is(err, rpctypes.ErrNoSpace) &&
		!errors.Is(err, rpctypes.ErrTooManyRequests)
}

// Stats is the state of the store, for metrics.
type Stats struct {
	// Revision is that of the newest snapshot.
	Revision int64
	// Commits and Failed count Commit's calls since the start, KeysWritten what they wrote or removed.
	Commits, Failed, KeysWritten int64
	// Compactions and Defragmentations count those that this process asked for.
	Compactions, Defragmentations int64
	// DBSize is the size of etcd's file, and DBInUse how much of it is used, in bytes; -1 where etcd does not answer.
	DBSize, DBInUse int64
}

// Stats asks etcd for its size, for at most as long as ctx lasts.
func (s *Store) Stats(ctx context.Context) Stats {
	st := Stats{
		Revision: s.history.Newest().Revision(),
		Commits:  s.counters.commits.Load(), Failed: s.counters.failed.Load(), KeysWritten: s.counters.keys.Load(),
		Compactions: s.counters.compacted.Load(), Defragmentations: s.counters.defragmented.Load(),
	}
	st.DBSize, st.DBInUse = s.size(ctx)
	return st
}

func (s *Store) size(ctx context.Context) (total, used int64) {
	if s.member != nil {
		backend := s.member.server().Backend()
		return backend.Size(), backend.SizeInUse()
	}
	status, err := s.client.Status(ctx, s.cfg.Endpoints[0])
	if err != nil {
		return -1, -1
	}
	return status.DbSize, status.DbSizeInUse
}

var _ interface {
	store.Store
	store.Elector
	store.Leaser
	store.Limited
} = (*Store)(nil)
