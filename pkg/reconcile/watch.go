package reconcile

import (
	"context"
	"errors"
	"runtime/debug"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// all wakes every key, after whatever is more urgent.
func (r *run) all(s *store.Snapshot) {
	for _, key := range r.engine.pipeline.AllKeys(s) {
		r.queue.wakeLow(key)
	}
}

// resync wakes every key now and then, so that a wake that was missed costs minutes and not a service.
func (r *run) resync(ctx context.Context) error {
	tick := time.NewTicker(r.engine.options.Resync)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		s, err := r.fresh(ctx)
		if err != nil {
			return err // closed, or ctx
		}
		r.all(s)
	}
}

// watch wakes the keys of what changes.
func (r *run) watch(ctx context.Context, after int64) error {
	for wait := minBackoff; ; {
		for b, err := range r.engine.store.Watch(ctx, after) {
			if err == nil {
				err = r.changed(ctx, b)
			}
			if err == nil {
				after, wait = b.Revision, minBackoff
				continue
			}
			if ctx.Err() != nil || errors.Is(err, store.ErrClosed) {
				return err
			}
			r.engine.log.Warn("the watch broke, starting over", "error", err, "revision", after)
			break
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
		wait = min(2*wait, maxBackoff)
		s, err := r.fresh(ctx)
		if err != nil {
			return err
		}
		after = s.Revision()
		r.all(s) // what was missed is unknown
	}
}

func (r *run) changed(ctx context.Context, b store.Batch) error {
	s, err := r.engine.store.Snapshot(ctx, b.Revision)
	if err != nil {
		return err
	}
	r.raise(b.Revision)
	woken := make(map[string]bool) // and whether urgently
	for _, c := range b.Changes {
		urgent := asked(c) || befell(c)
		for _, rule := range r.engine.pipeline.Rules {
			for _, key := range r.keys(rule, s, c) {
				if was, again := woken[key]; !again || urgent && !was {
					woken[key] = urgent
					r.queue.wake(key, urgent)
				}
			}
		}
	}
	return nil
}

// asked tells whether a change is what a user asked of a service. Those are few, and somebody waits for them: they are not
// held back, however dear the service is.
func asked(c store.Change) bool {
	if c.Kind != v1.KindService || c.New == nil {
		return false
	}
	return c.Old == nil || c.Old.GetMeta().Revisions[v1.SectionSpec] != c.New.GetMeta().Revisions[v1.SectionSpec]
}

// befell tells whether a change is one of a node that every service on it has to hear of at once: it is lost, or back, or was
// drained. Those are few too: nodes that are lost together are written together.
func befell(c store.Change) bool {
	before, after, ok := NodeOf(c)
	return ok && before != nil && (v1.NodeLost(before) != v1.NodeLost(after) || v1.NodeDrained(before) != v1.NodeDrained(after))
}

// keys are the rule's, and none if it panics: the resync makes up for it.
func (r *run) keys(rule Rule, s *store.Snapshot, c store.Change) (keys []string) {
	defer func() {
		if p := recover(); p != nil {
			r.engine.metrics.failed(rule.Name())
			r.engine.log.Error("a rule panicked over a change", "rule", rule.Name(), "kind", c.Kind, "id", c.ID, "panic", p,
				"stack", string(debug.Stack()))
		}
	}()
	return rule.Keys(s, c)
}
