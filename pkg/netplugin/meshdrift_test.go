package netplugin

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	mdlayher "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// meshDamage is what can happen to what a node has for others.
var meshDamage = map[string]func(t *testing.T, b *lab){
	"router's ruleset flushed": func(t *testing.T, b *lab) { flushRuleset(t, b.linux.router) },
	"host's ruleset flushed":   func(t *testing.T, b *lab) { flushRuleset(t, b.host) },
	"zones deleted":            func(t *testing.T, b *lab) { removeTable(t, b.linux.router, four.zoneTable()) },
	"zone's rule deleted":      func(t *testing.T, b *lab) { removeRules(t, b.linux.router, four.zoneTable(), "prerouting") },
	"zones without direction": func(t *testing.T, b *lab) {
		c, err := b.linux.router.firewall()
		must(t, err)
		tx := &transaction{Conn: c, table: four.zoneTable()}
		wrong := zoneChain()
		wrong.rules[0].exprs = append(wrong.rules[0].exprs, &expr.Ct{Key: expr.CtKeyZONE, Register: register, SourceRegister: true})
		tx.replaceTable(nil, []chain{wrong})
		must(t, tx.commit())
	},
	"zones dormant":     func(t *testing.T, b *lab) { putToSleep(t, b.linux.router, four.zoneTable()) },
	"egress dormant":    func(t *testing.T, b *lab) { putToSleep(t, b.linux.router, egressTable()) },
	"data port dormant": func(t *testing.T, b *lab) { putToSleep(t, b.host, dataTable()) },
	"router's table dormant": func(t *testing.T, b *lab) {
		putToSleep(t, b.linux.router, four.newTransaction(nil).table)
	},
	"host's table dormant":  func(t *testing.T, b *lab) { putToSleep(t, b.host, four.newTransaction(nil).table) },
	"egress deleted":        func(t *testing.T, b *lab) { removeTable(t, b.linux.router, egressTable()) },
	"egress's rule deleted": func(t *testing.T, b *lab) { removeRules(t, b.linux.router, egressTable(), "egress") },
	"data port open":        func(t *testing.T, b *lab) { removeTable(t, b.host, dataTable()) },
	"data port's rule deleted": func(t *testing.T, b *lab) {
		removeRules(t, b.host, dataTable(), "output")
	},
	"a stranger among the peers": func(t *testing.T, b *lab) {
		changeSet(t, b.host, peerSet(dataTable(), b.linux.have.guard), nil, map[string]bool{string(clientAddr.AsSlice()): true})
	},
	"a peer missing": func(t *testing.T, b *lab) {
		changeSet(t, b.host, peerSet(dataTable(), b.linux.have.guard), map[string]bool{string(nodeAddr(1).AsSlice()): true}, nil)
	},
	"a target more": func(t *testing.T, b *lab) {
		more := newTarget(unix.IPPROTO_TCP, netip.AddrPortFrom(meshAddr(0, 0), 22))
		changeSet(t, b.linux.router, targetSet(four.newTransaction(nil).table, four), nil, map[string]bool{string(more[:]): true})
	},
	"a target missing": func(t *testing.T, b *lab) {
		one := newTarget(unix.IPPROTO_TCP, netip.AddrPortFrom(meshAddr(0, 0), 80))
		changeSet(t, b.linux.router, targetSet(four.newTransaction(nil).table, four), map[string]bool{string(one[:]): true}, nil)
	},
	"link to others deleted": func(t *testing.T, b *lab) { must(t, b.linux.removeMesh()) },
	"link to others down":    func(t *testing.T, b *lab) { setDown(t, b.linux.router, meshLink) },
	"link to others of another kind": func(t *testing.T, b *lab) {
		must(t, b.linux.removeMesh())
		bridge := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
		bridge.Name = meshLink
		must(t, b.linux.router.LinkAdd(bridge))
	},
	"resolver's address deaf": func(t *testing.T, b *lab) { deafen(t, b.host, Resolver.Addr()) },
	"host's address deaf":     func(t *testing.T, b *lab) { deafen(t, b.host, hostAddress) },
	"router's addresses deaf": func(t *testing.T, b *lab) {
		deafen(t, b.linux.router, routerAddress, b.linux.have.base.gateway(), netip.MustParseAddr("127.0.0.1"))
	},
	"route in the kernel's name":       func(t *testing.T, b *lab) { inKernelsName(t, b.linux.router, unix.RT_TABLE_MAIN, meshAddr(0, 99)) },
	"local route in the kernel's name": func(t *testing.T, b *lab) { inKernelsName(t, b.linux.router, unix.RT_TABLE_LOCAL, meshAddr(0, 0)) },
	"another's link": func(t *testing.T, b *lab) {
		bridge := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
		bridge.Name = "br7"
		must(t, b.linux.router.LinkAdd(bridge))
	},
	"link to others in a bridge": func(t *testing.T, b *lab) { bridged(t, b.linux.router, meshLink) },
	"task's link in a bridge":    func(t *testing.T, b *lab) { bridged(t, b.linux.router, linkName(meshAddr(0, 0))) },
	"link's MTU": func(t *testing.T, b *lab) {
		l, err := b.linux.router.LinkByName(meshLink)
		must(t, err)
		must(t, b.linux.router.LinkSetMTU(l, 1300))
	},
	"link's address": func(t *testing.T, b *lab) {
		l, err := b.linux.router.LinkByName(meshLink)
		must(t, err)
		must(t, b.linux.router.LinkSetHardwareAddr(l, vtepMAC(9)))
	},
	"reverse path filter of the link": func(t *testing.T, b *lab) {
		must(t, b.linux.router.within(func() error {
			return setSysctls(setting{name: "net.ipv4.conf." + meshLink + ".rp_filter", value: "1"})
		}))
	},
	"way to a node deleted": func(t *testing.T, b *lab) {
		must(t, b.linux.router.removeForward(b.linux.vx, vtepMAC(2), nodeAddr(1)))
	},
	"way to a node elsewhere": func(t *testing.T, b *lab) {
		must(t, b.linux.router.setForward(b.linux.vx, vtepMAC(2), clientAddr))
	},
	"way to nobody": func(t *testing.T, b *lab) {
		must(t, b.linux.router.setForward(b.linux.vx, vtepMAC(9), clientAddr))
	},
	"way to a node by another port": func(t *testing.T, b *lab) {
		elsewhere(t, b.linux.router, unix.NLM_F_REPLACE, b.linux.vx, vtepMAC(2), nodeAddr(1))
	},
	"way for unknown addresses by another port": func(t *testing.T, b *lab) {
		elsewhere(t, b.linux.router, unix.NLM_F_APPEND, b.linux.vx, make(net.HardwareAddr, 6), clientAddr)
	},
	"way for unknown addresses": func(t *testing.T, b *lab) {
		all := forward(b.linux.vx, net.HardwareAddr{0, 0, 0, 0, 0, 0}, clientAddr)
		must(t, b.linux.router.NeighAppend(all))
	},
	"next hop deleted": func(t *testing.T, b *lab) {
		removeNeighbour(t, b.linux.router, meshLink, nodeBlock(1).Addr().Next())
	},
	"next hop elsewhere": func(t *testing.T, b *lab) {
		must(t, b.linux.router.setNeighbour(b.linux.vx, nodeBlock(1).Addr().Next(), vtepMAC(3)))
	},
	"next hop for a while": func(t *testing.T, b *lab) {
		fleeting(t, b.linux.router, b.linux.vx, nodeBlock(1).Addr().Next(), netlink.NUD_NOARP)
	},
	"host's router for a while": func(t *testing.T, b *lab) {
		gw, err := b.host.LinkByName(hostLink)
		must(t, err)
		fleeting(t, b.host, gw.Attrs().Index, routerAddress, netlink.NUD_REACHABLE)
	},
	"metric of a route to a node": func(t *testing.T, b *lab) {
		r := four.peerRoute(b.linux.have.peers[2], b.linux.vx).message()
		r.MTU, r.MTULock = 600, true
		must(t, b.linux.router.RouteReplace(r))
	},
	"next hop of replies deleted": func(t *testing.T, b *lab) { removeNeighbour(t, b.linux.router, meshLink, replyHop) },
	"route to a node deleted": func(t *testing.T, b *lab) {
		must(t, b.linux.router.removeRoute(four.peerRoute(b.linux.have.peers[2], b.linux.vx)))
	},
	"route to nobody": func(t *testing.T, b *lab) {
		must(t, b.linux.router.addRoute(route{dst: nodeBlock(7), link: b.linux.vx, via: replyHop}))
	},
	"route of replies deleted": func(t *testing.T, b *lab) {
		r := route{dst: anywhere, link: b.linux.vx, via: replyHop}.message()
		r.Table = replyTable
		must(t, b.linux.router.RouteDel(r))
	},
	"another route of replies": func(t *testing.T, b *lab) {
		r := route{dst: netip.PrefixFrom(clientAddr, 32), link: linkOf(t, b.linux.router, routerLink), via: hostAddress}.message()
		r.Table = replyTable
		must(t, b.linux.router.RouteAdd(r))
	},
	"rule of replies deleted": func(t *testing.T, b *lab) { must(t, b.linux.syncReplyRule(0, false)) },
	"another rule": func(t *testing.T, b *lab) {
		r := netlink.NewRule()
		r.Family, r.Table, r.Priority, r.Src = unix.AF_INET, 101, 50, ipNet(testPool)
		must(t, b.linux.router.RuleAdd(r))
	},
	"IPv6 rule of routes deleted": func(t *testing.T, b *lab) {
		main := plainRules(unix.AF_INET6)[1]
		must(t, b.linux.router.RuleDel(&main))
	},
	"rule of routes deleted, another before": func(t *testing.T, b *lab) {
		r := plainRules(unix.AF_INET)[1]
		must(t, b.linux.router.RuleDel(&r))
		r.Src = ipNet(testPool)
		must(t, b.linux.router.RuleAdd(&r))
	},
	"nothing is routed": func(t *testing.T, b *lab) {
		r := netlink.NewRule()
		r.Family, r.Priority, r.Type = unix.AF_INET, 0, unix.RTN_BLACKHOLE
		must(t, b.linux.router.RuleAdd(r))
	},
	"another's tables": func(t *testing.T, b *lab) { strangeTables(t, b.linux.router) },
	"rule of replies for all": func(t *testing.T, b *lab) {
		must(t, b.linux.syncReplyRule(0, false))
		r := netlink.NewRule()
		r.Family, r.Table, r.Priority = unix.AF_INET, replyTable, replyPriority
		must(t, b.linux.router.RuleAdd(r))
	},
	"the pool's route deleted": func(t *testing.T, b *lab) {
		must(t, b.host.removeRoute(route{dst: testPool, link: linkOf(t, b.host, hostLink), via: routerAddress}))
	},
	"the pool's route replaced": func(t *testing.T, b *lab) {
		must(t, b.host.RouteReplace(&netlink.Route{Dst: ipNet(testPool), Type: unix.RTN_BLACKHOLE}))
	},
	"resolver's address deleted": func(t *testing.T, b *lab) {
		gw, err := b.host.LinkByName(hostLink)
		must(t, err)
		must(t, b.host.AddrDel(gw, &netlink.Addr{IPNet: ipNet(host(Resolver.Addr()))}))
	},
	"way to the resolver deleted": func(t *testing.T, b *lab) {
		task := b.task("n1t0")
		must(t, task.RouteDel(&netlink.Route{Dst: ipNet(host(dockerResolver)), Table: unix.RT_TABLE_LOCAL}))
	},
	"router unmounted": func(t *testing.T, b *lab) { must(t, unpin(b.linux.routerPath())) },
	"routes of somebody else's": func(t *testing.T, b *lab) {
		strayInto(t, b.linux.router, netip.PrefixFrom(nodeBlock(1).Addr(), 25), linkOf(t, b.linux.router, routerLink))
	},
	"a route in the place of ours": func(t *testing.T, b *lab) {
		must(t, b.linux.router.RouteReplace(&netlink.Route{Dst: ipNet(nodeBlock(1)), Type: unix.RTN_BLACKHOLE, Protocol: unix.RTPROT_BOOT}))
		must(t, b.linux.router.RouteReplace(&netlink.Route{Dst: ipNet(b.linux.have.pool), Type: unix.RTN_PROHIBIT, Protocol: unix.RTPROT_STATIC}))
	},
	"forwarding entry to another node": func(t *testing.T, b *lab) {
		entry := forward(b.linux.vx, vtepMAC(2), clientAddr)
		entry.State = netlink.NUD_NOARP | netlink.NUD_PERMANENT // as the tool bridge makes them
		must(t, b.linux.router.NeighSet(entry))
	},
}

// strayInto adds routes to a prefix, in all ways but ours.
func strayInto(t *testing.T, n *namespace, to netip.Prefix, link int) {
	t.Helper()
	dst := ipNet(to)
	for _, r := range []netlink.Route{
		{Dst: dst, Type: unix.RTN_BLACKHOLE, Protocol: unix.RTPROT_BOOT},
		{Dst: dst, Type: unix.RTN_PROHIBIT, Protocol: unix.RTPROT_STATIC, Priority: 7},
		{Dst: dst, LinkIndex: link, Scope: netlink.SCOPE_LINK, Protocol: unix.RTPROT_STATIC, Priority: 8},
		{Dst: dst, LinkIndex: link, Scope: netlink.SCOPE_LINK, Protocol: unix.RTPROT_STATIC, Tos: 0x10},
		{Dst: dst, LinkIndex: link, Scope: netlink.SCOPE_LINK, Protocol: unix.RTPROT_ZEBRA, Priority: 9},
		{Dst: dst, LinkIndex: link, Scope: netlink.SCOPE_LINK, Protocol: unix.RTPROT_STATIC, Priority: 10, MultiPath: []*netlink.NexthopInfo{{LinkIndex: link}, {LinkIndex: 1}}},
		{Dst: dst, Type: unix.RTN_BLACKHOLE, Protocol: unix.RTPROT_STATIC, Table: unix.RT_TABLE_LOCAL},
		{Dst: dst, Type: unix.RTN_UNREACHABLE, Protocol: unix.RTPROT_STATIC, Table: unix.RT_TABLE_DEFAULT},
		{Dst: ipNet(netip.MustParsePrefix("0.0.0.0/1")), Type: unix.RTN_BLACKHOLE, Protocol: unix.RTPROT_STATIC},
		{Dst: ipNet(netip.MustParsePrefix("fd00:5::/32")), Type: unix.RTN_BLACKHOLE, Protocol: unix.RTPROT_BOOT},
		{Dst: ipNet(anywhere6), Type: unix.RTN_PROHIBIT, Protocol: unix.RTPROT_STATIC, Priority: 3},
	} {
		if r.MultiPath != nil {
			r.LinkIndex = 0
		}
		if err := n.RouteAdd(&r); err != nil {
			t.Fatalf("%v: %v", r, err)
		}
	}
}

// strangeTables makes tables of somebody else's, of several families, that drop what is forwarded, and one of our own name.
// putToSleep makes a table do nothing, as nft's "add table … { flags dormant; }" does.
func putToSleep(t *testing.T, n *namespace, table *nftables.Table) {
	t.Helper()
	data, err := mdlayher.MarshalAttributes([]mdlayher.Attribute{
		{Type: unix.NFTA_TABLE_NAME, Data: []byte(table.Name + "\x00")},
		{Type: unix.NFTA_TABLE_FLAGS, Data: binaryutil.BigEndian.PutUint32(unix.NFT_TABLE_F_DORMANT)},
	})
	must(t, err)
	must(t, n.batch(mdlayher.Message{
		Header: mdlayher.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWTABLE, Flags: mdlayher.Request | mdlayher.Acknowledge},
		Data:   append([]byte{byte(table.Family), unix.NFNETLINK_V0, 0, 0}, data...),
	}))
}

// bridged makes a bridge that takes a link in.
func bridged(t *testing.T, n *namespace, name string) {
	t.Helper()
	bridge := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	bridge.Name = "br0"
	must(t, n.LinkAdd(bridge))
	l, err := n.LinkByName(name)
	must(t, err)
	must(t, n.LinkSetMaster(l, bridge))
	must(t, n.LinkSetUp(bridge))
}

// deafen takes the kernel's routes away by which it answers at addresses.
func deafen(t *testing.T, n *namespace, addresses ...netip.Addr) {
	t.Helper()
	for _, a := range addresses {
		must(t, n.RouteDel(&netlink.Route{Dst: ipNet(host(a)), Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST}))
	}
}

// inKernelsName makes a route that says that the kernel made it.
func inKernelsName(t *testing.T, n *namespace, table int, to netip.Addr) {
	t.Helper()
	lo, err := n.LinkByName("lo")
	must(t, err)
	r := &netlink.Route{Dst: ipNet(host(to)), Table: table, Type: unix.RTN_UNICAST, Scope: netlink.SCOPE_LINK, LinkIndex: lo.Attrs().Index, Protocol: unix.RTPROT_KERNEL}
	if table == unix.RT_TABLE_LOCAL {
		r.Type, r.Scope = unix.RTN_LOCAL, netlink.SCOPE_HOST
	}
	must(t, n.RouteAdd(r))
}

// fleeting has an address be that of another machine, as an entry that the kernel may have learnt.
func fleeting(t *testing.T, n *namespace, link int, a netip.Addr, state int) {
	t.Helper()
	must(t, n.NeighSet(&netlink.Neigh{LinkIndex: link, Family: familyOf(a), State: state, IP: a.AsSlice(), HardwareAddr: vtepMAC(7)}))
}

// elsewhere makes frames to a link address go to another UDP port, which the netlink package has no word for. How is whether that takes the place
// of what there is.
func elsewhere(t *testing.T, n *namespace, how int, link int, mac net.HardwareAddr, to netip.Addr) {
	t.Helper()
	req := nl.NewNetlinkRequest(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|how|unix.NLM_F_ACK)
	req.AddData(&netlink.Ndmsg{Family: unix.AF_BRIDGE, Index: uint32(link), State: netlink.NUD_PERMANENT, Flags: netlink.NTF_SELF})
	req.AddData(nl.NewRtAttr(netlink.NDA_DST, to.AsSlice()))
	req.AddData(nl.NewRtAttr(netlink.NDA_LLADDR, mac))
	req.AddData(nl.NewRtAttr(netlink.NDA_PORT, []byte{0x12, 0x34}))
	must(t, n.request(unix.NETLINK_ROUTE, req))
}

func strangeTables(t *testing.T, n *namespace) {
	t.Helper()
	c, err := n.firewall()
	must(t, err)
	drop := nftables.ChainPolicyDrop
	for name, family := range map[string]nftables.TableFamily{"filter": nftables.TableFamilyIPv4, "other": nftables.TableFamilyIPv6, tableName: nftables.TableFamilyINet} {
		table := c.AddTable(&nftables.Table{Name: name, Family: family})
		c.AddChain(&nftables.Chain{Name: "forward", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &drop})
	}
	must(t, c.Flush())
}

func flushRuleset(t *testing.T, n *namespace) {
	t.Helper()
	c, err := n.firewall()
	must(t, err)
	c.FlushRuleset()
	must(t, c.Flush())
}

func removeTable(t *testing.T, n *namespace, table *nftables.Table) {
	t.Helper()
	c, err := n.firewall()
	must(t, err)
	tx := &transaction{Conn: c, table: table}
	tx.removeTable()
	must(t, tx.commit())
}

func changeSet(t *testing.T, n *namespace, s *nftables.Set, remove, add map[string]bool) {
	t.Helper()
	c, err := n.firewall()
	must(t, err)
	tx := &transaction{Conn: c, table: s.Table}
	tx.members(s, remove, add)
	must(t, tx.commit())
}

func TestResyncRepairsTheMesh(t *testing.T) {
	f := newFabric(t, 2, 1)
	f.publish(spread("tcp", 8080, [2]int{0, 0}), spread("tcp", 8081, [2]int{1, 0}))
	f.serve()
	b := f.nodes[0]
	serveNames(t, b.host)
	want := b.dump(false)
	for _, name := range slices.Sorted(maps.Keys(meshDamage)) {
		t.Run(name, func(t *testing.T) {
			b.calm(t)
			meshDamage[name](t, b)
			if b.dump(false) == want {
				t.Fatal("the damage is none")
			}
			b.repair(t, name, f.configs[0])
			if diff := cmp.Diff(want, b.dump(false)); diff != "" {
				t.Fatalf("after the repair (-want +got):\n%s", diff)
			}
			for _, one := range []struct {
				node   int
				port   uint16
				server string
			}{{0, 8081, "n2t0"}, {1, 8080, "n1t0"}} {
				if server, seen, err := ask(f.client, "tcp", at(nodeAddr(one.node), one.port)); err != nil || server != one.server || seen.Addr() != clientAddr {
					t.Errorf("port %d of node %d: %q saw %s, %v", one.port, one.node+1, server, seen, err)
				}
			}
			if server, _, err := ask(b.task("n1t0"), "udp", at(dockerResolver, 53)); err != nil || server != "names" {
				t.Errorf("the resolver: %q, %v", server, err)
			}
			changes := []func() int{writes(t, b.host), writes(t, b.linux.router), writes(t, b.task("n1t0"))}
			b.linux.Resync()
			b.apply(f.configs[0])
			for i, n := range changes {
				if got := n(); got != 0 {
					t.Errorf("a second resync made %d changes in namespace %d", got, i)
				}
			}
		})
	}
}

func TestMeshRestartIsInvisible(t *testing.T) {
	f := newFabric(t, 3, 1)
	f.publish(spread("tcp", 8080, [2]int{1, 0}), spread("udp", 8080, [2]int{1, 0}))
	f.serve()
	h := f.hold(0)
	h.say()
	// Datagrams keep going while all daemons restart, one after another; each must be answered.
	stop, done := make(chan struct{}), make(chan [2]int, 1)
	udp, err := dial(f.client, "udp", at(nodeAddr(2), 8080))
	must(t, err)
	defer udp.Close()
	go func() {
		sent, got := 0, 0
		for {
			select {
			case <-stop:
				done <- [2]int{sent, got}
				return
			default:
			}
			if _, err := udp.Write([]byte("x")); err == nil {
				sent++
			}
			if _, _, err := answer(udp); err == nil {
				got++
			}
		}
	}()
	var before []string
	var changes []func() int
	for _, b := range f.nodes {
		before = append(before, b.dump(true))
		changes = append(changes, writes(t, b.host), writes(t, b.linux.router))
	}
	for i, b := range f.nodes {
		b.restart()
		b.apply(f.configs[i])
		b.linux.Resync()
		b.apply(f.configs[i])
		echo(t, h.tcp)
		if got := h.say(); got != "n2t0" {
			t.Errorf("answered by %s", got)
		}
	}
	close(stop)
	if count := <-done; count[0] != count[1] || count[0] == 0 {
		t.Errorf("%d of %d datagrams were answered", count[1], count[0])
	}
	for i, n := range changes {
		if got := n(); got != 0 {
			t.Errorf("the restart made %d changes in namespace %d", got, i)
		}
	}
	for i, b := range f.nodes {
		if diff := cmp.Diff(before[i], b.dump(true)); diff != "" {
			t.Errorf("the restart changed node %d (-before +after):\n%s", i+1, diff)
		}
	}
}

func TestMeshTeardownLeavesNothing(t *testing.T) {
	f := newFabric(t, 3, 2)
	b := f.nodes[0]
	empty := b.dump(false)
	f.publish(everywhere("tcp", 8080))
	f.serve()
	if b.dump(false) == empty {
		t.Fatal("there is nothing to tear down")
	}
	_, _, err := ask(f.client, "tcp", at(nodeAddr(1), 8080))
	must(t, err)
	must(t, b.linux.Teardown(context.Background()))
	if diff := cmp.Diff(empty, b.dump(false)); diff != "" {
		t.Errorf("Teardown left (-want +got):\n%s", diff)
	}
	// The data port is free at once: for another program, or for the next start.
	must(t, b.host.within(func() error {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{Port: defaultDataPort})
		if err == nil {
			err = c.Close()
		}
		return err
	}))
	f.apply()
}
