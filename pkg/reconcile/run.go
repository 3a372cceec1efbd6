package reconcile

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/swarmd/swarmd/pkg/store"
)

// Run decides and commits for as long as the lead lasts. It returns store.ErrFenced when the lead is lost, store.ErrClosed
// when the store is closed, and ctx's cause when that ends. Errors that may pass are retried for ever, with backoff. Run
// may be called again with a later lead, but not twice at once.
func (e *Engine) Run(ctx context.Context, lead store.Lead) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	fence := lead.Fence()
	r := &run{engine: e, fence: &fence, queue: newQueue(e.pipeline.Name, e.metrics.queue)}
	defer r.queue.ShutDown()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		select {
		case <-lead.Lost():
			return store.ErrFenced
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	group.Go(func() error {
		<-ctx.Done()
		r.queue.ShutDown() // wakes the worker
		return nil
	})
	group.Go(func() error { return r.start(ctx, group) })
	return group.Wait()
}

// run is one time of leading.
type run struct {
	engine *Engine
	fence  *store.Fence
	queue  *queue
	// floor is the revision that rules must not be shown less than: that of the latest own commit, of the latest
	// linearizable read, and of every change that woke a key.
	floor atomic.Int64
	// alone is how many more keys are to be decided one at a time, because a batch failed and one of them may be why.
	alone int
}

// raise raises the floor. It comes before the wake, so that whoever is woken sees why.
func (r *run) raise(revision int64) {
	for {
		floor := r.floor.Load()
		if floor >= revision || r.floor.CompareAndSwap(floor, revision) {
			return
		}
	}
}

// start reads as of now, so that nothing is decided from before the lead was taken, and starts the loops.
func (r *run) start(ctx context.Context, group *errgroup.Group) error {
	s, err := r.fresh(ctx)
	if err != nil {
		return err
	}
	r.all(s)
	group.Go(func() error { return r.watch(ctx, s.Revision()) })
	group.Go(func() error { return r.resync(ctx) })
	return r.work(ctx)
}

// fresh raises the floor to a linearizable read made now, and takes a snapshot there. It retries until that is possible.
func (r *run) fresh(ctx context.Context) (*store.Snapshot, error) {
	for wait := minBackoff; ; wait = min(2*wait, maxBackoff) {
		revision, err := r.engine.store.Sync(ctx)
		if err == nil {
			r.raise(revision)
			var s *store.Snapshot
			if s, err = r.engine.store.Snapshot(ctx, r.floor.Load()); err == nil {
				return s, nil
			}
		}
		if errors.Is(err, store.ErrClosed) || ctx.Err() != nil {
			return nil, err
		}
		r.engine.log.Warn("cannot read the store, trying again", "error", err, "wait", wait)
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// work decides keys in batches, and commits each before it takes the next.
func (r *run) work(ctx context.Context) error {
	for {
		most := r.engine.options.MaxKeys
		if r.alone > 0 {
			most, r.alone = 1, r.alone-1
		}
		keys := r.queue.take(most)
		if len(keys) == 0 {
			return context.Cause(ctx)
		}
		err := r.step(ctx, keys)
		for _, key := range keys {
			r.queue.Done(key)
		}
		if err != nil {
			return err
		}
	}
}

// step decides keys and commits the result. Its error ends the run.
func (r *run) step(ctx context.Context, keys []string) error {
	s, err := r.engine.store.Snapshot(ctx, r.floor.Load())
	if err != nil {
		if errors.Is(err, store.ErrClosed) || ctx.Err() != nil {
			return err
		}
		return r.retry(ctx, keys, err)
	}
	// After the snapshot: what that lacks because of a stall is not decided before the stall is known.
	awake := r.engine.options.Awake.Since()
	b := newBatch(r.engine, time.Now().UTC().Truncate(time.Millisecond), awake, s)
	decided := make([]string, 0, len(keys))
	for _, key := range keys {
		if r.decide(b, key) {
			decided = append(decided, key)
		}
	}
	if err := r.commit(ctx, b.ops); err != nil {
		return r.retry(ctx, decided, err)
	}
	for _, key := range decided {
		r.queue.Forget(key)
		if at, ok := b.again[key]; ok {
			r.queue.wakeAt(key, at)
		}
	}
	return nil
}

// decide is batch.decide for a rule that may panic: that key backs off, the others go on.
func (r *run) decide(b *batch, key string) (ok bool) {
	start := time.Now()
	defer func() {
		r.queue.decided(key, time.Since(start))
		if p := recover(); p != nil {
			r.engine.metrics.failed("panic")
			r.engine.log.Error("a rule panicked", r.engine.pipeline.Name+".id", key, "panic", p, "stack", string(debug.Stack()))
			r.queue.AddRateLimited(key)
		}
	}()
	b.decide(key)
	return true
}

func (r *run) commit(ctx context.Context, ops []store.Op) error {
	if len(ops) == 0 {
		return nil
	}
	start := time.Now()
	revision, err := commit(ctx, r.engine.store, ops, r.fence)
	r.raise(revision)
	r.engine.metrics.committed(len(ops), time.Since(start), err)
	return err
}

// retry decides what becomes of keys whose step failed. Nothing, all, or a part of it may have been written, so the next
// decision is made from a read that is later than that.
func (r *run) retry(ctx context.Context, keys []string, err error) error {
	if errors.Is(err, store.ErrFenced) || errors.Is(err, store.ErrClosed) || ctx.Err() != nil {
		return fmt.Errorf("reconcile: commit: %w", err)
	}
	r.engine.metrics.failed("commit")
	r.engine.log.Warn("a commit failed, deciding again", "error", err, "keys", len(keys))
	for _, key := range keys {
		r.queue.hurry(key) // its backoff is all that it waits for
		r.queue.AddRateLimited(key)
	}
	if len(keys) > 1 {
		r.alone = len(keys)
	}
	if errors.Is(err, store.ErrUnavailable) {
		r.alone = 0
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	_, err = r.fresh(ctx)
	return err
}
