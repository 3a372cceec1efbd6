package netplugin

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What comes to a task by a published port has its client's own address, and that may be one of a network's subnet too: subnets are chosen
// without looking at what else is in the world. Answers go back the way that the question came all the same: what is sent from the task's
// gateway address is routed by a table of its own, whose one route is the way out. A task on no network has no other way.
const (
	homeTable    = 100
	homePriority = 100 // of the rule, after that of local addresses
)

// addHome gives a new namespace the rule and the route of answers.
func (n *namespace) addHome(s side, t TaskLink, eth netlink.Link) error {
	if len(t.Networks) == 0 {
		return nil
	}
	return errors.Join(n.addHomeRoute(s, eth), n.addHomeRule(s, t))
}

func (n *namespace) addHomeRoute(s side, eth netlink.Link) error {
	r := s.taskRoute(eth.Attrs().Index).message()
	r.Table = homeTable
	if err := n.RouteReplace(r); err != nil {
		return fmt.Errorf("add route of answers in %s: %w", n.name, err)
	}
	return nil
}

func (n *namespace) addHomeRule(s side, t TaskLink) error {
	r := netlink.NewRule()
	r.Family, r.Table, r.Priority, r.Src = s.family(), homeTable, homePriority, ipNet(host(s.of(t.Address)))
	if err := n.RuleAdd(r); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add routing rule of answers in %s: %w", n.name, err)
	}
	return nil
}

// repairHome puts right what is missing of them. What else is in the table, or other rules, are the business of a task that may do so.
func (n *namespace) repairHome(s side, t TaskLink, eth netlink.Link) error {
	if len(t.Networks) == 0 {
		return nil
	}
	rules, err := dump(func() ([]netlink.Rule, error) { return n.RuleList(s.family()) })
	if err != nil {
		return fmt.Errorf("list routing rules in %s: %w", n.name, err)
	}
	there := false
	for _, one := range rules {
		if one.Table == homeTable && one.Src != nil && prefixOf(one.Src) == host(s.of(t.Address)) {
			there = true
		}
	}
	if there {
		return n.addHomeRoute(s, eth)
	}
	return n.addHome(s, t, eth)
}
