package daemon

import (
	"context"
	"errors"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
	"github.com/swarmd/swarmd/pkg/store/etcd"
)

// outageGrace is how long the nodes have to be back after the only manager was away: as long as one whose agent was restarted.
const outageGrace = 10 * time.Second

// keepPresences gives the nodes that had a session before the only manager was away the time to open another. Nobody could see whether
// they are there, so that none is missed for it. Where there are other managers, they could. It is called before the API is open: no
// session of now is among them.
func keepPresences(ctx context.Context, s *etcd.Store) error {
	ctx, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	members, err := s.Members(ctx)
	if err != nil || len(members) != 1 {
		return err
	}
	now, err := s.Sync(ctx)
	if err != nil {
		return err
	}
	snapshot, err := s.Snapshot(ctx, now)
	if err != nil || snapshot.Count(v1.KindPresence) == 0 {
		return err
	}
	lease, err := s.Grant(ctx, outageGrace)
	if err != nil {
		return err
	}
	var ops []store.Op
	for p := range store.All(snapshot, v1.Presences) {
		meta := p.Meta
		ops = append(ops, store.Op{Kind: v1.KindPresence, ID: p.Meta.ID, Section: v1.SectionStatus, Value: p.Status, Meta: &meta, Lease: lease,
			If: store.AtRevision(p.Meta.Revisions[v1.SectionStatus])})
	}
	if _, err = store.CommitAll(ctx, s, store.Commit{Ops: ops}); errors.Is(err, store.ErrConflict) {
		return nil // one was over meanwhile
	}
	return err
}
