package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/swarmd/swarmd/pkg/store"
)

// A member whose file has reached its quota raises an alarm, and from then on the cluster takes no writes. History that is compacted
// leaves the file as large as it was; so each member compacts, copies what is in use, and takes its own alarm back. What is in use is
// bounded below the quota by ourselves, for in that state nothing could be removed either: a removal writes, too.
const (
	// reserve is how much of the quota is for removals only: a twentieth, and some of the steps of 16 MB in which the file grows.
	reserveShare, reserveLeast = 20, 64 << 20
	// roomWithin bounds compacting. Defragmenting takes as long as copying what is in use.
	roomWithin = time.Minute
)

// errTight refuses what would make a state larger that is too large already.
var errTight = errors.New("the swarm's state fills etcd: remove services, configs or secrets that are not needed")

// full tells whether some member's space is used up.
func (s *Store) full() bool {
	for _, a := range s.member.server().Alarms() {
		if a.GetAlarm() == etcdserverpb.AlarmType_NOSPACE {
			return true
		}
	}
	return false
}

// tight tells whether so much is in use, with the history, that there is room for removals only.
func (s *Store) tight() bool {
	return s.member != nil && s.member.server().Backend().SizeInUse() >= s.cfg.quota-s.cfg.reserve()
}

func (c *Config) reserve() int64 { return max(c.quota/reserveShare, reserveLeast) }

// fits refuses a commit that there is no room for.
func (s *Store) fits(c *store.Commit) error {
	if !s.tight() || slices.ContainsFunc(c.Ops, func(o store.Op) bool { return o.Value == nil }) {
		return nil
	}
	return fmt.Errorf("%w: commit: %w", store.ErrUnavailable, errTight)
}

// makeRoom frees what can be freed in this member, and takes its alarm back where that is enough.
func (s *Store) makeRoom(m *maintenance) {
	if !m.full {
		m.full = true
		s.cfg.Log.Error("etcd's space is used up: it takes nothing until there is room; compacting and defragmenting", "quota", s.cfg.quota)
	}
	if s.cfg.KeepHistory > 0 {
		s.compactAll()
	}
	total, used := s.size(s.ctx)
	roomy := s.cfg.quota - s.cfg.reserve()/4 // below this the alarm is taken back
	if total >= roomy && used < roomy {
		s.defragment(total)
		m.defragged = time.Now()
		total, used = s.size(s.ctx)
	}
	if s.full() && total < roomy {
		s.disarm()
	}
	if m.full = s.full() || s.tight(); !m.full {
		s.cfg.Log.Warn("etcd has room again", "size", total, "quota", s.cfg.quota)
	} else if s.tight() {
		s.cfg.Log.Error(errTight.Error(), "in use", used, "quota", s.cfg.quota)
	}
}

// disarm takes this member's alarm back.
func (s *Store) disarm() {
	ctx, cancel := context.WithTimeout(s.ctx, maintainEvery)
	defer cancel()
	alarm := &clientv3.AlarmMember{MemberID: uint64(s.member.server().MemberID()), Alarm: etcdserverpb.AlarmType_NOSPACE}
	if _, err := s.client.AlarmDisarm(ctx, alarm); err != nil && s.ctx.Err() == nil {
		s.cfg.Log.Warn("etcd's alarm cannot be taken back; trying again", "err", err)
	}
}

// compactAll forgets all history, and returns when the space is free. Watches that were behind begin anew.
func (s *Store) compactAll() {
	ctx, cancel := context.WithTimeout(s.ctx, roomWithin)
	defer cancel()
	upTo := s.history.Newest().Revision()
	if _, err := s.client.Compact(ctx, upTo, clientv3.WithCompactPhysical()); err != nil {
		s.cfg.Log.Debug("etcd's history is not compacted now", "revision", upTo, "err", err) // another member may have
		return
	}
	s.counters.compacted.Add(1)
}
