package daemon

import (
	"context"
	"os"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
	"github.com/swarmd/swarmd/pkg/store/etcd"
)

// copiesName is the folder of the scheduled copies of the state.
const copiesName = "snapshots"

const (
	// copiesLook is how often the schedule is looked at, and copyWithin how long one copy may take.
	copiesLook = 15 * time.Second
	copyWithin = 10 * time.Minute
	// copySoon is how long after a manager started, or failed to make a copy, the next is made at the earliest.
	copySoon = time.Minute
)

// keepCopies copies the state to the manager's disk by the swarm's schedule, until ctx ends.
func (m *manager) keepCopies(ctx context.Context, s *etcd.Store) {
	next := time.Now().Add(copySoon)
	for sleep(ctx, copiesLook) {
		m.n.dropCopies()
		every, keep := schedule(ctx, s)
		if every <= 0 || time.Now().Before(next) || time.Since(m.n.d.newestCopy()) < every {
			continue
		}
		copying, cancel := context.WithTimeout(ctx, copyWithin)
		path, err := s.SnapshotTo(copying, m.n.disk.path(copiesName), keep)
		cancel()
		switch {
		case ctx.Err() != nil:
		case err != nil:
			m.n.log.Error("cannot copy the swarm's state", "folder", m.n.disk.path(copiesName), "err", err)
			next = time.Now().Add(copySoon)
		default:
			m.n.log.Info("copied the swarm's state", "file", path)
		}
	}
}

// dropCopies removes the copies from before the manager's keys were last locked or opened, whatever came in between. A crash cannot
// leave them for long: a node begins with this, also one that is locked.
func (n *node) dropCopies() {
	if err := n.tryDropCopies(); err != nil {
		n.log.Error("cannot remove the copies of the swarm's state from before its keys were locked anew; trying again",
			"folder", n.disk.path(copiesName), "err", err)
	}
}

func (n *node) tryDropCopies() error {
	n.files.Lock()
	defer n.files.Unlock()
	return n.dropCopiesNow()
}

// dropCopiesNow is called with files held.
func (n *node) dropCopiesNow() error {
	return etcd.DropCopies(n.storeConfig(n.remembers(), nil), n.disk.path(copiesName))
}

// schedule is how often the state is copied, not at all where that is not positive, and how many copies are kept.
func schedule(ctx context.Context, s store.Store) (every time.Duration, keep int) {
	every, keep = v1.DefaultSnapshotEvery, v1.DefaultSnapshotKeep
	snapshot, err := s.Snapshot(ctx, 0)
	if err != nil {
		return 0, keep
	}
	c, ok := store.Get(snapshot, v1.Clusters, v1.ClusterName)
	if !ok || c.Spec == nil || c.Spec.Snapshots == nil {
		return every, keep
	}
	if e := c.Spec.Snapshots.Every; e != nil {
		every = time.Duration(*e)
	}
	if k := c.Spec.Snapshots.Keep; k != nil {
		keep = int(*k)
	}
	return every, keep
}

// newestCopy is when the newest copy was made, long ago where there is none.
func (d *Daemon) newestCopy() time.Time {
	entries, _ := os.ReadDir(d.path(copiesName)) // where the folder cannot be read, making a copy says why
	newest := time.Time{}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.ModTime().After(newest) {
			newest = info.ModTime()
		}
	}
	return newest
}
