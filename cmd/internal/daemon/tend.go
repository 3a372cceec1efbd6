package daemon

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/http"
	"slices"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/pkg/store/etcd"
)

// Times of tending.
const (
	lookAgain = time.Minute            // though nothing happened
	lookOut   = 5 * time.Second        // for another manager, while the session is with the one on this machine
	retryMin  = 500 * time.Millisecond // between two tries, doubled with each
	retryMost = 30 * time.Second
	// callWithin bounds one call to the managers.
	callWithin = 15 * time.Second
)

// backoff is a pause that doubles.
type backoff struct{ next, most time.Duration }

func (b *backoff) pause() time.Duration {
	b.next = min(max(2*b.next, retryMin), cmp.Or(b.most, retryMost))
	return b.next
}

func (b *backoff) reset() { b.next = 0 }

// sleep waits, or tells that ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// tend makes the node what it is to be, until ctx ends.
func (n *node) tend(ctx context.Context) {
	defer n.d.parts.begin("tending the node")()
	var settling, renewing backoff
	renewing.most = time.Hour
	var renewNot time.Time // before
	for ctx.Err() == nil {
		var wait time.Duration
		if err := n.settleAgain(ctx); err != nil {
			wait = settling.pause()
		} else {
			settling.reset()
			n.follow()
			wait = min(n.tendManager(), n.tendCertificate(ctx, &renewing, &renewNot), n.tendSession(ctx))
		}
		timer := time.NewTimer(wait)
		select {
		case <-n.wake:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// settleAgain goes on with what an earlier daemon began to make of the state.
func (n *node) settleAgain(ctx context.Context) error {
	if n.isLocked() || !n.unsettled() {
		return nil
	}
	err := n.settle(ctx)
	if errors.Is(err, etcd.ErrLocked) || errors.Is(err, etcd.ErrWrongKey) {
		n.lock()
		return nil
	}
	if ctx.Err() == nil {
		n.note(err != nil, err)
		if err != nil {
			n.log.Error("the swarm's state cannot be made ready; trying again", "err", err)
		}
	}
	return err
}

// follow does what the managers told: where they are, and whom to trust.
func (n *node) follow() {
	n.mu.Lock()
	news := n.news
	n.news = nil
	cert := n.cert
	n.mu.Unlock()
	if news != nil {
		n.followManagers(news.Managers)
		n.followRoots(cert, news)
	}
	if err := n.link.point(n.hosts(), cert); err != nil {
		n.log.Error("the addresses of the managers are of no use", "err", err)
	}
}

func (n *node) followManagers(managers []v1.Peer) {
	n.mu.Lock()
	same := slices.Equal(managers, n.managers)
	n.mu.Unlock()
	if same || len(managers) == 0 {
		return
	}
	if err := saveManagers(n.disk, managers); err != nil {
		n.log.Warn("cannot remember the managers", "err", err) // they are told again at the next session
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.managers = slices.Clone(managers)
	n.tellChange()
}

func (n *node) followRoots(cert *ca.Identity, news *v1.SwarmNews) {
	if cert == nil {
		return
	}
	n.mu.Lock()
	n.issuer = cmp.Or(news.Issuer, n.issuer)
	n.mu.Unlock()
	n.files.Lock()
	defer n.files.Unlock()
	chain, key, roots := cert.PEM()
	if len(news.Roots) == 0 || bytes.Equal(news.Roots, roots) {
		return
	}
	if err := cert.Update(chain, key, news.Roots); err != nil {
		n.log.Warn("the roots that the managers tell do not go with this node's certificate; keeping those that it has", "err", err)
		return
	}
	if err := n.certs.saveRoots(news.Roots); err != nil {
		n.log.Error("cannot write the swarm's root certificates", "err", err)
	}
	n.log.Info("this node trusts other root certificates now", "roots", cert.RootDigests())
}

// hosts are where the managers may be reached: the others, in an order that differs from node to node, so that the nodes spread over
// them, and last the one on this machine, if there is one. It would die with this node, and nobody would be left to see that at once.
func (n *node) hosts() []string {
	n.mu.Lock()
	id, m := n.identity.NodeID, n.manager
	n.mu.Unlock()
	others := n.otherManagers()
	place := func(p v1.Peer) uint64 {
		h := fnv.New64a()
		h.Write([]byte(id + " " + p.NodeID + " " + p.Addr))
		return h.Sum64()
	}
	slices.SortFunc(others, func(a, b v1.Peer) int { return cmp.Compare(place(a), place(b)) })
	var hosts []string
	for _, p := range others {
		hosts = append(hosts, p.Addr)
	}
	if m != nil && m.up() {
		hosts = append(hosts, "unix://"+n.d.o.Socket)
	}
	return hosts
}

// wantsManager tells whether the node is to run a manager: its certificate says so, and either the swarm is known to want one, or there is a
// member's state. That of one that has begun to be a member counts until the others have removed it: they may need it to decide that. It is
// called with mu held.
func (n *node) wantsManager() bool {
	if n.lone || n.cert == nil || n.locked || roleOf(n.cert.Subject().Role) != v1.RoleManager {
		return false
	}
	switch n.wish {
	case v1.RoleManager:
		return true
	case v1.RoleWorker:
		return n.identity.Member != memberNone && n.disk.hasMember()
	}
	return n.identity.Member != memberNone
}

// tendManager starts and stops the manager, and says when to look again.
func (n *node) tendManager() time.Duration {
	n.mu.Lock()
	m, id, wish, since := n.manager, n.identity, n.wish, n.wishAt
	worker := n.cert != nil && roleOf(n.cert.Subject().Role) == v1.RoleWorker
	leftover := id.Member != memberNone || id.Step == stepNone && (n.disk.exists(storeName) || n.disk.exists(copiesName)) || n.unlock != nil
	if m == nil && n.wantsManager() {
		n.startManager(nil)
	}
	n.mu.Unlock()
	switch {
	case m == nil && worker && leftover: // a crash came in between
		n.forgetMember()
		n.forgetCopies()
	case m == nil:
	case m.over():
		n.managerEnded(m)
	case wish != v1.RoleWorker:
	case !m.up() && id.Member == memberJoining && !n.disk.hasMember():
		n.giveUpJoining(m)
	case m.cutOff(since) && n.link.open():
		// A manager that has a session with this node writes that down, so there are enough managers that decide, without this one:
		// they removed it while it could not hear of that, or began anew without it.
		n.log.Warn("this node is no manager any more, and the other managers go on without it")
		m.stop()
		m.ended = etcd.ErrRemoved
		n.managerEnded(m)
	default:
		return time.Second
	}
	return lookAgain
}

// giveUpJoining ends a manager that has not begun to be a member. One that has may be one by now that the others need to decide anything,
// whatever this node knows: it stays until they have removed it.
func (n *node) giveUpJoining(m *manager) {
	m.stop()
	if !n.disk.hasMember() {
		n.log.Info("this node is not to be a manager after all")
		n.managerEnded(m)
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.startManager(nil)
}

// tendSession has the session of a manager's agent go to another manager, as soon as there is one again, and says when to look again.
// While it is with the manager on this machine, nobody would see at once that both are lost.
func (n *node) tendSession(ctx context.Context) time.Duration {
	if !n.link.home() {
		return lookAgain
	}
	n.mu.Lock()
	m, id := n.manager, n.identity.NodeID
	n.mu.Unlock()
	if m != nil && m.hasReachable(ctx, id) {
		n.log.Debug("another manager is there again: the session goes there")
		n.link.leaveHome()
	}
	return lookOut
}

// managerEnded draws the conclusions.
func (n *node) managerEnded(m *manager) {
	n.mu.Lock()
	n.manager = nil
	n.tellChange()
	joining := n.identity.Member == memberJoining
	n.mu.Unlock()
	n.follow() // the managers are somewhere else now
	switch {
	case errors.Is(m.ended, etcd.ErrLocked), errors.Is(m.ended, etcd.ErrWrongKey):
		n.lock()
	case errors.Is(m.ended, etcd.ErrRemoved), errors.Is(m.ended, errLost), joining:
		n.log.Info("this node is no member of the managers' store any more")
		n.forgetMember()
		if errors.Is(m.ended, etcd.ErrRemoved) {
			n.forgetCopies()
		}
	}
	n.poke()
}

// forgetMember removes the state of a member that was removed. What the node is to be is asked anew, unless that is known.
func (n *node) forgetMember() {
	err := n.change(func(id *identity) { id.Member = memberNone })
	if err == nil {
		err = errors.Join(n.disk.remove(storeName), n.unseal())
	}
	if err != nil {
		n.log.Error("cannot remove what this node knew as a manager", "err", err)
	}
	n.mu.Lock()
	if n.wish != v1.RoleWorker {
		n.wish = ""
	}
	n.mu.Unlock()
	n.link.kick()
}

// forgetCopies removes the copies of the state: who is no manager has no business with them. One that lost its state keeps them,
// for they may be all that is left.
func (n *node) forgetCopies() {
	if err := n.disk.remove(copiesName); err != nil {
		n.log.Error("cannot remove the copies of the swarm's state", "folder", n.disk.path(copiesName), "err", err)
	}
}

// explain makes of an error of a session what a person should do about it, and tells whether it does not pass by itself. It is nil
// where there is nothing to tell.
func (n *node) explain(err error) (broken bool, told error) {
	if err == nil || errors.Is(err, errKicked) || errors.Is(err, context.Canceled) {
		return false, nil
	}
	if cert := n.certificate(); cert != nil {
		if late := cert.CheckTime(time.Now()); late != nil {
			return true, fmt.Errorf("%w: set the clock if it is wrong; otherwise leave with \"swarmctl swarm leave --force\" and join again", late)
		}
	}
	switch client.Status(err) {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusGone:
		return true, fmt.Errorf("the swarm does not know this node any more (%w): its containers go on. "+
			"Leave with \"swarmctl swarm leave --force\", and join again if it is to be part of the swarm", err)
	}
	return false, err
}
