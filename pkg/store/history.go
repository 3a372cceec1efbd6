package store

import (
	"context"
	"iter"
	"sync"
)

// History is the newest snapshot and the latest batches that led to it, for a store's watches and waiters. A watch pulls
// from it at its own pace, so that a slow one costs nothing and is told when it has fallen behind. The zero History is
// not usable; make one with NewHistory.
type History struct {
	mu       sync.Mutex
	snapshot *Snapshot
	batches  []Batch // ring, oldest at head
	head     int
	held     int // changes in all batches
	limit    int // of held, or what the snapshot holds, if that is more
	oldest   int64
	changed  chan struct{} // closed at the next change
	err      error         // the end, or why it is broken
	closed   bool
}

// HistoryLimit is how many changes a store remembers at least, where there are as many. What is remembered costs memory that is there
// for good, so it grows only with what is there for good, too: one change for each object, so that a watch can be as slow as a write
// of everything takes.
const HistoryLimit = 10_000

// NewHistory begins with a snapshot. It keeps the latest batch at least, and at most as many changes (or one batch) as limit says, or
// as there are objects, if these are more.
func NewHistory(s *Snapshot, limit int) *History {
	return &History{snapshot: s, limit: limit, oldest: s.revision, changed: make(chan struct{})}
}

// Newest is the newest snapshot.
func (h *History) Newest() *Snapshot {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.snapshot
}

// Append adds the batches that led to the snapshot, and wakes who waits for it. Batches without changes are not kept; the
// snapshot's revision is passed by all the same.
func (h *History) Append(s *Snapshot, batches ...Batch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil {
		return
	}
	h.snapshot = s
	for _, b := range batches {
		if len(b.Changes) > 0 {
			h.batches = append(h.batches, b)
			h.held += len(b.Changes)
		}
	}
	for limit := max(h.limit, s.size()); h.held > limit && len(h.batches)-h.head > 1; {
		h.held -= len(h.batches[h.head].Changes)
		h.oldest = h.batches[h.head].Revision
		h.batches[h.head] = Batch{}
		h.head++
	}
	if h.head > len(h.batches)/2 {
		h.batches = append(h.batches[:0:0], h.batches[h.head:]...)
		h.head = 0
	}
	h.wake()
}

// Reset replaces the snapshot without the batches that led to it: watches that were not yet at its revision end with
// ErrCompacted. It mends what Break broke.
func (h *History) Reset(s *Snapshot) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	h.snapshot, h.batches, h.head, h.held, h.oldest, h.err = s, nil, 0, 0, s.revision, nil
	h.wake()
}

// Break fails all waiting and watching with the error until Reset.
func (h *History) Break(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.err = err
		h.wake()
	}
}

// Close ends all waiting and watching with the error, for good.
func (h *History) Close(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.err, h.closed = err, true
		h.wake()
	}
}

func (h *History) wake() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// Wait is the newest snapshot once it is at least at the revision.
func (h *History) Wait(ctx context.Context, atLeast int64) (*Snapshot, error) {
	for {
		h.mu.Lock()
		s, changed, err := h.snapshot, h.changed, h.err
		h.mu.Unlock()
		switch {
		case err != nil:
			return nil, err
		case s.revision >= atLeast:
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Watch is Store.Watch.
func (h *History) Watch(ctx context.Context, after int64) iter.Seq2[Batch, error] {
	return func(yield func(Batch, error) bool) {
		for {
			batches, changed, err := h.since(after)
			if err != nil {
				yield(Batch{}, err)
				return
			}
			for _, b := range batches {
				if err := context.Cause(ctx); err != nil {
					yield(Batch{}, err)
					return
				}
				if !yield(b, nil) {
					return
				}
				after = b.Revision
			}
			if len(batches) > 0 {
				continue
			}
			select {
			case <-changed:
			case <-ctx.Done():
				yield(Batch{}, context.Cause(ctx))
				return
			}
		}
	}
}

// since are the batches after a revision, a bounded number at a time.
func (h *History) since(after int64) ([]Batch, <-chan struct{}, error) {
	const most = 256
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil {
		return nil, nil, h.err
	}
	if after < h.oldest {
		return nil, nil, ErrCompacted
	}
	live := h.batches[h.head:]
	low, high := 0, len(live)
	for low < high {
		if mid := (low + high) / 2; live[mid].Revision > after {
			high = mid
		} else {
			low = mid + 1
		}
	}
	live = live[low:]
	return append([]Batch(nil), live[:min(most, len(live))]...), h.changed, nil
}
