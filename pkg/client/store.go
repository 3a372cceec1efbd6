package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// remote is a store.Store on the other side of a connection. It follows the server's store with one watch, from the first
// use on, and keeps the newest snapshot; reading and watching then cost no request.
type remote struct {
	client  *Client
	ctx     context.Context
	cancel  context.CancelCauseFunc
	begin   sync.Once
	tried   chan struct{} // closed when the first attempt to read a snapshot has ended
	begun   chan struct{} // closed when there is a history
	history *store.History
	done    sync.WaitGroup
}

// Store is the server's store: the same contract over HTTP, for those who may see everything. It is to be closed.
func (c *Client) Store() store.Store {
	r := &remote{client: c, tried: make(chan struct{}), begun: make(chan struct{})}
	r.ctx, r.cancel = context.WithCancelCause(context.Background())
	return r
}

// Commit implements store.Store. It is never repeated: where the answer is lost, the error is ErrUnavailable.
func (r *remote) Commit(ctx context.Context, c store.Commit) (int64, error) {
	if len(c.Ops) > store.MaxOps {
		return 0, fmt.Errorf("%w: %d operations, at most %d", store.ErrTooLarge, len(c.Ops), store.MaxOps)
	}
	if err := store.CheckOps(c.Ops); err != nil {
		return 0, err
	}
	var at revision
	body := struct {
		Ops   []store.Op   `json:"ops"`
		Fence *store.Fence `json:"fence,omitempty"`
	}{c.Ops, c.Fence}
	err := r.do(ctx, http.MethodPost, "/v1/commit", body, &at)
	return at.Revision, err
}

// Sync implements store.Store.
func (r *remote) Sync(ctx context.Context) (int64, error) {
	var at revision
	err := r.do(ctx, http.MethodGet, "/v1/revision", nil, &at)
	return at.Revision, err
}

type revision struct {
	Revision int64 `json:"revision"`
}

func (r *remote) do(ctx context.Context, method, path string, in, out any) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	r.begin.Do(func() { r.done.Go(r.follow) })
	select { // what is committed through this store can be watched from there
	case <-r.tried:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-r.ctx.Done():
	}
	if r.ctx.Err() != nil {
		return store.ErrClosed
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(r.ctx, func() { cancel(store.ErrClosed) })()
	return storeError(ctx, r.client.Do(ctx, method, path, in, out))
}

// storeError gives an error the meaning that it had at the server.
func storeError(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var p *v1.Problem
	if !errors.As(err, &p) {
		return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	known := store.NamedError(strings.TrimPrefix(p.Type, store.ProblemType))
	switch {
	case known == store.ErrClosed, known == nil && p.Status == http.StatusServiceUnavailable:
		known = store.ErrUnavailable // the server's store may be back; this one is open
	case known == nil && p.Status == http.StatusRequestEntityTooLarge:
		known = store.ErrTooLarge
	case known == nil && p.Status == http.StatusGone:
		known = store.ErrCompacted
	case known == nil:
		return err
	}
	return fmt.Errorf("%w: %w", known, err)
}

// Snapshot implements store.Store.
func (r *remote) Snapshot(ctx context.Context, atLeast int64) (*store.Snapshot, error) {
	h, err := r.following(ctx)
	if err != nil {
		return nil, err
	}
	return h.Wait(ctx, atLeast)
}

// Watch implements store.Store.
func (r *remote) Watch(ctx context.Context, after int64) iter.Seq2[store.Batch, error] {
	return func(yield func(store.Batch, error) bool) {
		h, err := r.following(ctx)
		if err == nil {
			_, err = h.Wait(ctx, 0)
		}
		if err != nil {
			yield(store.Batch{}, err)
			return
		}
		h.Watch(ctx, after)(yield)
	}
}

// Close implements store.Store.
func (r *remote) Close() error {
	r.cancel(store.ErrClosed)
	r.begin.Do(func() {}) // nothing begins any more
	r.done.Wait()
	select {
	case <-r.begun:
		r.history.Close(store.ErrClosed)
	default:
	}
	return nil
}

// following is the history, once there is one.
func (r *remote) following(ctx context.Context) (*store.History, error) {
	r.begin.Do(func() { r.done.Go(r.follow) })
	if r.ctx.Err() != nil {
		return nil, store.ErrClosed
	}
	select {
	case <-r.begun:
		return r.history, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-r.ctx.Done():
		return nil, store.ErrClosed
	}
}

// follow keeps the history up to date until the store is closed, over as many connections as it takes.
func (r *remote) follow() {
	pause := newBackoff()
	for first := true; r.ctx.Err() == nil; first = false {
		err := r.load()
		if first {
			close(r.tried)
		}
		if err == nil {
			pause.reset()
			r.extend(pause) // until the server's history is gone: what is missing comes with a new snapshot
		}
		pause.since = time.Time{} // it never gives up
		pause.wait(r.ctx)
	}
}

// load reads a whole snapshot.
func (r *remote) load() error {
	s, err := r.read()
	if err != nil {
		return err
	}
	if r.history == nil {
		r.history = store.NewHistory(s, store.HistoryLimit)
		close(r.begun)
	} else {
		r.history.Reset(s)
	}
	return nil
}

// snapshotLine is one line of a snapshot: an object, or the end.
type snapshotLine struct {
	Kind     v1.Kind         `json:"kind"`
	Object   json.RawMessage `json:"object"`
	End      bool            `json:"end"`
	Count    int             `json:"count"`
	Revision int64           `json:"revision"`
}

func (r *remote) read() (*store.Snapshot, error) {
	b := store.NewBuilder()
	count := 0
	for line, err := range stream[snapshotLine](r.ctx, r.client, request{method: http.MethodGet, path: "/v1/snapshot"}) {
		if err != nil {
			return nil, storeError(r.ctx, err)
		}
		if line.End {
			if line.Count != count {
				return nil, fmt.Errorf("client: a snapshot has %d objects, want %d", count, line.Count)
			}
			return b.Snapshot(line.Revision)
		}
		d, ok := v1.Describe(line.Kind)
		if !ok {
			return nil, fmt.Errorf("client: a snapshot has an object of the unknown kind %q: is the client older than the server?", line.Kind)
		}
		obj := d.New()
		if err := json.Unmarshal(line.Object, obj); err != nil {
			return nil, fmt.Errorf("client: a snapshot's %s: %w", line.Kind, err)
		}
		if err := b.AddObject(line.Kind, obj); err != nil {
			return nil, err
		}
		count++
	}
	return nil, io.ErrUnexpectedEOF
}

// batchLine is one line of the store's watch.
type batchLine struct {
	Revision int64       `json:"revision"`
	Ops      []store.Op  `json:"ops"`
	Problem  *v1.Problem `json:"problem"`
}

// extend appends batch after batch, over new connections where one is lost, until the server's history is gone.
func (r *remote) extend(pause *backoff) {
	for r.ctx.Err() == nil && !errors.Is(r.batches(pause), store.ErrCompacted) {
		pause.since = time.Time{}
		pause.wait(r.ctx)
	}
}

func (r *remote) batches(pause *backoff) error {
	newest := r.history.Newest()
	path := "/v1/watch?after=" + strconv.FormatInt(newest.Revision(), 10)
	for line, err := range stream[batchLine](r.ctx, r.client, request{method: http.MethodGet, path: path}) {
		if err == nil && line.Problem != nil {
			err = line.Problem
		}
		if err != nil {
			return storeError(r.ctx, err)
		}
		pause.reset()
		if line.Revision <= newest.Revision() {
			continue
		}
		next, changes, err := newest.With(line.Revision, line.Ops)
		if err != nil {
			return fmt.Errorf("client: watch the store: %w", err)
		}
		r.history.Append(next, store.Batch{Revision: line.Revision, Changes: changes})
		newest = next
	}
	return errStopped
}
