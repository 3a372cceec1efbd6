package network

import (
	"net/netip"
	"slices"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/store"
)

// vips are the service's virtual addresses: on each network that its spec names, and on those that it leaves for as long as a task
// of it is there, so that a name does not go before the last who answers to it. In the endpoint mode dnsrr there are none.
func (d *decision) vips(before []v1.NetworkAddress) []v1.NetworkAddress {
	if e := d.service.Spec.Endpoint; e != nil && e.Mode == v1.EndpointDNSRR {
		return nil
	}
	var after []v1.NetworkAddress
	self := store.Holder{Kind: v1.KindService, ID: d.key}
	pools, _ := d.attach(&d.service.Spec.Task)
	for _, p := range pools {
		on, _ := d.addresses(p, self, before)
		after = append(after, on)
	}
	for _, on := range before {
		if !names(after, on.Network) && len(on.Addresses) > 0 && d.staysOn(on.Network) && d.undisputed(self, on) {
			after = append(after, on)
		}
	}
	return after
}

func names(list []v1.NetworkAddress, network string) bool {
	return slices.ContainsFunc(list, func(n v1.NetworkAddress) bool { return n.Network == network })
}

// staysOn tells whether the service is not to leave a network that it cannot be given an address on: one that is not ready any
// more, or one that its spec no longer names, while a task of it that is not to stop is there.
func (d *decision) staysOn(network string) bool {
	n, ok := store.Get(d.snapshot, v1.Networks, network)
	if !ok {
		return false
	}
	if attached(&d.service.Spec.Task, network, n.Meta.Name) {
		return !ready(n)
	}
	return d.lingers(network)
}

// lingers tells whether a task of the service that is not to stop is still on a network. It is asked where the service leaves one.
func (d *decision) lingers(network string) bool {
	for t := range d.snapshot.TasksOfService(d.key) {
		if v1.Live(t) && names(t.Desired.Networks, network) {
			return true
		}
	}
	return false
}

// undisputed tells whether nobody has a better claim to a holder's addresses on a network.
func (d *decision) undisputed(h store.Holder, on v1.NetworkAddress) bool {
	return !slices.ContainsFunc(on.Addresses, func(text string) bool {
		p, err := netip.ParsePrefix(text)
		return err != nil || !reconcile.Prevails(d.snapshot, h, on.Network, p.Addr())
	})
}
