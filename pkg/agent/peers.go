package agent

import (
	"net/netip"
	"reflect"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/netplugin"
)

// peers are what managers told of others, and what follows from it for the network and the names of this machine. Of this node's
// own tasks the agent knows better than any manager: what it does with them counts, and not what it is told of them.
type peers struct {
	self     string // this node's ID
	nodes    map[string]*v1.PeerNode
	networks map[string]*v1.PeerNetwork
	services map[string]*v1.PeerService
	tasks    map[string]*v1.PeerTask
	dataPort uint16
	own      *v1.PeerNode // this node as others were told of it; nil while that is not known
	// leaving are networks that this node is no longer told of, which a link here still is on.
	leaving map[string]bool
	// passed are tasks that managers told of as ready, which are not led to: see Agent.pass.
	passed map[string]bool

	// All below follows from the above, and from this node's own tasks.
	endpoints map[string]*endpoint            // by task
	onNode    map[string]map[string]*endpoint // by node and task: those of others
	segments  map[string]*segment             // by network
	gateways  gateways                        // of the tasks of others that are ready
	resting   gateways                        // and of those that are not: they keep what connections they have
	mesh      mesh                            // the ports that lead to them
	others    []netplugin.Peer                // nil where it has to be made again
	pool      netip.Prefix                    // that others are of
}

func newPeers(self string) *peers {
	return &peers{
		self: self, nodes: map[string]*v1.PeerNode{}, networks: map[string]*v1.PeerNetwork{}, services: map[string]*v1.PeerService{},
		tasks: map[string]*v1.PeerTask{}, leaving: map[string]bool{}, endpoints: map[string]*endpoint{},
		onNode: map[string]map[string]*endpoint{}, segments: map[string]*segment{}, gateways: gateways{},
		resting: gateways{}, mesh: newMesh(),
	}
}

// endpoint is a task as others reach it. It never changes.
type endpoint struct {
	id, service, node string
	local             bool
	ready             bool
	gateway           netip.Addr
	ports             []v1.PortConfig // of the mesh that it was made with; nil where that is not known
	container         string          // its container's name
	names             []string        // that are its own, in lower case
	aliases           []string        // more that its spec gives, which are the swarm's only while the task is ready
	networks          []placed
}

// placed is a task's addresses on one network.
type placed struct {
	network   string
	addresses []netip.Addr
}

func placedAt(networks []v1.NetworkAddress) []placed {
	var at []placed
	for _, n := range networks {
		at = append(at, placed{n.Network, parseAddresses(n.Addresses)})
	}
	return at
}

func newEndpoint(t *v1.PeerTask) *endpoint {
	e := &endpoint{id: t.ID, service: t.Service, node: t.Node, ready: t.Ready, container: t.Name + "." + t.ID, networks: placedAt(t.Networks), ports: t.Ports}
	e.gateway, _ = netip.ParseAddr(t.Gateway) // none until its node has told
	e.names = []string{strings.ToLower(t.Name), strings.ToLower(e.container)}
	for _, alias := range append([]string{t.Hostname}, t.Aliases...) {
		if alias != "" {
			e.aliases = append(e.aliases, strings.ToLower(alias))
		}
	}
	if t.Hostname == "" {
		e.names = append(e.names, t.ID[:min(12, len(t.ID))]) // its container's
	}
	return e
}

// take takes what a manager says of peers. A complete one is all there is.
func (p *peers) take(m *v1.Peers, complete bool, used map[string]bool) {
	if complete {
		p.forgetOthers(m, used)
		p.dataPort = m.DataPort
	}
	for _, id := range m.Gone {
		p.gone(id, used)
	}
	for _, n := range m.Nodes {
		if n.ID == p.self {
			p.own = &n
		} else if learn(p.nodes, n.ID, n) {
			p.nodeChanged(n.ID)
		}
	}
	for _, n := range m.Networks {
		delete(p.leaving, n.ID)
		if learn(p.networks, n.ID, n) {
			p.segment(n.ID).touch()
		}
	}
	for _, s := range m.Services {
		if old := p.services[s.ID]; old == nil || !reflect.DeepEqual(*old, s) {
			p.setService(s.ID, &s)
		}
	}
	for _, t := range m.Tasks {
		if learn(p.tasks, t.ID, t) && t.Node != p.self {
			p.set(t.ID, p.told(&t))
		}
	}
}

// told is the endpoint of another node's task.
func (p *peers) told(t *v1.PeerTask) *endpoint {
	e := newEndpoint(t)
	e.ready = e.ready && !p.passed[t.ID]
	return e
}

// learn takes note of a peer, and tells whether it is another than before: each session tells all once more.
func learn[V any](known map[string]*V, id string, now V) bool {
	if old := known[id]; old != nil && reflect.DeepEqual(*old, now) {
		return false
	}
	known[id] = &now
	return true
}

// forgetOthers lets go of what a complete message does not name.
func (p *peers) forgetOthers(m *v1.Peers, used map[string]bool) {
	named := make(map[string]bool, len(m.Nodes)+len(m.Networks)+len(m.Services)+len(m.Tasks))
	for i := range m.Nodes {
		named[m.Nodes[i].ID] = true
	}
	for i := range m.Networks {
		named[m.Networks[i].ID] = true
	}
	for i := range m.Services {
		named[m.Services[i].ID] = true
	}
	for i := range m.Tasks {
		named[m.Tasks[i].ID] = true
	}
	forgetUnnamed(p, p.nodes, named, used)
	forgetUnnamed(p, p.networks, named, used)
	forgetUnnamed(p, p.services, named, used)
	forgetUnnamed(p, p.tasks, named, used)
}

func forgetUnnamed[V any](p *peers, known map[string]V, named, used map[string]bool) {
	for id := range known {
		if !named[id] {
			p.gone(id, used)
		}
	}
}

// gone lets go of a peer of any kind. A network that a link is on stays until the link is gone.
func (p *peers) gone(id string, used map[string]bool) {
	switch {
	case p.tasks[id] != nil:
		if delete(p.tasks, id); p.endpoints[id] != nil && !p.endpoints[id].local {
			p.set(id, nil)
		}
	case p.services[id] != nil:
		p.setService(id, nil)
	case p.nodes[id] != nil:
		delete(p.nodes, id)
		p.nodeChanged(id)
	case p.networks[id] != nil && used[id]:
		p.leaving[id] = true
	case p.networks[id] != nil:
		p.dropNetwork(id)
	}
}

func (p *peers) dropNetwork(id string) {
	delete(p.networks, id)
	delete(p.leaving, id)
	p.segment(id).touch()
	p.tidy(id)
}

// leave lets go of the networks that were only kept for links that are gone.
func (p *peers) leave(used map[string]bool) {
	for id := range p.leaving {
		if !used[id] {
			p.dropNetwork(id)
		}
	}
}

// nodeChanged is for a node that came, changed or went: the way to its tasks is another.
func (p *peers) nodeChanged(id string) {
	p.others = nil
	for _, e := range p.onNode[id] {
		for _, at := range e.networks {
			p.segment(at.network).moved(at.addresses)
		}
	}
}

// set replaces what is known of a task; nil where it is gone.
func (p *peers) set(id string, next *endpoint) {
	old := p.endpoints[id]
	if old == nil && next == nil {
		return
	}
	if old != nil {
		p.unset(old)
	}
	if next == nil {
		return
	}
	p.endpoints[id] = next
	for _, at := range next.networks {
		p.segment(at.network).add(next, at.addresses)
	}
	if next.local {
		return
	}
	if p.onNode[next.node] == nil {
		p.onNode[next.node] = map[string]*endpoint{}
	}
	p.onNode[next.node][id] = next
	if next.gateway.IsValid() {
		p.gatewaysOf(next).add(next)
		p.mesh.changed[next.service] = true
	}
}

// gatewaysOf is where a task's gateway address is, by whether it is ready.
func (p *peers) gatewaysOf(e *endpoint) gateways {
	if e.ready {
		return p.gateways
	}
	return p.resting
}

func (p *peers) unset(old *endpoint) {
	delete(p.endpoints, old.id)
	for _, at := range old.networks {
		p.segment(at.network).remove(old, at.addresses)
		p.tidy(at.network)
	}
	if old.local {
		return
	}
	if delete(p.onNode[old.node], old.id); len(p.onNode[old.node]) == 0 {
		delete(p.onNode, old.node)
	}
	if old.gateway.IsValid() {
		p.gatewaysOf(old).remove(old)
		p.mesh.changed[old.service] = true
	}
}

// setService replaces what is known of a service; nil where it is gone.
func (p *peers) setService(id string, next *v1.PeerService) {
	p.mesh.whole = true
	if old := p.services[id]; old != nil {
		for _, n := range old.Networks {
			p.segment(n.Network).setService(id, nil, nil)
			p.tidy(n.Network)
		}
	}
	if next == nil {
		delete(p.services, id)
		return
	}
	p.services[id] = next
	for i := range next.Networks {
		p.segment(next.Networks[i].Network).setService(id, next, &next.Networks[i])
	}
}

// segment is a network's part.
func (p *peers) segment(network string) *segment {
	s := p.segments[network]
	if s == nil {
		s = newSegment(p)
		p.segments[network] = s
	}
	return s
}

// tidy forgets a segment that nothing is on.
func (p *peers) tidy(network string) {
	if s := p.segments[network]; s != nil && p.networks[network] == nil && len(s.owners) == 0 && len(s.services) == 0 {
		delete(p.segments, network)
	}
}

// emptyPeers tells whether a message says nothing.
func emptyPeers(m *v1.Peers) bool {
	return m == nil || len(m.Nodes)+len(m.Networks)+len(m.Services)+len(m.Tasks)+len(m.Gone) == 0
}
