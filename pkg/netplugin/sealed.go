package netplugin

import (
	"errors"
	"maps"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// A task has another way out than its networks: by the gateway router, and in the clear. Where its link to an encrypted network is gone, or the
// route by it, what it sends to others there would take that way, with the address that it has there. So in its namespace a second route says
// that the network's subnets are unreachable, which outlives the link. Who takes both away is met by the gateway's router, which lets nothing
// of the task's through to them. An attachment has the routes alone, for its way out is its own.

// sealMetric is that of the routes by which subnets are unreachable: larger than anybody's, so that each other one is preferred.
const sealMetric = 1 << 30

// sealsOf are the subnets that a task is kept from reaching in any other way.
func sealsOf(all map[seal]bool, task netip.Addr) map[netip.Prefix]bool {
	subnets := map[netip.Prefix]bool{}
	for one := range all {
		if one.task == task {
			subnets[one.subnet.Masked()] = true
		}
	}
	return subnets
}

// syncSeals makes those routes in a task's namespace the ones to these subnets. What is sent from the task's gateway address has a table of its
// own, and IPv6 looks there too where no other address leads.
func (n *namespace) syncSeals(t TaskLink, subnets map[netip.Prefix]bool) error {
	tables := []int{unix.RT_TABLE_MAIN, homeTable}
	if t.guest() {
		tables = tables[:1]
	}
	var errs []error
	for _, v := range kernelVersions() {
		for _, table := range tables {
			have, err := n.routesIn(table, 0, family(v))
			errs = append(errs, err)
			for r := range have {
				if r.link == 0 && r.metric == sealMetric && !subnets[r.dst] {
					errs = append(errs, n.removeRouteFrom(table, r))
				}
			}
			for p := range subnets {
				if r := (route{dst: p, metric: sealMetric}); version(p.Addr()) == v && !have[r] {
					errs = append(errs, n.addRouteTo(table, r))
				}
			}
		}
	}
	return errors.Join(errs...)
}

// sealTasks has tasks that were there before have the routes that they are to have now.
func (l *Linux) sealTasks(want *desired) error {
	changed := map[netip.Addr]bool{}
	for _, both := range [][2]map[seal]bool{{l.have.sealed, want.sealed}, {want.sealed, l.have.sealed}} {
		for one := range both[0] {
			if !both[1][one] {
				changed[one.task] = true
			}
		}
	}
	if len(changed) == 0 {
		return nil
	}
	var errs []error
	for id, t := range want.tasks {
		if changed[t.Address] && l.have.tasks[id].Address == t.Address {
			if err := l.reseal(t, sealsOf(want.sealed, t.Address)); err != nil {
				errs = append(errs, &TaskError{id, err})
			}
		}
	}
	return errors.Join(errs...)
}

// reseal is syncSeals for a task by its name. One without a namespace has none.
func (l *Linux) reseal(t TaskLink, subnets map[netip.Prefix]bool) error {
	if !pinned(l.Namespace(t.ID)) {
		return nil
	}
	inside, err := openNamespace("task "+t.ID, l.Namespace(t.ID))
	if err != nil {
		return err
	}
	defer inside.close()
	return inside.syncSeals(t, subnets)
}

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
