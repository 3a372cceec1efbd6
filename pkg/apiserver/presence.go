package apiserver

import (
	"context"
	"errors"
	"net"
	"net/http"
	"reflect"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// lease is what a session's Presence lives under.
type lease struct {
	id      store.LeaseID
	ttl     time.Duration
	shown   int64         // the revision from which on the store shows the Presence as this session's; 0 before
	renewed time.Time     // when it was renewed last
	busy    bool          // it is being renewed, or another is being put in its place
	next    time.Duration // how long it should be, where another is to be put in its place; 0 where it fits
}

const (
	// patience is how long a session goes on, or waits to begin, at a manager that cannot write: longer than an election
	// takes, as no other manager can write either before that is over.
	patience = 2500 * time.Millisecond
	// beginning is how long a session may take to begin at a manager that can: after a restart all nodes come at once.
	beginning = 8 * time.Second
	// retryRenewal is the time between two attempts to renew.
	retryRenewal = 100 * time.Millisecond
	// election is what a node that had to wait for the managers to have a leader has less than restartOf from then on.
	election = 200 * time.Millisecond
	// shortRead is how long a linearizable read takes at most where there is a leader.
	shortRead = 200 * time.Millisecond
	// backWithin is how long a node whose agent stopped in order may take to be back: a daemon comes to its end, a binary is replaced,
	// and the new one starts. Swarm waits for every node that long, three heartbeats of 5 s.
	backWithin = 15 * time.Second
)

// open makes a node present: from now on it is ready. The session then begins with what is so at that time or later, as a node
// that comes back must not be told of an earlier one: what was replaced meanwhile would start again.
func (b *backend) open(ctx context.Context, se *session, addr string, d v1.NodeDescription) error {
	if b.leaser == nil {
		return errNoLeases
	}
	ctx, cancel := context.WithTimeoutCause(ctx, beginning, errNoQuorum)
	defer cancel()
	now, err := b.current(ctx)
	if err != nil {
		return err
	}
	snapshot, err := b.store.Snapshot(ctx, now)
	if err != nil {
		return sessionError(ctx, err)
	}
	if _, ok := snapshot.Lookup(v1.KindNode, se.node); !ok {
		return &store.NotFoundError{Kind: v1.KindNode, Ref: clip(se.node)}
	}
	ttl := b.sessions.newsAt(snapshot).ttl
	id, err := b.leaser.Grant(ctx, ttl)
	if err != nil {
		return sessionError(ctx, err)
	}
	se.mu.Lock()
	se.lease = lease{id: id, ttl: ttl, renewed: time.Now()}
	se.mu.Unlock()
	revision, err := b.nodeReady(ctx, se, id, addr, d)
	if err == nil {
		err = b.shown(ctx, se, revision)
	}
	if err != nil {
		b.spawn(func() { b.revoke(se.node, id) })
		return sessionError(ctx, err)
	}
	se.touchAll(max(revision, now))
	se.rouse()
	return nil
}

// current is the revision that is current now, or the error of a session at a manager that cannot tell.
func (b *backend) current(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errNoQuorum)
	defer cancel()
	now, err := b.store.Sync(ctx)
	if err != nil {
		return 0, sessionError(ctx, err)
	}
	return now, nil
}

// sessionError is what a session ends with, or does not begin, when the store gives an error.
func sessionError(ctx context.Context, err error) error {
	var p *v1.Problem
	switch cause := context.Cause(ctx); {
	case errors.As(err, &p):
		return err
	case cause != nil && !errors.Is(cause, context.DeadlineExceeded):
		return cause
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		return errNoQuorum
	}
	return err
}

// nodeReady writes that a node is connected, where, and what it is. The revision shows it.
func (b *backend) nodeReady(ctx context.Context, se *session, id store.LeaseID, addr string, d v1.NodeDescription) (int64, error) {
	presence := &v1.PresenceStatus{Manager: b.backing.Node, Session: se.id, Since: b.server.now().UTC()}
	var missing error
	revision, err := b.reports.do(ctx, func(s *store.Snapshot) []store.Op {
		missing = nil
		n, ok := store.Get(s, v1.Nodes, se.node)
		if !ok {
			missing = &store.NotFoundError{Kind: v1.KindNode, Ref: clip(se.node)}
			return nil
		}
		return append(b.describeOps(n, addr, d), presenceOp(se.node, presence, id, store.Always()))
	})
	if err == nil {
		err = missing
	}
	return revision, err
}

// describeNode writes what a node newly says of itself.
func (b *backend) describeNode(ctx context.Context, node, addr string, d v1.NodeDescription) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errNoQuorum)
	defer cancel()
	_, err := b.reports.do(ctx, func(s *store.Snapshot) []store.Op {
		n, ok := store.Get(s, v1.Nodes, node)
		if !ok {
			return nil // the session ends by that
		}
		return b.describeOps(n, addr, d)
	})
	if err != nil {
		return sessionError(ctx, err)
	}
	return nil
}

// describeOps are the writes that it takes for a node to be ready and described; none where it is.
func (b *backend) describeOps(n *v1.Node, addr string, d v1.NodeDescription) []store.Op {
	status := v1.NodeStatus{State: v1.NodeReady, Addr: addr, Description: d, At: b.server.now().UTC()}
	if known := n.Status; known != nil {
		if addr == "" {
			status.Addr = known.Addr
		}
		if known.State == v1.NodeReady {
			status.At = known.At
		}
		if reflect.DeepEqual(*known, status) {
			return nil
		}
	}
	return []store.Op{{Kind: v1.KindNode, ID: n.Meta.ID, Section: v1.SectionStatus, Value: &status, If: store.Exists()}}
}

func presenceOp(node string, p *v1.PresenceStatus, id store.LeaseID, when store.Condition) store.Op {
	return store.Op{Kind: v1.KindPresence, ID: node, Section: v1.SectionStatus, Value: p, Lease: id, If: when,
		Meta: &v1.Meta{ID: node, CreatedAt: p.Since, UpdatedAt: p.Since}}
}

// shown takes note that the store shows the session at the revision. From now on it ends when the store shows another one, or
// none; that may be so already.
func (b *backend) shown(ctx context.Context, se *session, revision int64) error {
	se.mu.Lock()
	se.lease.shown = revision
	se.mu.Unlock()
	snapshot, err := b.store.Snapshot(ctx, revision)
	if err != nil {
		return err
	}
	return se.displaced(snapshot)
}

// displaced is why a session has to end by what the store shows.
func (se *session) displaced(s *store.Snapshot) error {
	se.mu.Lock()
	shown := se.lease.shown
	se.mu.Unlock()
	if shown == 0 || s.Revision() < shown {
		return nil // it is not written yet
	}
	switch p, ok := store.Get(s, v1.Presences, se.node); {
	case !ok:
		return errSilent
	case p.Status.Session != se.id:
		return errReplaced
	}
	return nil
}

// heartbeat renews the session's lease and has the node answered. One renewal is under way at a time, and a node that beats
// faster than it should costs no more of them.
func (b *backend) heartbeat(ctx context.Context, se *session) error {
	if len(se.certificate) > 0 && b.server.now().After(se.certificate[0].NotAfter) {
		return errUntrusted
	}
	select {
	case se.beats <- struct{}{}:
	default:
	}
	se.mu.Lock()
	defer se.mu.Unlock()
	l := &se.lease
	if l.busy || time.Since(l.renewed) < l.ttl/v1.HeartbeatGrace/2 {
		return nil
	}
	l.busy, l.renewed = true, time.Now()
	id, ttl := l.id, l.next
	if ttl != 0 && b.sessions.mayChange() {
		se.work.Go(func() { se.leased(b.change(ctx, se, id, ttl)) })
	} else {
		se.work.Go(func() { se.leased(b.renew(ctx, id)) })
	}
	return nil
}

// leased is when something was done about the session's lease, or could not be.
func (se *session) leased(err error) {
	if err != nil {
		se.cancel(err)
	}
	se.mu.Lock()
	se.lease.busy = false
	se.mu.Unlock()
}

// renew renews a lease, for as long as it takes to find out that this manager cannot.
func (b *backend) renew(ctx context.Context, id store.LeaseID) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errNoQuorum)
	defer cancel()
	for {
		switch err := b.leaser.Renew(ctx, id); {
		case err == nil:
			return nil
		case errors.Is(err, store.ErrNoLease):
			return errSilent
		case errors.Is(err, store.ErrClosed):
			return errDetached
		}
		if !pause(ctx, retryRenewal) {
			return context.Cause(ctx)
		}
	}
}

// mayChange spreads the changes of leases, which are writes, over time: when the swarm grows, every node is in for one.
func (d *sessions) mayChange() bool {
	now := time.Now().UnixNano()
	next := d.nextChange.Load()
	return now >= next && d.nextChange.CompareAndSwap(next, now+int64(time.Second/v1.HeartbeatsPerSecond))
}

// fits tells whether the session's lease is as long as it should be. If not, one of the next heartbeats puts another in its place, and
// the session is roused once that is done.
func (se *session) fits(ttl time.Duration) bool {
	se.mu.Lock()
	defer se.mu.Unlock()
	l := &se.lease
	if l.ttl == ttl {
		l.next = 0
		return true
	}
	l.next = ttl
	return false
}

// change puts another lease in the place of the session's.
func (b *backend) change(ctx context.Context, se *session, old store.LeaseID, ttl time.Duration) error {
	id, revision, err := b.relet(ctx, se, ttl)
	if err != nil {
		return err
	}
	se.mu.Lock()
	l := &se.lease
	l.id, l.ttl, l.shown, l.renewed = id, ttl, revision, time.Now()
	if l.next == ttl {
		l.next = 0
	}
	se.mu.Unlock()
	b.spawn(func() { b.revoke(se.node, old) }) // nothing lives under it any more
	se.touchNode(0)
	se.rouse()
	return nil
}

// relet puts the session's Presence under a new lease.
func (b *backend) relet(ctx context.Context, se *session, ttl time.Duration) (store.LeaseID, int64, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errNoQuorum)
	defer cancel()
	id, err := b.leaser.Grant(ctx, ttl)
	if err != nil {
		return 0, 0, sessionError(ctx, err)
	}
	var lost error
	revision, err := b.reports.do(ctx, func(s *store.Snapshot) []store.Op {
		p, ok := store.Get(s, v1.Presences, se.node)
		switch {
		case !ok:
			lost = errSilent
		case p.Status.Session != se.id:
			lost = errReplaced
		default:
			lost = nil
			return []store.Op{presenceOp(se.node, p.Status, id, store.AtRevision(p.Meta.Revisions[v1.SectionStatus]))}
		}
		return nil
	})
	if err == nil {
		err = lost
	}
	if err != nil {
		b.spawn(func() { b.revoke(se.node, id) })
		return 0, 0, sessionError(ctx, err)
	}
	return id, revision, nil
}

// end lets go of a session that is over. What becomes of its lease depends on what became of the node.
func (b *backend) end(se *session, cause error) {
	se.mu.Lock()
	id, ttl := se.lease.id, se.lease.ttl
	se.mu.Unlock()
	switch {
	case errors.Is(cause, errReplaced), errors.Is(cause, errSilent):
		// Nothing lives under it any more.
	case errors.Is(cause, errDetached), errors.Is(cause, store.ErrClosed), errors.Is(cause, errNoQuorum), errors.Is(cause, errUntrusted):
		// The node is not to blame: it has until its lease runs out to open a session elsewhere.
	case errors.Is(cause, errLeaving), errors.Is(cause, errNodeRemoved), errors.Is(cause, errMissed):
		b.spawn(func() { b.revoke(se.node, id) })
	case errors.Is(cause, errStopped):
		b.expect(se, id) // before the session is over for the agent, whose machine may stop this manager next
	default:
		b.spawn(func() { b.miss(se.node, id, restartOf(se.startup, ttl/v1.HeartbeatGrace), ttl) })
	}
}

// miss ends the lease of a node whose connection broke, after the time that it has to open another; after ttl it has run out by itself.
// Where the managers' leader broke with it, which shows in that nobody answers a read, that time begins with the next leader: before, no
// session can be opened.
func (b *backend) miss(node string, id store.LeaseID, wait, ttl time.Duration) {
	ctx, cancel := context.WithTimeout(b.ctx, ttl)
	defer cancel()
	led := true
	for !b.readable(ctx) {
		led = false
		if !pause(ctx, retryRenewal) {
			return
		}
	}
	if !led {
		wait -= election
	}
	if pause(ctx, wait) {
		b.revoke(node, id)
	}
}

// restartOf is how long a daemon that was killed may take to be back: seven tenths of a heartbeat, 0.7 s in most swarms, within which an
// init system starts it again. A machine that is slow or busy needs more than another: it has twice the time that its last start took,
// but no longer than a host that is silent, for its lease runs out.
func restartOf(startup, heartbeat time.Duration) time.Duration { return max(heartbeat*7/10, 2*startup) }

// readable tells whether the store's managers have a leader.
func (b *backend) readable(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, shortRead)
	defer cancel()
	_, err := b.store.Sync(ctx)
	return err == nil
}

// expect gives a node whose agent stopped in order the time to be back: a longer lease, that runs out by itself.
func (b *backend) expect(se *session, id store.LeaseID) {
	_, _, err := b.relet(b.ctx, se, backWithin)
	switch {
	case err == nil:
		b.revoke(se.node, id) // nothing lives under it any more
	case b.ctx.Err() == nil:
		b.server.log.Debug("a node whose agent stopped has until its lease runs out", "node.id", se.node, "error", err)
	}
}

// revoke ends a lease. Nothing happens to a node that another session has taken from it. The node that is lost may have been the
// managers' leader, and then this takes as long as they need for another.
func (b *backend) revoke(node string, id store.LeaseID) {
	ctx, cancel := context.WithTimeout(b.ctx, backWithin)
	defer cancel()
	for {
		err := b.leaser.Revoke(ctx, id)
		if err == nil || b.ctx.Err() != nil {
			return
		}
		if !pause(ctx, retryRenewal) {
			b.server.log.Debug("a lease could not be revoked, and runs out", "node.id", node, "error", err)
			return
		}
	}
}

// patience is how long the session waits for the next heartbeat: as long as its lease.
func (se *session) patience() time.Duration {
	se.mu.Lock()
	defer se.mu.Unlock()
	return se.lease.ttl
}

// nodeAddr is the address that a node is reached at: the one that it was told to give, or else the connection's.
func nodeAddr(r *http.Request, d *v1.NodeDescription) string {
	if net.ParseIP(d.Addr) != nil {
		return d.Addr
	}
	return remoteAddr(r)
}

// remoteAddr is the address that a request came from, or "" where it came over a socket of this machine.
func remoteAddr(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil || net.ParseIP(host) == nil {
		return ""
	}
	return host
}
