package netplugin

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// The kernel tells of every change to links, addresses, routes, rules, neighbours, tables and the settings of forwarding, and of most
// also whose request it was. What is of something of ours, and comes between two Applies or by a socket of another process, somebody
// else did; what comes while Apply runs is else taken to be Apply's own: the kernel has told of a change before it answers who asked for it.
// Of links and settings it does not tell who asked: see missLinks.
//
// Nothing is told of other settings in /proc/sys and of mounts, tasks that may change their own links are not listened to, as they may
// do so all day, and of guests only what is taken away is heeded (see insides). For these there is reading back now and then (see Resync).

// watchPause is between two looks at what the kernel told: what comes together is one disturbance, and a machine on which much
// happens that is not ours is not looked at more often.
const watchPause = 20 * time.Millisecond

// watchBuffer is how much may wait to be read, of one socket. What is more is lost, which the kernel tells.
const watchBuffer = 1 << 20

// watcher has the sockets, in all namespaces that are ours and in the machine's own.
type watcher struct {
	poll   int
	wake   *os.File // becomes readable when the watcher is to end
	bell   *os.File
	spaces map[*namespace]*observed
	done   chan struct{}
	buffer []byte
}

// observed is a namespace that is listened to.
type observed struct {
	scene
	sockets []*nl.NetlinkSocket
	ours    map[port]bool // the sockets of this process by which something may be asked for, as far as they are known
	inside  *insides      // the tasks of the router that it is, if it is one
	lost    bool          // news was lost: what links there are has to be learnt again
	// relinked tells that there was news of links during an Apply.
	relinked bool
}

// groups are what is listened to, by protocol.
var groups = map[int][]uint{
	unix.NETLINK_ROUTE: {unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE,
		unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_RULE, unix.RTNLGRP_IPV6_NETCONF},
	unix.NETLINK_NETFILTER: {unix.NFNLGRP_NFTABLES},
}

// startWatching begins to listen. The sockets are opened at the end of the Apply that made, or adopted, what they are about.
func (l *Linux) startWatching() error {
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("watch the network: %w", err)
	}
	wake, bell, err := os.Pipe()
	if err != nil {
		return errors.Join(err, unix.Close(poll))
	}
	w := &watcher{poll: poll, wake: wake, bell: bell, spaces: map[*namespace]*observed{}, done: make(chan struct{}), buffer: make([]byte, 64<<10)}
	if err := w.add(int(wake.Fd())); err != nil {
		return errors.Join(err, wake.Close(), bell.Close(), unix.Close(poll))
	}
	l.watch = w
	go l.watchOn(w)
	return nil
}

func (w *watcher) add(fd int) error {
	return unix.EpollCtl(w.poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

// watchOn looks at what the kernel told, until the watcher is closed.
func (l *Linux) watchOn(w *watcher) {
	defer close(w.done)
	events := make([]unix.EpollEvent, 16)
	for {
		n, err := unix.EpollWait(w.poll, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			l.log.Warn("the network is not watched until it was read back", "err", err)
			return
		}
		for _, e := range events[:max(n, 0)] {
			if int(e.Fd) == int(w.wake.Fd()) {
				return
			}
		}
		l.mu.Lock() // an Apply that is under way takes what it did itself
		found := w.read()
		l.readInside(found)
		l.disturb(found)
		l.mu.Unlock()
		time.Sleep(watchPause)
	}
}

// disturb has the next Apply repair what somebody else did, if anything.
func (l *Linux) disturb(found map[string]int) {
	if len(found) == 0 {
		return
	}
	l.synced = false
	select {
	case l.disturbed <- struct{}{}:
		l.log.Warn("something else on this machine changed the swarm's network", "changes", found)
	default: // it is known already
	}
}

// read takes what the kernel told so far, and counts what of it is about something of ours, by its kind.
func (w *watcher) read() map[string]int {
	found := map[string]int{}
	for _, o := range w.spaces {
		o.read(w.buffer, func(kind string, _ *syscall.NetlinkMessage) { found[kind]++ })
	}
	return found
}

// readOwn does so after an Apply, and tells what was others' all the same.
func (w *watcher) readOwn() (own, others map[string]int) {
	own, others = map[string]int{}, map[string]int{}
	for space, o := range w.spaces {
		gone := space.sweeper.idle() // before what was told of the links that went is read
		o.read(w.buffer, func(kind string, m *syscall.NetlinkMessage) {
			o.relinked = o.relinked || kind == kindLink
			if m != nil && (m.Header.Pid != 0 && !o.asked(space, m) || o.stopsForwarding(m) || kind == kindMTU) {
				others[kind]++
			} else {
				own[kind]++
			}
		})
		space.passing = nil
		if gone {
			clear(space.going)
		}
	}
	return own, others
}

// read takes what one namespace's sockets have, and yields what is about something of ours; without a message where some were lost.
func (o *observed) read(buffer []byte, yield func(kind string, m *syscall.NetlinkMessage)) {
	for _, s := range o.sockets {
		for o.receive(s, buffer, yield) {
		}
	}
}

// receive takes one datagram, and tells whether there may be more.
func (o *observed) receive(s *nl.NetlinkSocket, buffer []byte, yield func(kind string, m *syscall.NetlinkMessage)) (more bool) {
	messages, _, err := receive(s, buffer, nil)
	switch {
	case errors.Is(err, errNoMore):
		return false
	case err != nil:
		o.lost = true
		yield(kindUnknown, nil)
		return true
	}
	for i := range messages {
		if kind := o.judge(&messages[i]); kind != "" {
			yield(kind, &messages[i])
		}
	}
	return true
}

// errNoMore says that nothing waits to be read.
var errNoMore = errors.New("no message waits")

// receive takes one datagram, with what the kernel puts beside it. Errors but errNoMore say that messages were lost.
func receive(s *nl.NetlinkSocket, buffer, control []byte) (messages []syscall.NetlinkMessage, beside int, err error) {
	for {
		n, beside, _, _, err := unix.Recvmsg(s.GetFd(), buffer, control, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOBUFS):
			return nil, 0, err
		case err != nil || n <= 0:
			return nil, 0, errNoMore
		}
		messages, err = syscall.ParseNetlinkMessage(buffer[:n])
		return messages, beside, err
	}
}

// settleWatch is the end of an Apply: what the kernel told meanwhile is the Apply's own, and is returned; what is new is listened to
// from now on.
func (l *Linux) settleWatch() (did map[string]int) {
	others := map[string]int{}
	if w := l.watch; w != nil {
		did, others = w.readOwn()
		l.readOwnInside(did, others)
	}
	if err := l.keepWatching(); err != nil {
		l.log.Warn("changes by others are noticed late", "err", err)
	} else {
		l.observeAll()
		l.missLinks(others)
	}
	l.disturb(others)
	return did
}

// ignoreAll is the end of a Teardown: what was told meanwhile is of what goes.
func (w *watcher) ignoreAll() {
	if w != nil {
		w.readOwn()
	}
}

// observeAll listens to what is not listened to yet.
func (l *Linux) observeAll() {
	for space := range l.linked() {
		if err := l.watch.observe(space, space != l.host); err != nil {
			l.log.Warn("changes by others are noticed late", "in", space.name, "err", err)
		}
	}
	if l.router != nil {
		if err := l.observeInside(); err != nil {
			l.log.Warn("changes by others are noticed late", "in", "tasks", "err", err)
		}
	}
	if o := l.watch.spaces[l.host]; o != nil {
		o.byLinks, o.routes, o.below = l.hostSix && l.kept, l.hostDestinations(), l.below
	}
}

// keepWatching begins to listen again where that has ended, or never began.
func (l *Linux) keepWatching() error {
	if l.watch != nil && !l.watch.ended() {
		return nil
	}
	l.stopWatching()
	return l.startWatching()
}

// ended tells whether nobody looks at what the kernel tells any more.
func (w *watcher) ended() bool {
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

// observe listens to a namespace, if it does not already, and learns what there is.
func (w *watcher) observe(space *namespace, inner bool) error {
	o := w.spaces[space]
	if o == nil {
		o = &observed{scene: scene{inner: inner, links: map[uint32]facts{}, going: space.going}}
		for protocol, of := range groups {
			s, err := nl.SubscribeAt(space.fd, netns.None(), protocol, of...)
			if err == nil {
				o.sockets = append(o.sockets, s) // an open socket keeps its namespace
				err = errors.Join(s.SetReceiveBufferSize(watchBuffer, true), w.add(s.GetFd()))
			}
			if err != nil {
				o.close()
				return err
			}
		}
		if err := o.learn(space); err != nil {
			o.close()
			return err
		}
		w.spaces[space] = o
		space.ignore = func() {
			o.close()
			delete(w.spaces, space)
		}
		return nil
	}
	if _, known := o.links[o.own]; o.lost || !inner && !known {
		return o.learn(space)
	}
	return nil
}

// learn takes note of the links that are there.
func (o *observed) learn(space *namespace) error {
	links, err := dump(space.LinkList)
	if err != nil {
		return fmt.Errorf("list links in %s: %w", space.name, err)
	}
	clear(o.links)
	for _, one := range links {
		index := uint32(one.Attrs().Index)
		if o.inner {
			o.links[index] = factsOf(one)
		} else if one.Attrs().Name == hostLink {
			o.own, o.links[index] = index, factsOf(one)
		}
	}
	o.relinked, o.lost = true, false
	return nil
}

func (o *observed) close() {
	for _, s := range o.sockets {
		s.Close()
	}
	if o.inside != nil {
		o.inside.socket.Close()
	}
	o.sockets, o.inside = nil, nil
}

// stopWatching ends it, and returns once it has. The lock is not held, unless it has ended.
func (l *Linux) stopWatching() {
	w := l.watch
	if w == nil {
		return
	}
	_ = w.bell.Close() // the other end becomes readable
	<-w.done
	for _, o := range w.spaces {
		o.close()
	}
	_ = w.wake.Close()
	_ = unix.Close(w.poll)
	l.watch = nil
}
