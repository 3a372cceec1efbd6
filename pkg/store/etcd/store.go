package etcd

import (
	"context"
	"errors"
	"fmt"
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
	throne  chan struct{}                   // full while a candidate of this process leads, or is about to
	term    atomic.Pointer[context.Context] // ends soon after another member has come to lead; nil for a member that is alone

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wait   sync.WaitGroup
	close  func() error
	done   chan struct{}
	err    atomic.Pointer[error] // why it ended

	ringFile sync.Mutex    // of the keyring's files
	backing  chan struct{} // full while a backup is made

	waiting  atomic.Int64  // callers of Snapshot that wait for a revision
	waits    chan struct{} // tells that one began to
	counters counters
}

// Start starts or connects to etcd, and returns once the whole state is loaded. ctx bounds only the start.
//
// A member that has fellows waits for a majority of them as long as ctx lasts, and tells so in the log.
//
// It fails if a value cannot be opened or decoded, naming the key; if the data directory is in use; and if the data keys are not
// those that the state is sealed with. Errors: ErrLocked, ErrWrongKey, ErrRemoved, ErrDamaged, ctx's.
func Start(ctx context.Context, c Config) (*Store, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	s := &Store{cfg: c, done: make(chan struct{}), waits: make(chan struct{}, 1), throne: make(chan struct{}, 1), backing: make(chan struct{}, 1)}
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
	if s.member != nil && s.member.fellows != nil {
		s.wait.Go(s.watchTerm)
	}
	return s, nil
}

func (s *Store) start(ctx context.Context) error {
	if err := s.connect(ctx); err != nil {
		return err
	}
	if err := s.ready(ctx, s.openKeyring); err != nil {
		return err
	}
	return s.ready(ctx, func(ctx context.Context) error {
		snapshot, err := s.load(ctx)
		if err == nil {
			s.history = store.NewHistory(snapshot, store.HistoryLimit)
		}
		return err
	})
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
	revision := int64(0)
	err := s.read(ctx, func(ctx context.Context) error {
		got, err := s.client.Get(ctx, nothing, clientv3.WithCountOnly())
		if err == nil {
			revision = got.Header.Revision
		}
		return err
	})
	if err != nil {
		return 0, s.readError(ctx, "ask for the revision", err)
	}
	return revision, nil
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
		err := s.member.whyStopped(s.ctx)
		s.cfg.Log.Error("the etcd member inside this process stopped", "err", err)
		s.end(err)
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
