package apiserver

import (
	"context"
	"net/http"
	"sync"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// lookAgain is how often the right to a stream is looked at where nothing says that it changed: a root may have been rotated away.
const lookAgain = time.Minute

// guests are the streams that nodes and users have open. They end when the right to them does.
type guests struct {
	backend *backend

	mu   sync.Mutex
	open map[string]map[*guest]struct{} // by the ID of the node or user
	seen int64                          // the newest revision that was looked at
}

// guest is one such stream.
type guest struct {
	who   string
	again func(*store.Snapshot) *caller
	may   rights
	ref   string
	end   context.CancelCauseFunc

	mu    sync.Mutex // of the timer
	timer *time.Timer
	left  bool
}

func newGuests(b *backend) *guests {
	return &guests{backend: b, open: make(map[string]map[*guest]struct{})}
}

// lasts tells whether the answer to a request goes on, and is cut off when the right to it goes. A session has rules of its own.
func (rt *route) lasts(r *http.Request) bool {
	return rt.resource != "sessions" && (rt.stream || watches(r, rt))
}

// guest makes a request end when its caller may not use the route any more: it was removed, has another role, or its token or
// certificate ended or is gone.
func (s *Server) guest(r *http.Request, rt *route) (*http.Request, func(), error) {
	c, b := callerOf(r.Context()), s.current.Load()
	if c.again == nil || b == nil {
		return r, func() {}, nil
	}
	ctx, end := context.WithCancelCause(r.Context())
	g := &guest{who: c.node + c.userID, again: c.again, may: rt.may, ref: r.PathValue("ref"), end: end}
	leave := func() {
		b.guests.leave(g)
		end(nil)
	}
	if err := b.guests.enter(ctx, g, c.ends); err != nil {
		leave()
		return r, func() {}, err
	}
	return r.WithContext(ctx), leave, nil
}

// enter takes note of a stream. It looks once more at the right to it: that may have gone since it was looked at.
func (d *guests) enter(ctx context.Context, g *guest, ends time.Time) error {
	d.mu.Lock()
	if d.open[g.who] == nil {
		d.open[g.who] = make(map[*guest]struct{})
	}
	d.open[g.who][g] = struct{}{}
	seen := d.seen
	d.mu.Unlock()
	snapshot, err := d.backend.store.Snapshot(ctx, seen)
	if err != nil {
		return err
	}
	if p := g.refused(snapshot); p != nil {
		return p
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.timer = time.AfterFunc(d.until(ends), func() { d.look(g, ends) })
	return nil
}

// until is the time to the next look at a right that ends.
func (d *guests) until(ends time.Time) time.Duration {
	if ends.IsZero() {
		return lookAgain
	}
	return min(lookAgain, max(ends.Sub(d.backend.server.now()), 0)+time.Millisecond)
}

// look is when the time of a right may be over.
func (d *guests) look(g *guest, ends time.Time) {
	if snapshot, err := d.backend.store.Snapshot(d.backend.ctx, 0); err == nil && g.check(snapshot) {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.left {
		g.timer.Reset(d.until(ends))
	}
}

func (d *guests) leave(g *guest) {
	d.mu.Lock()
	delete(d.open[g.who], g)
	if len(d.open[g.who]) == 0 {
		delete(d.open, g.who)
	}
	d.mu.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left = true
	if g.timer != nil {
		g.timer.Stop()
	}
}

// refused is why the right is gone, or nil where it is not.
func (g *guest) refused(s *store.Snapshot) *v1.Problem {
	if c := g.again(s); !g.may.allow(c, g.ref) {
		return c.refusal(g.may)
	}
	return nil
}

// check ends the stream where the right is gone, and tells whether it did.
func (g *guest) check(s *store.Snapshot) bool {
	p := g.refused(s)
	if p != nil {
		g.end(p)
	}
	return p != nil
}

// touch looks at the rights that a batch may have changed.
func (d *guests) touch(batch store.Batch) error {
	touched := d.concerned(batch)
	if len(touched) == 0 {
		return nil
	}
	snapshot, err := d.backend.store.Snapshot(d.backend.ctx, batch.Revision)
	if err != nil {
		return err
	}
	for _, g := range touched {
		g.check(snapshot)
	}
	return nil
}

func (d *guests) concerned(batch store.Batch) []*guest {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen = max(d.seen, batch.Revision)
	var touched []*guest
	for i := range batch.Changes {
		if k := batch.Changes[i].Kind; k != v1.KindUser && k != v1.KindNode {
			continue
		}
		for g := range d.open[batch.Changes[i].ID] {
			touched = append(touched, g)
		}
	}
	return touched
}

// reset looks at all rights, in what there is now: a stream may have begun since the revision, by a right that is newer.
func (d *guests) reset(revision int64) error {
	d.mu.Lock()
	d.seen = max(d.seen, revision)
	var all []*guest
	for _, some := range d.open {
		for g := range some {
			all = append(all, g)
		}
	}
	d.mu.Unlock()
	snapshot, err := d.backend.store.Snapshot(d.backend.ctx, revision)
	if err != nil {
		return err
	}
	for _, g := range all {
		g.check(snapshot)
	}
	return nil
}
