package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/lease"

	"github.com/swarmd/swarmd/pkg/store"
)

// minLease is the shortest time of a lease: etcd's own bound is one and a half elections.
const minLease = 2 * time.Second

// Grant implements store.Leaser.
func (s *Store) Grant(ctx context.Context, ttl time.Duration) (store.LeaseID, error) {
	ctx, cancel, err := s.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer cancel()
	seconds := int64((max(ttl, minLease) + time.Second - 1) / time.Second)
	id := store.LeaseID(0)
	err = s.propose(ctx, func(ctx context.Context) error {
		granted, err := s.client.Grant(ctx, seconds)
		if err == nil {
			id = store.LeaseID(granted.ID)
		}
		return err
	})
	if err != nil {
		return 0, s.readError(ctx, "grant a lease", err)
	}
	return id, nil
}

// Renew implements store.Leaser. It waits for a leader for a while where there is none.
func (s *Store) Renew(ctx context.Context, id store.LeaseID) error {
	ctx, cancel, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	ctx, stop := context.WithTimeoutCause(ctx, leaderPatience, errNoLeader)
	defer stop()
	for {
		err := s.awaitLeader(ctx)
		if err == nil {
			err = s.renew(ctx, id)
		}
		switch {
		case err == nil:
			return nil
		case errors.Is(err, lease.ErrLeaseNotFound), errors.Is(err, rpctypes.ErrLeaseNotFound):
			return fmt.Errorf("%w: %x", store.ErrNoLease, int64(id))
		case ctx.Err() != nil:
			if errors.Is(context.Cause(ctx), errNoLeader) {
				return fmt.Errorf("%w: renew a lease: %w: %w", store.ErrUnavailable, errNoLeader, err)
			}
			return s.readError(ctx, "renew a lease", err)
		}
		sleep(ctx, leaderPoll)
	}
}

// renew asks once. With a member inside, whoever leads is asked by it.
func (s *Store) renew(ctx context.Context, id store.LeaseID) error {
	if s.member != nil {
		_, err := s.member.server().LeaseRenew(ctx, lease.LeaseID(id))
		return err
	}
	_, err := s.client.KeepAliveOnce(ctx, clientv3.LeaseID(id))
	return err
}

// Revoke implements store.Leaser.
func (s *Store) Revoke(ctx context.Context, id store.LeaseID) error {
	ctx, cancel, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	err = s.propose(ctx, func(ctx context.Context) error {
		_, err := s.client.Revoke(ctx, clientv3.LeaseID(id))
		return err
	})
	if err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return s.readError(ctx, "revoke a lease", err)
	}
	return nil
}

// begin is the context of a call, which ends with the store.
func (s *Store) begin(ctx context.Context) (context.Context, context.CancelFunc, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, nil, err
	}
	if err := s.Err(); err != nil {
		return nil, nil, err
	}
	ctx, cancel := s.joined(ctx)
	return ctx, cancel, nil
}
