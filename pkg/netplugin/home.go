package netplugin

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What comes to a task by a published port has its client's own address, and that may be one of a network's subnet too: subnets are chosen
// without looking at what else is in the world. Answers go back the way that the question came all the same: what is sent from the task's
// gateway address is routed by a table of its own, whose one route is the way out.
const (
	homeTable    = 100
	homePriority = 100 // of the rule, after that of local addresses
)

// addHome gives a new namespace the rule and the route of answers.
func (n *namespace) addHome(s side, t TaskLink, eth netlink.Link) error {
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
	rules, err := n.homeRules(s.family())
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(rules, func(r netlink.Rule) bool { return r.Src != nil && prefixOf(r.Src) == host(s.of(t.Address)) }) {
		if err := n.addHomeRule(s, t); err != nil {
			return err
		}
	}
	have, err := n.routesIn(homeTable, eth.Attrs().Index, s.family())
	if err != nil || have[s.taskRoute(eth.Attrs().Index)] {
		return err
	}
	return n.addHomeRoute(s, eth)
}

// removeHome removes the rules of an address that the task had; their route goes with its link.
func (n *namespace) removeHome() error {
	for v := range overlayFamilies {
		if v == 1 && kernelSix() != nil {
			continue
		}
		rules, err := n.homeRules(family(v))
		if err != nil {
			return err
		}
		for _, r := range rules {
			if err := n.RuleDel(&r); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("remove routing rule %s in %s: %w", r, n.name, err)
			}
		}
	}
	return nil
}

// homeRules are those that lead to the table of answers.
func (n *namespace) homeRules(family int) ([]netlink.Rule, error) {
	all, err := n.allRules(family)
	return slices.DeleteFunc(all, func(r netlink.Rule) bool { return r.Table != homeTable }), err
}
