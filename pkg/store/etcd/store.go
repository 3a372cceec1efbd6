package etcd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"sync"
	"sync/atomic"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/swarmd/swarmd/pkg/store"
)

// Store is a store.Store and a store.Elector on etcd.
type Store struct {
	cfg     Config
	client  *clientv3.Client
	member  *member // nil with endpoints of somebody's own
	seal    *sealer
	history *store.History
	txnOps  int

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wait   sync.WaitGroup
	close  func() error
	done   chan struct{}
	err    atomic.Pointer[error] // why it ended

	waiting  atomic.Int64  // callers of Snapshot that wait for a revision
	waits    chan struct{} // tells that one began to
	counters counters
}

// Start starts or connects to etcd, and returns once the whole state is loaded. ctx bounds only the start.
//
// It fails if a value cannot be opened or decoded, naming the key; if the data directory is in use; and if the data keys
// are not those that the state is sealed with.
func Start(ctx context.Context, c Config) (*Store, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	s := &Store{cfg: c, done: make(chan struct{}), waits: make(chan struct{}, 1)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.start(ctx); err != nil {
		s.cancel()
		if s.client != nil {
			err = errors.Join(err, s.disconnect())
		}
		return nil, err
	}
	s.close = sync.OnceValue(s.shutDown)
	s.wait.Go(s.follow)
	s.wait.Go(s.askProgress)
	s.wait.Go(s.maintain)
	if s.member != nil {
		s.wait.Go(s.watchMember)
	}
	return s, nil
}

func (s *Store) start(ctx context.Context) error {
	if err := s.connect(ctx); err != nil {
		return err
	}
	if err := s.openKeyring(ctx); err != nil {
		return err
	}
	snapshot, err := s.load(ctx)
	if err != nil {
		return err
	}
	s.history = store.NewHistory(snapshot, historyLimit)
	if s.member != nil {
		return s.buryDead(ctx)
	}
	return nil
}

func (s *Store) connect(ctx context.Context) (err error) {
	if s.cfg.Dir != "" {
		if s.member, err = startMember(ctx, &s.cfg); err != nil {
			return err
		}
		s.client, s.txnOps = s.member.client, memberTxnOps
		return nil
	}
	if s.client, err = dial(ctx, &s.cfg); err != nil {
		return err
	}
	s.txnOps, err = txnLimit(ctx, s.client)
	return err
}

// openKeyring reads the data keys, and holds them against the check value: what is sealed with the active key of whoever
// came first. Where there is no check value yet, the keys are made, and written before anything can be sealed with them.
func (s *Store) openKeyring(ctx context.Context) error {
	got, err := s.client.Get(ctx, checks)
	if err != nil {
		return fmt.Errorf("store: etcd: read %s: %w", checks, err)
	}
	fresh := len(got.Kvs) == 0
	wrapKey := s.cfg.WrapKey
	if wrapKey == nil {
		if wrapKey, err = nodeWrapKey(s.cfg.KeyFile+".key", fresh); err != nil {
			return err
		}
	}
	ring, err := readKeyring(s.cfg.KeyFile, wrapKey)
	switch {
	case errors.Is(err, fs.ErrNotExist) && fresh:
		ring = newKeyring(s.cfg.KeyFile)
		if err := ring.write(wrapKey); err != nil {
			return err
		}
	case err != nil:
		return err
	}
	s.seal = newSealer(ring)
	if fresh {
		return s.putCheck(ctx)
	}
	_, err = s.seal.open(checks, got.Kvs[0].Value)
	return err
}

// putCheck writes the check value; where another process was faster, its is the one that counts.
func (s *Store) putCheck(ctx context.Context) error {
	sealed, err := s.seal.sealAll([]string{checks}, [][]byte{[]byte("swarm")})
	if err != nil {
		return err
	}
	resp, err := s.client.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(checks), "=", 0)).
		Then(clientv3.OpPut(checks, sealed[0])).Else(clientv3.OpGet(checks)).Commit()
	if err != nil {
		return fmt.Errorf("store: etcd: write %s: %w", checks, err)
	}
	if !resp.Succeeded {
		_, err = s.seal.open(checks, resp.Responses[0].GetResponseRange().Kvs[0].Value)
	}
	return err
}

// Snapshot implements store.Store.
func (s *Store) Snapshot(ctx context.Context, atLeast int64) (*store.Snapshot, error) {
	if now := s.history.Newest(); now.Revision() < atLeast {
		s.waiting.Add(1)
		defer s.waiting.Add(-1)
		select {
		case s.waits <- struct{}{}:
		default:
		}
	}
	return s.history.Wait(ctx, atLeast)
}

// Sync implements store.Store.
func (s *Store) Sync(ctx context.Context) (int64, error) {
	ctx, cancel := s.joined(ctx)
	defer cancel()
	got, err := s.client.Get(ctx, nothing, clientv3.WithCountOnly())
	if err != nil {
		return 0, s.readError(ctx, "ask for the revision", err)
	}
	return got.Header.Revision, nil
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, after int64) iter.Seq2[store.Batch, error] {
	return s.history.Watch(ctx, after)
}

// MaxOps is the most operations that one Commit takes, whatever they are: store.MaxOps, or less where the endpoints allow
// less (see etcd's --max-txn-ops). An operation may need two conditions, and the fence one more.
func (s *Store) MaxOps() int { return min(store.MaxOps, (s.txnOps-1)/2) }

// Done is closed when the store has ended: by Close, or because the member inside this process did.
func (s *Store) Done() <-chan struct{} { return s.done }

// Err is why the store has ended, once Done is closed: store.ErrClosed after Close.
func (s *Store) Err() error {
	if err := s.err.Load(); err != nil {
		return *err
	}
	return nil
}

// Close implements store.Store. It gives up what this process leads, and returns once the member has written all it has.
func (s *Store) Close() error {
	s.end(store.ErrClosed)
	return s.close()
}

// end ends all calls with the error.
func (s *Store) end(err error) {
	if s.err.CompareAndSwap(nil, &err) {
		s.history.Close(err)
		s.cancel()
		close(s.done)
	}
}

func (s *Store) shutDown() error {
	s.wait.Wait()
	return s.disconnect()
}

func (s *Store) disconnect() error {
	var err error
	if s.member != nil {
		err = s.member.close()
	} else {
		err = s.client.Close()
	}
	if err != nil {
		return fmt.Errorf("store: etcd: close: %w", err)
	}
	return nil
}

func (s *Store) watchMember() {
	select {
	case <-s.member.server().StopNotify():
		s.cfg.Log.Error("the etcd member inside this process stopped")
		s.end(fmt.Errorf("%w: the etcd member inside this process stopped", store.ErrUnavailable))
	case <-s.ctx.Done():
	}
}

// joined is a context that also ends with the store.
func (s *Store) joined(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.ctx, func() { cancel(s.Err()) })
	return ctx, func() { stop(); cancel(nil) }
}

// readError is the error of a call that writes nothing.
func (s *Store) readError(ctx context.Context, what string, err error) error {
	if ended := s.Err(); ended != nil {
		return ended
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return fmt.Errorf("%w: %s: %w", store.ErrUnavailable, what, err)
}
