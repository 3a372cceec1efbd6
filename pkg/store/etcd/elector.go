package etcd

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/swarmd/swarmd/pkg/store"
)

// A candidate's key is leaders + <lease>, and holds its name and who the member is that it came through. Whoever has the
// oldest key leads.

// lead is a store.Lead, from the candidacy on.
type lead struct {
	store  *Store
	lease  clientv3.LeaseID
	fence  store.Fence
	cancel context.CancelFunc // ends keeping alive and watching
	lost   chan struct{}
	once   sync.Once
	// revoked tells that the lease is gone, so that resigning again need not ask.
	revoked atomic.Bool
}

// Campaign implements store.Elector.
func (s *Store) Campaign(ctx context.Context, candidate string) (store.Lead, error) {
	if err := s.Err(); err != nil {
		return nil, err
	}
	ctx, cancel := s.joined(ctx)
	defer cancel()
	l, err := s.stand(ctx, candidate)
	if err != nil {
		return nil, s.readError(ctx, "campaign", err)
	}
	if err := s.awaitTurn(ctx, l); err != nil {
		_ = l.Resign(context.WithoutCancel(ctx)) // else its lease runs out
		return nil, s.readError(ctx, "campaign", err)
	}
	s.cfg.Log.Debug("leading", "candidate", candidate, "revision", l.fence.Revision)
	return l, nil
}

// stand writes the candidate's key, and keeps it alive.
func (s *Store) stand(ctx context.Context, candidate string) (*lead, error) {
	grant, err := s.client.Grant(ctx, int64(s.cfg.LeaseTTL/time.Second))
	if err != nil {
		return nil, err
	}
	l := &lead{store: s, lease: grant.ID, lost: make(chan struct{})}
	l.fence.Key = strconv.FormatInt(int64(grant.ID), 16)
	living, cancel := context.WithCancel(s.ctx)
	l.cancel = cancel
	alive, err := s.client.KeepAlive(living, grant.ID)
	if err != nil {
		_ = l.Resign(context.WithoutCancel(ctx)) // else its lease runs out
		return nil, err
	}
	put, err := s.client.Put(ctx, leaders+l.fence.Key, s.owner()+candidate, clientv3.WithLease(grant.ID))
	if err != nil {
		_ = l.Resign(context.WithoutCancel(ctx)) // else its lease runs out
		return nil, err
	}
	l.fence.Revision = put.Header.Revision
	s.wait.Go(func() { l.keep(living, alive) })
	return l, nil
}

// owner marks the keys of this process's member, so that the next process on the same member knows them for dead.
func (s *Store) owner() string {
	if s.member == nil {
		return "- "
	}
	return s.member.server().MemberID().String() + " "
}

// keep waits for the end of the lease, of the key, or of the store.
func (l *lead) keep(ctx context.Context, alive <-chan *clientv3.LeaseKeepAliveResponse) {
	l.untilGone(ctx, alive)
	l.end()
	if l.store.ctx.Err() != nil {
		l.leave()
	}
}

func (l *lead) untilGone(ctx context.Context, alive <-chan *clientv3.LeaseKeepAliveResponse) {
	from := l.fence.Revision + 1
	for from > 0 {
		gone := l.store.client.Watch(ctx, leaders+l.fence.Key, clientv3.WithRev(from), clientv3.WithFilterPut())
		if !l.untilWatchEnds(ctx, alive, gone) {
			return
		}
		from = l.stillThere(ctx)
	}
}

// untilWatchEnds tells whether it was only the watch that ended: where etcd compacted while it was away.
func (l *lead) untilWatchEnds(ctx context.Context, alive <-chan *clientv3.LeaseKeepAliveResponse, gone clientv3.WatchChan) bool {
	for {
		select {
		case _, ok := <-alive:
			if !ok {
				return false
			}
		case resp, ok := <-gone:
			if !ok {
				return true
			}
			if len(resp.Events) > 0 {
				return false
			}
		case <-ctx.Done():
			return false
		}
	}
}

// stillThere is the revision to watch the key from, or 0 where it is gone.
func (l *lead) stillThere(ctx context.Context) int64 {
	got, err := l.store.client.Get(ctx, leaders+l.fence.Key, clientv3.WithKeysOnly())
	if err != nil || len(got.Kvs) == 0 || got.Kvs[0].CreateRevision != l.fence.Revision {
		return 0
	}
	return got.Header.Revision + 1
}

// leave gives the lead up when the store is closed, so that others need not wait for the lease to run out.
func (l *lead) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, _ = l.store.client.Revoke(ctx, l.lease) // else it runs out
}

func (l *lead) end() {
	l.once.Do(func() {
		l.cancel()
		close(l.lost)
	})
}

// awaitTurn waits until no older candidate is there.
func (s *Store) awaitTurn(ctx context.Context, l *lead) error {
	for {
		older, err := s.client.Get(ctx, leaders, clientv3.WithPrefix(), clientv3.WithKeysOnly(), clientv3.WithLimit(1),
			clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortDescend), clientv3.WithMaxCreateRev(l.fence.Revision-1))
		if err != nil {
			return err
		}
		if len(older.Kvs) == 0 {
			select {
			case <-l.lost:
				return errors.New("the lease ran out before the turn came")
			default:
				return nil
			}
		}
		if err := s.awaitDeletion(ctx, l, string(older.Kvs[0].Key), older.Header.Revision+1); err != nil {
			return err
		}
	}
}

func (s *Store) awaitDeletion(ctx context.Context, l *lead, path string, from int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := s.client.Watch(ctx, path, clientv3.WithRev(from), clientv3.WithFilterPut())
	for {
		select {
		case resp, ok := <-events:
			if !ok {
				return ctx.Err()
			}
			if len(resp.Events) > 0 || resp.CompactRevision != 0 {
				return nil // look again
			}
			if err := resp.Err(); err != nil {
				return err
			}
		case <-l.lost:
			return errors.New("the lease ran out while waiting for the lead")
		}
	}
}

// buryDead removes the candidacies that an earlier process on this member left behind when it was killed: nobody else can
// have the member's directory, so it is dead, and a restart need not wait for its lease to run out.
func (s *Store) buryDead(ctx context.Context) error {
	got, err := s.client.Get(ctx, leaders, clientv3.WithPrefix())
	if err != nil {
		return fmt.Errorf("store: etcd: look for earlier candidacies: %w", err)
	}
	for _, kv := range got.Kvs {
		if !strings.HasPrefix(string(kv.Value), s.owner()) {
			continue
		}
		if _, err := s.client.Revoke(ctx, clientv3.LeaseID(kv.Lease)); err != nil {
			return fmt.Errorf("store: etcd: remove an earlier candidacy: %w", err)
		}
	}
	return nil
}

// Fence implements store.Lead.
func (l *lead) Fence() store.Fence { return l.fence }

// Lost implements store.Lead.
func (l *lead) Lost() <-chan struct{} { return l.lost }

// Resign implements store.Lead. Where etcd cannot be reached, the lease runs out on its own.
func (l *lead) Resign(ctx context.Context) error {
	const patience = 3 * time.Second
	l.end()
	if l.revoked.Load() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := l.store.client.Revoke(ctx, l.lease)
	if err == nil || errors.Is(err, rpctypes.ErrLeaseNotFound) || l.store.Err() != nil {
		l.revoked.Store(true)
		return nil
	}
	return fmt.Errorf("%w: resign: %w", store.ErrUnavailable, err)
}
