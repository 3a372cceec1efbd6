package daemon

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/swarmd/swarmd/pkg/agent"
	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/ca"
)

// node is the machine's part in a swarm while the daemon runs: an agent always, and a manager while its role is that.
//
// What it is follows from what is on disk and from what the managers say of it. One goroutine, tend, compares the two over and
// over and takes one step at a time, each of which is durable before the next: see tend.go.
type node struct {
	d     *Daemon
	log   *slog.Logger
	disk  disk
	certs certificates
	link  *link
	lone  bool // an agent alone, that never manages

	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup
	wake   chan struct{} // holds one

	files sync.Mutex // of changing certificates and keys on disk

	mu       sync.Mutex
	identity identity
	cert     *ca.Identity // nil while it is locked, or not made yet
	renewAt  time.Time
	unlock   []byte // opens the node's key and the data keys; nil where they are not locked
	locked   bool
	managers []v1.Peer
	news     *v1.SwarmNews // told, and not followed yet
	issuer   string        // of the certificate that the node is to have
	wish     v1.NodeRole   // what the node is to be; empty while nobody said so
	wishAt   time.Time     // when that last changed
	arrived  bool          // a session was opened since the daemon started
	trouble  string        // what keeps the node from the swarm, for people
	broken   bool          // and does not pass by itself
	manager  *manager      // nil unless the node is one
	changed  chan struct{} // closed, and replaced, when something of the above changed
}

func (d *Daemon) newNode(id *identity) *node {
	n := &node{
		d: d, log: d.log.With("node.id", id.NodeID), disk: d.disk(), certs: certificates{d.disk()},
		wake: make(chan struct{}, 1), changed: make(chan struct{}), identity: *id, managers: loadManagers(d.disk()),
	}
	n.link = newLink(id.NodeID, d.startup, n.observe)
	n.ctx, n.cancel = context.WithCancel(context.Background())
	return n
}

// start begins the node's work: its containers at once, the swarm as soon as it can be reached.
func (n *node) start(door net.Listener) {
	n.dropCopies()
	unsettled := n.unsettled()
	n.mu.Lock()
	err := n.loadCertificate()
	if !unsettled && n.wantsManager() {
		n.startManager(door)
	} else if door != nil {
		door.Close()
	}
	n.mu.Unlock()
	if err != nil {
		n.note(true, err)
	}
	n.follow()
	n.work.Go(n.runAgent)
	n.work.Go(func() { n.tend(n.ctx) })
}

// loadCertificate reads the certificate, where there is one and it is not locked.
func (n *node) loadCertificate() error {
	if n.cert != nil || !n.certs.there() {
		return nil
	}
	cert, err := n.certs.load(n.unlock)
	if errors.Is(err, errSealed) {
		n.locked = true
		return nil
	}
	if err != nil {
		return err
	}
	n.setCertificate(cert)
	return nil
}

// setCertificate is called with mu held, where the node has none yet.
func (n *node) setCertificate(cert *ca.Identity) {
	n.cert, n.locked = cert, false
	n.renewAt = cert.RenewAt(rand.Float64())
}

func (n *node) runAgent() {
	defer n.d.parts.begin("the agent")()
	n.mountFiles()
	a := agent.New(agent.Options{
		NodeID:   n.identity.NodeID,
		Dir:      n.d.path("agent"),
		Runtime:  n.d.runtime,
		Network:  n.d.links(),
		Names:    n.names(),
		Underlay: n.identity.underlay(),
		Manager:  n.link,
		Describe: n.describe,
		Told:     n.told,
		OnNode:   n.onNode,
		Log:      n.d.log,

		Collected:  n.d.collected,
		Applied:    func(took time.Duration) { n.d.programming.own.Observe(took.Seconds()) },
		Programmed: func(took time.Duration) { n.d.programming.whole.Observe(took.Seconds()) },
	})
	if err := a.Run(n.ctx); err != nil && n.ctx.Err() == nil {
		n.d.fail(fmt.Errorf("agent: %w", err))
	}
}

// mountFiles has the tasks' files in memory, where the daemon has hold of a machine.
func (n *node) mountFiles() {
	if n.d.network == nil {
		return
	}
	if err := agent.MountFiles(n.d.path("agent")); err != nil {
		n.d.log.Warn("the files of tasks are on the disk, where they take longer to make", "err", err)
	}
}

// rest ends the agent, and with it the session in order: whoever holds it knows then that the node is to be back soon. A manager goes
// on, as that may be the one on this machine.
func (n *node) rest() {
	n.cancel()
	n.work.Wait()
}

// stop ends the node's parts; its containers go on.
func (n *node) stop() {
	n.rest()
	n.mu.Lock()
	m := n.manager
	n.mu.Unlock()
	if m != nil {
		m.stop()
	}
	n.link.close()
}

// describe is what the node tells the managers of itself.
func (n *node) describe() v1.NodeDescription {
	n.mu.Lock()
	defer n.mu.Unlock()
	d := n.d.machine.describe(n.d.engine, n.identity.Addr)
	d.DataAddr, d.Engine.Labels = n.identity.DataAddr, n.d.o.Labels
	d.DataKey = n.d.dataKey()
	d.IPv6 = n.d.network != nil && n.d.network.IPv6()
	if n.cert == nil {
		return d
	}
	d.TLS = &v1.NodeTLS{Issuer: n.cert.Issuer(), Roots: n.cert.RootDigests(), Expires: n.cert.Expires().UTC()}
	if n.manager != nil {
		for _, root := range n.manager.trusted() {
			if !slices.Contains(d.TLS.Roots, root) {
				d.TLS.Roots = append(d.TLS.Roots, root)
			}
		}
	}
	return d
}

// dataKey is what other nodes need for encrypted networks; empty where there is none.
func (d *Daemon) dataKey() string {
	if d.network == nil {
		return ""
	}
	k, err := d.network.PublicKey()
	if err != nil {
		d.log.Warn("encrypted networks do not reach this node", "err", err)
		return ""
	}
	return base64.StdEncoding.EncodeToString(k[:])
}

// told is given what the managers say of the swarm.
func (n *node) told(news v1.SwarmNews) {
	n.mu.Lock()
	n.news = &news
	n.mu.Unlock()
	n.poke()
}

// onNode is given what the managers say of this node.
func (n *node) onNode(o *v1.Node) {
	n.mu.Lock()
	if n.wish != o.Spec.Role {
		n.log.Debug("the swarm wants this node in a role", "role", o.Spec.Role)
		n.wishAt = time.Now()
	}
	n.wish = o.Spec.Role
	n.mu.Unlock()
	n.poke()
}

// observe is given the outcome of talking with the managers: nil when a session was opened.
func (n *node) observe(err error) {
	if err == nil {
		n.mu.Lock()
		if !n.arrived {
			n.arrived = true
			n.tellChange()
		}
		n.mu.Unlock()
	}
	n.note(n.explain(err))
}

// note remembers what keeps the node from the swarm, and whether it will pass; nil is nothing any more.
func (n *node) note(broken bool, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.trouble != text || n.broken != broken {
		n.trouble, n.broken = text, broken
		n.tellChange()
	}
}

// poke has tend look again.
func (n *node) poke() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// tellChange is called with mu held.
func (n *node) tellChange() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// await waits until what is looked for is so, or ctx ends. The look happens with mu held.
func (n *node) await(ctx context.Context, look func() bool) error {
	for {
		n.mu.Lock()
		done, changed := look(), n.changed
		n.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// change edits what the node remembers, durably: nothing has changed where it fails. It is called without mu.
func (n *node) change(edit func(*identity)) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	next := n.identity
	edit(&next)
	if next == n.identity {
		return nil
	}
	if err := next.save(n.disk); err != nil {
		return err
	}
	n.identity = next
	n.tellChange()
	return nil
}

// remembers is a copy of what the node remembers.
func (n *node) remembers() identity {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.identity
}

// otherManagers are the managers that the node was told of last, but for itself.
func (n *node) otherManagers() []v1.Peer {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(n.managers), func(p v1.Peer) bool {
		return p.Addr == "" || p.NodeID == n.identity.NodeID || p.Addr == n.identity.Addr
	})
}
