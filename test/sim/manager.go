package sim

import (
	"context"
	"time"

	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/store"
)

// manager is one process that may lead, and that serves agents while it does or not: the real engines, driven as their Run
// drives them, without goroutines.
type manager struct {
	w      *World
	number int
	skew   time.Duration
	life   int // counts crashes: what belongs to an earlier life does not happen
	runs   []*run

	leads bool // or believes to
	fence store.Fence
}

func newManager(w *World, number int) *manager {
	m := &manager{w: w, number: number}
	for _, p := range w.o.Pipelines {
		m.runs = append(m.runs, &run{w: w, m: m, name: p.Name, all: p.AllKeys, keys: make(map[string]time.Duration), fails: make(map[string]int),
			engine: p.Engine(shared{w.memory, w}, reconcile.Options{})})
	}
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
	w.lengthenLeases()
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

// resign ends a time of leading for all pipelines, as soon as one of them learns that it is over.
func (m *manager) resign() {
	m.w.trace("manager %d knows that it no longer leads", m.number)
	m.leads = false
	m.life++
	for _, r := range m.runs {
		clear(r.keys)
		clear(r.fails)
		r.busy, r.alarmAt, r.alone = false, 0, 0
	}
}

// lead begins a time of leading.
func (m *manager) lead(fence store.Fence) {
	m.resign()
	m.w.trace("manager %d takes the lead (%d)", m.number, fence.Revision)
	m.leads, m.fence = true, fence
	for _, r := range m.runs {
		r.start()
	}
}

// crash is the end of the manager's process, and the start of the next one.
func (m *manager) crash() {
	m.w.trace("manager %d crashes", m.number)
	m.resign()
	m.w.servers[m.number].crash()
	if m.w.holder != m {
		return
	}
	m.w.holder = nil
	m.w.after(m.w.between(time.Second, 5*time.Second), func() { // until the others miss it
		if m.w.holder == nil {
			m.w.elect()
		}
	})
}

// notify has the managers' watches yield what they have not seen, a while later.
func (m *manager) notify() {
	for _, r := range m.runs {
		r.notify()
	}
}
