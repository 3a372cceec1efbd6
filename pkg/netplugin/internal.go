package netplugin

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// setInternal is the router's set of the addresses of tasks that have no way out.
const setInternal = "internal"

func internalSet(t *nftables.Table, s side) *nftables.Set {
	return &nftables.Set{Table: t, Name: setInternal, KeyType: s.address}
}

// internalRules let a task without a way out answer who comes by a published port, and ask for names; all else that it begins is
// refused, so that it knows at once.
func internalRules(s side, fromTask []expr.Any) []rule {
	internal := join(fromTask, []expr.Any{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: s.source, Len: s.size},
		&expr.Lookup{SourceRegister: register, SetName: setInternal},
	})
	rules := []rule{{"replies of tasks without a way out", join(internal, reply(), accept())}}
	if s.v == 0 {
		rules = append(rules, rule{"their names", join(internal, destination(host(Resolver.Addr())), accept())})
	}
	return append(rules, rule{"no way out", join(internal, s.reject())})
}

// changeInternal has just these tasks be without a way out.
func (l *Linux) changeInternal(want map[netip.Addr]bool) error {
	return changeRouterSet(l, "tasks without a way out", internalSet, side.keys, &l.have.internal, want)
}
