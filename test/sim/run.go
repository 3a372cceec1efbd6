package sim

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/store"
)

// run is a pipeline on a manager.
type run struct {
	w      *World
	m      *manager
	name   string
	all    func(*store.Snapshot) []string
	engine *reconcile.Engine

	floor int64 // what rules must not be shown less than
	seen  int64 // up to where the watch has come
	keys  map[string]time.Duration
	fails map[string]int // in a row, by key
	alone int

	alarm    int           // counts the times that the next step was put on: an earlier one is void
	alarmAt  time.Duration // when it is due; 0 is not
	notified bool
	busy     bool
}

// shared is the store as a manager's engine has it: commits go through the world.
type shared struct {
	*store.Memory
	w *World
}

// Commit implements store.Store.
func (s shared) Commit(_ context.Context, c store.Commit) (int64, error) {
	return s.w.commit(actorLeader, c)
}

// start begins to decide, once the manager has read the store as it is then.
func (r *run) start() {
	life := r.m.life
	r.busy = true
	r.w.after(r.w.lag(), func() {
		if r.m.life != life {
			return
		}
		r.busy = false
		r.fresh()
		if r.w.o.NoFloor {
			r.seen = r.w.rng.Int64N(r.w.newest()) + 1
			r.floor = 0
		} else {
			r.seen = r.floor
		}
		for _, key := range r.all(r.w.at(r.seen)) {
			r.keys[key] = r.w.now
		}
		r.notify()
		r.work()
	})
}

// fresh raises the floor to what is there now.
func (r *run) fresh() {
	if !r.w.o.NoFloor {
		r.floor = r.w.newest()
	}
}

// notify has the watch yield what the pipeline has not seen, a while later.
func (r *run) notify() {
	if r.notified || !r.m.leads {
		return
	}
	r.notified = true
	r.w.after(r.w.lag(), func() {
		r.notified = false
		if r.m.leads {
			r.watch()
		}
	})
}

// watch sees some more of what changed, and wakes the keys.
func (r *run) watch() {
	upTo := r.w.newest()
	if r.seen < upTo {
		upTo = max(r.w.stale(r.seen+1), r.seen+1)
	}
	for _, batch := range r.w.changes(r.seen, upTo) {
		for _, c := range batch.changes {
			for _, key := range r.engine.Keys(batch.snapshot, c) {
				r.wake(key, r.w.now)
			}
		}
	}
	r.seen = upTo
	if r.seen < r.w.newest() {
		r.notify()
	}
	r.work()
}

func (r *run) wake(key string, at time.Duration) {
	if due, asked := r.keys[key]; !asked || at < due {
		r.keys[key] = at
	}
}

// work decides the keys that are due, as soon as the pipeline is free.
func (r *run) work() {
	if r.busy || !r.m.leads || len(r.keys) == 0 {
		return
	}
	next := time.Duration(1 << 62)
	for _, due := range r.keys {
		next = min(next, due)
	}
	next = max(next, r.w.now+time.Millisecond)
	if r.alarmAt > r.w.now && r.alarmAt <= next {
		return
	}
	r.alarm++
	r.alarmAt = next
	life, alarm := r.m.life, r.alarm
	r.w.after(next-r.w.now+r.w.between(0, 5*time.Millisecond), func() {
		if r.m.life == life && r.alarm == alarm {
			r.alarmAt = 0
			if !r.busy {
				r.step()
			}
		}
	})
}

// due takes the keys that are due.
func (r *run) due() []string {
	var keys []string
	for _, key := range slices.Sorted(maps.Keys(r.keys)) {
		if r.keys[key] <= r.w.now {
			keys = append(keys, key)
		}
	}
	r.w.rng.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	if r.alone > 0 && len(keys) > 0 {
		keys = keys[:1]
		r.alone--
	}
	for _, key := range keys {
		delete(r.keys, key)
	}
	return keys
}

// step decides, and commits a while later.
func (r *run) step() {
	keys := r.due()
	if len(keys) == 0 {
		r.work()
		return
	}
	view := r.w.stale(max(r.floor, r.seen))
	if r.w.o.NoFloor {
		view = r.seen
	}
	ops, again := r.engine.Step(r.w.time(r.m.skew), r.w.at(view), keys)
	life, fence := r.m.life, r.m.fence
	if len(ops) == 0 {
		r.done(keys, again)
		return
	}
	r.busy = true
	r.w.trace("manager %d decides at r%d: %s", r.m.number, view, describeOps(ops))
	r.w.checks.decided(r.w, r.w.at(view), ops)
	r.w.checks.jobs(r.w, r.w.at(view), ops)
	r.w.checks.order(r.w, r.w.at(view), ops)
	r.w.checks.moved(r.w, r.w.at(view), ops)
	r.w.after(r.w.lag(), func() {
		if r.m.life == life {
			r.busy = false
			r.commit(keys, ops, again, &fence)
		}
	})
}

// commit writes what was decided; or a part of it, or without learning that it did.
func (r *run) commit(keys []string, ops []store.Op, again map[string]time.Time, fence *store.Fence) {
	faulty := !r.w.calm
	switch {
	case faulty && r.w.chance(0.01):
		r.m.crash()
		return
	case faulty && r.w.chance(r.w.cuts):
		r.commitParts(keys, again, fence, r.parts(ops), r.w.chance(0.5))
		return
	}
	revision, err := r.engine.Commit(context.Background(), ops, fence)
	if err == nil && faulty && r.w.chance(0.02) {
		err = store.ErrUnavailable // it happened, and nobody knows
	}
	r.committed(keys, again, revision, err)
}

// committed goes on after a commit, or what there was of it.
func (r *run) committed(keys []string, again map[string]time.Time, revision int64, err error) {
	switch {
	case err == nil:
		if !r.w.o.NoFloor {
			r.floor = max(r.floor, revision)
		}
		r.done(keys, again)
	case errors.Is(err, store.ErrFenced):
		r.m.resign()
	default:
		r.w.trace("manager %d: %v", r.m.number, err)
		r.retry(keys)
	}
}

// part is some operations of a commit that are written together.
type part struct {
	ops  []store.Op
	last bool // of its phase
}

// parts cuts a commit as the engine does with one that is too large: into its phases, and those into parts, in whatever
// order within the phase.
func (r *run) parts(ops []store.Op) []part {
	var parts []part
	phases := reconcile.Phases(ops)
	if r.w.o.NoPhases {
		phases = [][]store.Op{slices.Clone(ops)}
	}
	for _, phase := range phases {
		r.w.rng.Shuffle(len(phase), func(i, j int) { phase[i], phase[j] = phase[j], phase[i] })
		for len(phase) > 0 {
			n := 1 + r.w.rng.IntN(len(phase))
			parts = append(parts, part{phase[:n:n], n == len(phase)})
			phase = phase[n:]
		}
	}
	return parts
}

// commitParts writes one part after the other, while others write too. It is cut off after any of them, or not: where the
// manager crashes, nobody is left to hear of it.
func (r *run) commitParts(keys []string, again map[string]time.Time, fence *store.Fence, parts []part, crashes bool) {
	end := r.w.rng.IntN(len(parts) + 1)
	r.w.trace("manager %d commits %d of %d parts", r.m.number, end, len(parts))
	r.busy = true
	life := r.m.life
	var revision int64
	var conflict error // what failed of the phase: the next is not begun
	var next func(i int)
	next = func(i int) {
		if r.m.life != life {
			return
		}
		r.busy = false
		switch {
		case i == end && i < len(parts) && crashes:
			r.m.crash()
			return
		case i == end && i < len(parts):
			r.committed(keys, again, revision, store.ErrUnavailable)
			return
		case i == len(parts):
			r.committed(keys, again, revision, conflict)
			return
		}
		at, err := r.engine.Commit(context.Background(), parts[i].ops, fence)
		revision = max(revision, at)
		if errors.Is(err, store.ErrConflict) {
			conflict, err = err, nil
		}
		if err != nil || conflict != nil && parts[i].last {
			r.committed(keys, again, revision, cmp.Or(err, conflict))
			return
		}
		r.busy = true
		r.w.after(r.w.lag(), func() { next(i + 1) })
	}
	next(0)
}

// done forgets that the keys failed, and has them decided again when they want to be.
func (r *run) done(keys []string, again map[string]time.Time) {
	for _, key := range keys {
		delete(r.fails, key)
		if at, ok := again[key]; ok {
			r.wake(key, r.w.now+max(0, at.Sub(r.w.time(r.m.skew))))
		}
	}
	r.work()
}

// retry has the keys decided again on a later read.
func (r *run) retry(keys []string) {
	for _, key := range keys {
		r.fails[key]++
		r.wake(key, r.w.now+min(5*time.Millisecond<<min(r.fails[key]-1, 20), 30*time.Second))
	}
	if len(keys) > 1 {
		r.alone = len(keys)
	}
	r.fresh()
	r.work()
}
