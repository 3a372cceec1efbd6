package agent

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/dnsplugin"
	"github.com/swarmd/swarmd/pkg/netplugin"
)

// segment is one network as this machine has it: who is on it, and what its router and the resolver are given. Those are made
// again only when something in them changed, and of what did not change, nothing is looked at.
type segment struct {
	peers    *peers
	owners   map[netip.Addr][]*endpoint // an address may have two for a moment, when messages cross; the last counts
	services map[string]*member
	names    map[string][]source      // who gives a name its addresses
	holders  map[netip.Addr][]*member // of virtual addresses, which also may have two for a moment
	hosts    *dnsplugin.Table[[]netip.Addr]
	reverse  *dnsplugin.Table[string]

	movedAddrs    map[netip.Addr]struct{} // the way to them may be another
	heldAddrs     map[netip.Addr]struct{} // so may their names be
	balancedAddrs map[netip.Addr]struct{} // virtual ones that may lead to others
	renamed       map[string]struct{}     // names whose addresses may be others
	remote        []netplugin.RemoteAddress
	vips          []netplugin.VIP
	ports         map[string][]dnsplugin.Port // of the services, by name; nil where it has to be made again
	overlay       *netplugin.Overlay          // as well
	zone          *dnsplugin.Zone             // as well
}

// member is a service on a network.
type member struct {
	peer  *v1.PeerService // nil where only tasks of it are known
	vips  []netip.Addr
	names []string // the service's and its aliases, in lower case
	ready addresses
	tasks int
}

// source gives a name addresses: a service, or its ready tasks alone, or one task.
type source struct {
	member   *member
	tasks    bool
	endpoint *endpoint
}

func (s source) addresses(network string) []netip.Addr {
	switch {
	case s.endpoint != nil:
		return s.endpoint.at(network)
	case s.tasks || len(s.member.vips) == 0:
		return s.member.ready.sorted()
	}
	return s.member.vips
}

// idle tells whether it leads to a virtual address that nobody answers at.
func (s source) idle() bool {
	return s.endpoint == nil && !s.tasks && len(s.member.vips) > 0 && s.member.ready.none()
}

// at are the addresses by which a task is to be found on a network.
func (e *endpoint) at(network string) []netip.Addr {
	if !e.ready {
		return nil
	}
	for _, at := range e.networks {
		if at.network == network {
			return at.addresses
		}
	}
	return nil
}

// whileReady are the names that are an endpoint's only while it is ready, beside its own.
func (e *endpoint) whileReady() []string {
	if !e.ready {
		return nil
	}
	return e.aliases
}

func newSegment(p *peers) *segment {
	return &segment{
		peers: p, owners: map[netip.Addr][]*endpoint{}, services: map[string]*member{}, names: map[string][]source{},
		holders: map[netip.Addr][]*member{}, hosts: new(dnsplugin.Table[[]netip.Addr]), reverse: new(dnsplugin.Table[string]),
		movedAddrs: map[netip.Addr]struct{}{}, heldAddrs: map[netip.Addr]struct{}{}, balancedAddrs: map[netip.Addr]struct{}{},
		renamed: map[string]struct{}{},
	}
}

// touch has all of the segment made again.
func (s *segment) touch() { s.overlay, s.zone = nil, nil }

// moved has the ways to addresses looked at again.
func (s *segment) moved(all []netip.Addr) {
	for _, a := range all {
		s.movedAddrs[a] = struct{}{}
		s.overlay = nil
	}
}

func (s *segment) member(service string) *member {
	m := s.services[service]
	if m == nil {
		m = new(member)
		s.services[service] = m
	}
	return m
}

func (s *segment) add(e *endpoint, all []netip.Addr) {
	m := s.member(e.service)
	m.tasks++
	for _, a := range all {
		s.owners[a] = append(s.owners[a], e)
	}
	for _, name := range e.names {
		s.give(name, source{endpoint: e})
	}
	for _, alias := range e.whileReady() {
		s.give(alias, source{endpoint: e})
	}
	s.change(m, e, all, m.ready.add)
}

func (s *segment) remove(e *endpoint, all []netip.Addr) {
	m := s.member(e.service)
	m.tasks--
	for _, a := range all {
		owners := slices.DeleteFunc(slices.Clone(s.owners[a]), func(o *endpoint) bool { return o == e })
		if s.owners[a] = owners; len(owners) == 0 {
			delete(s.owners, a)
		}
	}
	for _, name := range e.names {
		s.takeBack(name, source{endpoint: e})
	}
	for _, alias := range e.whileReady() {
		s.takeBack(alias, source{endpoint: e})
	}
	s.change(m, e, all, m.ready.remove)
	s.forget(e.service)
}

// change takes note that a task came or went, in what its service leads to.
func (s *segment) change(m *member, e *endpoint, all []netip.Addr, note func(netip.Addr)) {
	s.moved(all)
	for _, a := range all {
		s.heldAddrs[a] = struct{}{}
	}
	if !e.ready {
		return
	}
	for _, a := range all {
		note(a)
	}
	s.zone = nil
	for _, name := range m.names {
		s.renamed["tasks."+name] = struct{}{}
		if len(m.vips) == 0 || len(s.names[name]) > 1 {
			s.renamed[name] = struct{}{}
		}
	}
	s.balanced(m.vips)
}

// balanced has virtual addresses looked at again.
func (s *segment) balanced(vips []netip.Addr) {
	for _, vip := range vips {
		s.balancedAddrs[vip] = struct{}{}
		s.overlay = nil
	}
}

// setService replaces what is known of a service on the network; nil where it is not there.
func (s *segment) setService(id string, service *v1.PeerService, on *v1.PeerServiceNetwork) {
	m := s.member(id)
	for _, name := range m.names {
		s.takeBack(name, source{member: m})
		s.takeBack("tasks."+name, source{member: m, tasks: true})
	}
	s.balanced(m.vips)
	for _, vip := range m.vips {
		s.heldAddrs[vip] = struct{}{}
		s.holders[vip] = slices.DeleteFunc(slices.Clone(s.holders[vip]), func(o *member) bool { return o == m })
		if len(s.holders[vip]) == 0 {
			delete(s.holders, vip)
		}
	}
	m.peer, m.names, m.vips, s.ports = service, nil, nil, nil
	s.touch()
	if service == nil {
		s.forget(id)
		return
	}
	m.vips = parseAddresses(on.VIPs)
	for _, name := range append([]string{service.Name}, on.Aliases...) {
		if name = strings.ToLower(name); name != "" && !slices.Contains(m.names, name) {
			m.names = append(m.names, name)
			s.give(name, source{member: m})
			s.give("tasks."+name, source{member: m, tasks: true})
		}
	}
	s.balanced(m.vips)
	for _, vip := range m.vips {
		s.heldAddrs[vip] = struct{}{}
		s.holders[vip] = append(s.holders[vip], m)
	}
}

func (s *segment) forget(service string) {
	if m := s.services[service]; m.peer == nil && m.tasks == 0 {
		delete(s.services, service)
	}
}

func (s *segment) give(name string, from source) {
	s.names[name] = append(s.names[name], from)
	s.renamed[name], s.zone = struct{}{}, nil
}

func (s *segment) takeBack(name string, from source) {
	s.names[name] = slices.DeleteFunc(slices.Clone(s.names[name]), func(o source) bool { return o == from })
	if len(s.names[name]) == 0 {
		delete(s.names, name)
	}
	s.renamed[name], s.zone = struct{}{}, nil
}

// router is what the network's router is given. It is the same pointer as long as it is the same.
func (s *segment) router(n *v1.PeerNetwork) *netplugin.Overlay {
	if s.overlay != nil {
		return s.overlay
	}
	s.remote = merge(s.remote, s.movedAddrs, func(r netplugin.RemoteAddress) netip.Addr { return r.Address }, s.way)
	s.vips = merge(s.vips, s.balancedAddrs, func(v netplugin.VIP) netip.Addr { return v.Address }, s.balance)
	o := &netplugin.Overlay{ID: n.ID, VNI: n.VNI, Remote: s.remote, VIPs: s.vips, MTU: mtuOf(n.Options)}
	_, o.Encrypted = n.Options["encrypted"] // whatever its value is, as with Docker
	for _, subnet := range n.Subnets {
		prefix, err := netip.ParsePrefix(subnet.Subnet)
		if err != nil {
			continue
		}
		gateway, err := netip.ParseAddr(subnet.Gateway)
		if err != nil {
			gateway = prefix.Masked().Addr().Next()
		}
		o.Subnets = append(o.Subnets, netplugin.Subnet{Prefix: prefix.Masked(), Gateway: gateway})
	}
	s.overlay = o
	return o
}

// balance is what a virtual address leads to. Of two services that have it, the one with more tasks counts.
func (s *segment) balance(vip netip.Addr) (netplugin.VIP, bool) {
	var most []netip.Addr
	for _, m := range s.holders[vip] {
		if backends := ofVersion(m.ready.sorted(), vip.Is4()); len(backends) > len(most) {
			most = backends
		}
	}
	return netplugin.VIP{Address: vip, Backends: most}, len(s.holders[vip]) > 0
}

// way is where an address leads to, if it is one of another node that is known.
func (s *segment) way(a netip.Addr) (netplugin.RemoteAddress, bool) {
	owners := s.owners[a]
	if len(owners) == 0 {
		return netplugin.RemoteAddress{}, false
	}
	owner := owners[len(owners)-1]
	node := s.peers.nodes[owner.node]
	if owner.local || node == nil {
		return netplugin.RemoteAddress{}, false
	}
	return netplugin.RemoteAddress{Address: a, Node: node.Index}, true
}

// mtuOf is the MTU that a network's options ask for, by Docker's name; 0 where they do not.
func mtuOf(options map[string]string) int {
	n, err := strconv.Atoi(options["com.docker.network.driver.mtu"])
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// resolver is what the resolver is given of the network. It is the same pointer as long as it is the same.
func (s *segment) resolver(n *v1.PeerNetwork) *dnsplugin.Zone {
	if s.zone != nil {
		return s.zone
	}
	for name := range s.renamed {
		s.resolve(name, n.ID)
	}
	clear(s.renamed)
	for a := range s.heldAddrs {
		s.nameBack(a, n)
	}
	clear(s.heldAddrs)
	if s.ports == nil {
		s.ports = s.servicePorts()
	}
	s.zone = &dnsplugin.Zone{Name: n.Name, Hosts: s.hosts.Clone(), Reverse: s.reverse.Clone(), Ports: s.ports}
	return s.zone
}

// servicePorts are the ports of the services that are known, by their names and aliases, whichever nodes publish them: who asks goes to a task
// itself.
func (s *segment) servicePorts() map[string][]dnsplugin.Port {
	ports := make(map[string][]dnsplugin.Port)
	for _, m := range s.services {
		if m.peer == nil {
			continue
		}
		for _, p := range slices.Concat(m.peer.Ports, m.peer.HostPorts) {
			for _, name := range m.names {
				ports[name] = append(ports[name], dnsplugin.Port{Name: p.Name, Protocol: string(cmp.Or(p.Protocol, v1.TCP)), Port: p.Target})
			}
		}
	}
	return ports
}

// resolve finds the addresses of a name. Where several give it some, it has them all, but for those that lead to nobody while others do.
func (s *segment) resolve(name, network string) {
	from := s.names[name]
	switch len(from) {
	case 0:
		s.hosts.Delete(name)
	case 1:
		s.hosts.Set(name, from[0].addresses(network))
	default:
		var all, idle []netip.Addr
		for _, f := range from {
			if some := f.addresses(network); f.idle() {
				idle = append(idle, some...)
			} else {
				all = append(all, some...)
			}
		}
		if len(all) == 0 {
			all = idle
		}
		slices.SortFunc(all, netip.Addr.Compare)
		s.hosts.Set(name, slices.Compact(all))
	}
}

// nameBack finds the name of an address. A task's address has its name also while the task is not ready: who asks has seen it.
func (s *segment) nameBack(a netip.Addr, n *v1.PeerNetwork) {
	name := ""
	if owners := s.owners[a]; len(owners) > 0 {
		name = owners[len(owners)-1].container + "." + n.Name
	} else if holders := s.holders[a]; len(holders) > 0 {
		name = holders[len(holders)-1].peer.Name + "." + n.Name
	}
	text := a.String()
	if name == "" {
		s.reverse.Delete(text)
	} else {
		s.reverse.Set(text, name)
	}
}
