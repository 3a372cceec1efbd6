package apiserver

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// peerMark says which peer to look at again.
type peerMark struct {
	kind v1.Kind
	id   string
	// tasks says that the tasks of the service, or of the node, may have to be told differently too.
	tasks bool
	// before and after are addresses of a node: others that have them, and their tasks, may have to be told differently too.
	before, after string
	// of is the task's node, and at when it became what others go by, as its stamp says; zero where the change is another.
	of string
	at time.Time
}

// touchPeer marks a peer. own says that the session's own networks may be others.
func (se *session) touchPeer(m peerMark, own bool, revision int64) {
	se.mu.Lock()
	defer se.mu.Unlock()
	se.marks.revision = max(se.marks.revision, revision)
	se.marks.own = se.marks.own || own
	switch {
	case se.marks.all || se.marks.allPeers:
	case len(se.marks.peers) == maxMarks:
		se.marks.allPeers, se.marks.peers = true, nil
	default:
		se.marks.peers = append(se.marks.peers, m)
	}
}

// peersSent is what a session's goroutine remembers of the peers that it told the node of.
type peersSent struct {
	scope []string          // the node's networks
	sent  map[string]uint64 // ID → hash of what was told
}

// settle finds out which networks the node has tasks on, and has the session marked from then on when somebody on them changes.
// What changed before the marks began is in the snapshot that it returns. It tells whether the networks are others than before.
func (b *backend) settle(ctx context.Context, se *session, s *store.Snapshot) (*store.Snapshot, bool, error) {
	changed := false
	for {
		scope := scopeOf(s, se.node)
		refs := slices.Clone(scope)
		for _, id := range scope {
			if n, ok := s.Lookup(v1.KindNetwork, id); ok && n.GetMeta().Name != "" {
				refs = append(refs, n.GetMeta().Name) // services may name their networks
			}
		}
		seen := b.sessions.listenTo(se, refs)
		changed = changed || !slices.Equal(scope, se.peers.scope)
		se.peers.scope = scope
		if seen <= s.Revision() {
			return s, changed, nil
		}
		var err error
		if s, err = b.store.Snapshot(ctx, seen); err != nil {
			return nil, false, err
		}
	}
}

// peerChanges are the peers that are new or changed, as JSON, and those that are gone.
type peerChanges struct {
	nodes, networks, services, tasks [][]byte
	gone                             []string
	stamps                           []time.Time // see v1.Peers
	dataPort                         uint16
	complete                         bool
	leaves                           bool   // some are to be left alone from now on
	number                           uint64 // see v1.Peers
}

func (c *peerChanges) empty() bool {
	return !c.complete && len(c.nodes)+len(c.networks)+len(c.services)+len(c.tasks)+len(c.gone) == 0
}

// append appends the changes as a v1.Peers.
func (c *peerChanges) append(buf []byte) ([]byte, error) {
	buf = append(buf, '{')
	first := true
	name := func(name string) {
		if !first {
			buf = append(buf, ',')
		}
		first = false
		buf = append(append(append(buf, '"'), name...), `":`...)
	}
	for _, list := range []struct {
		name   string
		bodies [][]byte
	}{{"nodes", c.nodes}, {"networks", c.networks}, {"services", c.services}, {"tasks", c.tasks}} {
		if len(list.bodies) == 0 {
			continue
		}
		name(list.name)
		for i, body := range list.bodies {
			buf = append(append(buf, ",["[b2i(i == 0)]), body...)
		}
		buf = append(buf, ']')
	}
	for _, field := range []struct {
		name string
		v    any
		is   bool
	}{{"gone", c.gone, len(c.gone) > 0}, {"dataPort", c.dataPort, c.dataPort != 0}, {"stamps", c.stamps, len(c.stamps) > 0},
		{"number", c.number, c.number != 0}} {
		if !field.is {
			continue
		}
		body, err := json.Marshal(field.v)
		if err != nil {
			return buf, err
		}
		name(field.name)
		buf = append(buf, body...)
	}
	return append(buf, '}'), nil
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// comparison compares what a session told of peers with what a snapshot says.
type comparison struct {
	view peerView
	sent map[string]uint64
	seen map[string]struct{} // those that were looked at
	peerChanges
}

// comparePeers notes what of the marked peers is new, changed or gone; of all where all is set.
func (se *session) comparePeers(s *store.Snapshot, m marks, all bool, kept *peerCache) *peerChanges {
	c := &comparison{view: peerView{s, se.node, se.peers.scope, kept}, sent: se.peers.sent}
	if all {
		c.everything()
		return &c.peerChanges
	}
	if len(m.peers) == 0 {
		return &c.peerChanges
	}
	c.seen = make(map[string]struct{}, len(m.peers))
	for _, p := range m.peers {
		if c.look(p.kind, p.id) && !p.at.IsZero() && p.of != se.node {
			c.stamps = append(c.stamps, p.at)
		}
		switch {
		case !p.tasks:
		case p.kind == v1.KindService:
			for t := range s.TasksOfService(p.id) {
				c.look(v1.KindTask, t.Meta.ID)
			}
		case p.kind == v1.KindNode:
			c.tasksOf(p.id)
		}
		for _, address := range []string{p.before, p.after} {
			for n := range s.NodesAt(address) {
				c.look(v1.KindNode, n.Meta.ID)
				c.tasksOf(n.Meta.ID)
			}
		}
	}
	return &c.peerChanges
}

// tasksOf looks at the tasks of a node.
func (c *comparison) tasksOf(node string) {
	for t := range c.view.TasksOfNode(node) {
		c.look(v1.KindTask, t.Meta.ID)
	}
}

// everything looks at all that the node may have to know of, and at what it was told of before.
func (c *comparison) everything() {
	c.seen = make(map[string]struct{}, len(c.sent))
	for n := range store.All(c.view.Snapshot, v1.Nodes) {
		c.look(v1.KindNode, n.Meta.ID)
	}
	for _, id := range c.view.scope {
		c.look(v1.KindNetwork, id)
		refs := []string{id}
		if n, ok := c.view.Lookup(v1.KindNetwork, id); ok {
			refs = append(refs, n.GetMeta().Name)
		}
		for _, ref := range refs {
			for s := range c.view.ServicesReferring(ref) {
				c.look(v1.KindService, s.Meta.ID)
			}
		}
		for t := range c.view.TasksOfNetwork(id) {
			c.look(v1.KindTask, t.Meta.ID)
		}
	}
	for s := range c.view.IngressServices() {
		c.look(v1.KindService, s.Meta.ID)
		for t := range c.view.TasksOfService(s.Meta.ID) {
			c.look(v1.KindTask, t.Meta.ID)
		}
	}
	for id := range c.sent {
		if _, ok := c.seen[id]; !ok {
			c.drop(id)
		}
	}
}

// look looks at one peer, once, and tells whether there is something to tell of it.
func (c *comparison) look(kind v1.Kind, id string) bool {
	if _, ok := c.seen[id]; ok {
		return false
	}
	c.seen[id] = struct{}{}
	var now *told
	into := &c.tasks
	switch kind {
	case v1.KindNode:
		now, into = c.view.tellNode(id), &c.nodes
	case v1.KindNetwork:
		now, into = c.view.tellNetwork(id), &c.networks
	case v1.KindService:
		now, into = c.view.tellService(id), &c.services
	default:
		now = c.view.tellTask(id)
	}
	if now == nil {
		return c.drop(id)
	}
	hash, ok := c.sent[id]
	if ok && hash == now.hash {
		return false
	}
	c.sent[id] = now.hash
	*into = append(*into, now.body)
	c.leaves = c.leaves || ok && now.rests
	return true
}

func (c *comparison) drop(id string) bool {
	_, ok := c.sent[id]
	if ok {
		delete(c.sent, id)
		c.gone = append(c.gone, id)
		c.leaves = true
	}
	return ok
}
