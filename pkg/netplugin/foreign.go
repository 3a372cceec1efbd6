package netplugin

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
)

// obstacles are other people's chains that keep tasks' packets from being forwarded: what one chain accepts another may still
// drop, so ours can do nothing about it.
func (n *namespace) obstacles(six bool) ([]string, error) {
	c, err := n.firewall()
	if err != nil {
		return nil, err
	}
	chains, err := c.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list chains of %s: %w", n.name, err)
	}
	var found []string
	for _, one := range chains {
		family := one.Table.Family
		if one.Hooknum == nil || *one.Hooknum != *nftables.ChainHookForward || one.Policy == nil || *one.Policy != nftables.ChainPolicyDrop ||
			family != nftables.TableFamilyIPv4 && family != nftables.TableFamilyINet && (!six || family != nftables.TableFamilyIPv6) ||
			one.Table.Name == tableName && family != nftables.TableFamilyINet {
			continue
		}
		if !slices.ContainsFunc(chains, func(o *nftables.Chain) bool { return *o.Table == *one.Table && mentions(c, o, hostLink) }) {
			found = append(found, fmt.Sprintf("chain %s of table %s drops what is forwarded, so tasks cannot reach anything outside and published ports "+
				"do not answer: accept interface %s there, in and out (with Docker: in chain DOCKER-USER)", one.Name, one.Table.Name, hostLink))
		}
	}
	return found, nil
}

// meshObstacles are what keeps this machine from other nodes: that it has not the address that they send to, and other people's
// chains that drop what comes to the data port.
func (n *namespace) meshObstacles(u underlay) (found []string, err error) {
	if !u.up() {
		return nil, nil
	}
	list, err := dump(func() ([]netlink.Addr, error) { return n.AddrList(nil, familyOf(u.addr)) })
	if err != nil {
		return nil, fmt.Errorf("list addresses in %s: %w", n.name, err)
	}
	if !slices.ContainsFunc(list, func(a netlink.Addr) bool { return prefixOf(a.IPNet).Addr() == u.addr }) {
		found = append(found, fmt.Sprintf("this machine has not the address %s, to which other nodes send: its tasks and theirs do not reach each other", u.addr))
	}
	c, err := n.firewall()
	if err != nil {
		return nil, err
	}
	chains, err := c.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list chains of %s: %w", n.name, err)
	}
	version := nftables.TableFamilyIPv4
	if u.addr.Is6() {
		version = nftables.TableFamilyIPv6
	}
	for _, one := range chains {
		family := one.Table.Family
		if one.Hooknum == nil || *one.Hooknum != *nftables.ChainHookInput || one.Policy == nil || *one.Policy != nftables.ChainPolicyDrop || family != version && family != nftables.TableFamilyINet {
			continue
		}
		if !slices.ContainsFunc(chains, func(o *nftables.Chain) bool { return *o.Table == *one.Table && mentionsPort(c, o, u.port) }) {
			found = append(found, fmt.Sprintf("chain %s of table %s drops what comes in, so other nodes may not reach this one's tasks: accept UDP port %d there", one.Name, one.Table.Name, u.port))
		}
	}
	return found, nil
}

// mentions tells whether a rule of the chain compares something with the name of a link.
func mentions(c *nftables.Conn, in *nftables.Chain, link string) bool {
	return compares(c, in, func(data []byte) bool { return bytes.Equal(bytes.TrimRight(data, "\x00"), []byte(link)) })
}

// mentionsPort tells whether a rule of the chain compares something with a port.
func mentionsPort(c *nftables.Conn, in *nftables.Chain, port uint16) bool {
	return compares(c, in, func(data []byte) bool { return bytes.Equal(data, binaryutil.BigEndian.PutUint16(port)) })
}

// compares tells whether a rule of the chain compares something with such data. Rules that cannot be read do not.
func compares(c *nftables.Conn, in *nftables.Chain, with func([]byte) bool) bool {
	rules, err := c.GetRules(in.Table, in)
	if err != nil {
		return false
	}
	for _, r := range rules {
		for _, e := range r.Exprs {
			if cmp, ok := e.(*expr.Cmp); ok && with(cmp.Data) {
				return true
			}
		}
	}
	return false
}
