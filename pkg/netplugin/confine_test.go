package netplugin

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestNothingBeginsBesideANetwork: where a task's link to a network is gone, what it begins there fails at once, and does not go out by another
// way to end in nothing; its rules are put back, and taken away with the network.
func TestNothingBeginsBesideANetwork(t *testing.T) {
	b := newLab(t)
	c := guestConfig("")
	b.apply(c)
	task := b.task("t0")
	to := netip.MustParseAddr("10.9.0.99")
	way := func() error {
		_, err := task.RouteGet(to.AsSlice())
		return err
	}
	confined := func() (count int) {
		t.Helper()
		have, err := task.rules(unix.AF_INET)
		must(t, err)
		for _, r := range have {
			if isConfine(r) {
				count++
			}
		}
		return count
	}
	must(t, way())
	for name, damage := range map[string]func(){
		"link removed": deleteLink(t, task, "eth1"),
		"routes gone": func() {
			all, err := task.routesOf(linkOf(t, task, "eth1"), unix.AF_INET)
			must(t, err)
			for r := range all {
				must(t, task.removeRoute(r))
			}
		},
	} {
		if damage(); !errors.Is(way(), unix.ENETUNREACH) {
			t.Errorf("%s: a way to %s is found: %v", name, to, way())
		}
		b.linux.Resync()
		b.apply(c)
		must(t, way())
	}
	have, err := task.rules(unix.AF_INET)
	must(t, err)
	for _, r := range have {
		if isConfine(r) {
			must(t, task.RuleDel(&r))
		}
	}
	if !b.disturbed(soon) {
		t.Error("that its rules were taken away is not noticed")
	}
	b.apply(c)
	if n := confined(); n != 2 {
		t.Errorf("after a repair there are %d rules, want 2", n)
	}
	b.restart()
	c.Tasks[0].Networks = nil
	b.apply(c)
	if n := confined(); n != 0 {
		t.Errorf("of a network that the task left %d rules are there", n)
	}
}

// isConfine tells whether a rule is one of such a pair.
func isConfine(r netlink.Rule) bool {
	if r.Dst == nil {
		return false
	}
	to := prefixOf(r.Dst)
	for _, c := range []confine{{subnet: to}, {subnet: to, encrypted: true}, {to, true, true}} {
		for _, one := range c.rules() {
			if hasRule([]netlink.Rule{listed(one)}, r) {
				return true
			}
		}
	}
	return false
}
