package sim

import (
	"fmt"
	"net/netip"
	"slices"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// networkNames are those that networks get, and get again once they are free. The small one has too few addresses.
var networkNames = []string{"front", "back", small}

const small = "small"

// networkActs makes a network, or removes one that nobody uses; the API server refuses the others.
func (w *World) networkActs() {
	name := networkNames[w.rng.IntN(len(networkNames))]
	id, ok := w.current().ByName(v1.KindNetwork, name)
	if !ok {
		w.createNetwork(name)
		return
	}
	n, _ := store.Get(w.current(), v1.Networks, id)
	if w.networkUsed(n) {
		return
	}
	w.trace("user removes network %s(%.4s)", name, id)
	w.userCommit(store.Op{Kind: v1.KindNetwork, ID: id, If: store.AtRevision(n.Meta.Revisions[v1.SectionSpec])},
		store.Op{Kind: v1.KindClaim, ID: v1.NameClaim(v1.KindNetwork, name), If: store.Exists()})
}

func (w *World) createNetwork(name string) {
	w.user.made++
	id := v1.HashID("sim network", fmt.Sprint(w.o.Seed), fmt.Sprint(w.user.made))
	spec := &v1.NetworkSpec{IPv6: w.chance(0.3)}
	if name == small {
		spec.Subnets = []v1.SubnetSpec{{Subnet: []string{"10.0.0.0/29", "10.0.0.0/28"}[w.rng.IntN(2)]}}
	}
	v1.Default(&v1.Network{Spec: spec})
	w.trace("user creates network %s(%.4s)", name, id)
	w.userCommit(
		store.Op{Kind: v1.KindClaim, ID: v1.NameClaim(v1.KindNetwork, name), Value: &v1.ClaimSpec{Holder: id}, If: store.Absent()},
		store.Op{Kind: v1.KindNetwork, ID: id, Value: spec, If: store.Absent(), Meta: &v1.Meta{ID: id, Name: name, CreatedAt: w.time(0), Generation: 1}})
}

// networkUsed tells whether a service asks for a network, or a task that has not ended is of a revision that does.
func (w *World) networkUsed(n *v1.Network) bool {
	asks := func(t *v1.TaskSpec) bool {
		return slices.ContainsFunc(t.Networks, func(a v1.NetworkAttachment) bool { return a.Target == n.Meta.ID || a.Target == n.Meta.Name })
	}
	for s := range store.All(w.current(), v1.Services) {
		if s.Meta.Deleting.IsZero() && (asks(&s.Spec.Task) || asks(&v1.Effective(s).Spec.Task)) {
			return true
		}
		if s.Desired == nil || s.Desired.Update == nil {
			continue
		}
		if r, ok := store.Get(w.current(), v1.ServiceRevisions, s.Desired.Update.Previous); ok && asks(&r.Spec.Task) {
			return true // it may go back to that
		}
	}
	for r := range store.All(w.current(), v1.ServiceRevisions) {
		for t := range w.current().TasksOfService(r.Spec.Service) {
			if t.Desired.Revision == r.Meta.ID && !v1.Observed(t).Terminal() && asks(&r.Spec.Task) {
				return true
			}
		}
	}
	return false
}

// attachments are networks that are there, by name or by ID, for a service to be on.
func (w *World) attachments() (list []v1.NetworkAttachment) {
	for _, name := range networkNames {
		id, ok := w.current().ByName(v1.KindNetwork, name)
		if !ok || w.chance(0.5) {
			continue
		}
		target := name
		if w.chance(0.5) {
			target = id
		}
		list = append(list, v1.NetworkAttachment{Target: target})
	}
	return list
}

// crowded tells whether a service is on the small network.
func (w *World) crowded(s *v1.ServiceSpec) bool {
	id, ok := w.current().ByName(v1.KindNetwork, small)
	return slices.ContainsFunc(s.Task.Networks, func(a v1.NetworkAttachment) bool { return a.Target == small || ok && a.Target == id })
}

// ample takes a service off the small network.
func (w *World) ample(s *v1.ServiceSpec) {
	id, _ := w.current().ByName(v1.KindNetwork, small)
	s.Task.Networks = slices.DeleteFunc(slices.Clone(s.Task.Networks), func(a v1.NetworkAttachment) bool { return a.Target == small || a.Target == id })
}

// spot is an address on a network.
type spot struct{ network, address string }

// spotsOf is where an object is: a task until it is observed to have ended, a service until it is gone.
func spotsOf(o v1.Object) (spots []spot) {
	var on []v1.NetworkAddress
	switch o := o.(type) {
	case *v1.Task:
		if o != nil && v1.HoldsAddresses(o) {
			on = o.Desired.Networks
		}
	case *v1.Service:
		if o != nil && o.Desired != nil {
			on = o.Desired.VIPs
		}
	}
	return spotsIn(on)
}

func spotsIn(on []v1.NetworkAddress) (spots []spot) {
	for _, n := range on {
		for _, text := range n.Addresses {
			spots = append(spots, spot{n.Network, netip.MustParsePrefix(text).Addr().String()})
		}
	}
	return spots
}

// addresses checks that no address has two holders after a commit. What one commit frees and gives away, others may have seen only
// half of: so it is not allowed either.
func (c *checks) addresses(w *World, changes []store.Change) {
	for _, change := range changes {
		for _, at := range spotsOf(change.New) {
			if other := c.held[at]; other != "" && other != change.ID {
				w.fail("%s %.8s is given %s on %.4s, which %.8s has", change.Kind, change.ID, at.address, at.network, other)
			}
			c.held[at] = change.ID
		}
		is := spotsOf(change.New)
		for _, at := range spotsOf(change.Old) {
			if !slices.Contains(is, at) {
				delete(c.held, at)
			}
		}
	}
}

// equipped checks that a task that was placed has all that its revision asks for.
func (c *checks) equipped(w *World, t *v1.Task) {
	r, ok := store.Get(w.current(), v1.ServiceRevisions, t.Desired.Revision)
	if !ok {
		return
	}
	if len(r.Spec.Task.Networks) > 0 {
		w.stats.Attached++
	}
	if !v1.HasAddresses(t, &r.Spec.Task) {
		w.fail("%s is placed, and has the addresses %v of the networks %v", nameOf(t.Desired), t.Desired.Networks, r.Spec.Task.Networks)
	}
}

// apart checks that a container that was started has no address that another has that runs, wherever.
func (c *checks) apart(w *World, t *task) {
	mine := spotsIn(t.desired.Networks)
	if len(mine) == 0 {
		return
	}
	for _, m := range w.machines {
		for id, box := range m.containers {
			other := m.tasks[id]
			if id == t.id || !box.running || other == nil {
				continue
			}
			for _, at := range spotsIn(other.desired.Networks) {
				if slices.Contains(mine, at) {
					w.fail("%s and %s both run with %s on %.4s", nameOf(t.desired), nameOf(other.desired), at.address, at.network)
				}
			}
		}
	}
}

// network checks that networks are apart: no two have one VNI, and what was cut for one overlaps no other.
func (c *checks) network(w *World, n *v1.Network) {
	if n == nil || n.Desired == nil {
		return
	}
	for other := range store.All(w.current(), v1.Networks) {
		if other.Meta.ID == n.Meta.ID || other.Desired == nil {
			continue
		}
		if n.Desired.VNI != 0 && other.Desired.VNI == n.Desired.VNI {
			w.fail("the networks %s and %s both have the VNI %d", n.Meta.Name, other.Meta.Name, n.Desired.VNI)
		}
		for _, a := range n.Desired.Subnets {
			for _, b := range other.Desired.Subnets {
				if netip.MustParsePrefix(a.Subnet).Overlaps(netip.MustParsePrefix(b.Subnet)) && len(n.Spec.Subnets) == 0 && len(other.Spec.Subnets) == 0 {
					w.fail("the networks %s and %s overlap: %s and %s", n.Meta.Name, other.Meta.Name, a.Subnet, b.Subnet)
				}
			}
		}
	}
}

// networkAmiss is what a service lacks on its networks, or "".
func (w *World) networkAmiss(s *v1.Service) string {
	if v1.WaitsForPorts(s) {
		return "a port has no number"
	}
	if len(s.Spec.Task.Networks) == 0 || s.Spec.Endpoint.Mode == v1.EndpointDNSRR {
		if s.Desired != nil && len(s.Desired.VIPs) > 0 {
			return fmt.Sprintf("it has the addresses %v, and is to have none", s.Desired.VIPs)
		}
		return ""
	}
	if s.Desired == nil || len(s.Desired.VIPs) != len(s.Spec.Task.Networks) {
		return "it has not one address on each of its networks"
	}
	for _, on := range s.Desired.VIPs {
		if len(on.Addresses) == 0 {
			return "it has no address on a network"
		}
	}
	return ""
}

// leave has the user take everything away, and sees that nothing is left of it: no address, no VNI, no object.
func (w *World) leave() {
	w.watched = nil
	if w.fate == fateDead {
		id := w.machines[spare].id
		w.trace("user removes the node %s", id)
		w.userCommit(store.Op{Kind: v1.KindNode, ID: id, If: store.Exists()})
	}
	for _, s := range w.services() {
		if s.Meta.Deleting.IsZero() {
			w.remove(s)
		}
	}
	left := func() int {
		s := w.current()
		return s.Count(v1.KindService) + s.Count(v1.KindTask) + s.Count(v1.KindServiceRevision)
	}
	for began := w.now; w.failure == nil && left() > 0; w.play(quietFor) {
		if w.now-began > settleWithin {
			w.fail("%v after everything was removed, %d objects are left", w.now-began, left())
		}
	}
	for n := range store.All(w.current(), v1.Networks) {
		if w.networkUsed(n) {
			w.fail("network %s is in use, and nobody is there", n.Meta.Name)
		}
		for _, v6 := range []bool{false, true} {
			if taken := w.current().AddressesTaken(n.Meta.ID, v6); taken > 0 {
				w.fail("%d addresses of %s are held, and nobody is there", taken, n.Meta.Name)
			}
		}
	}
	if len(w.checks.held) > 0 {
		w.fail("%d addresses are held, and nobody is there", len(w.checks.held))
	}
}
