package agent

import (
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/dnsplugin"
	"github.com/swarmd/swarmd/pkg/netplugin"
)

// own is what an own task's endpoint follows from: while it is the same, so is the endpoint.
type own struct {
	assigned *v1.Task
	linked   bool
	ready    bool
}

// reconsider has the peers know of this node's own tasks what is so now.
func (a *Agent) reconsider() {
	for _, t := range a.tasks {
		now := own{t.assigned, t.linked, t.published}
		if t.shown == now {
			continue
		}
		t.shown = now
		a.peers.set(t.id, a.endpoint(t))
	}
}

// endpoint is an own task as others of this node reach it; nil where it has no link.
func (a *Agent) endpoint(t *task) *endpoint {
	if t.assigned == nil || !t.linked || len(t.assigned.Desired.Networks) == 0 {
		return nil
	}
	d := t.assigned.Desired
	p := v1.PeerTask{ID: t.id, Service: d.Service, Name: v1.TaskName(d), Node: a.o.NodeID, Networks: d.Networks, Ready: t.published}
	if t.revision != nil && !strings.Contains(t.spec().Container.Hostname, "{{") {
		p.Hostname = t.spec().Container.Hostname
	}
	if at := t.attachment(); at != nil {
		p.Aliases = at.Aliases
	}
	e := newEndpoint(&p)
	e.local = true
	return e
}

// networks are the IDs of the networks that a task is on.
func (t *task) networks() []v1.NetworkAddress {
	if t.assigned == nil {
		return nil
	}
	return t.assigned.Desired.Networks
}

// used are the networks that a link is on.
func (a *Agent) used() map[string]bool {
	used := make(map[string]bool)
	for _, t := range a.tasks {
		if t.linked {
			for _, at := range t.onNetworks() {
				used[at.Overlay] = true
			}
		}
	}
	return used
}

// unknownNetwork is one that a task is on and that no manager has told of yet, or "".
func (a *Agent) unknownNetwork(t *task) string {
	for _, n := range t.networks() {
		if a.peers.networks[n.Network] == nil {
			return n.Network
		}
	}
	return ""
}

// attachments are the links to overlay networks of an assigned task.
type attachments struct {
	assigned *v1.Task
	all      []netplugin.Attachment
}

// onNetworks are a task's links to overlay networks, parsed once for what is assigned. Nobody changes them.
func (t *task) onNetworks() []netplugin.Attachment {
	if t.parsed.assigned != t.assigned {
		t.parsed = attachments{assigned: t.assigned}
		for _, at := range placedAt(t.networks()) {
			t.parsed.all = append(t.parsed.all, netplugin.Attachment{Overlay: at.network, Addresses: at.addresses})
		}
	}
	return t.parsed.all
}

// attachments are those of them that a manager has told of.
func (a *Agent) attachments(t *task) []netplugin.Attachment {
	unknown := func(at netplugin.Attachment) bool { return a.peers.networks[at.Overlay] == nil }
	all := t.onNetworks()
	if !slices.ContainsFunc(all, unknown) {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), unknown)
}

// internal tells whether all networks of a task are internal: then it has no way out.
func (a *Agent) internal(t *task) bool {
	networks := t.networks()
	return len(networks) > 0 && !slices.ContainsFunc(networks, func(n v1.NetworkAddress) bool {
		known := a.peers.networks[n.Network]
		return known == nil || !known.Internal
	})
}

// routers are what the routers of the networks in use are given, and zones what the resolver is.
func (a *Agent) routers(used map[string]bool) (overlays []*netplugin.Overlay, zones map[string]*dnsplugin.Zone) {
	zones = make(map[string]*dnsplugin.Zone, len(used))
	for id := range used {
		if n := a.peers.networks[id]; n != nil {
			s := a.peers.segment(id)
			overlays = append(overlays, s.router(n))
			if a.o.Names != nil {
				zones[id] = s.resolver(n)
			}
		}
	}
	slices.SortFunc(overlays, func(a, b *netplugin.Overlay) int { return strings.Compare(a.ID, b.ID) })
	return overlays, zones
}

// asker is a task that asks for names.
func (a *Agent) asker(t *task) *dnsplugin.Asker {
	q := &dnsplugin.Asker{Task: t.id, Internal: a.internal(t)}
	for _, n := range t.networks() {
		q.Zones = append(q.Zones, n.Network)
	}
	if t.revision != nil && t.spec().Container.DNS != nil {
		q.Nameservers = nameservers(t.spec().Container.DNS.Nameservers)
	}
	return q
}

// nameservers are those of a spec, each with or without a port. What is none is left out.
func nameservers(texts []string) []netip.AddrPort {
	var all []netip.AddrPort
	for _, text := range texts {
		if at, err := netip.ParseAddrPort(text); err == nil {
			all = append(all, at)
		} else if addr, err := netip.ParseAddr(text); err == nil {
			all = append(all, netip.AddrPortFrom(addr, 53))
		}
	}
	return all
}

// toOthers are the other nodes.
func (p *peers) toOthers(pool netip.Prefix) []netplugin.Peer {
	if p.others != nil && p.pool == pool {
		return p.others
	}
	p.pool, p.others = pool, make([]netplugin.Peer, 0, len(p.nodes))
	for _, n := range p.nodes {
		block, ok := blockOf(pool, n.Index)
		addr, err := netip.ParseAddr(n.Addr)
		if err != nil {
			if host, _, cut := net.SplitHostPort(n.Addr); cut == nil {
				addr, _ = netip.ParseAddr(host)
			}
		}
		if !ok || !addr.IsValid() {
			continue // nothing reaches it yet
		}
		other := netplugin.Peer{Node: n.Index, Underlay: addr.Unmap(), Gateway: block, IPv6: n.IPv6}
		other.Key = publicKey(n)
		p.others = append(p.others, other)
	}
	slices.SortFunc(p.others, func(a, b netplugin.Peer) int { return cmp.Compare(a.Node, b.Node) })
	return p.others
}

// publicKey is a node's public key for encrypted networks; zero where it has told none.
func publicKey(n *v1.PeerNode) (k netplugin.PublicKey) {
	if n == nil {
		return k
	}
	if key, err := base64.StdEncoding.DecodeString(n.DataKey); err == nil && len(key) == len(k) {
		copy(k[:], key)
	}
	return k
}

// blockOf is the block of gateway addresses of the node with an index: the /24 of the pool with that number.
func blockOf(pool netip.Prefix, index uint32) (netip.Prefix, bool) {
	if !pool.IsValid() || !pool.Addr().Is4() || pool.Bits() > 24 || index == 0 || uint64(index) >= 1<<(24-pool.Bits()) {
		return netip.Prefix{}, false
	}
	base := pool.Masked().Addr().As4()
	binary.BigEndian.PutUint32(base[:], binary.BigEndian.Uint32(base[:])+index<<8)
	return netip.PrefixFrom(netip.AddrFrom4(base), 24), true
}

// ports are those that lead to an own task, with their numbers. What its service publishes through the mesh is for the managers to
// say, where they have: another service may have the port by now.
func (a *Agent) ports(t *task) []v1.PortConfig {
	var ports []v1.PortConfig
	service := a.peers.services[t.service()]
	if service != nil {
		for _, p := range service.Ports {
			if target, leads := targetOf(p, t.ports()); leads {
				p.Target = target
				ports = append(ports, p)
			}
		}
	}
	for _, p := range t.ports() {
		if p.Mode != v1.PublishHost && service != nil {
			continue
		}
		if p.Mode == v1.PublishHost && p.Published == 0 {
			p.Published = t.chosen(p)
		}
		if p.Published != 0 {
			ports = append(ports, p)
		}
	}
	return ports
}
