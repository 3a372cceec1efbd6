package netplugin

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// dump is all that is of us in the lab's kernel, as text. With identities it also has the numbers that the kernel gives to
// what is made anew, so that two equal ones mean that nothing was.
func (b *lab) dump(identities bool) string {
	b.t.Helper()
	b.linux.swept()
	var w strings.Builder
	dumpNamespace(b.t, &w, "host", b.host, identities, func(name string) bool { return name == hostLink })
	names := []string{b.linux.routerPath()}
	for _, dir := range []string{filepath.Dir(b.linux.routerPath()), b.linux.tasksDir()} {
		entries, err := os.ReadDir(dir)
		if err != nil && !os.IsNotExist(err) {
			b.t.Fatal(err)
		}
		for _, e := range entries {
			if path := filepath.Join(dir, e.Name()); path != names[0] {
				names = append(names, path)
			}
		}
	}
	for _, path := range names {
		label := strings.TrimPrefix(path, b.dir)
		if !pinned(path) {
			fmt.Fprintf(&w, "%s: not mounted\n", label)
			continue
		}
		n, err := openNamespace(label, path)
		must(b.t, err)
		if identities {
			fmt.Fprintln(&w, label, n.fd.UniqueId())
		}
		dumpNamespace(b.t, &w, label, n, identities, func(string) bool { return true })
		n.close()
		b.dumpWires(&w, filepath.Base(path), identities)
	}
	return w.String()
}

// dumpWires is what the process of an encrypted network has, but for this machine's own secrets.
func (b *lab) dumpWires(w *strings.Builder, network string, identities bool) {
	b.t.Helper()
	p := b.linux.process(network)
	if _, err := os.Stat(p.path); err != nil {
		return
	}
	have, err := p.read()
	must(b.t, err)
	have = have.withoutMet()
	var lines []string
	for k, peer := range have.peers {
		lines = append(lines, fmt.Sprintf("wire port %d node %s at %s", have.port, k, peer.at))
	}
	for prefix, k := range have.owner {
		lines = append(lines, fmt.Sprintf("wire address %s of node %s", prefix, k))
	}
	if identities {
		id, err := p.id()
		must(b.t, err)
		lines = append(lines, fmt.Sprintf("wire process %d with key %s and secrets %v", id, have.private, have.peers))
	}
	slices.Sort(lines)
	fmt.Fprintln(w, strings.Join(lines, "\n"))
}

func dumpNamespace(t testing.TB, w *strings.Builder, label string, n *namespace, identities bool, ours func(link string) bool) {
	t.Helper()
	fmt.Fprintf(w, "== %s\n", label)
	links, err := dump(n.LinkList)
	must(t, err)
	names := map[int]string{}
	for _, one := range links {
		names[one.Attrs().Index] = one.Attrs().Name
	}
	var lines []string
	line := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for _, one := range links {
		a := one.Attrs()
		if !ours(a.Name) {
			continue
		}
		line("link %s %s %s mtu %d %s alias %q master %q", a.Name, one.Type(), a.HardwareAddr, a.MTU, a.Flags&^net.FlagRunning, a.Alias, names[a.MasterIndex]) // the kernel is late with that one
		if identities {
			line("link %s index %d peer %d", a.Name, a.Index, a.ParentIndex)
		}
		addrs, err := dump(func() ([]netlink.Addr, error) { return n.AddrList(one, unix.AF_UNSPEC) })
		must(t, err)
		for _, one := range addrs {
			line("address %s %s", a.Name, one.IPNet)
		}
		for v := range overlayFamilies {
			near, err := n.neighboursOf(a.Index, family(v))
			must(t, err)
			for one := range near {
				line("neighbour %s %s %s", a.Name, one.addr, one.mac)
			}
		}
		if one.Type() == "vxlan" {
			vx := one.(*netlink.Vxlan)
			line("vxlan %s id %d local %s port %d sockets outside %t noarp %t", a.Name, vx.VxlanId, vx.SrcAddr, vx.Port, vx.NetNsID >= 0, a.RawFlags&unix.IFF_NOARP != 0)
			forwards, err := n.forwards(a.Index)
			must(t, err)
			for one := range forwards {
				line("forward %s %s %s", a.Name, one.addr, one.mac)
			}
			for _, one := range elsewheres(t, n, a.Index) {
				line("forward %s elsewhere: %s", a.Name, one)
			}
		}
	}
	for v := range overlayFamilies {
		routes, err := n.routesOf(0, family(v))
		must(t, err)
		for r := range routes {
			if r.link == 0 || ours(names[r.link]) {
				line("route %s dev %s src %s", r, names[r.link], r.src)
			}
		}
	}
	for _, table := range []int{replyTable, unix.RT_TABLE_LOCAL, unix.RT_TABLE_MAIN} {
		var list []netlink.Route
		for v := range overlayFamilies {
			some, err := dump(func() ([]netlink.Route, error) {
				return n.RouteListFiltered(family(v), &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
			})
			must(t, err)
			list = append(list, some...)
		}
		for _, r := range list {
			if hasMetrics(r) {
				line("metrics of the route to %s", prefixOf(r.Dst))
			}
			if table == unix.RT_TABLE_MAIN && (r.Protocol != unix.RTPROT_KERNEL || prefixOf(r.Dst).Addr().IsLoopback()) {
				continue // is above, or comes and goes with IPv6
			}
			if ours(names[r.LinkIndex]) {
				line("route of table %d %s via %s dev %s src %s protocol %d type %d", table, prefixOf(r.Dst), r.Gw, names[r.LinkIndex], r.Src, r.Protocol, r.Type)
			}
		}
	}
	for v := range overlayFamilies {
		rules, err := dump(func() ([]netlink.Rule, error) { return n.RuleList(family(v)) })
		must(t, err)
		for _, r := range rules {
			line("rule of IPv%d %d mark %x table %d from %v", 4+2*v, r.Priority, r.Mark, r.Table, r.Src)
		}
	}
	must(t, n.within(func() error {
		for _, name := range []string{ipForward, "net.ipv4.conf.all.rp_filter", "net.ipv4.ip_unprivileged_port_start", "net.ipv4.tcp_fin_timeout", "net.ipv6.conf.all.forwarding"} {
			v, err := getSysctl(name)
			if err != nil {
				return err
			}
			line("sysctl %s %s", name, v)
		}
		for _, one := range links {
			name := one.Attrs().Name
			if ours(name) {
				for _, of := range []string{"net.ipv4.conf.%s.rp_filter", "net.ipv4.conf.%s.accept_local", "net.ipv6.conf.%s.disable_ipv6", "net.ipv6.conf.%s.addr_gen_mode"} {
					v, err := getSysctl(fmt.Sprintf(of, name))
					if err != nil && !os.IsNotExist(err) {
						return err
					}
					line("sysctl "+of+" %s", name, v)
				}
			}
		}
		return nil
	}))
	slices.Sort(lines)
	fmt.Fprintln(w, strings.Join(lines, "\n"))
	dumpTables(t, w, n, identities)
}

// elsewheres are the forwarding entries of a VXLAN link that name a port or a VNI, which the kernel tells where they are not the link's.
func elsewheres(t testing.TB, n *namespace, link int) (found []string) {
	t.Helper()
	req := nl.NewNetlinkRequest(unix.RTM_GETNEIGH, unix.NLM_F_DUMP)
	req.AddData(&netlink.Ndmsg{Family: unix.AF_BRIDGE, Index: uint32(link)})
	messages, err := n.query(unix.NETLINK_ROUTE, req)
	must(t, err)
	for _, m := range messages {
		attrs, err := nl.ParseRouteAttr(m[12:]) // struct ndmsg
		must(t, err)
		var mac net.HardwareAddr
		for _, a := range attrs {
			switch a.Attr.Type {
			case netlink.NDA_LLADDR:
				mac = a.Value
			case netlink.NDA_PORT, netlink.NDA_VNI:
				found = append(found, fmt.Sprintf("%s by %x", mac, a.Value))
			}
		}
	}
	return found
}

func dumpTables(t testing.TB, w *strings.Builder, n *namespace, identities bool) {
	t.Helper()
	c, err := n.firewall()
	must(t, err)
	chains, err := c.ListChains()
	must(t, err)
	slices.SortFunc(chains, func(a, b *nftables.Chain) int {
		return cmp.Or(cmp.Compare(a.Table.Family, b.Table.Family), strings.Compare(a.Name, b.Name))
	})
	for _, one := range chains {
		fmt.Fprintf(w, "chain %d %s %s %s", one.Table.Family, one.Table.Name, one.Name, one.Type)
		if one.Hooknum != nil {
			fmt.Fprintf(w, " hook %d priority %d policy %d", *one.Hooknum, *one.Priority, *one.Policy)
		}
		fmt.Fprintln(w)
		if one.Table.Name == four.zoneTable().Name {
			tags, err := n.tags(one.Table, one.Name)
			must(t, err)
			for _, tag := range tags {
				fmt.Fprintf(w, "  %s\n", tag[2:])
			}
			continue
		}
		rules, err := c.GetRules(one.Table, one)
		must(t, err)
		for _, r := range rules {
			comment := string(r.UserData[2:])
			if !identities {
				comment = linkNumber.ReplaceAllString(comment, "link N")
			}
			fmt.Fprintf(w, "  %s", comment)
			for _, e := range r.Exprs {
				fmt.Fprintf(w, " %s", shown(e))
				if set, ok := e.(*expr.Dynset); ok {
					for _, of := range set.Exprs {
						fmt.Fprintf(w, " of %+v", of)
					}
				}
			}
			if identities {
				fmt.Fprintf(w, " handle %d", r.Handle)
			}
			fmt.Fprintln(w)
		}
	}
	tables, err := c.ListTables()
	must(t, err)
	slices.SortFunc(tables, func(a, b *nftables.Table) int {
		return cmp.Or(cmp.Compare(a.Family, b.Family), strings.Compare(a.Name, b.Name))
	})
	for _, table := range tables {
		if table.Flags != 0 {
			fmt.Fprintf(w, "table %d %s is dormant\n", table.Family, table.Name)
		}
		sets, err := c.GetSets(table)
		must(t, err)
		slices.SortFunc(sets, func(a, b *nftables.Set) int { return strings.Compare(a.Name, b.Name) })
		for _, s := range sets {
			if s.Dynamic { // packets fill it
				fmt.Fprintf(w, "set %d %s %s of %d\n", table.Family, table.Name, s.Name, s.Size)
				continue
			}
			elements, err := c.GetSetElements(s)
			must(t, err)
			var lines []string
			for _, e := range elements {
				if s.Name == mapBackends && (len(e.Key) == 8 || len(e.Key) == 20) && !identities {
					e.Key = e.Key[:len(e.Key)-4] // a VIP's backends are in the order that changes left them in
				}
				lines = append(lines, fmt.Sprintf("  %x : %x", e.Key, e.Val))
			}
			slices.Sort(lines)
			fmt.Fprintf(w, "map %d %s %s\n%s\n", table.Family, table.Name, s.Name, strings.Join(lines, "\n"))
		}
	}
}

// linkNumber is in the comments of rules that are for one link.
var linkNumber = regexp.MustCompile(`link [0-9]+`)

// writes counts what changes in a namespace: the kernel tells of each change of a link, address, route, neighbour or rule. The
// returned function is the number since the last call.
func writes(t testing.TB, n *namespace) func() int {
	t.Helper()
	const nftablesGroup = 7
	links, err := dump(n.LinkList)
	must(t, err)
	for _, one := range links { // asked for one by one, they come to the state that the kernel would tell of later
		_, err := n.LinkByIndex(one.Attrs().Index)
		must(t, err)
	}
	var fds []int
	must(t, n.within(func() error {
		for _, s := range []struct{ protocol, groups int }{
			{unix.NETLINK_ROUTE, unix.RTMGRP_LINK | unix.RTMGRP_NEIGH | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV4_ROUTE},
			{unix.NETLINK_NETFILTER, 1 << (nftablesGroup - 1)},
		} {
			fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, s.protocol)
			if err != nil {
				return err
			}
			fds = append(fds, fd)
			if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: uint32(s.groups)}); err != nil {
				return err
			}
		}
		return nil
	}))
	t.Cleanup(func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	})
	return func() int {
		t.Helper()
		count, b := 0, make([]byte, 1<<16)
		for _, fd := range fds {
			for {
				size, _, err := unix.Recvfrom(fd, b, 0)
				if err == unix.EAGAIN {
					break
				}
				must(t, err)
				count += messages(b[:size])
			}
		}
		return count
	}
}

// messages counts those of one datagram, but for neighbours that the kernel itself came to know.
func messages(b []byte) (count int) {
	for len(b) >= unix.NLMSG_HDRLEN {
		size, kind := binary.NativeEndian.Uint32(b), binary.NativeEndian.Uint16(b[4:])
		learned := false
		if kind == unix.RTM_NEWNEIGH || kind == unix.RTM_DELNEIGH {
			learned = binary.NativeEndian.Uint16(b[unix.NLMSG_HDRLEN+8:])&unix.NUD_PERMANENT == 0
		}
		if !learned {
			count++
		}
		b = b[min(int(size+3)&^3, len(b)):]
	}
	return count
}

// shown is an expression without the places in memory of what is in it.
func shown(e expr.Any) string {
	if set, ok := e.(*expr.Dynset); ok {
		plain := *set
		plain.Exprs = nil
		e = &plain
	}
	return fmt.Sprintf("%+v", e)
}
