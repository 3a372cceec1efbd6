package etcd

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/swarmd/swarmd/pkg/store"
)

// With endpoints of somebody's own, a candidate's key is leaders + <lease>, and holds its name. Whoever has the oldest key leads.

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
	if s.member != nil {
		return s.campaignInside(ctx, candidate)
	}
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
	put, err := s.client.Put(ctx, leaders+l.fence.Key, candidate, clientv3.WithLease(grant.ID))
	if err != nil {
		_ = l.Resign(context.WithoutCancel(ctx)) // else its lease runs out
		return nil, err
	}
	l.fence.Revision = put.Header.Revision
	s.wait.Go(func() { l.keep(living, alive) })
	return l, nil
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
		from = stillThere(ctx, l.store, l.fence)
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
