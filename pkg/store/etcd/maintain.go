package etcd

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

const (
	maintainEvery = 10 * time.Second
	// keepKeys is how many keys may be written before history is cut, however young, and keepBytes how much: large values would fill
	// the member's quota long before.
	keepKeys  = 200_000
	keepBytes = 256 << 20
	// A file is defragmented, which stops the member for as long as it takes to copy what is in use, where at least half
	// of it and so many bytes are free, no key was written for a while, and not too often.
	defragFree  = 128 << 20
	defragEvery = 10 * time.Minute
	quietTurns  = 3 // of maintainEvery
)

// mark is where the store was at a time.
type mark struct {
	at       time.Time
	revision int64
	keys     int64
	bytes    int64
}

// maintenance is the memory of the schedule.
type maintenance struct {
	marks     []mark // oldest first, no more than keepHistory/maintainEvery
	quiet     int
	defragged time.Time
	full      bool // it was told
}

// maintain compacts and defragments on a schedule until the store ends.
func (s *Store) maintain() {
	ticker := time.NewTicker(s.cfg.maintain)
	defer ticker.Stop()
	var m maintenance
	for {
		select {
		case <-ticker.C:
		case <-s.ctx.Done():
			return
		}
		now := mark{time.Now(), s.history.Newest().Revision(), s.counters.seen.Load(), s.counters.seenBytes.Load()}
		// One of several members is enough.
		if upTo := m.turn(now, s.cfg.KeepHistory); upTo > 0 && s.cfg.KeepHistory > 0 && (s.member == nil || s.member.leads()) {
			s.compact(upTo)
		}
		if s.member == nil {
			continue // when to stop a member of somebody's own is theirs to say
		}
		if s.full() || s.tight() {
			s.makeRoom(&m)
			continue
		}
		if total, used := s.size(s.ctx); m.shouldDefragment(now.at, total, used) {
			s.defragment(total)
			m.defragged = time.Now()
		}
	}
}

// turn remembers a mark, and returns the revision to compact to, or 0.
func (m *maintenance) turn(now mark, keep time.Duration) int64 {
	m.quiet++
	if n := len(m.marks); n > 0 && m.marks[n-1].revision != now.revision {
		m.quiet = 0
	}
	m.marks = append(m.marks, now)
	upTo := int64(0)
	for len(m.marks) > 1 && (now.at.Sub(m.marks[0].at) > keep || now.keys-m.marks[0].keys > keepKeys ||
		now.bytes-m.marks[0].bytes > keepBytes) {
		if m.marks[0].revision < now.revision {
			upTo = m.marks[0].revision
		}
		m.marks = m.marks[1:]
	}
	return upTo
}

func (m *maintenance) shouldDefragment(now time.Time, total, used int64) bool {
	return m.quiet >= quietTurns && now.Sub(m.defragged) >= defragEvery && total-used >= max(defragFree, used)
}

func (s *Store) compact(upTo int64) {
	ctx, cancel := context.WithTimeout(s.ctx, maintainEvery)
	defer cancel()
	_, err := s.client.Compact(ctx, upTo)
	switch {
	case err == nil:
		s.counters.compacted.Add(1)
		s.cfg.Log.Debug("compacted etcd's history", "revision", upTo)
	case errors.Is(err, rpctypes.ErrCompacted), s.ctx.Err() != nil:
	default:
		s.cfg.Log.Warn("etcd's history cannot be compacted", "revision", upTo, "err", err)
	}
}

func (s *Store) defragment(before int64) {
	start := time.Now()
	if err := s.member.server().Backend().Defrag(); err != nil {
		s.cfg.Log.Warn("etcd's file cannot be defragmented", "err", err)
		return
	}
	s.counters.defragmented.Add(1)
	after, _ := s.size(s.ctx)
	s.cfg.Log.Debug("defragmented etcd's file", "before", before, "after", after, "took", time.Since(start))
}
