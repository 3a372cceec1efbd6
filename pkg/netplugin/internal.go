package netplugin

import (
	"fmt"
	"maps"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// setInternal is the router's set of the addresses of tasks that have no way out.
const setInternal = "internal"

func internalSet(t *nftables.Table) *nftables.Set {
	return &nftables.Set{Table: t, Name: setInternal, KeyType: nftables.TypeIPAddr}
}

// internalRules let a task without a way out answer who comes by a published port, and ask for names; all else that it begins is
// refused, so that it knows at once.
func internalRules(fromTask []expr.Any) []rule {
	internal := join(fromTask, []expr.Any{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
		&expr.Lookup{SourceRegister: register, SetName: setInternal},
	})
	return []rule{
		{"replies of tasks without a way out", join(internal, reply(), accept())},
		{"their names", join(internal, destination(host(Resolver.Addr())), accept())},
		{"no way out", join(internal, reject())},
	}
}

// changeInternal has just these tasks be without a way out.
func (l *Linux) changeInternal(want map[netip.Addr]bool) error {
	if maps.Equal(l.have.internal, want) {
		return nil
	}
	c, err := l.router.firewall()
	if err != nil {
		return err
	}
	t := newTransaction(c)
	t.members(internalSet(t.table), addressKeys(l.have.internal), addressKeys(want))
	if err := t.commit(); err != nil {
		return fmt.Errorf("change tasks without a way out in table %s of %s: %w", tableName, l.router.name, err)
	}
	l.have.internal = want
	return nil
}
