package netplugin

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// obstacles are other people's chains that keep tasks' packets from being forwarded: what one chain accepts another may still
// drop, so ours can do nothing about it.
func (n *namespace) obstacles() ([]string, error) {
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
			family != nftables.TableFamilyIPv4 && family != nftables.TableFamilyINet || one.Table.Name == tableName && family == nftables.TableFamilyIPv4 {
			continue
		}
		if !slices.ContainsFunc(chains, func(o *nftables.Chain) bool { return *o.Table == *one.Table && mentions(c, o, hostLink) }) {
			found = append(found, fmt.Sprintf("chain %s of table %s drops what is forwarded, so tasks cannot reach anything outside and published ports "+
				"do not answer: accept interface %s there, in and out (with Docker: in chain DOCKER-USER)", one.Name, one.Table.Name, hostLink))
		}
	}
	return found, nil
}

// mentions tells whether a rule of the chain compares something with the name of a link. Rules that cannot be read do not.
func mentions(c *nftables.Conn, in *nftables.Chain, link string) bool {
	rules, err := c.GetRules(in.Table, in)
	if err != nil {
		return false
	}
	for _, r := range rules {
		for _, e := range r.Exprs {
			if cmp, ok := e.(*expr.Cmp); ok && bytes.Equal(bytes.TrimRight(cmp.Data, "\x00"), []byte(link)) {
				return true
			}
		}
	}
	return false
}
