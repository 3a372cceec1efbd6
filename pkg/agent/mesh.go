package agent

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/netplugin"
)

// meshPort is a port that this machine answers on. Tasks that are not ready, or are to be stopped, take no new connections and keep those
// that they have.
type meshPort struct {
	key            portKey
	at             answering
	ready, resting []netip.AddrPort // in order
}

func (p *meshPort) leads() bool { return p.ready != nil || p.resting != nil }

// mesh are the ports that lead to tasks of others. Mostly one task of thousands changes at a time: then only what its service's ports
// lead to is worked out anew.
type mesh struct {
	ports   []meshPort // in order
	whole   bool       // all is to be worked out anew
	changed map[string]bool
	// contested are the services that have a port in common with another: which has it depends on what tasks there are.
	contested map[string]bool
}

func newMesh() mesh { return mesh{changed: map[string]bool{}, contested: map[string]bool{}} }

// find is where a port is, or would be.
func (m *mesh) find(key portKey) (i int, there bool) {
	return slices.BinarySearchFunc(m.ports, key, func(p meshPort, key portKey) int { return byNumber(p.key, key) })
}

func byNumber(a, b portKey) int {
	return cmp.Or(cmp.Compare(a.port, b.port), strings.Compare(string(a.protocol), string(b.protocol)))
}

// meshPorts are the ports that lead to tasks of others, in order. Nobody changes them.
func (p *peers) meshPorts() []meshPort {
	for id := range p.mesh.changed {
		p.mesh.whole = p.mesh.whole || p.mesh.contested[id] || !p.followTasks(id)
	}
	if p.mesh.whole {
		p.mesh = p.wholeMesh()
	}
	clear(p.mesh.changed)
	return p.mesh.ports
}

// followTasks has the ports of a service lead to the tasks that it has now. ok is false where one comes or goes by that, or is another
// service's.
func (p *peers) followTasks(id string) (ok bool) {
	s := p.services[id]
	if s == nil {
		return true
	}
	for _, port := range s.Ports {
		i, there := p.mesh.find(keyOf(port))
		if !there {
			continue
		}
		if p.mesh.ports[i].at.service != id {
			return false
		}
		p.mesh.ports[i].ready, p.mesh.ports[i].resting = nil, nil
	}
	for _, port := range s.Ports {
		ready, resting := p.gateways.behind(id, port), p.resting.behind(id, port)
		if port.Published == 0 || ready == nil && resting == nil {
			continue
		}
		i, there := p.mesh.find(keyOf(port))
		if !there {
			return false
		}
		p.mesh.ports[i].lead(ready, resting)
	}
	return !slices.ContainsFunc(s.Ports, func(port v1.PortConfig) bool {
		i, there := p.mesh.find(keyOf(port))
		return there && !p.mesh.ports[i].leads()
	})
}

// wholeMesh works out all of it. Of two services that have one port, the first by ID has it that has tasks which are ready.
func (p *peers) wholeMesh() mesh {
	services := make([]*v1.PeerService, 0, len(p.services))
	for id, s := range p.services {
		if len(s.Ports) > 0 && (p.gateways[id] != nil || p.resting[id] != nil) {
			services = append(services, s)
		}
	}
	slices.SortFunc(services, func(a, b *v1.PeerService) int { return strings.Compare(a.ID, b.ID) })
	m, ports := newMesh(), make(map[portKey]*meshPort)
	for _, s := range services {
		for _, port := range s.Ports {
			if port.Published == 0 {
				continue
			}
			key := keyOf(port)
			one := ports[key]
			if one == nil {
				one = &meshPort{key: key}
				ports[key] = one
			}
			other := one.at.service != "" && one.at.service != s.ID
			if other {
				m.contested[s.ID], m.contested[one.at.service] = true, true
			}
			ready := p.gateways.behind(s.ID, port)
			if other && one.ready != nil {
				ready = nil
			} else {
				one.at.add(s.ID, port)
			}
			one.lead(ready, p.resting.behind(s.ID, port))
		}
	}
	for key, one := range ports {
		if !one.leads() {
			continue
		}
		if i, there := p.mesh.find(key); there { // a list that is the same one as before is not looked at again
			one.ready, one.resting = theSame(p.mesh.ports[i].ready, one.ready), theSame(p.mesh.ports[i].resting, one.resting)
		}
		m.ports = append(m.ports, *one)
	}
	slices.SortFunc(m.ports, func(a, b meshPort) int { return byNumber(a.key, b.key) })
	return m
}

// lead has a port lead to what there is of tasks. Those that rest may be of several services: one that is being deleted, and the one that
// has its port by then.
func (p *meshPort) lead(ready, resting []reached) {
	if ready != nil {
		p.ready = toTargets(ready)
	}
	if resting != nil {
		p.resting = joined(p.resting, toTargets(resting))
	}
}

// theSame is the list, as the one that was before where that has the same in it.
func theSame(before, now []netip.AddrPort) []netip.AddrPort {
	if slices.Equal(before, now) {
		return before
	}
	return now
}

// published are the ports that this machine answers on: those of the mesh lead to the tasks of the whole swarm.
func (a *Agent) published() []netplugin.PublishedPort {
	others := a.peers.meshPorts()
	own := a.ownPorts()
	all := make([]netplugin.PublishedPort, 0, len(others)+len(own))
	for len(others) > 0 || len(own) > 0 {
		switch {
		case len(own) == 0 || len(others) > 0 && byNumber(others[0].key, own[0].key) < 0:
			all, others = append(all, others[0].published()), others[1:]
		case len(others) == 0 || byNumber(own[0].key, others[0].key) < 0:
			all, own = append(all, own[0].published()), own[1:]
		default:
			both := meshPort{own[0].key, own[0].at, joined(own[0].ready, others[0].ready), joined(own[0].resting, others[0].resting)}
			all, own, others = append(all, both.published()), own[1:], others[1:]
		}
	}
	return all
}

// ownPorts are those that lead to this node's own tasks, in order.
func (a *Agent) ownPorts() (all []meshPort) {
	index := make(map[portKey]int)
	for _, t := range a.tasks {
		if !t.linked || !t.addr.IsValid() {
			continue
		}
		for _, p := range a.ports(t) {
			key, to := keyOf(p), netip.AddrPortFrom(t.addr, p.Target)
			i, there := index[key]
			if !there {
				i = len(all)
				index[key] = i
				all = append(all, meshPort{key: key, at: a.peers.answering(key)})
			}
			if t.published {
				all[i].at.add(t.service(), p)
				all[i].ready = append(all[i].ready, to)
			} else {
				all[i].resting = append(all[i].resting, to)
			}
		}
	}
	for i := range all {
		all[i].ready, all[i].resting = joined(all[i].ready, nil), joined(all[i].resting, nil)
	}
	slices.SortFunc(all, func(a, b meshPort) int { return byNumber(a.key, b.key) })
	return all
}

// answering is where a port answers by the tasks of others.
func (p *peers) answering(key portKey) answering {
	if i, there := p.mesh.find(key); there {
		at := p.mesh.ports[i].at
		at.at = slices.Clip(at.at)
		return at
	}
	return answering{}
}

// joined is what own tasks and those of others are behind, in order. What it is given of others stays as it is.
func joined(own, others []netip.AddrPort) []netip.AddrPort {
	if len(own) == 0 {
		return others
	}
	all := slices.Concat(own, others)
	slices.SortFunc(all, netip.AddrPort.Compare)
	return slices.Compact(all)
}

// published is the port as the network is told it.
func (p *meshPort) published() netplugin.PublishedPort {
	return netplugin.PublishedPort{Protocol: string(p.key.protocol), Port: p.key.port, Backends: p.ready, Draining: p.resting, Places: p.at.places()}
}
