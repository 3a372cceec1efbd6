package v1

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
)

// Range is HostIP as a range of addresses: all of IPv4 for 0.0.0.0 and all of IPv6 for "::". It is not valid where HostIP is empty.
func (p PortConfig) Range() (netip.Prefix, error) {
	switch p.HostIP {
	case "":
		return netip.Prefix{}, nil
	case "0.0.0.0", "::":
		return netip.PrefixFrom(netip.MustParseAddr(p.HostIP), 0), nil
	}
	prefix, err := netip.ParsePrefix(p.HostIP)
	if a, is := netip.ParseAddr(p.HostIP); is == nil {
		prefix, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	switch {
	case err != nil || prefix.Addr().Zone() != "":
		return netip.Prefix{}, fmt.Errorf("%q is no address: want one such as 192.0.2.1 or 2001:db8::1, or a range such as 10.0.0.0/8", cut(p.HostIP))
	case prefix.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("%q is an IPv4 address written as one of IPv6: want %s", cut(p.HostIP), prefix.Addr().Unmap())
	case prefix.Addr().IsLinkLocalUnicast() && prefix.Addr().Is6():
		return netip.Prefix{}, fmt.Errorf("%q is of link-local addresses, at which published ports do not answer: want another address of the node", cut(p.HostIP))
	case prefix.Addr().IsMulticast() || prefix.Addr() == limitedBroadcast:
		return netip.Prefix{}, fmt.Errorf("%q is no address that a node has: it is one of groups, or of all on a link", cut(p.HostIP))
	case prefix.Addr() == resolver && prefix.IsSingleIP():
		return netip.Prefix{}, fmt.Errorf("%s is where tasks ask for names, and no port answers there: want another address of the node", cut(p.HostIP))
	case prefix != prefix.Masked():
		return netip.Prefix{}, fmt.Errorf("%q has bits beyond its mask: want %s", cut(p.HostIP), prefix.Masked())
	}
	return prefix, nil
}

// limitedBroadcast is everybody's on a link; see RFC 919.
var limitedBroadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// resolver is swarmd's own on each node.
var resolver = netip.AddrFrom4([4]byte{169, 254, 77, 53})

// place checks where a port answers.
func (c *checker) place(field string, p PortConfig) {
	if _, err := p.Range(); err != nil {
		c.fail(field+".hostIP", "%s", err)
	}
	switch {
	case p.Interface == "":
	case p.HostIP != "":
		c.fail(field+".interface", "cannot be given with hostIP: publish the port twice, once with each")
	case !interfaceName.MatchString(p.Interface) || p.Interface == "." || p.Interface == "..":
		c.fail(field+".interface", "%q is no name of a network interface: want 1 to 15 characters without slash, colon or space", cut(p.Interface))
	case p.Interface == gatewayInterface:
		c.fail(field+".interface", "%s is swarmd's own: want another interface of the nodes", gatewayInterface)
	}
}

// gatewayInterface is between a node and its tasks; published ports do not answer there.
const gatewayInterface = "gw0"

// interfaceName is what Linux takes as one.
var interfaceName = regexp.MustCompile(`^[!-.0-9;-~]{1,15}$`)

// publishedOnce checks that a port leads to one target, and is there once at each place.
func (c *checker) publishedOnce(field string, ports []PortConfig) {
	type published struct {
		port     uint16
		protocol Protocol
	}
	others := make(map[published][]int, len(ports))
	for i, p := range ports {
		if p.Published == 0 {
			continue
		}
		key := published{p.Published, cmp.Or(p.Protocol, TCP)}
		for _, j := range others[key] {
			other := ports[j]
			if other.HostIP == p.HostIP && other.Interface == p.Interface || other.Target != p.Target || cmp.Or(other.Mode, PublishIngress) != cmp.Or(p.Mode, PublishIngress) {
				c.fail(at(field, i)+".published", "%d/%s is published by %s already", p.Published, key.protocol, at("ports", j))
				break
			}
		}
		others[key] = append(others[key], i)
	}
}
