package etcd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/swarmd/swarmd/pkg/store"
)

// With a member inside this process, whoever leads raft leads: there is no lease that must run out first. The leader's key is a new
// one each time, and taking the lead removes all others, so that what an earlier leader still commits is fenced.

// reign is a store.Lead that goes with raft's.
type reign struct {
	store *Store
	fence store.Fence
	lost  chan struct{}
	once  sync.Once

	mu       sync.Mutex // one resigning at a time
	resigned bool
}

// campaignInside waits until this member leads, and takes the lead for one candidate of this process.
func (s *Store) campaignInside(ctx context.Context, candidate string) (store.Lead, error) {
	select {
	case s.throne <- struct{}{}:
	case <-ctx.Done():
		return nil, s.readError(ctx, "campaign", context.Cause(ctx))
	}
	for {
		if err := s.awaitOwnLead(ctx); err != nil {
			<-s.throne
			return nil, err
		}
		l, err := s.seize(ctx, candidate)
		if l != nil {
			s.cfg.Log.Debug("leading", "candidate", candidate, "revision", l.fence.Revision)
			s.wait.Go(l.keep)
			return l, nil
		}
		if err != nil {
			s.cfg.Log.Debug("the lead could not be taken; trying again", "err", err)
		}
		sleep(ctx, leaderPoll)
	}
}

// awaitOwnLead waits until this member leads.
func (s *Store) awaitOwnLead(ctx context.Context) error {
	ticker := time.NewTicker(leaderPoll)
	defer ticker.Stop()
	for ctx.Err() == nil && s.Err() == nil {
		if s.member.leads() {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
	return s.readError(ctx, "campaign", context.Cause(ctx))
}

// seize writes this leader's key and removes all others, unless somebody wrote one since: who read that it leads may have lost the
// lead by the time its write arrives. It returns nil where it did not.
func (s *Store) seize(ctx context.Context, candidate string) (*reign, error) {
	ctx, cancel := context.WithTimeout(ctx, changeTry)
	defer cancel()
	before, err := s.client.Get(ctx, leaders, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil || !s.member.leads() {
		return nil, err
	}
	key := strings.ToLower(rand.Text())
	own := leaders + key
	resp, err := s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(leaders), "<", before.Header.Revision+1).WithPrefix()).
		Then(clientv3.OpDelete(leaders, clientv3.WithRange(own)),
			clientv3.OpDelete(own+"\x00", clientv3.WithRange(clientv3.GetPrefixRangeEnd(leaders))),
			clientv3.OpPut(own, candidate)).Commit()
	if err != nil || !resp.Succeeded {
		return nil, err
	}
	return &reign{store: s, fence: store.Fence{Key: key, Revision: resp.Header.Revision}, lost: make(chan struct{})}, nil
}

// keep waits for the end: of raft's lead, of the key, or of the store.
func (l *reign) keep() {
	defer l.end()
	ctx, cancel := context.WithCancel(l.store.ctx)
	defer cancel()
	ticker := time.NewTicker(leaderPoll)
	defer ticker.Stop()
	gone := l.watchKey(ctx, l.fence.Revision+1)
	for l.store.member.leads() {
		select {
		case <-ticker.C:
		case <-l.lost:
			return
		case <-ctx.Done():
			return
		case resp, ok := <-gone:
			if len(resp.Events) > 0 {
				return
			}
			if !ok || resp.CompactRevision != 0 {
				from := stillThere(ctx, l.store, l.fence)
				if from == 0 {
					return
				}
				gone = l.watchKey(ctx, from)
			}
		}
	}
}

func (l *reign) watchKey(ctx context.Context, from int64) clientv3.WatchChan {
	return l.store.client.Watch(ctx, leaders+l.fence.Key, clientv3.WithRev(from), clientv3.WithFilterPut())
}

// stillThere is the revision to watch a leader's key from, or 0 where it is gone.
func stillThere(ctx context.Context, s *Store, f store.Fence) int64 {
	got, err := s.client.Get(ctx, leaders+f.Key, clientv3.WithKeysOnly())
	if err != nil || len(got.Kvs) == 0 || got.Kvs[0].CreateRevision != f.Revision {
		return 0
	}
	return got.Header.Revision + 1
}

// end lets the next candidate of this process try.
func (l *reign) end() {
	l.once.Do(func() {
		close(l.lost)
		<-l.store.throne
	})
}

// Fence implements store.Lead.
func (l *reign) Fence() store.Fence { return l.fence }

// Lost implements store.Lead.
func (l *reign) Lost() <-chan struct{} { return l.lost }

// Resign implements store.Lead. Where there is another voter that can be reached, it leads from then on.
func (l *reign) Resign(ctx context.Context) error {
	const patience = 3 * time.Second
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.end()
	s := l.store
	if l.resigned || s.Err() != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	own := leaders + l.fence.Key
	err := s.propose(ctx, func(ctx context.Context) error {
		_, err := s.client.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(own), "=", l.fence.Revision)).
			Then(clientv3.OpDelete(own)).Commit()
		return err
	})
	if err != nil && s.Err() == nil {
		return fmt.Errorf("%w: resign: %w", store.ErrUnavailable, err)
	}
	l.resigned = true
	if !s.member.leads() {
		return nil
	}
	if err := s.member.handOver(ctx); err != nil && !errors.Is(err, context.Canceled) {
		s.cfg.Log.Debug("no other manager took the lead", "err", err)
	}
	return nil
}
