package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/swarmd/swarmd/pkg/store"
)

// counters are what Stats tells.
type counters struct {
	commits, failed, keys, compacted, defragmented atomic.Int64
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
	ctx, cancel := s.joined(ctx)
	defer cancel()
	// Each further turn has seen the revision that the one before failed at, so somebody else made progress.
	const turns = 20
	view := s.history.Newest()
	for range turns {
		revision, again, err := s.try(ctx, view, c)
		if err != nil || !again {
			return revision, err
		}
		if view, err = s.Snapshot(ctx, revision); err != nil {
			return 0, err
		}
	}
	return 0, fmt.Errorf("%w: %d times, others wrote the same objects in between", store.ErrConflict, turns)
}

// try commits once. It tells to plan again, with a view at the revision, where only what the view showed was wrong.
func (s *Store) try(ctx context.Context, view *store.Snapshot, c *store.Commit) (revision int64, again bool, err error) {
	p, err := s.makePlan(view, c)
	if err != nil {
		return 0, false, err
	}
	if n := max(len(p.compares), len(p.ops)); n > s.txnOps {
		return 0, false, fmt.Errorf("%w: it needs %d conditions or writes, and etcd takes %d: raise its --max-txn-ops to at least %d",
			store.ErrTooLarge, n, s.txnOps, n)
	}
	resp, err := s.client.Txn(ctx).If(p.compares...).Then(p.ops...).Commit()
	if err != nil {
		return 0, false, s.writeError(ctx, err)
	}
	if resp.Succeeded {
		s.counters.keys.Add(int64(len(p.ops)))
		return resp.Header.Revision, false, nil
	}
	switch err := s.broken(ctx, c, resp.Header.Revision); {
	case errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrFenced):
		return 0, false, err
	case errors.Is(err, rpctypes.ErrCompacted):
		return 0, false, fmt.Errorf("%w: a condition did not hold, and it is too late to tell which", store.ErrConflict)
	case err != nil:
		return 0, false, s.readError(ctx, "find out which condition did not hold", err)
	}
	return resp.Header.Revision, true, nil
}

// writeError maps the error of a transaction. What etcd refused did not happen; of anything else that cannot be known.
func (s *Store) writeError(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, rpctypes.ErrTooManyOps):
		return fmt.Errorf("%w: etcd refuses so many operations: raise its --max-txn-ops", store.ErrTooLarge)
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
		return fmt.Errorf("%w: commit: etcd's space is used up, and it takes nothing until it is compacted, defragmented and its alarm is disarmed: %w",
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
	store.Limited
} = (*Store)(nil)
