package netplugin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Finding is something that is not as it should be.
type Finding struct {
	// About is one of the kinds below; Overlay is the network's ID and Node the other node's index, where it is about one.
	About   string
	Overlay string
	Node    uint32
	// Text is a sentence that does not name the two.
	Text string
}

// What findings are about.
const (
	AboutUnderlay = "underlay"
	AboutMTU      = "mtu"
	AboutLink     = "link"
	AboutSession  = "encrypted"
	AboutRules    = "rules"
)

// The limits of what is examined at a time. Of more addresses than that, some are taken.
const (
	examinePatience = 30 * time.Second
	mostExamined    = 256
	// sessionAge is how old a session with a node may be: it begins anew every two minutes.
	sessionAge = 4 * time.Minute
)

// probe is a question for echoes: from where, whom, and what it means when they do not answer.
type probe struct {
	path, name string // of the namespace
	from       netip.Addr
	to         []netip.Addr
	size       int
	means      func(to netip.Addr, tooLarge bool) Finding
}

// Examine tells what of this machine's network is not as it should be: it compares what the kernel has with what the latest Apply
// was to make, and has packets go where tasks' packets go, small ones and as large ones as may be. Overlay is a network's ID, or empty for all
// and what they share. It changes nothing. Checks is how much was looked at.
func (l *Linux) Examine(ctx context.Context, overlay string) (findings []Finding, checks int, err error) {
	ctx, cancel := context.WithTimeout(ctx, examinePatience)
	defer cancel()
	findings, probes, checks, err := l.compare(overlay)
	if err != nil {
		return nil, 0, fmt.Errorf("netplugin: %w", err)
	}
	type result struct {
		findings []Finding
		err      error
	}
	results := make(chan result, len(probes))
	room := make(chan struct{}, 16)
	for _, e := range probes {
		checks += len(e.to)
		go func() {
			room <- struct{}{}
			defer func() { <-room }()
			found, err := e.examine(ctx)
			results <- result{found, err}
		}()
	}
	for range probes {
		r := <-results
		findings, err = append(findings, r.findings...), errors.Join(err, r.err)
	}
	findings = gathered(causes(findings))
	if err != nil {
		return findings, checks, fmt.Errorf("netplugin: %w", err)
	}
	return findings, checks, nil
}

// causes are findings without those that follow from others: who is not reached at all is not reached on a network either, nor by large
// packets.
func causes(all []Finding) []Finding {
	unreached, cut := map[uint32]bool{}, map[Finding]bool{}
	for _, f := range all {
		switch f.About {
		case AboutUnderlay:
			unreached[f.Node] = true
		case AboutLink:
			cut[Finding{Overlay: f.Overlay, Node: f.Node}] = true
		}
	}
	small := map[uint32]bool{}
	for _, f := range all {
		small[f.Node] = small[f.Node] || f.About == AboutMTU && f.Overlay == ""
	}
	return slices.DeleteFunc(all, func(f Finding) bool {
		switch f.About {
		case AboutLink, AboutSession:
			return unreached[f.Node] && f.Node != 0
		case AboutMTU:
			return f.Node != 0 && (unreached[f.Node] || cut[Finding{Overlay: f.Overlay, Node: f.Node}] || f.Overlay != "" && small[f.Node])
		}
		return false
	})
}

// gathered are findings with one for all that say the same of a network and another node.
func gathered(all []Finding) (some []Finding) {
	first, more := map[Finding]int{}, map[int]int{}
	for _, f := range all {
		about := f
		about.Text = ""
		at, again := first[about]
		if again && f.Node != 0 && (f.About == AboutLink || f.About == AboutMTU) {
			more[at]++
			continue
		}
		first[about] = len(some)
		some = append(some, f)
	}
	for at, n := range more {
		some[at].Text += fmt.Sprintf(" (%d more addresses there: the same)", n)
	}
	return some
}

func (e *probe) examine(ctx context.Context) (found []Finding, err error) {
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
			found = append(found, e.means(a, tooLarge))
		}
	}
	return found, err
}

// compare compares, and says what to ask for echoes.
func (l *Linux) compare(only string) (findings []Finding, probes []probe, checks int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lock < 0 {
		return nil, nil, 0, errClosed
	}
	if l.last == nil {
		return []Finding{{About: AboutRules, Text: "the network is not whole: the daemon's log says why, and it is tried again and again"}}, nil, 1, nil
	}
	want, _ := check(*l.last, l.checked)
	if want == nil {
		return nil, nil, 0, errors.New("the configuration is unusable")
	}
	_ = want.addOverlays(*l.last, l.plans) // what is left out of it was told by Apply
	wrong := func(overlay, text string) {
		findings = append(findings, Finding{About: AboutRules, Overlay: overlay, Text: text})
	}
	if only == "" {
		checks += 7
		texts, err := l.compareShared(want)
		if err != nil {
			return nil, nil, 0, err
		}
		obstacles, err := l.obstacles(want)
		if err != nil {
			return nil, nil, 0, err
		}
		for _, text := range slices.Concat(texts, obstacles, l.yielding.told()) {
			wrong("", text)
		}
	}
	probes = l.sharedProbes(want)
	for _, id := range slices.Sorted(maps.Keys(want.overlays)) {
		o := l.overlays[id]
		if only != "" && id != only || o == nil {
			continue
		}
		checks += 4
		found, err := l.compareOverlay(o, want.overlays[id])
		if err != nil {
			found = append(found, Finding{About: AboutRules, Text: "it cannot be read: " + err.Error()})
			o.space.reset()
		}
		for _, f := range found {
			f.Overlay = id
			findings = append(findings, f)
		}
		probes = append(probes, l.overlayProbes(id, want.overlays[id], o.shape)...)
	}
	return findings, probes, checks, nil
}

// mends is what comes of what somebody else changed.
const mends = "; the node mends it within a minute: find out who changes it"

// compareShared are sentences about what all tasks share.
func (l *Linux) compareShared(want *desired) (wrong []string, err error) {
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)+mends) }
	if l.router == nil || !pinned(l.routerPath()) {
		say("the router of published ports, names and the way out is gone")
		return wrong, nil
	}
	for _, one := range []struct {
		in   *namespace
		name string
	}{{l.host, hostLink}, {l.router, routerLink}} {
		if text := one.in.linkProblem(one.name, l.mtu); text != "" {
			say("%s", text)
		}
	}
	c, err := l.host.firewall()
	if err != nil {
		return nil, err
	}
	for _, s := range l.hostSides(want.base) {
		family := [2]string{"ip", "ip6"}[s.v]
		have, ok, err := readTable(c, s, s.newTransaction(c).maps, hostChains(s))
		switch {
		case err != nil:
			l.host.reset()
			return nil, err
		case !ok:
			say("table %s of family %s, with the rules of published ports, is gone or another", tableName, family)
		case !maps.EqualFunc(have.ports, l.have.answers(s.v).ports, slices.Equal[[]netip.AddrPort]):
			say("table %s of family %s leads published ports elsewhere than it should", tableName, family)
		}
	}
	if want.guard.up() {
		table := dataTable()
		found, err := chainsOf(c, table)
		same := false
		if err == nil {
			same, err = sameChains(c, found, dataChains(want.guard))
		}
		if err != nil {
			l.host.reset()
			return nil, err
		}
		peers, readable := readSet(c, peerSet(table, want.guard))
		if !same || !readable || !maps.Equal(peers, addressKeys(want.underlays)) {
			say("table %s of family inet, which keeps strangers from UDP port %d, is gone or another", tableName, want.guard.port)
		}
	}
	return wrong, l.compareRouter(want, say)
}

// compareRouter says what of the gateway's router is not as it should be.
func (l *Linux) compareRouter(want *desired, say func(string, ...any)) error {
	c, err := l.router.firewall()
	if err != nil {
		return err
	}
	sides := l.routerSides(want.base)
	for _, s := range sides {
		_, ok, err := readTable(c, s, nil, routerChains(s))
		if err != nil {
			l.router.reset()
			return err
		}
		if !ok {
			say("the rules of the router of published ports are gone or others")
			break
		}
	}
	have, err := l.router.routesOfAll(sides)
	if err != nil {
		return err
	}
	missing := 0
	for _, r := range meshRoutes(sides, want.peers, l.vx) {
		if want.wire.up() && !have[r] {
			missing++
		}
	}
	if missing > 0 {
		say("%d of the router's routes to other nodes are missing", missing)
	}
	return l.router.compareStrangers(gatewayTables, func(v int) []netlink.Rule { return replyRules(v, want.wire.up() && (v == 0 || l.six)) }, say)
}

// linkProblem is what is wrong with a link, or "".
func (n *namespace) linkProblem(name string, mtu int) string {
	one, err := n.LinkByName(name)
	var none netlink.LinkNotFoundError
	switch {
	case errors.As(err, &none):
		return fmt.Sprintf("link %s in %s is gone", name, n.name)
	case err != nil:
		return fmt.Sprintf("link %s in %s cannot be read: %v", name, n.name, err)
	case one.Attrs().RawFlags&unix.IFF_UP == 0:
		return fmt.Sprintf("link %s in %s is down", name, n.name)
	case one.Attrs().MTU != mtu:
		return fmt.Sprintf("link %s in %s has the MTU %d instead of %d", name, n.name, one.Attrs().MTU, mtu)
	}
	return ""
}

// compareOverlay compares what a network's router has with what it should have.
func (l *Linux) compareOverlay(o *overlay, w *wanted) (found []Finding, err error) {
	say := func(format string, args ...any) {
		found = append(found, Finding{About: AboutRules, Text: fmt.Sprintf(format, args...) + mends})
	}
	if o.space == nil || !pinned(l.overlayPath(o.id)) {
		say("its router on this node is gone")
		return found, nil
	}
	if text := w.cutMTU(o.shape); text != "" {
		found = append(found, Finding{About: AboutMTU, Text: text})
	}
	if o.vx != nil {
		if text := o.space.linkProblem(overlayLink, o.shape.mtu); text != "" {
			say("%s", text)
			return found, nil
		}
	}
	routes, near, _, err := o.ways(w)
	if err != nil {
		return found, err
	}
	have, err := o.space.allRoutes()
	if err != nil {
		return found, err
	}
	if n := lacks(have, routes); n > 0 {
		say("%d of its %d routes on this node are missing", n, len(routes))
	}
	there := map[neighbour]bool{}
	for v := range overlayFamilies {
		some, err := o.space.neighboursOf(0, family(v))
		if err != nil {
			return found, err
		}
		maps.Copy(there, some)
	}
	if n := lacks(there, near); n > 0 {
		say("%d of its %d neighbours on this node are missing", n, len(near))
	}
	c, err := o.space.firewall()
	if err != nil {
		return found, err
	}
	for v, f := range overlayFamilies {
		if !w.has(v == 1) {
			continue
		}
		have, err := f.read(c)
		if err != nil {
			return found, err
		}
		if have == nil {
			say("the rules of its virtual addresses on this node are gone or others")
		}
	}
	if err := o.space.compareStrangers(networkTables, func(int) []netlink.Rule { return nil }, say); err != nil {
		return found, err
	}
	return append(found, l.compareWires(o, w)...), nil
}

// lacks is how much of what should be there is not.
func lacks[K comparable](have, want map[K]bool) (n int) {
	for k := range want {
		if !have[k] {
			n++
		}
	}
	return n
}

// compareWires looks at the sessions of an encrypted network.
func (l *Linux) compareWires(o *overlay, w *wanted) (found []Finding) {
	if o.tunnel == nil {
		return nil
	}
	have, err := o.tunnel.read()
	if err != nil {
		return []Finding{{About: AboutSession, Text: fmt.Sprintf("what encrypts it on this node does not answer (%v)", err) + mends}}
	}
	for _, v := range w.vteps {
		p, there := have.peers[v.key.lasting()]
		f := Finding{About: AboutSession, Node: v.node}
		switch {
		case !there:
			f.Text = "its key is not in the device" + mends
		case p.met.IsZero():
			f.Text = fmt.Sprintf("there never was a WireGuard handshake: let UDP port %d through between the nodes, both ways", have.port)
		case time.Since(p.met) > sessionAge:
			f.Text = fmt.Sprintf("the last WireGuard handshake was %s ago: see whether UDP port %d still comes through between the nodes", time.Since(p.met).Round(time.Second), have.port)
		default:
			continue
		}
		found = append(found, f)
	}
	return found
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
				return Finding{About: AboutLink, Overlay: id, Node: nodes[a], Text: fmt.Sprintf("the task with the address %s is not reached from here: let UDP port %d through between the nodes, and see what that node finds", a, port)}
			}},
			probe{l.Namespace(task), "task " + task, from, each, s.mtu, func(a netip.Addr, tooLarge bool) Finding {
				text := fmt.Sprintf("packets of %d bytes, the network's MTU, do not come through to %s: the network between the nodes has a smaller MTU than the nodes' links say: make them the same, or make the network with a smaller one (--opt com.docker.network.driver.mtu)", s.mtu, a)
				if tooLarge {
					text = fmt.Sprintf("the link of a task here takes no packets of %d bytes, the network's MTU: the node's own MTU has changed, which it follows within a minute", s.mtu)
				}
				return Finding{About: AboutMTU, Overlay: id, Node: nodes[a], Text: text}
			}})
	}
	return probes
}
