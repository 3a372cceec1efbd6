package agent

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/dnsplugin"
	"github.com/swarmd/swarmd/pkg/netplugin"
)

// links is the agent's part of the gateway network: who has which address, and which config the network is at. The network
// is always given the whole config, and many tasks that wait for it share one Apply.
type links struct {
	block, pool netip.Prefix
	prefix6     netip.Prefix          // of IPv6, that the addresses have too; not valid where there is none
	unusable    error                 // why there is no block
	used        map[netip.Addr]string // address → task
	next        netip.Addr            // where to look for a free one, so that an address rests before it is used again
	nextPort    uint16                // the same for ports
	foreign     map[string]netip.Addr // links of an earlier process that no assignment has told us of yet

	want, have uint64         // number of the newest config, and of the newest that was applied
	waiting    map[*task]bool // for have to get on
	resync     bool           // the next Apply reads all back
	resyncAt   time.Time      // when it is to
	noticed    bool           // the next repair is of what was noticed, not only of the time that has passed
	repairs    []repair       // of the last minute, and the latest
	applying   bool
	failures   int       // in a row
	said       string    // what the log has of the latest, which is not said again while it is the same
	down       bool      // the latest Apply failed as a whole
	retry      time.Time // no Apply before, if so
	again      time.Time // to apply once more for what is broken
	told       told      // what the network does not follow yet
	// applied is the config that the network is at; nil where that is not known.
	applied  *netplugin.Config
	wasQuick bool      // the latest Apply left this node's links as they were
	othersAt time.Time // when others changed last
	// broken are the links, and brokenPorts the published ports, that alone are not as they should be.
	broken      map[string]error
	brokenPorts map[portKey]error
}

// touch makes a new config, to be applied with all that changes in the same breath, and is its number.
func (l *links) touch() uint64 {
	l.want++
	return l.want
}

// ready tells whether the network is at the config that the task needs.
func (l *links) ready(t *task) bool {
	if l.have >= t.config && l.broken[t.id] == nil {
		return true
	}
	l.waiting = addTo(l.waiting, t)
	return false
}

// leads tells whether the network's published ports lead to the task.
func (l *links) leads(t *task, ports []v1.PortConfig) bool {
	if !l.ready(t) {
		return false
	}
	for _, p := range ports {
		if l.brokenPorts[keyOf(p)] != nil {
			l.waiting = addTo(l.waiting, t)
			return false
		}
	}
	return true
}

// setBlock works out the node's block of addresses: the /24 of the pool with the node's index.
func (a *Agent) setBlock() {
	l := &a.links
	if a.node == nil || a.node.Spec.Index == 0 {
		return
	}
	if prefix, _ := netip.ParsePrefix(a.prefix6); prefix != l.prefix6 {
		l.prefix6 = prefix
		l.touch()
	}
	pool, _ := netip.ParsePrefix(cmp.Or(a.pool, v1.DefaultGatewayPool)) // what is none has no block
	block, ok := blockOf(pool, a.node.Spec.Index)
	if !ok {
		l.unusable = fmt.Errorf("gateway pool %q has no block for node index %d", a.pool, a.node.Spec.Index)
		return
	}
	if block == l.block {
		return
	}
	if l.block.IsValid() && len(l.used) > 0 {
		a.log.Warn("the node's block of gateway addresses changed; tasks keep theirs until they end", "old", l.block, "new", block)
	}
	l.block, l.pool, l.next, l.unusable = block, pool.Masked(), netip.Addr{}, nil
	l.touch()
	for _, t := range a.tasks {
		l.waiting = addTo(l.waiting, t)
	}
}

func addTo(set map[*task]bool, t *task) map[*task]bool {
	if set == nil {
		set = map[*task]bool{}
	}
	set[t] = true
	return set
}

// allocate finds a free address. The first usable one is the router's.
func (l *links) allocate(task string) (netip.Addr, bool) {
	router := l.block.Addr().Next()
	last := netip.AddrFrom4(func() [4]byte { b := router.As4(); b[3] = 255; return b }())
	for range 254 {
		if !l.next.IsValid() || !l.block.Contains(l.next) || l.next == last {
			l.next = router.Next()
		}
		addr := l.next
		l.next = addr.Next()
		if _, taken := l.used[addr]; !taken {
			l.used[addr] = task
			return addr, true
		}
	}
	return netip.Addr{}, false
}

// link gives a task its address and link, and goes on once they are there.
func (a *Agent) link(t *task) {
	if !a.onDisk(t) || t.linked && !a.links.ready(t) {
		return
	}
	if t.linked {
		t.phase = phaseLinked
		return
	}
	err := a.portConflict(t)
	if err == nil {
		err = a.chooseHostPorts(t)
	}
	if err != nil {
		a.end(t, v1.TaskRejected, "preparing", err.Error())
		return
	}
	if id := a.unknownNetwork(t); id != "" && a.o.Network != nil {
		a.observe(t, t.status.State, t.status.Message, "the manager has not told of network "+id+" yet")
		a.links.waiting = addTo(a.links.waiting, t)
		return
	}
	if holder := a.holder(t); holder != nil {
		a.observe(t, t.status.State, t.status.Message, "its address on a network is still that of task "+holder.id+", which ends")
		a.links.waiting = addTo(a.links.waiting, t)
		return
	}
	if wait, err := a.address(t); err != nil || wait {
		if err != nil {
			a.end(t, v1.TaskRejected, "preparing", err.Error())
		}
		return
	}
	if t.attachment() != nil {
		a.observe(t, v1.TaskPreparing, "attaching", t.status.Err)
	}
	t.linked, t.config = true, a.links.touch()
	if a.o.Network == nil {
		a.links.have = a.links.want
		t.phase = phaseLinked
		return
	}
	a.links.ready(t)
}

// holder is another task whose link still has an address that this one was given, or nil. The swarm gives an address on once a task was
// seen to have ended, which is before its link is gone.
func (a *Agent) holder(t *task) *task {
	for _, other := range a.tasks {
		if other == t || !other.linked {
			continue
		}
		for _, has := range other.networks() {
			for _, gets := range t.networks() {
				if has.Network == gets.Network && slices.ContainsFunc(gets.Addresses, func(a string) bool { return slices.Contains(has.Addresses, a) }) {
					return other
				}
			}
		}
	}
	return nil
}

// address sees to it that a task has a gateway address, or tells that it has to wait for one.
func (a *Agent) address(t *task) (wait bool, err error) {
	l := &a.links
	switch {
	case t.addr.IsValid():
		return false, nil
	case !l.block.IsValid():
		if a.o.Network == nil {
			return false, nil
		}
		text := "the manager has not said which addresses this node has"
		if l.unusable != nil {
			text = l.unusable.Error()
		}
		a.observe(t, t.status.State, t.status.Message, text)
		l.waiting = addTo(l.waiting, t)
		return true, nil
	}
	addr, ok := l.allocate(t.id)
	if ok {
		t.addr, t.status.Address = addr, addr.String()
		return false, nil
	}
	for _, other := range a.tasks {
		if other.addr.IsValid() && (other.stop() || other.phase >= phaseEnded) {
			l.waiting = addTo(l.waiting, t)
			return true, nil // one will be free in a moment
		}
	}
	return false, fmt.Errorf("no free gateway address: all %d of this node's block %s are in use", len(l.used), l.block)
}

// portKey is what only one service can have on a machine.
type portKey struct {
	protocol v1.Protocol
	port     uint16
}

func keyOf(p v1.PortConfig) portKey { return portKey{cmp.Or(p.Protocol, v1.TCP), p.Published} }

// portConflict is the error of a task whose published ports another service has here.
func (a *Agent) portConflict(t *task) error {
	mine := make(map[portKey]bool)
	for _, p := range a.ports(t) {
		mine[keyOf(p)] = true
	}
	if len(mine) == 0 {
		return nil
	}
	for _, other := range a.tasks {
		if !other.linked || other.stop() || other.phase >= phaseWithdrawn || !other.known() ||
			other.assigned.Desired.Service == t.assigned.Desired.Service {
			continue
		}
		for _, p := range a.ports(other) {
			if key := keyOf(p); mine[key] {
				return fmt.Errorf("port %d/%s is already published on this node by service %q", key.port, key.protocol,
					other.assigned.Desired.ServiceName)
			}
		}
	}
	return nil
}

// publish has a task's ports and names lead to it. Only then is it running: whoever waits for that may connect.
func (a *Agent) publish(t *task) {
	if !t.published && t.linked && len(t.ports())+len(t.networks()) > 0 && a.o.Network != nil {
		t.published, t.config = true, a.links.touch()
	}
	if !a.links.leads(t, a.ports(t)) {
		return
	}
	t.phase = phaseRunning
	a.observe(t, v1.TaskRunning, t.runningMessage(), "")
}

func hostPorts(ports []v1.PortConfig) []v1.PortConfig {
	return slices.DeleteFunc(slices.Clone(ports), func(p v1.PortConfig) bool { return p.Mode != v1.PublishHost })
}

// administers tells whether a container with these capabilities may change its links itself.
func administers(capabilities []string) bool {
	return slices.ContainsFunc(capabilities, func(name string) bool {
		name = strings.TrimPrefix(strings.ToUpper(name), "CAP_")
		return name == "NET_ADMIN" || name == "ALL"
	})
}

// cutOff has a task's link removed, and tells whether it is.
func (a *Agent) cutOff(t *task) bool {
	if t.linked {
		t.linked, t.published, t.config = false, false, a.links.touch()
		if a.o.Network == nil {
			a.links.have = a.links.want
		}
	}
	if a.links.have < t.config {
		a.links.waiting = addTo(a.links.waiting, t)
		return false
	}
	return true
}

// unlink removes a task's link, and frees its address once it is gone.
func (a *Agent) unlink(t *task) {
	if !a.cutOff(t) {
		return
	}
	if t.addr.IsValid() && a.links.used[t.addr] == t.id {
		delete(a.links.used, t.addr)
		t.addr = netip.Addr{}
		a.wakeLinks()
	}
	t.phase = phaseUnlinked
}

// config is the network's whole config as of now, and the names that go with it, if anybody wants them.
func (a *Agent) config() (netplugin.Config, *dnsplugin.Names) {
	used := a.used()
	a.peers.leave(used)
	a.reconsider()
	c := netplugin.Config{Node: a.node.Spec.Index, Gateway: a.links.block, Pool: a.links.pool, Prefix6: a.links.prefix6, Underlay: a.o.Underlay,
		DataPort: a.peers.dataPort, Peers: a.peers.toOthers(a.links.pool), Key: publicKey(a.peers.own), Published: a.published()}
	names := &dnsplugin.Names{Askers: make(map[netip.Addr]*dnsplugin.Asker)}
	c.Overlays, names.Zones = a.routers(used)
	for _, t := range a.tasks {
		if !t.linked || !t.addr.IsValid() {
			continue
		}
		link := netplugin.TaskLink{ID: t.id, Address: t.addr, Networks: a.attachments(t), Internal: a.internal(t)}
		if at := t.attachment(); at != nil {
			link.Guest, link.Internal = at.Namespace, true
		}
		if t.revision != nil {
			link.Sysctls, _ = splitSysctls(t.spec().Container.Sysctls)
			link.Administers = administers(t.spec().Container.CapabilityAdd)
		}
		c.Tasks = append(c.Tasks, link)
		names.Askers[t.addr] = a.asker(t)
	}
	for id, addr := range a.links.foreign {
		if t := a.tasks[id]; t == nil || !t.linked {
			c.Tasks = append(c.Tasks, netplugin.TaskLink{ID: id, Address: addr})
		}
	}
	slices.SortFunc(c.Tasks, byID)
	if a.o.Names == nil {
		names = nil
	}
	return c, names
}

// wakeLinks looks again at the tasks that wait for the network.
func (a *Agent) wakeLinks() {
	waiting := a.links.waiting
	a.links.waiting = nil
	for _, t := range sorted(waiting) {
		a.advance(t)
	}
}
