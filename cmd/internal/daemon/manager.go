package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/apiserver"
	"github.com/swarmd/swarmd/pkg/store"
	"github.com/swarmd/swarmd/pkg/store/etcd"
)

// manager is a node's part among the managers while it runs: the port for the other nodes, the member of the managers' store, the
// API on it, and the rules while this member leads.
//
// It starts on its own time, for without enough other managers its member cannot; what fails is tried again. It ends by itself
// when its member was removed, or is locked.
type manager struct {
	n      *node
	door   net.Listener // opened already, or nil
	peers  atomic.Pointer[http.Handler]
	again  chan struct{} // holds one: start the member anew
	cancel context.CancelFunc
	done   chan struct{}
	ended  error // once done: why

	mu      sync.Mutex
	store   *etcd.Store // nil while the API is not open
	roots   []string    // that the member trusts
	heard   time.Time   // when the member last had a leader, or when this began
	problem error       // why the API is not open
	resumes bool        // the API is closed for a moment only
}

// startManager is called with mu held.
func (n *node) startManager(door net.Listener) {
	ctx, cancel := context.WithCancel(context.Background())
	m := &manager{n: n, door: door, again: make(chan struct{}, 1), cancel: cancel, done: make(chan struct{}), heard: time.Now()}
	n.manager = m
	n.tellChange()
	go func() {
		defer n.poke()
		defer n.d.parts.begin("the manager")()
		defer close(m.done)
		m.ended = m.run(ctx)
	}()
}

// stop ends the manager and waits for it.
func (m *manager) stop() {
	m.cancel()
	<-m.done
}

// over tells whether it ended.
func (m *manager) over() bool {
	select {
	case <-m.done:
		return true
	default:
		return false
	}
}

// up tells whether the API is open.
func (m *manager) up() bool { return m.opened() != nil }

// opened is the store on which the API is open, or nil.
func (m *manager) opened() *etcd.Store {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.store
}

// hasReachable tells whether the managers' leader hears of one beside the node itself.
func (m *manager) hasReachable(ctx context.Context, id string) bool {
	opened := m.opened()
	if opened == nil {
		return false
	}
	snapshot, err := opened.Snapshot(ctx, 0)
	if err != nil {
		return false
	}
	for o := range store.All(snapshot, v1.Members) {
		if o.Meta.ID != id && o.Status.Voter && o.Status.Reachable {
			return true
		}
	}
	return false
}

// trusted are the digests of the roots by which the member knows the other managers; they count from its start on.
func (m *manager) trusted() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.roots
}

// trouble is why the API is not open, or nil.
func (m *manager) trouble() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.problem
}

// run keeps the manager going until ctx ends, or it cannot be one any more.
func (m *manager) run(ctx context.Context) error {
	shut, err := m.openDoor(ctx)
	if err != nil {
		return err
	}
	defer shut()
	var retry backoff
	for {
		began := time.Now()
		err := m.serve(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			retry.reset()
			continue // it was asked to begin anew
		case errors.Is(err, etcd.ErrRemoved), errors.Is(err, etcd.ErrLocked), errors.Is(err, etcd.ErrWrongKey), errors.Is(err, errLost):
			return err
		}
		m.stumble(err)
		if time.Since(began) > time.Minute {
			retry.reset()
		}
		if !sleep(ctx, retry.pause()) {
			return nil
		}
	}
}

// stumble notes what the manager cannot do just now.
func (m *manager) stumble(err error) {
	m.n.log.Error("the manager part of this node does not run; trying again", "err", err)
	m.mu.Lock()
	m.problem, m.resumes = err, false
	m.mu.Unlock()
	m.n.mu.Lock()
	m.n.tellChange()
	m.n.mu.Unlock()
}

// serve runs the member and the API on it, until one of them fails, ctx ends, or it is to begin anew, which is no error.
func (m *manager) serve(ctx context.Context) error {
	drainChannel(m.again)
	metrics := prometheus.NewRegistry() // of this store; another one begins anew
	s, err := m.start(ctx, newStoreMetrics(metrics))
	if err != nil {
		return err
	}
	defer m.n.closeStore(s)
	defer m.peers.Store(nil)
	if err := m.n.change(func(id *identity) { id.Member = memberStarted }); err != nil {
		return err
	}
	m.n.d.managing.now.Store(metrics)
	defer m.n.d.managing.now.Store(nil)
	live, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	watch := &lookout{m, s}
	if err := watch.look(live); err != nil {
		return err
	}
	if len(m.n.d.o.EtcdEndpoints) == 0 {
		if err := keepPresences(live, s); err != nil {
			m.n.log.Warn("nodes may be missed that were there before this manager was away", "err", err)
		}
	}
	m.n.d.server.Attach(s, m.backing(watch))
	defer m.n.d.server.Detach()
	m.setStore(s)
	defer m.setStore(nil)
	m.n.log.Info("this node serves the swarm's API as a manager")
	for name, do := range map[string]func(){
		"the rules":                  func() { m.lead(live, s, metrics) },
		"following the swarm's keys": func() { watch.run(live) },
		"copying the state":          func() { m.keepCopies(live, s) },
		"listening for a leader":     func() { m.listen(live, s) },
	} {
		work.Go(func() {
			defer m.n.d.parts.begin(name)()
			do()
		})
	}
	select {
	case <-ctx.Done():
		return nil
	case <-m.again:
		m.n.log.Info("this node's member of the managers' store starts anew")
		m.resume(true)
		return nil
	case <-s.Done():
		return fmt.Errorf("the swarm's store ended: %w", s.Err())
	}
}

// resume tells whether the API is closed, but will be open again in a moment.
func (m *manager) resume(soon bool) {
	m.mu.Lock()
	m.resumes = soon
	m.mu.Unlock()
}

func drainChannel(c chan struct{}) {
	select {
	case <-c:
	default:
	}
}

func (m *manager) setStore(s *etcd.Store) {
	m.mu.Lock()
	m.store = s
	if s != nil {
		m.problem, m.heard, m.resumes = nil, time.Now(), false
	}
	m.mu.Unlock()
	m.n.mu.Lock()
	m.n.tellChange()
	m.n.mu.Unlock()
	m.n.poke()
}

// backing is what the API needs beside the store.
func (m *manager) backing(l *lookout) apiserver.Backing {
	b := apiserver.Backing{Node: m.n.remembers().NodeID, Identity: m.n.certificate()}
	if len(m.n.d.o.EtcdEndpoints) == 0 {
		b.Members = members{l.store, l.lock}
	}
	return b
}

// errLost says that the state of a member is gone.
var errLost = errors.New("the member's state is gone")

// start starts the member, as a new one where it has none yet.
func (m *manager) start(ctx context.Context, metrics *storeMetrics) (*etcd.Store, error) {
	n := m.n
	id := n.remembers()
	c := n.storeConfig(id, metrics)
	if len(n.d.o.EtcdEndpoints) > 0 {
		return etcd.Start(ctx, c)
	}
	cert := n.certificate()
	if id.Member == memberStarted && !n.disk.hasMember() {
		return nil, m.lost()
	}
	// A member that was killed while it started may be one that the others need to decide anything: it goes on with what it has.
	if id.Member == memberNone || id.Member == memberJoining && !n.disk.hasMember() {
		place, err := m.join(ctx, id)
		if err != nil {
			return nil, err
		}
		if err := n.seal(place.UnlockKey); err != nil {
			return nil, err
		}
		c = n.storeConfig(n.remembers(), metrics)
		c.Join = &place
	}
	c.Peer = &etcd.Peer{URL: "https://" + id.Addr, Certificate: cert.PEM, Serve: func(h http.Handler) { m.peers.Store(&h) },
		Fellow: func(name string) bool {
			return slices.ContainsFunc(n.otherManagers(), func(p v1.Peer) bool { return p.NodeID == name })
		}}
	m.mu.Lock()
	m.roots = cert.RootDigests()
	m.mu.Unlock()
	return etcd.Start(ctx, c)
}

// lost has the other managers asked for the state of this one, where there are any.
func (m *manager) lost() error {
	if err := m.n.checkState(); err != nil {
		return err
	}
	m.n.log.Warn("the state of this manager is gone; asking the other managers for it", "folder", m.n.disk.path(storeName))
	return errLost
}

// join asks the other managers for a place among them.
func (m *manager) join(ctx context.Context, id identity) (v1.Membership, error) {
	n := m.n
	if id.Member == memberNone {
		if err := n.disk.remove(storeName); err != nil {
			return v1.Membership{}, err
		}
		if err := n.change(func(id *identity) { id.Member = memberJoining }); err != nil {
			return v1.Membership{}, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	managers, err := n.link.managers(ctx)
	if err != nil {
		return v1.Membership{}, fmt.Errorf("no other manager is known: %w", err)
	}
	place, err := managers.Membership(ctx, v1.MembershipRequest{Addr: id.Addr})
	if err != nil {
		return place, fmt.Errorf("ask for a place among the managers: %w", err)
	}
	return place, nil
}
