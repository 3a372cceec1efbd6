package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/swarmd/swarmd/test/e2e/lab"
)

// kernelOf is all that a host's kernel has of networks, line by line and in order: in the host's own namespace, and in each that its daemon made
// for a router or a task, links, addresses, routes of all tables but the kernel's own, routing rules, whether packets are forwarded, permanent
// neighbours and forwarding entries, the tables with their chains, rules and elements, and the host's UDP ports. The numbers that the kernel gives
// to what is made are left out, and what packets leave there.
func kernelOf(h *lab.Host) ([]string, error) {
	all, err := linesIn("host", h.Namespace)
	if err != nil {
		return nil, err
	}
	for _, kind := range []string{"router", "netns"} {
		for _, path := range spacesOf(h, kind) {
			label := kind + " " + filepath.Base(path)
			n, err := lab.Inside(path)
			if err != nil {
				return nil, err
			}
			lines, err := linesIn(label, n)
			n.Leave()
			if err != nil {
				return nil, err
			}
			all = append(append(all, label+" is there"), lines...)
		}
	}
	for _, path := range spacesOf(h, "wire") {
		all = append(all, "file of what encrypts "+filepath.Base(path))
	}
	ports, err := udpPorts(h)
	if err != nil {
		return nil, err
	}
	all = append(all, ports...)
	slices.Sort(all)
	return all, nil
}

// udpPorts are the ports that are open on a host, but for those that the kernel gives to whoever asks somebody else.
func udpPorts(h *lab.Host) (all []string, err error) {
	const ephemeral, afterThem = 32768, 61000 // net.ipv4.ip_local_port_range
	err = h.Do(func() error {
		for _, version := range []string{"udp", "udp6"} {
			data, err := os.ReadFile("/proc/thread-self/net/" + version)
			if err != nil {
				return err
			}
			for _, at := range localPort.FindAllSubmatch(data, -1) {
				if port, err := strconv.ParseUint(string(at[1]), 16, 16); err == nil && (port < ephemeral || port >= afterThem) {
					all = append(all, fmt.Sprintf("host: open is %s port %d", version, port))
				}
			}
		}
		return nil
	})
	return all, err
}

// localPort finds the port of a socket's own address, see proc_net_udp.
var localPort = regexp.MustCompile(`(?m)^ *\d+: [0-9A-F]+:([0-9A-F]{4}) `)

// linesIn is what is in one namespace.
func linesIn(label string, n *lab.Namespace) ([]string, error) {
	d := &dumped{label: label, names: map[int]string{0: "-"}}
	err := n.Do(func() error {
		return errors.Join(d.links(), d.routes(), d.rules(), d.neighbours(), d.tables(), d.settings())
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", label, err)
	}
	return d.lines, nil
}

// dumped is what was read of a namespace so far.
type dumped struct {
	label string
	names map[int]string // of links
	lines []string
}

func (d *dumped) line(format string, args ...any) {
	d.lines = append(d.lines, d.label+": "+fmt.Sprintf(format, args...))
}

func (d *dumped) links() error {
	all, err := whole(netlink.LinkList)
	if err != nil {
		return err
	}
	for _, one := range all {
		d.names[one.Attrs().Index] = one.Attrs().Name
	}
	for _, one := range all {
		a := one.Attrs()
		d.line("link %s %s %s mtu %d up %t alias %q in %s", a.Name, one.Type(), a.HardwareAddr, a.MTU, a.Flags&net.FlagUp != 0, a.Alias, d.names[a.MasterIndex])
		if vx, is := one.(*netlink.Vxlan); is {
			d.line("vxlan %s id %d local %s port %d", a.Name, vx.VxlanId, vx.SrcAddr, vx.Port)
		}
		addresses, err := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(one, netlink.FAMILY_ALL) })
		if err != nil {
			return err
		}
		for _, addr := range addresses {
			if d.label != "host" || !addr.IP.IsLinkLocalUnicast() { // its own links have those that the kernel makes
				d.line("address %s of %s", addr.IPNet, a.Name)
			}
		}
	}
	return nil
}

func (d *dumped) routes() error {
	all, err := routesIn(unix.RT_TABLE_UNSPEC)
	if err != nil {
		return err
	}
	for _, r := range all {
		if r.Protocol != unix.RTPROT_KERNEL { // those follow from addresses
			d.line("route to %s via %v dev %s from %v table %d type %d metric %d mtu %d", r.Dst, r.Gw, d.names[r.LinkIndex], r.Src, r.Table, r.Type, r.Priority, r.MTU)
		}
	}
	return nil
}

func (d *dumped) rules() error {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		all, err := whole(func() ([]netlink.Rule, error) { return netlink.RuleList(family) })
		if err != nil {
			return err
		}
		for _, r := range all {
			d.line("rule of family %d: %d from %v to %v mark %x table %d but %d in %q", family, r.Priority, r.Src, r.Dst, r.Mark, r.Table, r.SuppressPrefixlen, r.IifName)
		}
	}
	return nil
}

// settings are whether packets are forwarded.
func (d *dumped) settings() error {
	for _, name := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		value, err := os.ReadFile("/proc/sys/net/" + name)
		if err != nil {
			return err
		}
		d.line("setting %s %s", name, bytes.TrimSpace(value))
	}
	return nil
}

func (d *dumped) neighbours() error {
	near, err := whole(func() ([]netlink.Neigh, error) { return netlink.NeighList(0, netlink.FAMILY_ALL) })
	if err != nil {
		return err
	}
	forwards, err := whole(func() ([]netlink.Neigh, error) { return netlink.NeighList(0, unix.AF_BRIDGE) })
	if err != nil {
		return err
	}
	for _, one := range append(near, forwards...) {
		group := len(one.HardwareAddr) > 0 && one.HardwareAddr[0]&1 != 0 // of the kernel's own, which comes with addresses
		if one.State&netlink.NUD_PERMANENT != 0 && !group {
			d.line("neighbour %s %s at %s family %d", one.IP, one.HardwareAddr, d.names[one.LinkIndex], one.Family)
		}
	}
	return nil
}

func (d *dumped) tables() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	chains, err := c.ListChains()
	if err != nil {
		return err
	}
	for _, one := range chains {
		d.line("chain %d %s %s %s", one.Table.Family, one.Table.Name, one.Name, one.Type)
		if one.Hooknum != nil {
			d.line("chain %d %s %s at hook %d, priority %d, policy %d", one.Table.Family, one.Table.Name, one.Name, *one.Hooknum, *one.Priority, *one.Policy)
		}
	}
	if err := d.chainRules(); err != nil {
		return err
	}
	tables, err := c.ListTables()
	if err != nil {
		return err
	}
	for _, table := range tables {
		if err := d.sets(c, table); err != nil {
			return err
		}
	}
	return nil
}

// The attributes of a rule in linux/netfilter/nf_tables.h.
const ruleTable, ruleChain, ruleUserData = 1, 2, 7

// chainRules are the rules of all chains in order, by their comments: ours end in a digest of what they do. The kernel is asked for them as they are,
// since not every expression is known to the library.
func (d *dumped) chainRules() error {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.NFPROTO_UNSPEC})
	rules, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return err
	}
	count := map[string]int{}
	for _, r := range rules {
		attrs, err := nl.ParseRouteAttr(r[nl.SizeofNfgenmsg:])
		if err != nil {
			return err
		}
		var in, comment string
		for _, a := range attrs {
			switch a.Attr.Type &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER) {
			case ruleTable, ruleChain:
				in += nl.BytesToString(a.Value) + " "
			case ruleUserData:
				comment = string(linkNumber.ReplaceAll(a.Value[min(2, len(a.Value)):], []byte("link N"))) // without its length
			}
		}
		in = fmt.Sprintf("%d %s", r[0], in)
		d.line("chain %srule %d %q", in, count[in], comment)
		count[in]++
	}
	return nil
}

// sets are the elements of a table's sets. Of those of backends the index is left out: in which order they are, changes decided.
func (d *dumped) sets(c *nftables.Conn, table *nftables.Table) error {
	sets, err := c.GetSets(table)
	if err != nil {
		return err
	}
	for _, s := range sets {
		d.line("set %d %s %s", table.Family, table.Name, s.Name)
		if s.Dynamic {
			continue // packets fill it
		}
		elements, err := c.GetSetElements(s)
		if err != nil {
			return err
		}
		for _, e := range elements {
			if s.Name == "backends" {
				e.Key = e.Key[:len(e.Key)-4]
			}
			d.line("set %d %s %s element %x : %x", table.Family, table.Name, s.Name, e.Key, e.Val)
		}
	}
	return nil
}

// whole is a list of the kernel's that no change interrupted, as one may while a daemon works, or a namespace goes.
func whole[T any](list func() ([]T, error)) (all []T, err error) {
	for range 20 {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}

// routesIn are the routes of a table, of both IP versions; of all tables where it is RT_TABLE_UNSPEC.
func routesIn(table int) ([]netlink.Route, error) {
	return whole(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
	})
}

// linkNumber is in the comments of rules that are for one link.
var linkNumber = regexp.MustCompile(`link [0-9]+`)

// sameWhenMade has a host's network made from nothing: its daemon is stopped, all that it made in the kernel is taken away, and it is started
// again. What is there then is what was there before, or that had something too many or too few.
func (c *chaos) sameWhenMade(h *lab.Host) {
	var before []string
	c.Eventually(generous, "nothing changes any more on "+h.Name, func() error {
		var err error
		if before, err = kernelOf(h); err != nil {
			return err
		}
		time.Sleep(300 * time.Millisecond) // in which something would: links go a moment after their tasks
		after, err := kernelOf(h)
		return errors.Join(err, differences(before, after))
	})
	h.Stop()
	if err := c.killWires(h); err != nil && !errors.Is(err, errNobody) {
		c.t.Fatal(err)
	}
	if err := errors.Join(wipe(h), h.Launch()); err != nil {
		c.t.Fatalf("take away what %s has: %v", h.Name, err)
	}
	c.Eventually(generous, "the nodes are ready once "+h.Name+" was wiped", func() error { return readyNodes(c.Hosts[0], "manager1", "worker1", "worker2") })
	c.Eventually(generous, h.Name+" has what it had (-before +made from nothing)", func() error {
		after, err := kernelOf(h)
		return errors.Join(err, differences(before, after))
	})
}

// differences tells which lines only one of two lists has.
func differences(before, after []string) error {
	var all []string
	count := map[string]int{}
	for _, line := range before {
		count[line]++
	}
	for _, line := range after {
		if count[line]--; count[line] < 0 {
			all = append(all, "+ "+line)
		}
	}
	for _, line := range before {
		if count[line] > 0 {
			count[line]--
			all = append(all, "- "+line)
		}
	}
	if all == nil {
		return nil
	}
	return fmt.Errorf("%d differences, such as:\n%s", len(all), strings.Join(all[:min(40, len(all))], "\n"))
}

// wipe takes away all that the daemon of a host made in the kernel. The namespaces of tasks stay, without what it made in them.
func wipe(h *lab.Host) error {
	var errs []error
	for _, path := range spacesOf(h, "router") {
		errs = append(errs, unix.Unmount(path, unix.MNT_DETACH), os.Remove(path))
	}
	for _, path := range spacesOf(h, "netns") {
		n, err := lab.Inside(path)
		if err == nil {
			err = n.Do(func() error { return errors.Join(deleteLinks("lo"), deleteRules(), deleteRoutes(), flushRuleset()) })
			n.Leave()
		}
		errs = append(errs, err)
	}
	errs = append(errs, h.Do(func() error { return errors.Join(deleteLinks("lo", "eth0"), deleteRules(), flushRuleset()) }))
	return errors.Join(errs...)
}

// deleteLinks deletes all links of the namespace but some.
func deleteLinks(but ...string) error {
	links, err := whole(netlink.LinkList)
	for _, one := range links {
		if !slices.Contains(but, one.Attrs().Name) {
			err = errors.Join(err, ignoreGone(netlink.LinkDel(one)))
		}
	}
	return err
}

// deleteRoutes deletes all routes of the namespace but the kernel's own, and all addresses of its loopback but that.
func deleteRoutes() error {
	routes, err := routesIn(unix.RT_TABLE_UNSPEC)
	for _, r := range routes {
		if r.Protocol != unix.RTPROT_KERNEL {
			err = errors.Join(err, ignoreGone(netlink.RouteDel(&r)))
		}
	}
	lo, findErr := netlink.LinkByName("lo")
	if findErr != nil {
		return errors.Join(err, findErr)
	}
	addresses, listErr := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(lo, netlink.FAMILY_ALL) })
	for _, a := range addresses {
		if !a.IP.IsLoopback() {
			err = errors.Join(err, netlink.AddrDel(lo, &a))
		}
	}
	return errors.Join(err, listErr)
}

// deleteRules deletes all routing rules of the namespace but the kernel's own, as every namespace has them.
func deleteRules() error {
	var errs []error
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		rules, err := whole(func() ([]netlink.Rule, error) { return netlink.RuleList(family) })
		errs = append(errs, err)
		for _, r := range rules {
			if own := r.Priority == 0 || r.Priority == 32766 || r.Priority == 32767; !own {
				errs = append(errs, ignoreGone(netlink.RuleDel(&r)))
			}
		}
	}
	return errors.Join(errs...)
}
