package netplugin

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// member is a task of this machine on an overlay.
type member struct {
	link      netip.Addr   // the gateway address of the task, by which its link in the router is named
	index     int          // of its own end: eth1 and so on
	addresses []netip.Addr // in order
	guest     bool
}

func (m member) equal(o member) bool {
	return m.link == o.link && m.index == o.index && m.guest == o.guest && slices.Equal(m.addresses, o.addresses)
}

// eth is the name of the task's own end.
func (m member) eth() string {
	if m.guest {
		return guestLink + strconv.Itoa(m.index)
	}
	return "eth" + strconv.Itoa(m.index)
}

// guestVia stands for the gateway in the IPv6 routes of guests. Of any other address the kernel asks the table main whether it is on the link, where
// a route of the guest's own may say that it is on another one, however wide that is.
var guestVia = netip.MustParseAddr("fe80::1")

// via is what the routes to a subnet's network go by.
func (m member) via(s Subnet) netip.Addr {
	if m.guest && s.Gateway.Is6() {
		return guestVia
	}
	return s.Gateway
}

// conflict is an address of a task here that is also said to be on another node.
type conflict struct {
	overlay string
	address netip.Addr
	node    uint32
}

// conflictPatience is how long there may be one without a word. An address that was given on is here before the news that the task is gone
// which had it on another node.
const conflictPatience = 10 * time.Second

// lasting are the conflicts that are not over yet though they should be. Since is kept from one Config to the next: when each was first seen.
func (d *desired) lasting(since map[conflict]time.Time, now time.Time) error {
	maps.DeleteFunc(since, func(c conflict, _ time.Time) bool { return d.conflicts[c] == "" })
	left := map[string]*problems{}
	for _, c := range slices.SortedFunc(maps.Keys(d.conflicts), conflict.compare) {
		if since[c].IsZero() {
			since[c] = now
		}
		if now.Sub(since[c]) < conflictPatience {
			continue
		}
		if left[c.overlay] == nil {
			left[c.overlay] = &problems{}
		}
		left[c.overlay].add(fmt.Errorf("address %s is that of task %s here, and of one on node %d", c.address, d.conflicts[c], c.node))
	}
	var errs []error
	for _, id := range slices.Sorted(maps.Keys(left)) {
		errs = append(errs, &OverlayError{id, left[id].error()})
	}
	return errors.Join(errs...)
}

func (c conflict) compare(o conflict) int {
	return cmp.Or(cmp.Compare(c.overlay, o.overlay), c.address.Compare(o.address), cmp.Compare(c.node, o.node))
}

// addMembers adds the tasks to the overlays that they are on. An address that is also said to be on another node is here: the
// task that has it is.
func (d *desired) addMembers(c Config) (errs []error) {
	for _, t := range c.Tasks {
		if len(t.Networks) == 0 || d.refused[t.ID] {
			continue
		}
		if err := d.join(t); err != nil {
			delete(d.tasks, t.ID)
			d.refused[t.ID] = true
			errs = append(errs, &TaskError{t.ID, err})
		}
	}
	d.conflicts = map[conflict]string{}
	for id, w := range d.overlays {
		twice := func(_ *RemoteAddress, r RemoteAddress) error {
			if task, here := w.owner[r.Address]; here {
				d.conflicts[conflict{id, r.Address, r.Node}] = task
				return errUnsaid // see lasting
			}
			return nil
		}
		if slices.ContainsFunc(w.addresses(), func(a netip.Addr) bool { _, remote := w.find(a); return remote }) {
			w.remote = sieve(w.remote, &problems{}, twice)
		}
	}
	return errs
}

// addresses are those of all members.
func (w *wanted) addresses() []netip.Addr {
	all := make([]netip.Addr, 0, len(w.owner))
	for a := range w.owner {
		all = append(all, a)
	}
	return all
}

// find is the remote address, if there is one.
func (w *wanted) find(a netip.Addr) (RemoteAddress, bool) {
	i, there := slices.BinarySearchFunc(w.remote, a, func(r RemoteAddress, a netip.Addr) int { return r.Address.Compare(a) })
	if !there {
		return RemoteAddress{}, false
	}
	return w.remote[i], true
}

// join makes a task a member of all its overlays, or of none.
func (d *desired) join(t TaskLink) error {
	for i, a := range t.Networks {
		if slices.ContainsFunc(t.Networks[:i], func(o Attachment) bool { return o.Overlay == a.Overlay }) {
			return &OverlayError{a.Overlay, errors.New("the task is on it twice")}
		}
		if err := d.checkAttachment(a); err != nil {
			return &OverlayError{a.Overlay, err}
		}
	}
	for i, a := range t.Networks {
		w := d.overlays[a.Overlay]
		w.members[t.ID] = member{t.Address, i + 1, ordered(a.Addresses, netip.Addr.Compare), t.guest()}
		for _, one := range a.Addresses {
			w.owner[one] = t.ID
		}
		if !w.source.Encrypted {
			continue
		}
		for _, s := range w.subnets {
			d.sealed[seal{t.Address, s.Prefix}] = true
		}
	}
	return nil
}

func (d *desired) checkAttachment(a Attachment) error {
	w := d.overlays[a.Overlay]
	if w == nil {
		if err := d.kept[a.Overlay]; err != nil {
			return err
		}
		return errors.New("it is not among the networks of this machine")
	}
	if len(a.Addresses) == 0 {
		return errors.New("the task has no address there")
	}
	for i, one := range a.Addresses {
		if _, err := w.subnet(one); err != nil {
			return err
		}
		if slices.ContainsFunc(a.Addresses[:i], func(o netip.Addr) bool { return o.Is6() == one.Is6() }) {
			return fmt.Errorf("addresses %v are of the same IP version", a.Addresses)
		}
		if other := w.owner[one]; other != "" {
			return fmt.Errorf("address %s is that of task %s", one, other)
		}
		if w.hasVIP(one) {
			return fmt.Errorf("address %s is that of a service", one)
		}
	}
	return nil
}
