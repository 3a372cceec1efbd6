package netplugin

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A router's namespace is ours alone. A table of somebody else's may drop or translate what goes through, and a rule lead it to other routes,
// however right our own are: so both go when what there is is read back. In the machine's own namespace they are told of (see obstacles).

// tableID is a table by what the kernel knows it by.
type tableID struct {
	family nftables.TableFamily
	name   string
}

func (t tableID) String() string {
	names := map[nftables.TableFamily]string{nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6", nftables.TableFamilyINet: "inet",
		nftables.TableFamilyARP: "arp", nftables.TableFamilyBridge: "bridge", nftables.TableFamilyNetdev: "netdev"}
	return fmt.Sprintf("table %s of family %s", t.name, names[t.family])
}

// Our tables in the gateway's router, and in those of networks.
var (
	gatewayTables = []tableID{{nftables.TableFamilyIPv4, tableName}, {nftables.TableFamilyIPv4, zoneTableName},
		{nftables.TableFamilyIPv6, tableName}, {nftables.TableFamilyIPv6, zoneTableName}, {nftables.TableFamilyNetdev, tableName}}
	networkTables = []tableID{{nftables.TableFamilyIPv4, tableName}, {nftables.TableFamilyIPv6, tableName}}
)

// strangeTables are those of a router that are not ours.
func (n *namespace) strangeTables(ours []tableID) (strange []tableID, err error) {
	c, err := n.firewall()
	if err != nil {
		return nil, err
	}
	all, err := c.ListTables()
	if err != nil {
		n.reset()
		return nil, fmt.Errorf("list tables of %s: %w", n.name, err)
	}
	for _, one := range all {
		if t := (tableID{one.Family, one.Name}); !slices.Contains(ours, t) {
			strange = append(strange, t)
		}
	}
	return strange, nil
}

// removeStrangeTables removes them. One that a process owns, as nft can make them, goes with that process alone: that is logged, and the doctor
// tells it, but nothing of ours waits for it.
func (l *Linux) removeStrangeTables(n *namespace, ours []tableID) error {
	strange, err := n.strangeTables(ours)
	if err != nil {
		return err
	}
	for _, t := range strange {
		c, err := n.firewall()
		if err != nil {
			return err
		}
		c.DelTable(&nftables.Table{Name: t.name, Family: t.family})
		if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
			n.reset()
			l.log.Warn("a table of somebody else's stays in a router of the swarm's", "table", t.String(), "in", n.name, "err", err)
		}
	}
	return nil
}

// clearStrangers makes a network's router ours alone.
func (l *Linux) clearStrangers(n *namespace) error {
	if err := l.removeStrangeTables(n, networkTables); err != nil {
		return err
	}
	for _, v := range kernelVersions() {
		if err := n.syncRules(family(v)); err != nil {
			return err
		}
	}
	return nil
}

// standingLinks are what the kernel puts into every namespace, those but the loopback where their modules are loaded. They cannot be removed.
var standingLinks = []string{"lo", "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "sit0", "ip6tnl0", "ip6gre0", "ip6_vti0"}

// removable tells links that we, or somebody else, made from those that each namespace has, and from machines' cards that somebody put there.
func removable(one netlink.Link) bool {
	return !slices.Contains(standingLinks, one.Attrs().Name) && one.Type() != "device"
}

// usualMetrics are the metrics of routes that are given none, by IP version.
var usualMetrics = [2]int{0, 1024}

// isStrange tells whether a route of a router was made in another way than ours, and the kernel's own for these addresses, are. One that looks like
// ours is compared with what is wanted. To tables besides these no rule leads.
func isStrange(r netlink.Route, v int, addresses map[netip.Addr]bool) bool {
	if r.Protocol == unix.RTPROT_KERNEL {
		return !kernelMade(r, addresses)
	}
	switch r.Table {
	case unix.RT_TABLE_MAIN:
		return r.Type != unix.RTN_UNICAST && r.Type != unix.RTN_UNREACHABLE || r.Protocol != unix.RTPROT_STATIC || r.Tos != 0 ||
			r.Priority != usualMetrics[v] || len(r.MultiPath) > 0 || r.Encap != nil || hasMetrics(r)
	case unix.RT_TABLE_LOCAL, unix.RT_TABLE_DEFAULT:
		return true
	}
	return false
}

// hasMetrics tells whether a route says more of how packets are sent than ours do.
func hasMetrics(r netlink.Route) bool {
	return r.MTU|r.Window|r.Rtt|r.RttVar|r.Ssthresh|r.Cwnd|r.AdvMSS|r.Reordering|r.Hoplimit|r.InitCwnd|r.Features|r.RtoMin|r.InitRwnd|r.QuickACK|r.FastOpenNoCookie|r.Realm != 0 ||
		r.Congctl != ""
}

// strangeRoutes are those of a router.
func (n *namespace) strangeRoutes() (strange []netlink.Route, err error) {
	for _, v := range kernelVersions() {
		addresses, err := n.addressesOfAll(v)
		if err != nil {
			return nil, err
		}
		all, err := dump(func() ([]netlink.Route, error) {
			return n.RouteListFiltered(family(v), &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return nil, fmt.Errorf("list routes in %s: %w", n.name, err)
		}
		for _, r := range all {
			if isStrange(r, v, addresses) {
				if r.Dst == nil {
					r.Dst = ipNet([2]netip.Prefix{anywhere, anywhere6}[v])
				}
				strange = append(strange, r)
			}
		}
	}
	return strange, nil
}

// removeStrangeRoutes removes them, before what is ours is read: one may be where ours should be.
func (n *namespace) removeStrangeRoutes() error {
	strange, err := n.strangeRoutes()
	errs := []error{err}
	for _, r := range strange {
		if err := n.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("remove route to %s in %s, which is somebody else's: %w", r.Dst, n.name, err))
		}
	}
	return errors.Join(errs...)
}

// kernelVersions are the IP versions that the kernel has.
func kernelVersions() []int {
	if kernelSix() != nil {
		return []int{0}
	}
	return []int{0, 1}
}

// plainRules are the rules that every namespace has, and needs for its routes to count.
func plainRules(family int) (all []netlink.Rule) {
	add := func(priority, table int) {
		r := netlink.NewRule()
		r.Family, r.Priority, r.Table = family, priority, table
		all = append(all, *r)
	}
	add(0, unix.RT_TABLE_LOCAL)
	add(32766, unix.RT_TABLE_MAIN)
	if family == unix.AF_INET {
		add(32767, unix.RT_TABLE_DEFAULT)
	}
	return all
}

// allRules lists those of an address family.
func (n *namespace) allRules(family int) ([]netlink.Rule, error) {
	list, err := dump(func() ([]netlink.Rule, error) { return n.RuleList(family) })
	if err != nil {
		return nil, fmt.Errorf("list routing rules in %s: %w", n.name, err)
	}
	return list, nil
}

// rules lists those of an address family, without who made them.
func (n *namespace) rules(family int) ([]netlink.Rule, error) {
	list, err := n.allRules(family)
	if err != nil {
		return nil, err
	}
	for i := range list {
		list[i].Protocol = 0
	}
	return list, nil
}

func hasRule(list []netlink.Rule, r netlink.Rule) bool {
	return slices.ContainsFunc(list, func(one netlink.Rule) bool { return reflect.DeepEqual(one, r) })
}

// ruleRounds bounds how often rules are listed again: of several that look the same to us, the kernel removes the first, which may be
// one that is to stay.
const ruleRounds = 4

// syncRules makes the rules of a router those that every namespace has, and those that are given.
func (n *namespace) syncRules(family int, more ...netlink.Rule) error {
	want := append(plainRules(family), more...)
	have, err := n.rules(family)
	for round := 1; err == nil && slices.ContainsFunc(have, func(r netlink.Rule) bool { return !hasRule(want, r) }); round++ {
		if round > ruleRounds {
			return fmt.Errorf("routing rules of somebody else's in %s do not go", n.name)
		}
		for _, one := range have {
			if hasRule(want, one) {
				continue
			}
			if err := n.RuleDel(&one); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("remove routing rule %s in %s: %w", one, n.name, err)
			}
		}
		have, err = n.rules(family)
	}
	if err != nil {
		return err
	}
	for _, r := range want {
		if hasRule(have, r) {
			continue
		}
		if err := n.RuleAdd(&r); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add routing rule %s in %s: %w", r, n.name, err)
		}
	}
	return nil
}

// compareStrangers says what of a router is somebody else's. More are its own rules of an IP version, besides those that every namespace has.
func (n *namespace) compareStrangers(ours []tableID, more func(v int) []netlink.Rule, say func(string, ...any)) error {
	strange, err := n.strangeTables(ours)
	if err != nil {
		return err
	}
	for _, t := range strange {
		say("%s in %s is somebody else's", t, n.name)
	}
	routes, err := n.strangeRoutes()
	if err != nil {
		return err
	}
	if len(routes) > 0 {
		say("%s has %d routes of somebody else's, one of them to %s", n.name, len(routes), routes[0].Dst)
	}
	for _, v := range kernelVersions() {
		deaf, err := n.deaf(nil, v)
		if err != nil {
			return err
		}
		for _, a := range deaf {
			say("%s does not answer at its address %s: somebody took the kernel's route away", n.name, a.IPNet.IP)
		}
		have, err := n.rules(family(v))
		if err != nil {
			return err
		}
		want := append(plainRules(family(v)), more(v)...)
		if len(have) != len(want) || slices.ContainsFunc(have, func(r netlink.Rule) bool { return !hasRule(want, r) }) {
			say("%s has routing rules of somebody else's, or lacks some of its own", n.name)
		}
	}
	return nil
}
