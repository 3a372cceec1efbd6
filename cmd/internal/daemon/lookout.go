package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/pkg/store"
	"github.com/swarmd/swarmd/pkg/store/etcd"
)

// lookout has a manager's disk and member follow what the state says of them: the unlock key, the roots, the settings of the log.
type lookout struct {
	m     *manager
	store *etcd.Store
}

// run looks again whenever what concerns it changes.
func (l *lookout) run(ctx context.Context) {
	changed := make(chan struct{}, 1)
	var watching backoff
	go func() {
		for ctx.Err() == nil {
			if err := l.watch(ctx, changed); ctx.Err() == nil && !errors.Is(err, store.ErrCompacted) {
				sleep(ctx, watching.pause())
			}
		}
	}()
	var retry backoff
	for {
		wait := lookAgain
		if err := l.look(ctx); err != nil && ctx.Err() == nil {
			l.m.n.log.Error("this manager's disk is not what the swarm's settings say; trying again", "err", err)
			wait = retry.pause()
		} else {
			retry.reset()
		}
		timer := time.NewTimer(wait)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

func (l *lookout) watch(ctx context.Context, changed chan<- struct{}) error {
	s, err := l.store.Snapshot(ctx, 0)
	if err != nil {
		return err
	}
	for batch, err := range l.store.Watch(ctx, s.Revision()) {
		if err != nil {
			return err
		}
		if slices.ContainsFunc(batch.Changes, concerns) {
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	}
	return nil
}

// concerns tells whether a manager's disk or member may have to follow. Presence is for whose turn it is to start anew.
func concerns(c store.Change) bool {
	switch c.Kind {
	case v1.KindAuthority, v1.KindCluster, v1.KindNode, v1.KindPresence:
		return true
	}
	return false
}

// look compares once, and does what is to be done.
func (l *lookout) look(ctx context.Context) error {
	s, err := l.store.Snapshot(ctx, 0)
	if err != nil {
		return err
	}
	var errs []error
	if a, ok := store.Get(s, v1.Authorities, v1.AuthorityName); ok && a.Spec != nil {
		errs = append(errs, l.m.n.reseal(l.store, a.Spec.UnlockKey))
		if l.distrusts(a) && l.isTurn(s, a) {
			l.m.restart("another root certificate")
		}
	}
	if c, ok := store.Get(s, v1.Clusters, v1.ClusterName); ok && c.Spec != nil {
		errs = append(errs, l.followRaft(c.Spec.Raft))
	}
	return errors.Join(errs...)
}

// lock has the keys on the disk locked as all that was decided before says.
func (l *lookout) lock(ctx context.Context) error {
	revision, err := l.store.Sync(ctx)
	if err != nil {
		return err
	}
	s, err := l.store.Snapshot(ctx, revision)
	if err != nil {
		return err
	}
	if a, ok := store.Get(s, v1.Authorities, v1.AuthorityName); ok && a.Spec != nil {
		return l.m.n.reseal(l.store, a.Spec.UnlockKey)
	}
	return nil
}

// followRaft remembers the settings of the log for the next start, when they count.
func (l *lookout) followRaft(want *v1.RaftSettings) error {
	had := l.m.n.remembers().Raft
	if want == nil && had == nil || want != nil && had != nil && *want == *had {
		return nil
	}
	return l.m.n.change(func(id *identity) { id.Raft = want })
}

// restart has the member start anew.
func (m *manager) restart(why string) {
	select {
	case m.again <- struct{}{}:
		m.n.log.Info("this node's member of the managers' store is to start anew", "why", why)
	default:
	}
}

// distrusts tells whether the member knows the others by other roots than it should: it reads them once, when it starts. While a
// rotation is under way the settled root is enough, for all certificates lead to it.
func (l *lookout) distrusts(a *v1.Authority) bool {
	settled := ca.Digest(v1.SettledRoot(a))
	trusted := l.m.trusted()
	if v1.Rotating(a) {
		return !slices.Contains(trusted, settled)
	}
	return !slices.Equal(trusted, []string{settled}) && slices.Equal(l.m.n.certificate().RootDigests(), []string{settled})
}

// isTurn tells whether this manager may start its member anew: one at a time, in the order of their indexes. A manager that is not
// there is not waited for; it reads the roots when it comes.
func (l *lookout) isTurn(s *store.Snapshot, a *v1.Authority) bool {
	id := l.m.n.remembers().NodeID
	self, ok := store.Get(s, v1.Nodes, id)
	if !ok {
		return false
	}
	settled := ca.Digest(v1.SettledRoot(a))
	for o := range store.All(s, v1.Nodes) {
		if o.Spec.Role != v1.RoleManager || o.Spec.Index >= self.Spec.Index {
			continue
		}
		if _, there := store.Get(s, v1.Presences, o.Meta.ID); !there {
			continue
		}
		if o.Status == nil || o.Status.Description.TLS == nil {
			continue
		}
		roots := o.Status.Description.TLS.Roots
		if ready := slices.Equal(roots, []string{settled}) || v1.Rotating(a) && slices.Contains(roots, settled); !ready {
			return false
		}
	}
	return true
}

// reseal locks the node's key and the data keys with another unlock key, or with none. A crash leaves both with keys that open: see
// certificates, and load and open in the order in which this writes.
func (n *node) reseal(s *etcd.Store, unlockKey string) error {
	next, err := parseUnlock(unlockKey)
	if err != nil {
		return err
	}
	return n.relock(next, func() error {
		if err := s.Rewrap(next); err != nil {
			return err
		}
		n.disk.tell("remove " + copiesName)
		return n.dropCopiesNow()
	})
}

// seal locks the node's key for a member that is about to be made, whose data keys will be locked with the same from the start.
func (n *node) seal(unlockKey string) error {
	next, err := parseUnlock(unlockKey)
	if err != nil || next == nil {
		return err
	}
	return n.relock(next, func() error { return nil })
}

// unseal opens the node's key for good: workers are not locked.
func (n *node) unseal() error { return n.relock(nil, func() error { return nil }) }

func parseUnlock(text string) ([]byte, error) {
	if text == "" {
		return nil, nil
	}
	key, err := ca.ParseUnlockKey(text)
	if err != nil {
		return nil, fmt.Errorf("the swarm's unlock key: %w", err)
	}
	return key, nil
}

// relock seals the node's key with another key, nil for none, and has the rest done before that counts.
func (n *node) relock(next []byte, rest func() error) error {
	n.files.Lock()
	defer n.files.Unlock()
	n.mu.Lock()
	had, cert := n.unlock, n.cert
	n.mu.Unlock()
	if cert == nil || slices.Equal(had, next) && n.certs.sealedBy(next) {
		return nil
	}
	_, key, _ := cert.PEM()
	if err := n.certs.stage(key, next); err != nil {
		return err
	}
	if err := rest(); err != nil {
		return err
	}
	if err := n.certs.settle(); err != nil {
		return err
	}
	n.mu.Lock()
	n.unlock = next
	n.mu.Unlock()
	n.log.Info("the keys of this node are locked anew", "autolock", next != nil)
	return nil
}
