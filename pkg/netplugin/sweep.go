package netplugin

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// The kernel lets who removes a link wait until no processor can be looking at it any more, which takes 20 to 30 ms on an idle machine,
// for many links as for one. Nothing else waits for that: Apply takes the routes to a link away, and nothing goes there or comes from
// there any more; the link itself is removed behind it. Most are gone by then: that of a task goes with the task's namespace.

// sweepPause is how long links are gathered that are to go, unless somebody waits for them.
const sweepPause = 50 * time.Millisecond

// The limits: mostSwept links may wait, and sweepAtOnce go in one request, in which the kernel changes no other link.
const (
	mostSwept   = 256
	sweepAtOnce = 32
)

// doomed is a link that is to go, the address that it is named by, and those that are routed to it.
type doomed struct {
	netlink.Link
	name   netip.Addr
	routed []netip.Addr
}

// addresses are what nothing else has until the link is gone.
func (d doomed) addresses() []netip.Addr { return append([]netip.Addr{d.name}, d.routed...) }

// sweeper removes links of one namespace. A goroutine of its own runs while there are any.
type sweeper struct {
	space  *namespace
	failed func(error)
	hurry  chan struct{}

	mu      sync.Mutex
	changed sync.Cond // when links went
	waiting []doomed
	held    map[netip.Addr]int // addresses of links that may be there still
	running bool

	sockets map[int]*nl.SocketHandle // of the goroutine
}

// sweep takes the routes to links away, so that they carry nothing any more, and has them removed soon. What fails later is told to failed,
// which must not wait for anything.
func (n *namespace) sweep(links []doomed, failed func(error)) error {
	if len(links) == 0 {
		return nil
	}
	var errs []error
	for _, d := range links {
		for _, a := range d.routed {
			errs = append(errs, n.removeRoute(route{dst: host(a), link: d.Attrs().Index}))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if n.sweeper == nil {
		n.sweeper = newSweeper(n, failed)
	}
	for _, d := range links {
		n.going[uint32(d.Attrs().Index)] = true
	}
	n.sweeper.add(links)
	return nil
}

func newSweeper(n *namespace, failed func(error)) *sweeper {
	s := &sweeper{space: n, failed: failed, hurry: make(chan struct{}, 1), held: map[netip.Addr]int{}}
	s.changed.L = &s.mu
	return s
}

func (s *sweeper) add(links []doomed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.waiting) > 0 && len(s.waiting)+len(links) > mostSwept {
		s.press()
		s.changed.Wait()
	}
	for _, d := range links {
		for _, a := range d.addresses() {
			s.held[a]++
		}
	}
	s.waiting = append(s.waiting, links...)
	if !s.running {
		s.running = true
		go s.run()
	}
}

// press has what waits removed now.
func (s *sweeper) press() {
	select {
	case s.hurry <- struct{}{}:
	default:
	}
}

// await returns once no link is there any more that had one of the addresses.
func (s *sweeper) await(addresses ...netip.Addr) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for slices.ContainsFunc(addresses, func(a netip.Addr) bool { return s.held[a] > 0 }) {
		s.press()
		s.changed.Wait()
	}
}

// drain returns once all links are gone that were to go.
func (s *sweeper) drain() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.running {
		s.press()
		s.changed.Wait()
	}
}

// idle tells whether no link is to go.
func (s *sweeper) idle() bool {
	if s == nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.running
}

// close returns once all links are gone, and lets go of the namespace.
func (s *sweeper) close() {
	if s == nil {
		return
	}
	s.drain()
	for _, one := range s.sockets {
		one.Close()
	}
	s.sockets = nil
}

// run removes what waits until there is nothing.
func (s *sweeper) run() {
	for again := true; again; {
		select {
		case <-time.After(sweepPause):
		case <-s.hurry:
		}
		s.mu.Lock()
		batch := s.waiting[:min(len(s.waiting), sweepAtOnce)]
		s.mu.Unlock()
		if err := s.remove(batch); err != nil {
			s.failed(err)
		}
		s.mu.Lock()
		for _, d := range batch {
			for _, a := range d.addresses() {
				if s.held[a]--; s.held[a] == 0 {
					delete(s.held, a)
				}
			}
		}
		s.waiting = slices.Clone(s.waiting[len(batch):])
		s.running = len(s.waiting) > 0
		again = s.running
		if len(s.waiting) >= sweepAtOnce {
			s.press()
		}
		s.changed.Broadcast()
		s.mu.Unlock()
	}
}

// remove removes links at once, those that are there.
func (s *sweeper) remove(links []doomed) error {
	if s.sockets == nil {
		socket, err := nl.GetNetlinkSocketAt(s.space.fd, netns.None(), unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("open route socket in network namespace of %s: %w", s.space.name, err)
		}
		s.sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: socket}}
	}
	marked := 0
	for _, d := range links {
		switch err := s.send(markMessage(d.Attrs().Index)); {
		case err == nil:
			marked++
		case !errors.Is(err, unix.ENODEV): // it went with its other end
			return fmt.Errorf("mark link %s in %s for removal: %w", d.Attrs().Name, s.space.name, err)
		}
	}
	if marked == 0 {
		return nil
	}
	if err := s.send(removeMarkedMessage()); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove %d links in %s: %w", marked, s.space.name, err)
	}
	return nil
}

func (s *sweeper) send(req *nl.NetlinkRequest) error {
	req.Sockets = s.sockets
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// goingGroup is the link group that links are put into to be removed together: the kernel waits once for all.
const goingGroup = 0x73776d

// markMessage puts a link into the group.
func markMessage(index int) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(goingGroup)))
	return req
}

// removeMarkedMessage removes the group's links.
func removeMarkedMessage() *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(goingGroup)))
	return req
}

// routers are the namespaces that tasks have links in.
func (l *Linux) routers() []*namespace {
	var all []*namespace
	if l.router != nil {
		all = append(all, l.router)
	}
	for _, o := range l.overlays {
		if o.space != nil {
			all = append(all, o.space)
		}
	}
	return all
}

// swept returns once all links are gone that were to go.
func (l *Linux) swept() {
	for _, n := range l.routers() {
		n.sweeper.drain()
	}
}

// notSwept has the next Apply read back what there is, which removes what should not be.
func (l *Linux) notSwept(err error) {
	l.unswept.Store(true)
	l.log.Warn("a link that nothing leads to any more was not removed; trying again", "err", err)
	select {
	case l.disturbed <- struct{}{}:
	default:
	}
}
