package agent

import (
	"net/netip"
	"slices"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// gateways are the gateway addresses of tasks of others, by service. An update may change which port of its tasks a published port leads
// to: each task is led to at the one that it was made with until it is gone, so they are kept apart by their ports.
type gateways map[string][]*alike

// alike are tasks of one service that were made with the same ports.
type alike struct {
	addresses
	ports []v1.PortConfig // nil where that is not known
}

func (g gateways) add(e *endpoint) {
	a := g.of(e)
	if a == nil {
		a = &alike{ports: e.ports}
		g[e.service] = append(g[e.service], a)
	}
	a.add(e.gateway)
}

func (g gateways) remove(e *endpoint) {
	a := g.of(e)
	if a == nil {
		return
	}
	if a.remove(e.gateway); len(a.count) > 0 {
		return
	}
	g[e.service] = slices.DeleteFunc(g[e.service], func(other *alike) bool { return other == a })
	if len(g[e.service]) == 0 {
		delete(g, e.service)
	}
}

// of are the tasks that are like one, itself among them; nil where there are none yet.
func (g gateways) of(e *endpoint) *alike {
	for _, a := range g[e.service] {
		if (a.ports == nil) == (e.ports == nil) && slices.Equal(a.ports, e.ports) {
			return a
		}
	}
	return nil
}

// reached are gateway addresses, and the port at which the tasks there are led to.
type reached struct {
	from   []netip.Addr
	target uint16
}

// behind are the tasks that a port of their service leads to, which those are not that were made without it; nil where there are none.
func (g gateways) behind(service string, p v1.PortConfig) (all []reached) {
	for _, a := range g[service] {
		target, leads := p.Target, true
		if a.ports != nil {
			target, leads = targetOf(p, a.ports)
		}
		if leads {
			all = append(all, reached{a.sorted(), target})
		}
	}
	return all
}

// targetOf is the port at which a task is led to by a port of its service, by the ports that the task was made with.
func targetOf(service v1.PortConfig, made []v1.PortConfig) (target uint16, leads bool) {
	i := slices.IndexFunc(made, func(own v1.PortConfig) bool { return samePort(service, own) })
	if i < 0 {
		return 0, false
	}
	return made[i].Target, true
}

// toTargets are addresses with their ports, in order.
func toTargets(of []reached) []netip.AddrPort {
	n := 0
	for _, r := range of {
		n += len(r.from)
	}
	to := make([]netip.AddrPort, 0, n)
	for _, r := range of {
		for _, addr := range r.from {
			to = append(to, netip.AddrPortFrom(addr, r.target))
		}
	}
	if len(of) > 1 {
		slices.SortFunc(to, netip.AddrPort.Compare)
		to = slices.Compact(to)
	}
	return to
}
