package netplugin

import (
	"maps"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// A task has another way out than its networks: by the gateway router, and in the clear. Where its link to an encrypted network is gone, or the
// route by it, what it sends to others there would take that way, with the address that it has there. So its namespace itself lets nothing
// through to the network's subnets in another way, see confine.go, and the gateway's router lets nothing of it through to them either. An attachment
// has the first alone, for its way out is its own.

// setSealed is the router's set of a task's address . the addresses of an encrypted network that it is on.
const setSealed = "sealed"

// seal keeps a task from sending to a subnet by way of the gateway.
type seal struct {
	task   netip.Addr // its gateway address, of IPv4
	subnet netip.Prefix
}

func sealedSet(t *nftables.Table, s side) *nftables.Set {
	return &nftables.Set{Table: t, Name: setSealed, Interval: true, Concatenation: true, KeyType: nftables.MustConcatSetType(s.address, s.address)}
}

func sealedRule(s side, fromTask []expr.Any) rule {
	return rule{"no way around an encrypted network", join(fromTask, []expr.Any{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: s.source, Len: s.size},
		&expr.Payload{DestRegister: register + s.words(), Base: expr.PayloadBaseNetworkHeader, Offset: s.dest, Len: s.size},
		&expr.Lookup{SourceRegister: register, SetName: setSealed},
	}, s.reject())}
}

// sealKeys are the elements of the set of an IP version: the first of a range, and the last.
func (s side) sealKeys(all map[seal]bool) map[string]bool {
	keys := map[string]bool{}
	for one := range all {
		if version(one.subnet.Addr()) != s.v {
			continue
		}
		from := string(s.of(one.task).AsSlice())
		keys[from+string(one.subnet.Masked().Addr().AsSlice())+from+string(last(one.subnet).AsSlice())] = true
	}
	return keys
}

// besides are the seals of both. What is sealed stays so until what is gone is gone, which has a way out for as long.
func besides(have, want map[seal]bool) map[seal]bool {
	if maps.Equal(have, want) {
		return want
	}
	all := maps.Clone(want)
	maps.Copy(all, have)
	return all
}

// changeSealed has just these be sealed.
func (l *Linux) changeSealed(want map[seal]bool) error {
	return changeRouterSet(l, "what leads to encrypted networks alone", sealedSet, side.sealKeys, &l.have.sealed, want)
}
