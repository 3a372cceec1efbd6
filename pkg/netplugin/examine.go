package netplugin

import (
	"context"
	"errors"
	"fmt"
	"iter"
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
	// At is the address on the network of the task or attachment that it is about, or several with commas between, where it is about one.
	At string
	// Text is a sentence that does not name the network and the other node.
	Text string
	// port is the UDP port that carries what did not come through.
	port uint16
}

// What findings are about.
const (
	AboutUnderlay = "underlay"
	AboutMTU      = "mtu"
	AboutLink     = "link"
	AboutSession  = "encrypted"
	// AboutWhole is of what the latest Apply could not make.
	AboutWhole = "network"
	AboutRules = "rules"
)

// The limits of what is examined at a time. Of more addresses than that, some are taken.
const (
	examinePatience = 30 * time.Second
	mostExamined    = 256
	// examinePause is before what got no answer is asked again.
	examinePause = time.Second
)

// errTooLong ends an examination that takes too long.
var errTooLong = fmt.Errorf("it takes longer than %s to look at all of it", examinePatience)

// Examine tells what of this machine's network is not as it should be: it compares what the kernel has with what the latest Apply
// was to make, and has packets go where tasks' packets go, small ones and as large ones as may be. Overlay is a network's ID, or empty for all
// and what they share. It changes nothing. Checks is how much was looked at. With an error come the findings until then.
func (l *Linux) Examine(ctx context.Context, overlay string) (findings []Finding, checks int, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, examinePatience, errTooLong)
	defer cancel()
	findings, probes, checks, err := l.compare(overlay)
	if err != nil {
		return nil, 0, fmt.Errorf("netplugin: %w", err)
	}
	for _, e := range probes {
		checks += len(e.to)
	}
	missed, err := askAll(ctx, probes)
	if len(missed) > 0 && err == nil {
		missed, err = l.askAgain(ctx, overlay, missed)
	}
	for _, m := range missed {
		findings = append(findings, m.Finding)
	}
	findings = append(findings, l.sessions(missed, findings)...)
	findings = gathered(causes(findings))
	if err != nil {
		return findings, checks, fmt.Errorf("netplugin: %w", err)
	}
	return findings, checks, nil
}

// askAgain leaves of what was missed what is missed a second time, by and at tasks that are there before and after: they come and go, and packets
// are lost.
func (l *Linux) askAgain(ctx context.Context, overlay string, missed []miss) (still []miss, err error) {
	select {
	case <-time.After(examinePause):
	case <-ctx.Done():
		return missed, nil
	}
	probes, err := l.probesNow(overlay)
	if err != nil {
		return missed, err
	}
	again, err := askAll(ctx, probes)
	if err != nil {
		return missed, err
	}
	after, err := l.probesNow(overlay)
	if err != nil {
		return missed, err
	}
	asked := map[question]bool{}
	for _, e := range after {
		for _, a := range e.to {
			asked[e.question(a)] = true
		}
	}
	before := map[Finding]bool{}
	for _, m := range missed {
		before[m.Finding] = true
	}
	return slices.DeleteFunc(again, func(m miss) bool { return !before[m.Finding] || !asked[m.question] }), nil
}

// causes are findings without those that follow from others: who is not reached at all is not reached on a network either, nor by large
// packets, and where the port between two nodes is closed, it is for each network that has no port of its own.
func causes(all []Finding) []Finding {
	type way struct {
		node uint32
		port uint16
	}
	unreached, closed, cut := map[uint32]bool{}, map[way]bool{}, map[Finding]bool{}
	for _, f := range all {
		switch f.About {
		case AboutUnderlay:
			unreached[f.Node] = true
		case AboutLink:
			cut[Finding{Overlay: f.Overlay, Node: f.Node}] = true
			if f.Overlay == "" {
				closed[way{f.Node, f.port}] = true
			}
		}
	}
	small := map[uint32]bool{}
	for _, f := range all {
		small[f.Node] = small[f.Node] || f.About == AboutMTU && f.Overlay == ""
	}
	return slices.DeleteFunc(all, func(f Finding) bool {
		switch f.About {
		case AboutLink, AboutSession:
			return f.Node != 0 && (unreached[f.Node] || f.Overlay != "" && f.port != 0 && closed[way{f.Node, f.port}])
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
		about.Text, about.At = "", ""
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
		some[at].At = "" // it is about more than one
	}
	return some
}

// compare compares, and says what to ask for echoes.
func (l *Linux) compare(only string) (findings []Finding, probes []probe, checks int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	want, err := l.latest()
	if err != nil {
		return nil, nil, 0, err
	}
	if want == nil {
		return []Finding{l.broken()}, nil, 1, nil
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
			findings = append(findings, Finding{About: AboutRules, Text: text})
		}
	}
	findings = append(findings, l.failures(want, only)...)
	devices := readWires(l.examined(want, only))
	for id, o := range l.examined(want, only) {
		checks += 4
		found, err := l.compareOverlay(o, want.overlays[id], devices[id])
		if err != nil {
			found = append(found, Finding{About: AboutRules, Text: "it cannot be read: " + err.Error()})
			o.space.reset()
		}
		for _, f := range found {
			f.Overlay = id
			findings = append(findings, f)
		}
	}
	return findings, l.probes(want, only), checks, nil
}

// latest is what the latest Apply was to make, nil where it failed as a whole. The lock is held.
func (l *Linux) latest() (*desired, error) {
	if l.lock < 0 {
		return nil, errClosed
	}
	if l.last == nil {
		return nil, nil
	}
	want, _ := check(*l.last, l.checked)
	if want == nil {
		return nil, errors.New("the configuration is unusable")
	}
	_ = want.addOverlays(*l.last, l.plans) // what is left out of it is among what failed
	return want, nil
}

// examined are the overlays that are looked at, in order: what could not be made is told already.
func (l *Linux) examined(want *desired, only string) iter.Seq2[string, *overlay] {
	return func(yield func(string, *overlay) bool) {
		for _, id := range slices.Sorted(maps.Keys(want.overlays)) {
			if o := l.overlays[id]; (only == "" || id == only) && o != nil && o.synced && !yield(id, o) {
				return
			}
		}
	}
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
		if s.v == 1 {
			if there, err := l.host.hasLoopbackWay(); err != nil {
				return nil, err
			} else if !there {
				say("the route of %s by link %s, by which published ports answer there, is gone", loopbacks[1], hostLink)
			}
		}
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

// compareOverlay compares what a network's router has with what it should have; device is how that of an encrypted one is set, else nil.
func (l *Linux) compareOverlay(o *overlay, w *wanted, device *reading) (found []Finding, err error) {
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
	if device != nil {
		found = append(found, device.compareWires(w, o.shape)...)
	}
	return found, o.space.compareStrangers(networkTables, func(int) []netlink.Rule { return nil }, say)
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
