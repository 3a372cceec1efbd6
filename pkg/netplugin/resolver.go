package netplugin

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Resolver is where tasks ask for names: an address of this machine's link to its router, the same on every machine. Nobody but
// tasks and the machine itself comes through to it.
var Resolver = netip.MustParseAddrPort("169.254.77.53:53")

// dockerResolver is where programs made for Docker's networks ask.
var dockerResolver = netip.MustParseAddr("127.0.0.11")

// domain is true for the protocol and the resolver's port.
func domain(protocol byte) []expr.Any {
	return join(transport(protocol), destinationPort(Resolver.Port()))
}

func transport(protocol byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{protocol}},
	}
}

func destinationPort(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: binaryutil.BigEndian.PutUint16(port)},
	}
}

// resolverTranslation leads what tasks ask at Docker's address to the resolver. It is one address, so that two questions of one
// socket, as programs ask for IPv4 and IPv6 at once, cannot part.
func resolverTranslation(fromTask []expr.Any) []rule {
	to := []expr.Any{
		&expr.Immediate{Register: register, Data: Resolver.Addr().AsSlice()},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: register},
	}
	asked := join(fromTask, destination(host(dockerResolver)))
	return []rule{
		{"names by UDP", join(asked, domain(unix.IPPROTO_UDP), to)},
		{"names by TCP", join(asked, domain(unix.IPPROTO_TCP), to)},
	}
}

// resolverGuard keeps all but tasks and the machine itself from the resolver's address, and from other ports there. Of tasks it lets as
// much through as leaves the resolver to the others: see askerRules.
func resolverGuard(s side) []rule {
	asked := destination(host(Resolver.Addr()))
	fromTask := join(asked, inLink(hostLink, true))
	byUDP, byTCP := join(fromTask, source(s.block), domain(unix.IPPROTO_UDP)), join(fromTask, source(s.block), domain(unix.IPPROTO_TCP))
	rules := []rule{{"names for the machine", join(asked, inLink("lo", true), accept())}}
	if !s.unlimited {
		rules = append(rules, askerRules(s, byUDP, byTCP)...)
	}
	return append(rules, []rule{
		{"names for tasks by UDP", join(byUDP, accept())},
		{"names for tasks by TCP", join(byTCP, accept())},
		{"nothing else for tasks", join(fromTask, s.reject())},
		{"no names for strangers", join(asked, drop())},
	}...)
}

// resolverSettings let a task ask at Docker's address, which is one of the loopback's.
var resolverSettings = []setting{{name: "net.ipv4.conf." + taskLink + ".route_localnet", value: "1"}}

// ensureResolverRoute has a task's questions to Docker's address leave by its link, with its own address.
func (n *namespace) ensureResolverRoute(b base, task netip.Addr, eth int) error {
	want := route{dst: host(dockerResolver), link: eth, via: b.gateway(), src: task}.message()
	want.Table = unix.RT_TABLE_LOCAL
	list, err := dump(func() ([]netlink.Route, error) {
		return n.RouteListFiltered(unix.AF_INET, want, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_DST)
	})
	if err != nil {
		return fmt.Errorf("list routes to %s in %s: %w", dockerResolver, n.name, err)
	}
	for _, one := range list {
		if one.LinkIndex == eth && one.Gw.Equal(want.Gw) && one.Src.Equal(want.Src) {
			return nil
		}
	}
	if err := n.RouteReplace(want); err != nil {
		return fmt.Errorf("add route to %s in %s: %w", dockerResolver, n.name, err)
	}
	return nil
}
