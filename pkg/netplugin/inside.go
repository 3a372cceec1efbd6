package netplugin

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// What happens in the namespaces of tasks, the kernel tells in the router's namespace as well: each has a number there, for a link leads to
// it. One socket hears of all. A task that may change its own links does so as often as it likes, and is let be. Of a guest's namespace, heed is
// taken of what is taken away of ours alone, and of changes of our links.

// insides are the namespaces of tasks as they are listened to.
type insides struct {
	socket *nl.NetlinkSocket
	scenes map[int32]*scene // by number
	letBe  map[int32]bool   // whose changes are their own, until the next Apply
}

// insideGroups are what is listened to there. Neighbours are not among it: a program without any right makes the kernel look for some, in vain.
var insideGroups = []uint{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE,
	unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_RULE}

// observeInside listens to the tasks of the router, which is observed, if it does not already.
func (l *Linux) observeInside() error {
	w := l.watch
	o := w.spaces[l.router]
	if o == nil || o.inside != nil {
		return nil
	}
	s, err := nl.SubscribeAt(l.router.fd, netns.None(), unix.NETLINK_ROUTE, insideGroups...)
	if err != nil {
		return fmt.Errorf("listen to tasks: %w", err)
	}
	err = errors.Join(unix.SetsockoptInt(s.GetFd(), unix.SOL_NETLINK, unix.NETLINK_LISTEN_ALL_NSID, 1),
		s.SetReceiveBufferSize(watchBuffer, true), w.add(s.GetFd()))
	if err != nil {
		s.Close()
		return fmt.Errorf("listen to tasks: %w", err)
	}
	o.inside = &insides{socket: s, scenes: map[int32]*scene{}, letBe: map[int32]bool{}}
	return l.learnInside(o.inside)
}

// learnInside takes note of the links of tasks that are there already, as they have just been made or put right.
func (l *Linux) learnInside(inside *insides) error {
	watched, err := l.watchedTasks()
	if err != nil {
		return err
	}
	var errs []error
	for number, t := range watched {
		errs = append(errs, l.learnTask(inside.scene(number), t))
	}
	return errors.Join(errs...)
}

func (l *Linux) learnTask(s *scene, t TaskLink) error {
	space, err := openNamespace("task "+t.ID, l.Namespace(t.ID))
	if err != nil {
		return err
	}
	defer space.close()
	links, err := dump(space.LinkList)
	if err != nil {
		return fmt.Errorf("list links in %s: %w", space.name, err)
	}
	for _, one := range links {
		s.links[uint32(one.Attrs().Index)] = factsOf(one)
	}
	return nil
}

// read takes what the kernel told so far, and yields what is about something of ours, with the namespace's number. What came too fast to be
// read is seen when all is read back: whoever may do so may do so on purpose.
func (i *insides) read(buffer []byte, yield func(number int32, kind string, m *syscall.NetlinkMessage)) {
	control := make([]byte, unix.CmsgSpace(4))
	for {
		messages, n, err := receive(i.socket, buffer, control)
		if errors.Is(err, errNoMore) {
			return
		}
		number, numbered := numberOf(control[:n])
		if !numbered { // of the router's namespace itself, which another socket hears of
			continue
		}
		for j := range messages {
			if i.letBe[number] {
				break
			}
			if kind := i.scene(number).judge(&messages[j]); kind != "" {
				yield(number, kind, &messages[j])
			}
		}
	}
}

// scene is a task's namespace as its messages are judged: all of it is ours.
func (i *insides) scene(number int32) *scene {
	s := i.scenes[number]
	if s == nil {
		s = &scene{inner: true, task: true, links: map[uint32]facts{}, going: map[uint32]bool{}}
		i.scenes[number] = s
	}
	return s
}

// byTask is what was done inside tasks, by the numbers of their namespaces.
type byTask map[int32]*deeds

// deeds are what was done in one namespace: all of it by kind, and what was taken away of what may be ours in a guest's.
type deeds struct {
	kinds map[string]int
	taken map[taking]int
}

// taking is that an address went, or a route by which it is the source, or to it alone, or a rule with a priority of ours, which has no address, or
// that a link is another than it was.
type taking struct {
	kind    string
	address netip.Addr
	link    string
}

func (b byTask) add(number int32, kind string, m *syscall.NetlinkMessage) {
	d := b[number]
	if d == nil {
		d = &deeds{map[string]int{}, map[taking]int{}}
		b[number] = d
	}
	d.kinds[kind]++
	if m.Header.Type == unix.RTM_NEWLINK {
		d.taken[taking{kind: kind, link: linkOfMessage(m)}]++
	} else if address, taken := takes(m); taken {
		d.taken[taking{kind: kind, address: address}]++
	}
}

// linkOfMessage is the name of the link that a message about links is of.
func linkOfMessage(m *syscall.NetlinkMessage) string {
	link, err := netlink.LinkDeserialize(&unix.NlMsghdr{Type: m.Header.Type, Flags: m.Header.Flags}, m.Data)
	if err != nil {
		return ""
	}
	return link.Attrs().Name
}

// takes tells whether a message says that an address, a route from one or a rule of ours went, and which address that was.
func takes(m *syscall.NetlinkMessage) (address netip.Addr, taken bool) {
	const sizeofRule, attrPriority = 12, 6 // struct fib_rule_hdr and FRA_PRIORITY, see linux/fib_rules.h
	var header int
	var attr uint16
	switch m.Header.Type {
	case unix.RTM_DELADDR:
		header, attr = unix.SizeofIfAddrmsg, unix.IFA_ADDRESS
	case unix.RTM_DELROUTE:
		header, attr = unix.SizeofRtMsg, unix.RTA_PREFSRC
	case unix.RTM_DELRULE:
		header, attr = sizeofRule, attrPriority
	default:
		return address, false
	}
	if len(m.Data) < header {
		return address, false
	}
	attrs, err := nl.ParseRouteAttr(m.Data[header:])
	if err != nil {
		return address, false
	}
	for _, a := range attrs {
		switch {
		case m.Header.Type == unix.RTM_DELROUTE && a.Attr.Type&attributeType == unix.RTA_DST: // that of a single address counts where there is no source
			address, taken = netip.AddrFromSlice(a.Value)
		case a.Attr.Type&attributeType != attr:
		case m.Header.Type == unix.RTM_DELRULE:
			return address, len(a.Value) >= 4 && isSealPriority(int(nativeUint32(a.Value)))
		default:
			return netip.AddrFromSlice(a.Value)
		}
	}
	return address, taken
}

// from are the kinds of what was taken from a guest, with how often.
func (d *deeds) from(t TaskLink, found map[string]int) {
	for what, n := range d.taken {
		own := what.kind == kindRule || what.address == t.Address || what.link == t.gatewayEnd()
		for i, a := range t.Networks {
			own = own || slices.Contains(a.Addresses, what.address) || what.link == (member{index: i + 1, guest: true}).eth()
		}
		if own {
			found[what.kind] += n
		}
	}
}

// inside are the tasks as they are listened to; nil where they are not.
func (l *Linux) inside() *insides {
	if l.router == nil || l.watch.spaces[l.router] == nil {
		return nil
	}
	return l.watch.spaces[l.router].inside
}

// readInside adds what was done inside tasks since the Apply before.
func (l *Linux) readInside(found map[string]int) {
	inside, done := l.inside(), byTask{}
	if inside == nil {
		return
	}
	inside.read(l.watch.buffer, done.add)
	l.heed(inside, done, found)
}

// readOwnInside does so at the end of an Apply, and tells what is others' all the same. A namespace's first socket of a process has the process's
// number for its address, and the Apply has one at a time there.
func (l *Linux) readOwnInside(own, others map[string]int) {
	inside, done := l.inside(), byTask{}
	if inside == nil {
		return
	}
	self := uint32(os.Getpid())
	inside.read(l.watch.buffer, func(number int32, kind string, m *syscall.NetlinkMessage) {
		switch {
		case m.Header.Pid == self || m.Header.Pid == 0 && kind == kindLink: // of links it is not told who asked
			own[kind]++
		case m.Header.Pid == 0: // what the kernel makes of a change has no sender
		default:
			done.add(number, kind, m)
		}
	})
	clear(inside.letBe)
	if len(inside.scenes) > 2*len(l.have.tasks)+16 { // most are of tasks that are gone
		clear(inside.scenes)
	}
	l.heed(inside, done, others)
}

// heed adds to what was found what somebody did inside tasks that do not change their links themselves, and took from guests.
func (l *Linux) heed(inside *insides, done byTask, found map[string]int) {
	if len(done) == 0 {
		return
	}
	watched, err := l.watchedTasks()
	if err != nil {
		found[kindUnknown]++
		return
	}
	for number, d := range done {
		t, there := watched[number]
		switch {
		case !there:
			inside.letBe[number] = true
		case t.guest():
			d.from(t, found)
		default:
			for kind, n := range d.kinds {
				found[kind] += n
			}
		}
	}
}

// watchedTasks are the tasks that are linked and do not change their links themselves, and the guests, by their namespaces' numbers.
func (l *Linux) watchedTasks() (map[int32]TaskLink, error) {
	links, err := dump(l.router.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links in %s: %w", l.router.name, err)
	}
	watched := map[int32]TaskLink{}
	for _, one := range links {
		t, there := l.have.tasks[one.Attrs().Alias]
		if there && one.Attrs().Name == linkName(t.Address) && (t.guest() || !t.Administers) {
			watched[int32(one.Attrs().NetNsID)] = t
		}
	}
	return watched, nil
}

// numberOf is the number of the namespace that a message is of, which the kernel puts beside it where it is another one than the socket's.
func numberOf(control []byte) (number int32, is bool) {
	all, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0, false
	}
	for _, c := range all {
		if c.Header.Level == unix.SOL_NETLINK && c.Header.Type == unix.NETLINK_LISTEN_ALL_NSID && len(c.Data) >= 4 {
			return int32(nativeUint32(c.Data)), true
		}
	}
	return 0, false
}
