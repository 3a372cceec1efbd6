package apiserver

import (
	"context"
	"errors"
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// The types of a watch's events.
const (
	typePut      = "put"
	typeDelete   = "delete"
	typeBookmark = "bookmark"
)

// settle is how long a watch waits for its first batch before it sends its headers. A store says at once that a revision
// is gone, and until the headers are sent that can still be the answer's status.
const settle = 20 * time.Millisecond

// catchUp is how long a watch waits for a revision that this server has not seen yet.
const catchUp = 3 * time.Second

// watch streams what happens to the objects of a kind.
func (s *Server) watch(w http.ResponseWriter, r *http.Request, d v1.Descriptor) error {
	filter, err := filterOf(r, d.Kind())
	if err != nil {
		return err
	}
	return s.watching(w, r, func(f *feed, snapshot *store.Snapshot) error {
		sel, err := selectionOf(filter, d.Kind(), snapshot)
		if err != nil {
			return err
		}
		if sel.fleeting != "" {
			return problemf(http.StatusBadRequest, "the filter %s cannot be watched: it depends on other objects", sel.fleeting)
		}
		f.add = func(buf []byte, c *store.Change, revision int64) ([]byte, error) {
			return f.change(buf, d, sel.match, c, revision)
		}
		if f.after >= 0 {
			return nil
		}
		return f.begin(d, sel, snapshot)
	})
}

// watching is what all watches have in common; prepare makes the feed ready on a snapshot.
func (s *Server) watching(w http.ResponseWriter, r *http.Request, prepare func(*feed, *store.Snapshot) error) error {
	b, err := s.attached()
	if err != nil {
		return err
	}
	of, who := s.placesOf(r)
	leave, err := of.watches.enterAs(who)
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancel := b.bind(r.Context())
	defer cancel(nil)
	f := &feed{stream: s.newStream(w, r), cancel: cancel, metrics: s.metrics, every: s.limits.Keepalive}
	if f.after, err = afterOf(r); err != nil {
		return err
	}
	snapshot, err := snapshotAt(ctx, b.store, f.after)
	if err != nil {
		return err
	}
	if err := prepare(f, snapshot); err != nil {
		return f.stream.fail(snapshot.Revision(), err)
	}
	if f.after < 0 {
		f.after = snapshot.Revision()
	}
	return f.run(ctx, b.store)
}

// afterOf is the revision that a watch goes on from: -1 where none is named. Browsers name it in a header.
func afterOf(r *http.Request) (int64, error) {
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		if after, err := strconv.ParseInt(id, 10, 64); err == nil && after >= 0 {
			return after, nil
		}
		return 0, problemf(http.StatusBadRequest, "header Last-Event-ID: want a revision, found %q", clip(id))
	}
	return intQuery(r, "after", -1, -1, math.MaxInt64-1)
}

// snapshotAt is a snapshot of at least the revision. A revision that does not come is that of another store.
func snapshotAt(ctx context.Context, st store.Store, revision int64) (*store.Snapshot, error) {
	wait, cancel := context.WithTimeout(ctx, catchUp)
	defer cancel()
	snapshot, err := st.Snapshot(wait, max(revision, 0))
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil, problemf(http.StatusGone, "revision %d is not one that this swarm has had: read the objects again and watch from there", revision)
	}
	return snapshot, err
}

// feed is one watch.
type feed struct {
	stream *lineStream
	// add appends what one change means to this watch.
	add     func(buf []byte, c *store.Change, revision int64) ([]byte, error)
	cancel  context.CancelCauseFunc
	metrics *metrics
	every   time.Duration

	mu    sync.Mutex // of writing, which the timer does too
	after int64
	timer *time.Timer
	done  bool
}

// begin sends a put of each object that there is.
func (f *feed) begin(d v1.Descriptor, sel selection, s *store.Snapshot) error {
	buf := takeBuffer()
	defer giveBuffer(buf)
	for obj := range sel.objects(s, d) {
		if !sel.match(obj) {
			continue
		}
		var err error
		if *buf, err = f.put(*buf, typePut, d.Kind(), obj, s.Revision()); err != nil {
			return err
		}
		if len(*buf) >= flushAt {
			if err := f.stream.write(*buf); err != nil {
				return err
			}
			*buf = (*buf)[:0]
		}
	}
	return f.stream.write(f.stream.appendBookmark(*buf, s.Revision()))
}

func (f *feed) put(buf []byte, typ string, k v1.Kind, obj v1.Object, revision int64) ([]byte, error) {
	object := takeBuffer()
	defer giveBuffer(object)
	var err error
	*object, err = appendObject(*object, k, obj)
	return f.stream.appendEvent(buf, typ, revision, *object), err
}

// change tells what a change means to whoever sees only what matches.
func (f *feed) change(buf []byte, d v1.Descriptor, m match, c *store.Change, revision int64) ([]byte, error) {
	switch {
	case c.Kind != d.Kind():
		return buf, nil
	case c.New != nil && m(c.New):
		return f.put(buf, typePut, c.Kind, c.New, revision)
	case c.Old != nil && m(c.Old):
		return f.put(buf, typeDelete, c.Kind, c.Old, revision)
	}
	return buf, nil
}

// run sends batch after batch until something ends it.
func (f *feed) run(ctx context.Context, st store.Store) error {
	f.mu.Lock()
	first := settle
	if f.stream.begun {
		first = f.every
	}
	f.timer = time.AfterFunc(first, f.bookmark)
	f.mu.Unlock()
	err := f.batches(ctx, st)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done = true
	f.timer.Stop()
	cause := context.Cause(ctx)
	_, refused := errors.AsType[*v1.Problem](cause)
	if cause != nil && !refused && !errors.Is(cause, errDetached) {
		return cause // nobody is there to be told
	} else if cause != nil {
		err = cause
	}
	return f.stream.fail(f.after, err)
}

func (f *feed) batches(ctx context.Context, st store.Store) error {
	buf := takeBuffer()
	defer giveBuffer(buf)
	for batch, err := range st.Watch(ctx, f.after) {
		if err != nil {
			return err
		}
		if err := f.send(buf, &batch); err != nil {
			return err
		}
	}
	return store.ErrClosed
}

// send writes what a batch means to this watch.
func (f *feed) send(buf *[]byte, batch *store.Batch) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.metrics.saw(batch.Revision)
	*buf = (*buf)[:0]
	if f.stream.raw {
		if err := appendRaw(buf, rawBatch{Revision: batch.Revision, Ops: batch.Ops()}); err != nil {
			return err
		}
	} else if err := f.changes(buf, batch); err != nil {
		return err
	}
	f.after = batch.Revision
	if len(*buf) == 0 {
		return nil
	}
	f.timer.Reset(f.every)
	f.metrics.sent(batch.Revision)
	return f.stream.write(f.stream.appendMark(*buf, batch.Revision))
}

func (f *feed) changes(buf *[]byte, batch *store.Batch) error {
	for i := range batch.Changes {
		var err error
		if *buf, err = f.add(*buf, &batch.Changes[i], batch.Revision); err != nil {
			return err
		}
		if len(*buf) >= flushAt {
			if err := f.stream.write(*buf); err != nil {
				return err
			}
			*buf = (*buf)[:0]
		}
	}
	return nil
}

// bookmark tells an idle watch how far it is, and notices when nobody is there any more.
func (f *feed) bookmark() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.done {
		return
	}
	if err := f.stream.write(f.stream.appendBookmark(nil, f.after)); err != nil {
		f.cancel(err)
		return
	}
	f.timer.Reset(f.every)
}
