package apiserver

import (
	"cmp"
	"encoding/json"
	"hash/maphash"
	"slices"
	"strings"
	"sync"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// What a node is told of others (see v1.Peers) follows from a snapshot alone.

// scopeOf are the IDs of the networks that a node may know of: those that a task of its own is on that has not ended.
func scopeOf(s *store.Snapshot, node string) []string {
	var scope []string
	for t := range s.TasksOfNode(node) {
		if v1.Observed(t).Terminal() {
			continue
		}
		for _, n := range t.Desired.Networks {
			if !slices.Contains(scope, n.Network) {
				scope = append(scope, n.Network)
			}
		}
	}
	slices.Sort(scope)
	return scope
}

// peerView is what one node is to be told of others in one snapshot.
type peerView struct {
	*store.Snapshot
	node  string
	scope []string // sorted
	kept  *peerCache
}

// has tells whether the node may know of a network.
func (v *peerView) has(network string) bool {
	_, ok := slices.BinarySearch(v.scope, network)
	return ok
}

// told is a peer as JSON, and the hash of it by which a session remembers what it sent.
type told struct {
	body []byte
	hash uint64
	// rests says that it is a task that others are not to send to.
	rests bool
}

// peerSeed makes the hashes of this process. Of 64 bits, two states of one peer have the same once in 10¹⁹ times.
var peerSeed = maphash.MakeSeed()

func tellPeer(v any) *told {
	body, err := json.Marshal(v)
	if err != nil {
		return nil // of strings, numbers and booleans: it cannot fail
	}
	return &told{body: body, hash: maphash.Bytes(peerSeed, body)}
}

// tellNode is a node, where it has an index; nil where there is nothing to tell.
func (v *peerView) tellNode(id string) *told {
	n, ok := store.Get(v.Snapshot, v1.Nodes, id)
	if !ok {
		return nil
	}
	key := peerKey{id: id, spec: n.Meta.Revisions[v1.SectionSpec], status: n.Meta.Revisions[v1.SectionStatus], lost: !reached(v.Snapshot, n)}
	return v.kept.of(key, func() *told {
		p := peerNode(n)
		if p == nil {
			return nil
		}
		if key.lost {
			p.Addr = ""
		}
		return tellPeer(p)
	})
}

// holder is the node that is reached at an address. A machine that left the swarm and came back is another node than before, and the
// entry of the earlier one may stay: of several, it is one that is not lost, and of those the newest.
func holder(s *store.Snapshot, address string) *v1.Node {
	var best *v1.Node
	for n := range s.NodesAt(address) {
		if n.Spec != nil && n.Spec.Index != 0 && (best == nil || supersedes(n, best)) {
			best = n
		}
	}
	return best
}

// reached tells whether a node is reached at the address that it has.
func reached(s *store.Snapshot, n *v1.Node) bool { return holder(s, v1.DataAddress(n)) == n }

func supersedes(n, other *v1.Node) bool {
	if lost := v1.NodeLost(n); lost != v1.NodeLost(other) {
		return !lost
	}
	return cmp.Or(n.Meta.CreatedAt.Compare(other.Meta.CreatedAt), strings.Compare(n.Meta.ID, other.Meta.ID)) > 0
}

// peerNode is a node as others reach it; nil where it has no index.
func peerNode(n *v1.Node) *v1.PeerNode {
	if n.Spec == nil || n.Spec.Index == 0 {
		return nil
	}
	p := &v1.PeerNode{ID: n.Meta.ID, Index: n.Spec.Index}
	if st := n.Status; st != nil {
		d := &st.Description
		p.Hostname, p.DataKey, p.IPv6, p.Addr = d.Hostname, d.DataKey, d.IPv6, v1.DataAddress(n)
	}
	return p
}

// tellNetwork is one of the node's networks, once it has what tasks need of it.
func (v *peerView) tellNetwork(id string) *told {
	n, ok := store.Get(v.Snapshot, v1.Networks, id)
	if !ok || !v.has(id) || n.Spec == nil || n.Desired == nil || n.Desired.VNI == 0 {
		return nil
	}
	key := peerKey{id: id, spec: n.Meta.Revisions[v1.SectionSpec], desired: n.Meta.Revisions[v1.SectionDesired]}
	return v.kept.of(key, func() *told {
		return tellPeer(&v1.PeerNetwork{ID: id, Name: n.Meta.Name, Options: n.Spec.Options, Internal: n.Spec.Internal,
			VNI: n.Desired.VNI, Subnets: n.Desired.Subnets})
	})
}

// tellService is a service on one of the node's networks, or one that publishes ports on every node.
func (v *peerView) tellService(id string) *told {
	s, ok := store.Get(v.Snapshot, v1.Services, id)
	if !ok || s.Spec == nil {
		return nil
	}
	// One that is being deleted has lost its name and its addresses already; its tasks keep the connections by its ports until they end.
	deleting := !s.Meta.Deleting.IsZero()
	name, networks := s.Meta.Name, v.serviceNetworks(s)
	if deleting {
		name, networks = "", nil
	}
	if len(networks) == 0 && !store.PublishesIngress(s) {
		return nil
	}
	var hostPorts []v1.PortConfig // only names use them
	if len(networks) > 0 {
		hostPorts = portsOfHosts(s)
	}
	key := peerKey{id: id, spec: s.Meta.Revisions[v1.SectionSpec], desired: s.Meta.Revisions[v1.SectionDesired],
		of: join(networks, func(n v1.PeerServiceNetwork) string { return n.Network }), deleting: deleting}
	return v.kept.of(key, func() *told {
		return tellPeer(&v1.PeerService{ID: id, Name: name, Networks: networks, Ports: ingressPorts(s), HostPorts: hostPorts})
	})
}

// serviceNetworks are those of the node's networks that a service is on.
func (v *peerView) serviceNetworks(s *v1.Service) []v1.PeerServiceNetwork {
	var on []v1.PeerServiceNetwork
	at := func(network string) *v1.PeerServiceNetwork {
		for i := range on {
			if on[i].Network == network {
				return &on[i]
			}
		}
		on = append(on, v1.PeerServiceNetwork{Network: network})
		return &on[len(on)-1]
	}
	s = v1.Effective(s)
	for _, n := range s.Spec.Task.Networks {
		if id, ok := v.resolve(n.Target); ok && v.has(id) {
			p := at(id)
			p.Aliases = append(p.Aliases, n.Aliases...)
		}
	}
	if s.Desired == nil || s.Spec.Endpoint != nil && s.Spec.Endpoint.Mode == v1.EndpointDNSRR {
		return on
	}
	for _, n := range s.Desired.VIPs {
		if !v.has(n.Network) {
			continue
		}
		p := at(n.Network)
		for _, address := range n.Addresses {
			p.VIPs = append(p.VIPs, withoutLength(address))
		}
	}
	return on
}

// resolve is the ID of the network that a spec names by its ID or name.
func (v *peerView) resolve(target string) (string, bool) {
	if _, ok := v.Lookup(v1.KindNetwork, target); ok {
		return target, true
	}
	return v.ByName(v1.KindNetwork, target)
}

func withoutLength(address string) string {
	address, _, _ = strings.Cut(address, "/")
	return address
}

// ingressPorts are the ports that a service publishes on every node. One whose number is still to be chosen is left out.
func ingressPorts(s *v1.Service) []v1.PortConfig {
	var ports []v1.PortConfig
	for _, p := range v1.PublishedPorts(s) {
		if p.Mode != v1.PublishHost && p.Published != 0 {
			ports = append(ports, p)
		}
	}
	return ports
}

// portsOfHosts are the ports that a service publishes by the nodes of its tasks alone, each once. Where they answer is left out: it is each
// task's own, and no change of it is news to names.
func portsOfHosts(s *v1.Service) []v1.PortConfig {
	var ports []v1.PortConfig
	for _, p := range v1.PublishedPorts(s) {
		told := v1.PortConfig{Name: p.Name, Protocol: p.Protocol, Target: p.Target, Mode: p.Mode}
		if p.Mode == v1.PublishHost && !slices.Contains(ports, told) {
			ports = append(ports, told)
		}
	}
	return ports
}

// tellTask is a task on one of the node's networks, or of a service that publishes ports on every node.
func (v *peerView) tellTask(id string) *told {
	t, ok := store.Get(v.Snapshot, v1.Tasks, id)
	if !ok || t.Desired == nil || unreachable(t) {
		return nil
	}
	networks := v.taskNetworks(t)
	if len(networks) == 0 && (gatewayOf(t) == "" || !v.ingress(t.Desired.Service)) {
		return nil
	}
	node, ok := store.Get(v.Snapshot, v1.Nodes, v1.TaskNode(t))
	if !ok || !reached(v.Snapshot, node) {
		return nil // whatever it was seen as last
	}
	key := peerKey{id: id, desired: t.Meta.Revisions[v1.SectionDesired], status: t.Meta.Revisions[v1.SectionStatus],
		of: join(networks, func(n v1.NetworkAddress) string { return n.Network }), lost: v1.NodeLost(node)}
	return v.kept.of(key, func() *told {
		p := v.peerTask(t, networks, !key.lost)
		now := tellPeer(p)
		if now != nil {
			now.rests = !p.Ready
		}
		return now
	})
}

// taskNetworks are a task's addresses on those of the node's networks that it is on.
func (v *peerView) taskNetworks(t *v1.Task) []v1.NetworkAddress {
	var on []v1.NetworkAddress
	for _, n := range t.Desired.Networks {
		if v.has(n.Network) {
			on = append(on, n)
		}
	}
	return on
}

// unreachable tells whether nobody can reach a task any more, or yet.
func unreachable(t *v1.Task) bool { return v1.Observed(t).Terminal() || v1.TaskNode(t) == "" }

func (v *peerView) ingress(service string) bool {
	s, ok := store.Get(v.Snapshot, v1.Services, service)
	return ok && store.PublishesIngress(s)
}

// peerTask is a task with its addresses on the node's networks.
func (v *peerView) peerTask(t *v1.Task, networks []v1.NetworkAddress, nodeUp bool) *v1.PeerTask {
	p := &v1.PeerTask{ID: t.Meta.ID, Service: t.Desired.Service, Name: v1.TaskName(t.Desired), Node: v1.TaskNode(t), Gateway: gatewayOf(t),
		Networks: networks, Ready: nodeUp && v1.Serves(t)}
	if r, ok := store.Get(v.Snapshot, v1.ServiceRevisions, t.Desired.Revision); ok && r.Spec != nil {
		if name := r.Spec.Task.Container.Hostname; !strings.Contains(name, "{{") { // templates are for the node to expand
			p.Hostname = name
		}
		p.Ports = madeWith(r.Spec.Endpoint)
	}
	if a := t.Desired.Attachment; a != nil {
		p.Aliases = a.Aliases
	}
	return p
}

// madeWith are the ports of a revision that its tasks are behind on every node. They are not nil, which would say nothing.
func madeWith(e *v1.EndpointSpec) []v1.PortConfig {
	ports := []v1.PortConfig{}
	if e == nil {
		return ports
	}
	for _, p := range e.Ports {
		if p.Mode != v1.PublishHost {
			p.Name, p.Mode = "", ""
			ports = append(ports, p)
		}
	}
	return ports
}

func gatewayOf(t *v1.Task) string {
	if t.Status == nil {
		return ""
	}
	return t.Status.Address
}

// dataPort is the UDP port of the traffic between nodes.
func dataPort(s *store.Snapshot) uint16 {
	if c, ok := store.Get(s, v1.Clusters, v1.ClusterName); ok && c.Spec != nil && c.Spec.DataPathPort <= 65535 {
		return uint16(c.Spec.DataPathPort)
	}
	return 0
}

func join[T any](all []T, text func(T) string) string {
	var b strings.Builder
	for _, one := range all {
		b.WriteString(text(one))
		b.WriteByte(' ')
	}
	return b.String()
}

// peerKey is all that the JSON of a peer depends on: the revisions of its sections, which of its networks are told, whether
// its node is lost, or its address is another node's, and whether it is being deleted.
type peerKey struct {
	id                    string
	spec, desired, status int64
	of                    string
	lost, deleting        bool
}

// peerCache keeps the JSON of peers: the same goes to many nodes.
type peerCache struct {
	mu   sync.Mutex
	kept map[peerKey]*told
	size int
}

// peerCost is about what an entry takes beside its JSON, in bytes.
const peerCost = 200

func (c *peerCache) of(key peerKey, tell func() *told) *told {
	c.mu.Lock()
	t, ok := c.kept[key]
	c.mu.Unlock()
	if ok {
		return t
	}
	if t = tell(); t == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept == nil || c.size+len(t.body)+peerCost > maxKept {
		c.kept, c.size = make(map[peerKey]*told), 0
	}
	if _, raced := c.kept[key]; !raced {
		c.kept[key] = t
		c.size += len(t.body) + peerCost
	}
	return t
}
