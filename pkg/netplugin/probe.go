package netplugin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// mostAskers is how many ask for echoes at a time.
const mostAskers = 16

// probe is a question for echoes: from where, whom, and what it means when they do not answer.
type probe struct {
	path, name string // of the namespace
	from       netip.Addr
	to         []netip.Addr
	size       int
	means      func(to netip.Addr, tooLarge bool) Finding
}

// question is one of a probe: from which namespace, from where, and whom.
type question struct {
	path     string
	from, to netip.Addr
	size     int
}

func (e *probe) question(to netip.Addr) question { return question{e.path, e.from, to, e.size} }

// miss is a question that got no answer.
type miss struct {
	question
	Finding
}

// askAll asks all, several at a time.
func askAll(ctx context.Context, probes []probe) (missed []miss, err error) {
	type result struct {
		missed []miss
		err    error
	}
	results := make(chan result, len(probes))
	room := make(chan struct{}, mostAskers)
	for _, e := range probes {
		go func() {
			room <- struct{}{}
			defer func() { <-room }()
			some, err := e.ask(ctx)
			results <- result{some, err}
		}()
	}
	for range probes {
		r := <-results
		missed, err = append(missed, r.missed...), errors.Join(err, r.err)
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return missed, err
}

func (e *probe) ask(ctx context.Context) (missed []miss, err error) {
	space, err := openNamespace(e.name, e.path)
	if err != nil {
		return nil, nil // which the comparison tells, or it has just gone
	}
	defer space.close()
	answered, tooLarge, err := space.ping(ctx, e.from, e.to, e.size)
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil, nil // its task has just gone
	}
	for _, a := range e.to {
		if !answered[a] && err == nil {
			missed = append(missed, miss{e.question(a), e.means(a, tooLarge)})
		}
	}
	return missed, err
}

// probesNow are those of what the latest Apply made.
func (l *Linux) probesNow(only string) ([]probe, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	want, err := l.latest()
	if want == nil || err != nil {
		return nil, err
	}
	return l.probes(want, only), nil
}

// probes are what is asked in all, or outside of networks and on one.
func (l *Linux) probes(want *desired, only string) []probe {
	all := l.sharedProbes(want)
	for id, o := range l.examined(want, only) {
		all = append(all, l.overlayProbes(id, want.overlays[id], o.shape)...)
	}
	return all
}

// sharedProbes are asked outside of all networks.
func (l *Linux) sharedProbes(want *desired) (probes []probe) {
	u := want.underlay
	if !u.usable() {
		return nil
	}
	byAddress := map[netip.Addr]uint32{}
	for _, p := range l.last.Peers {
		if len(byAddress) < mostExamined && p.Underlay.Unmap().Is6() == u.addr.Is6() {
			byAddress[p.Underlay.Unmap()] = p.Node
		}
	}
	outer := l.tunnelMTU + u.overhead()
	about := func(kind string, of map[netip.Addr]uint32, format string, args ...any) func(netip.Addr, bool) Finding {
		return func(a netip.Addr, _ bool) Finding {
			return Finding{About: kind, Node: of[a], Text: fmt.Sprintf(format, append([]any{a}, args...)...)}
		}
	}
	addresses := slices.Collect(maps.Keys(byAddress))
	byRouter := map[netip.Addr]uint32{}
	for _, p := range want.peers {
		if len(byRouter) < mostExamined {
			byRouter[base{block: p.Gateway}.gateway()] = p.Node
		}
	}
	if want.wire.up() && len(byRouter) > 0 {
		probes = append(probes, probe{l.routerPath(), "router", want.gateway(), slices.Collect(maps.Keys(byRouter)), pingSmall, func(a netip.Addr, _ bool) Finding {
			return Finding{About: AboutLink, Node: byRouter[a], port: u.port, Text: fmt.Sprintf("published ports here do not lead to its tasks, nor networks that are not encrypted: let UDP port %d through between the nodes, and see what that node finds", u.port)}
		}})
	}
	return append(probes,
		probe{threadHost(l), "host", u.addr, addresses, pingSmall, about(AboutUnderlay, byAddress,
			"it does not answer pings at %s, its address for the traffic of tasks: see whether it is up, and whether the network between lets ICMP through")},
		probe{threadHost(l), "host", u.addr, addresses, outer, about(AboutMTU, byAddress,
			"packets to %s of %d bytes, as the networks' are between nodes, do not come through uncut: make the MTU the same along the way, or networks with a smaller one (--opt com.docker.network.driver.mtu)", outer)},
	)
}

// threadHost is a path of the machine's own namespace, which stays good while it is open.
func threadHost(l *Linux) string { return fmt.Sprintf("/proc/self/fd/%d", int(l.host.fd)) }

// overlayProbes are asked on a network, from a task of this machine, as its packets go.
func (l *Linux) overlayProbes(id string, w *wanted, s shape) (probes []probe) {
	owners := slices.Sorted(maps.Keys(w.members))
	if len(owners) == 0 {
		return nil
	}
	task := owners[0]
	for _, from := range w.members[task].addresses {
		nodes, one := map[netip.Addr]uint32{}, map[uint32]netip.Addr{}
		var all, each []netip.Addr
		for _, r := range w.remote {
			if len(all) == mostExamined || r.Address.Is6() != from.Is6() {
				continue
			}
			all, nodes[r.Address] = append(all, r.Address), r.Node
			if _, there := one[r.Node]; !there {
				one[r.Node], each = r.Address, append(each, r.Address)
			}
		}
		port := l.underlay.port
		if s.encrypted {
			port, _ = wirePort(s.vni) // which was checked
		}
		probes = append(probes,
			probe{l.Namespace(task), "task " + task, from, all, pingSmall, func(a netip.Addr, _ bool) Finding {
				return Finding{About: AboutLink, Overlay: id, Node: nodes[a], port: port, At: a.String(), Text: fmt.Sprintf("the task with the address %s is not reached from here: let UDP port %d through between the nodes, and see what that node finds", a, port)}
			}},
			probe{l.Namespace(task), "task " + task, from, each, s.mtu, func(a netip.Addr, tooLarge bool) Finding {
				text := fmt.Sprintf("packets of %d bytes, the network's MTU, do not come through to %s: the network between the nodes has a smaller MTU than the nodes' links say: make them the same, or make the network with a smaller one (--opt com.docker.network.driver.mtu)", s.mtu, a)
				if tooLarge {
					text = fmt.Sprintf("the link of a task here takes no packets of %d bytes, the network's MTU: the node's own MTU has changed, or somebody made the link's smaller, which is put right within a minute", s.mtu)
				}
				return Finding{About: AboutMTU, Overlay: id, Node: nodes[a], At: a.String(), Text: text}
			}})
	}
	return probes
}
