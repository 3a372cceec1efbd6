package netplugin

import (
	"container/heap"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A meeting is two nodes that are to shake hands, with WireGuard's rules: who answers a handshake has forgotten its own, and none begins within
// five seconds of the one before or of an answer, unless it begins anew.
type meeting struct {
	rand  *rand.Rand
	now   time.Duration
	queue happenings
	sides [2]meetingSide
	next  int // handshake
}

type meetingSide struct {
	knows bool          // the other
	again bool          // its device was made once more
	own   int           // the handshake that it began and waits for, 0 for none
	last  time.Duration // when it began one or answered one
	met   bool
	// What keeps handshakes from crossing: when its latest was sent, and when it heard of the other's; see pkg/netplugin/wire.
	sent, told time.Duration
	key        int // of its latest
	lives      int // how often it began anew, by which a session that is not confirmed yet is gone
	heard, saw int // how much it heard of the other, and had at the look before
}

type happening struct {
	at time.Duration
	do func()
}

type happenings []happening

func (h happenings) Len() int           { return len(h) }
func (h happenings) Less(i, j int) bool { return h[i].at < h[j].at }
func (h happenings) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *happenings) Push(x any)        { *h = append(*h, x.(happening)) }
func (h *happenings) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}

const (
	rekeyTimeout = 5 * time.Second
	crossWithin  = 20 * time.Millisecond
	never        = -time.Hour
)

func (m *meeting) after(d time.Duration, do func()) {
	heap.Push(&m.queue, happening{m.now + d, do})
}

// within is any time up to one: rapid's own would mostly be short.
func (m *meeting) within(most time.Duration) time.Duration {
	return time.Duration(m.rand.Int64N(int64(most)))
}

// sends has something done at the other side, as late as a busy machine is.
func (m *meeting) sends(do func()) {
	m.after(m.within(time.Second), do)
}

func (m *meeting) begin(x int) {
	s, y := &m.sides[x], 1-x
	if m.now-s.last < rekeyTimeout {
		return
	}
	m.next++
	id := m.next // a greater one is a greater key
	if m.rand.IntN(2) == 0 {
		id = -id
	}
	s.own, s.last = id, m.now
	if m.now-s.told >= crossWithin {
		s.sent, s.key = m.now, id
		m.sends(func() { m.answer(y, id) })
	}
	m.after(rekeyTimeout+m.within(time.Second/3), func() {
		if s.own == id || !s.met {
			m.begin(x)
		}
	})
}

func (m *meeting) answer(y, id int) {
	s, x := &m.sides[y], 1-y
	if m.now-s.sent < crossWithin && s.key > id {
		return
	}
	s.told = m.now
	if !s.knows {
		return
	}
	s.own, s.last = 0, m.now
	s.heard++
	life := s.lives
	m.sends(func() {
		if begun := &m.sides[x]; begun.own == id {
			begun.own, begun.met = 0, true
			begun.heard++
			m.sends(func() { s.met = s.met || s.lives == life })
		}
	})
}

// look is what greet does.
func (m *meeting) look(x, look int) {
	s := &m.sides[x]
	if look == looks || s.met {
		return
	}
	if heard := s.heard != s.saw; heard {
		s.saw = s.heard
	} else {
		switch turnOf(look, x == 0 || s.again && look <= leading) {
		case begins:
			m.begin(x)
		case beginsAnew:
			s.own, s.last, s.lives = 0, -rekeyTimeout, s.lives+1
			m.begin(x)
		}
	}
	m.after(lookAfter(look+1), func() { m.look(x, look+1) })
}

// Two nodes that hear of each other at any two times, and whose tasks send at any time, have a session some seconds after the later one, whatever
// crosses or is lost, on a machine that takes up to a second for each message. With WireGuard's own retries it may be any number of times
// five seconds.
func TestHandshakesComeToAnEnd(t *testing.T) {
	const (
		patience = 13 * time.Second
		each     = 200
	)
	rapid.Check(t, func(t *rapid.T) {
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		for range each {
			m := &meeting{rand: random}
			later := m.arrange()
			for len(m.queue) > 0 && (!m.sides[0].met || !m.sides[1].met) {
				one := heap.Pop(&m.queue).(happening)
				if m.now = one.at; m.now > later+patience {
					t.Fatalf("no session %s after both knew of each other: %+v", patience, m.sides)
				}
				one.do()
			}
		}
	})
}

// arrange has the two hear of each other, and tells when the later one does.
func (m *meeting) arrange() (later time.Duration) {
	heard := [2]time.Duration{m.within(40 * time.Second), m.within(40 * time.Second)}
	if m.rand.IntN(2) == 0 {
		heard[1] = heard[0] + m.within(time.Second)
	}
	for x := range m.sides {
		s := &m.sides[x]
		s.last, s.sent, s.told = -rekeyTimeout, never, never
		s.again = m.rand.IntN(4) == 0
		m.after(heard[x], func() {
			s.knows = true
			if x == 0 {
				m.begin(x)
			}
			m.after(lookAfter(0), func() { m.look(x, 0) })
		})
		for range m.rand.IntN(20) {
			m.after(heard[x]+m.within(10*time.Second), func() {
				if !s.met {
					m.begin(x) // as a task's packet has it
				}
			})
		}
	}
	return max(heard[0], heard[1])
}
