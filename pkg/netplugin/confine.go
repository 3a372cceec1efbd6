package netplugin

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What a task sends to a network goes by its link to that, or nowhere. Routing rules of its namespace say so: addresses of the network are looked
// for among routes that are at least as narrow, and then are unreachable. Without them a task whose link is gone for a moment would begin
// connections by its way out, which never come to anything. Rules outlive links, routes and the loopback.
//
// A guest may have such routes of its own, so those to its encrypted networks are in a table of ours, and in no other.

// confine is a subnet that a task reaches in no other way.
type confine struct {
	subnet netip.Prefix
	// encrypted networks are reached with no address in another way; others are, with the gateway's, for answers (see home.go).
	encrypted bool
	guest     bool
}

// guestTable has a guest's routes to its encrypted networks. Its number is one that others seldom have, and below 256: for others the library leaves
// the suppressed prefix out.
const guestTable = 189

// ruleProtocol is who made our rules, as the kernel keeps it: those that somebody else made are left alone, however much they look like ours. See
// linux/rtnetlink.h for the numbers that others have.
const ruleProtocol = 115

// The priorities of the rules: before and after those of answers. The rule by which a subnet is unreachable follows.
const (
	sealPriority    = homePriority - 10
	confinePriority = homePriority + 10
)

func (c confine) priority() int {
	if c.encrypted {
		return sealPriority
	}
	return confinePriority
}

// isSealPriority tells whether a rule of that priority in a guest is one of ours.
func isSealPriority(p int) bool { return p == sealPriority || p == sealPriority+1 }

// rules are the two that confine a task.
func (c confine) rules() (all [2]netlink.Rule) {
	for i := range all {
		all[i] = *netlink.NewRule()
		all[i].Family, all[i].Priority, all[i].Dst = familyOf(c.subnet.Addr()), c.priority()+i, ipNet(c.subnet)
	}
	all[0].Table, all[0].SuppressPrefixlen = unix.RT_TABLE_MAIN, c.subnet.Bits()-1
	if c.guest {
		all[0].Table = guestTable
	}
	all[1].Type = unix.RTN_UNREACHABLE
	return all
}

// listed is how the kernel tells of a rule, without its type.
func listed(r netlink.Rule) netlink.Rule {
	r.Type = 0
	return r
}

// confinesOf are what a task is to be confined by. Of a guest, whose way out is its own, encrypted networks are.
func (d *desired) confinesOf(t TaskLink) map[confine]bool {
	all := map[confine]bool{}
	for _, a := range t.Networks {
		w := d.overlays[a.Overlay]
		if w == nil || t.guest() && !w.source.Encrypted {
			continue
		}
		for _, s := range w.subnets {
			all[confine{s.Prefix.Masked(), w.source.Encrypted, t.guest()}] = true
		}
	}
	return all
}

// syncConfines makes the rules in a namespace those. With plain it also puts back those that every namespace has, without which routes do not count.
func (n *namespace) syncConfines(all map[confine]bool, plain bool) error {
	var errs []error
	for _, v := range kernelVersions() {
		have, err := n.allRules(family(v))
		if err != nil {
			return err
		}
		var want, ours []netlink.Rule
		for i := range have {
			if have[i].Protocol == ruleProtocol {
				have[i].Protocol = 0
				ours = append(ours, have[i])
			}
			have[i].Protocol = 0
		}
		if plain {
			want = plainRules(family(v))
		}
		for c := range all {
			if rules := c.rules(); version(c.subnet.Addr()) == v {
				want = append(want, rules[:]...)
			}
		}
		for i, r := range want {
			if want[i] = listed(r); hasRule(have, want[i]) {
				continue
			}
			r.Protocol = ruleProtocol
			if err := n.RuleAdd(&r); err != nil && !errors.Is(err, unix.EEXIST) {
				errs = append(errs, fmt.Errorf("add routing rule %s in %s: %w", r, n.name, err))
			}
		}
		for _, r := range ours {
			if hasRule(want, r) {
				continue
			}
			if err := n.RuleDel(&r); err != nil && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, fmt.Errorf("remove routing rule %s in %s: %w", r, n.name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// confineTasks confines those of the tasks that are linked that are not yet as they should be.
func (l *Linux) confineTasks(want *desired) error {
	var errs []error
	confined := make(map[string]map[confine]bool, len(want.tasks))
	for id, t := range want.tasks {
		if l.have.tasks[id].Address != t.Address {
			continue // it is linked later, and until then as it was
		}
		all := want.confinesOf(t)
		if have, known := l.have.confined[id]; !known || !maps.Equal(have, all) {
			if err := l.confineWithin(id, all, !t.guest() && !t.Administers); err != nil {
				errs = append(errs, &TaskError{id, err})
				continue
			}
		}
		confined[id] = all
	}
	l.have.confined = confined
	return errors.Join(errs...)
}

// confineWithin is syncConfines for the namespace of a task. One without has no rules.
func (l *Linux) confineWithin(task string, all map[confine]bool, plain bool) error {
	if !pinned(l.Namespace(task)) {
		return nil
	}
	inside, err := openNamespace("task "+task, l.Namespace(task))
	if err != nil {
		return err
	}
	defer inside.close()
	return inside.syncConfines(all, plain)
}
