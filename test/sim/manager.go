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

// manager is one process that may lead: the real engine, driven as its Run drives it, without goroutines.
type manager struct {
	w      *World
	number int
	engine *reconcile.Engine
	skew   time.Duration
	life   int // counts crashes: what belongs to an earlier life does not happen

	leads bool // or believes to
	fence store.Fence
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
	m *manager
}

// Commit implements store.Store.
func (s shared) Commit(_ context.Context, c store.Commit) (int64, error) {
	return s.m.w.commit(actorLeader, c)
}

func newManager(w *World, number int) *manager {
	m := &manager{w: w, number: number, keys: make(map[string]time.Duration), fails: make(map[string]int)}
	m.engine = reconcile.New(shared{w.memory, m}, w.o.Rules, reconcile.Options{})
	return m
}

// elect takes the lead from whoever has it and gives it to one of the managers. The one that had it does not know at once.
func (w *World) elect() {
	for _, m := range w.managers {
		if m.leads {
			m.laterLost()
		}
	}
	w.memory.Depose()
	next := w.managers[w.rng.IntN(len(w.managers))]
	lead, err := w.memory.Campaign(context.Background(), "lead")
	if err != nil {
		w.fail("campaign: %v", err)
		return
	}
	w.stats.Leads++
	w.holder = next
	next.lead(lead.Fence())
}

// laterLost is how a manager that was deposed learns of it, if no commit tells it before.
func (m *manager) laterLost() {
	life, fence := m.life, m.fence
	m.w.after(m.w.between(0, 10*time.Second), func() {
		if m.life == life && m.leads && m.fence == fence {
			m.resign()
		}
	})
}

func (m *manager) resign() {
	m.w.trace("manager %d knows that it no longer leads", m.number)
	m.leads = false
	m.life++
	clear(m.keys)
	clear(m.fails)
	m.busy, m.alarmAt, m.alone = false, 0, 0
}

// lead begins a time of leading, once the manager has read the store as it is then.
func (m *manager) lead(fence store.Fence) {
	m.resign()
	m.w.trace("manager %d takes the lead (%d)", m.number, fence.Revision)
	life := m.life
	m.leads, m.fence = true, fence
	m.busy = true
	m.w.after(m.w.lag(), func() {
		if m.life != life {
			return
		}
		m.busy = false
		m.fresh()
		if m.w.o.NoFloor {
			m.seen = m.w.rng.Int64N(m.w.newest()) + 1
			m.floor = 0
		} else {
			m.seen = m.floor
		}
		for _, key := range reconcile.AllKeys(m.w.at(m.seen)) {
			m.keys[key] = m.w.now
		}
		m.notify()
		m.work()
	})
}

// fresh raises the floor to what is there now.
func (m *manager) fresh() {
	if !m.w.o.NoFloor {
		m.floor = m.w.newest()
	}
}

// crash is the end of the manager's process, and the start of the next one.
func (m *manager) crash() {
	m.w.trace("manager %d crashes", m.number)
	m.resign()
	if m.w.holder != m {
		return
	}
	m.w.holder = nil
	m.w.after(m.w.between(time.Second, 5*time.Second), func() { // its lease runs out
		if m.w.holder == nil {
			m.w.elect()
		}
	})
}

// notify has the manager's watch yield what it has not seen, a while later.
func (m *manager) notify() {
	if m.notified || !m.leads {
		return
	}
	m.notified = true
	m.w.after(m.w.lag(), func() {
		m.notified = false
		if m.leads {
			m.watch()
		}
	})
}

// watch sees some more of what changed, and wakes the keys.
func (m *manager) watch() {
	upTo := m.w.newest()
	if m.seen < upTo {
		upTo = max(m.w.stale(m.seen+1), m.seen+1)
	}
	for _, r := range m.w.changes(m.seen, upTo) {
		for _, c := range r.changes {
			for _, key := range m.engine.Keys(r.snapshot, c) {
				m.wake(key, m.w.now)
			}
		}
	}
	m.seen = upTo
	if m.seen < m.w.newest() {
		m.notify()
	}
	m.work()
}

func (m *manager) wake(key string, at time.Duration) {
	if due, asked := m.keys[key]; !asked || at < due {
		m.keys[key] = at
	}
}

// work decides the keys that are due, as soon as the manager is free.
func (m *manager) work() {
	if m.busy || !m.leads || len(m.keys) == 0 {
		return
	}
	next := time.Duration(1 << 62)
	for _, due := range m.keys {
		next = min(next, due)
	}
	next = max(next, m.w.now+time.Millisecond)
	if m.alarmAt > m.w.now && m.alarmAt <= next {
		return
	}
	m.alarm++
	m.alarmAt = next
	life, alarm := m.life, m.alarm
	m.w.after(next-m.w.now+m.w.between(0, 5*time.Millisecond), func() {
		if m.life == life && m.alarm == alarm {
			m.alarmAt = 0
			if !m.busy {
				m.step()
			}
		}
	})
}

// due takes the keys that are due.
func (m *manager) due() []string {
	var keys []string
	for _, key := range slices.Sorted(maps.Keys(m.keys)) {
		if m.keys[key] <= m.w.now {
			keys = append(keys, key)
		}
	}
	m.w.rng.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	if m.alone > 0 && len(keys) > 0 {
		keys = keys[:1]
		m.alone--
	}
	for _, key := range keys {
		delete(m.keys, key)
	}
	return keys
}

// step decides, and commits a while later.
func (m *manager) step() {
	keys := m.due()
	if len(keys) == 0 {
		m.work()
		return
	}
	view := m.w.stale(max(m.floor, m.seen))
	if m.w.o.NoFloor {
		view = m.seen
	}
	ops, again := m.engine.Step(m.w.time(m.skew), m.w.at(view), keys)
	life, fence := m.life, m.fence
	if len(ops) == 0 {
		m.done(keys, again)
		return
	}
	m.busy = true
	m.w.trace("manager %d decides at r%d: %s", m.number, view, describeOps(ops))
	m.w.after(m.w.lag(), func() {
		if m.life == life {
			m.busy = false
			m.commit(keys, ops, again, &fence)
		}
	})
}

// commit writes what was decided; or a part of it, or without learning that it did.
func (m *manager) commit(keys []string, ops []store.Op, again map[string]time.Time, fence *store.Fence) {
	faulty := !m.w.calm
	switch {
	case faulty && m.w.chance(0.01):
		m.crash()
		return
	case faulty && m.w.chance(m.w.cuts):
		m.commitParts(keys, again, fence, m.parts(ops), m.w.chance(0.5))
		return
	}
	revision, err := m.engine.Commit(context.Background(), ops, fence)
	if err == nil && faulty && m.w.chance(0.02) {
		err = store.ErrUnavailable // it happened, and nobody knows
	}
	m.committed(keys, again, revision, err)
}

// committed goes on after a commit, or what there was of it.
func (m *manager) committed(keys []string, again map[string]time.Time, revision int64, err error) {
	switch {
	case err == nil:
		if !m.w.o.NoFloor {
			m.floor = max(m.floor, revision)
		}
		m.done(keys, again)
	case errors.Is(err, store.ErrFenced):
		m.resign()
	default:
		m.w.trace("manager %d: %v", m.number, err)
		m.retry(keys)
	}
}

// part is some operations of a commit that are written together.
type part struct {
	ops  []store.Op
	last bool // of its phase
}

// parts cuts a commit as the engine does with one that is too large: into its phases, and those into parts, in whatever
// order within the phase.
func (m *manager) parts(ops []store.Op) []part {
	var parts []part
	phases := reconcile.Phases(ops)
	if m.w.o.NoPhases {
		phases = [][]store.Op{slices.Clone(ops)}
	}
	for _, phase := range phases {
		m.w.rng.Shuffle(len(phase), func(i, j int) { phase[i], phase[j] = phase[j], phase[i] })
		for len(phase) > 0 {
			n := 1 + m.w.rng.IntN(len(phase))
			parts = append(parts, part{phase[:n:n], n == len(phase)})
			phase = phase[n:]
		}
	}
	return parts
}

// commitParts writes one part after the other, while others write too. It is cut off after any of them, or not: where the
// manager crashes, nobody is left to hear of it.
func (m *manager) commitParts(keys []string, again map[string]time.Time, fence *store.Fence, parts []part, crashes bool) {
	end := m.w.rng.IntN(len(parts) + 1)
	m.w.trace("manager %d commits %d of %d parts", m.number, end, len(parts))
	m.busy = true
	life := m.life
	var revision int64
	var conflict error // what failed of the phase: the next is not begun
	var next func(i int)
	next = func(i int) {
		if m.life != life {
			return
		}
		m.busy = false
		switch {
		case i == end && i < len(parts) && crashes:
			m.crash()
			return
		case i == end && i < len(parts):
			m.committed(keys, again, revision, store.ErrUnavailable)
			return
		case i == len(parts):
			m.committed(keys, again, revision, conflict)
			return
		}
		r, err := m.engine.Commit(context.Background(), parts[i].ops, fence)
		revision = max(revision, r)
		if errors.Is(err, store.ErrConflict) {
			conflict, err = err, nil
		}
		if err != nil || conflict != nil && parts[i].last {
			m.committed(keys, again, revision, cmp.Or(err, conflict))
			return
		}
		m.busy = true
		m.w.after(m.w.lag(), func() { next(i + 1) })
	}
	next(0)
}

// done forgets that the keys failed, and has them decided again when they want to be.
func (m *manager) done(keys []string, again map[string]time.Time) {
	for _, key := range keys {
		delete(m.fails, key)
		if at, ok := again[key]; ok {
			m.wake(key, m.w.now+max(0, at.Sub(m.w.time(m.skew))))
		}
	}
	m.work()
}

// retry has the keys decided again on a later read.
func (m *manager) retry(keys []string) {
	for _, key := range keys {
		m.fails[key]++
		m.wake(key, m.w.now+min(5*time.Millisecond<<min(m.fails[key]-1, 20), 30*time.Second))
	}
	if len(keys) > 1 {
		m.alone = len(keys)
	}
	m.fresh()
	m.work()
}
