package netplugin

import (
	"bytes"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

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
