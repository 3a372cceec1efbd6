package sim

import (
	"maps"
	"slices"
	"time"
)

// fails breaks something now and then, until the faults stop.
func (w *World) fails() {
	if w.calm {
		return
	}
	w.after(w.between(50*time.Millisecond, 4*time.Second), func() {
		if !w.calm {
			w.fault()
			w.fails()
		}
	})
}

// fault breaks one thing.
func (w *World) fault() {
	m := w.machines[w.rng.IntN(len(w.machines))]
	manager := w.managers[w.rng.IntN(len(w.managers))]
	switch p := w.rng.IntN(100); {
	case p < 30:
		w.exitSome(m)
	case p < 42:
		w.elect()
	case p < 47:
		manager.crash()
	case p < 57:
		m.crash()
	case p < 60:
		m.reboot()
	case p < 72:
		m.isolate()
	case p < 80:
		m.disconnect()
	case p < 84:
		m.miss()
	case p < 92:
		manager.skew = w.between(-2*time.Minute, 2*time.Minute)
		w.trace("manager %d: the clock is off by %v", manager.number, manager.skew)
	default:
		m.skew = w.between(-2*time.Minute, 2*time.Minute)
		w.trace("%s: the clock is off by %v", m.id, m.skew)
	}
}

// exitSome ends a container by itself.
func (w *World) exitSome(m *machine) {
	running := slices.DeleteFunc(slices.Sorted(maps.Keys(m.containers)), func(id string) bool { return !m.containers[id].running })
	if len(running) > 0 {
		m.exit(running[w.rng.IntN(len(running))], w.rng.IntN(3))
	}
}

// isolate cuts a machine off for a while.
func (m *machine) isolate() {
	if m.cut {
		return
	}
	m.w.trace("%s is cut off", m.id)
	m.cut = true
	m.disconnect()
	m.w.after(m.w.between(time.Second, 30*time.Second), m.join)
}

// join ends the isolation.
func (m *machine) join() {
	if !m.cut || m.dead {
		return
	}
	m.w.trace("%s is connected again", m.id)
	m.cut = false
	m.connect()
	m.tell()
}

// heal ends all faults.
func (w *World) heal() {
	w.trace("the faults stop")
	w.calm = true
	for _, m := range w.machines {
		if w.fate == fateDead && m.number == spare {
			m.die()
			continue
		}
		m.join()
		m.restart()
		m.connect()
	}
	if w.holder == nil {
		w.elect()
	}
}

// die takes a machine away for ever.
func (m *machine) die() {
	m.w.trace("%s dies", m.id)
	m.cut, m.dead = true, true
	m.disconnect()
}
