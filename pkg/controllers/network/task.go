package network

import (
	"cmp"
	"slices"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// tasks decides about the tasks that wait for a node. Those that have one keep what they have.
func (d *decision) tasks() {
	var lacking []*v1.Task
	for t := range d.snapshot.Unplaced(d.key) {
		if d.portless != "" || !d.right(t, d.of(t)) {
			lacking = append(lacking, t)
		}
	}
	slices.SortFunc(lacking, func(a, b *v1.Task) int { // the lowest slots first, where there is not enough for all
		return cmp.Or(cmp.Compare(a.Desired.Slot, b.Desired.Slot), cmp.Compare(a.Desired.Attempt, b.Desired.Attempt),
			cmp.Compare(a.Meta.ID, b.Meta.ID))
	})
	for _, t := range lacking {
		d.task(t, d.of(t))
	}
}

// right tells whether a task has all that its revision asks for, and nothing else.
func (d *decision) right(t *v1.Task, r *revision) bool {
	if r.why != "" || len(t.Desired.Networks) != len(r.pools) {
		return false
	}
	for i, p := range r.pools {
		if on := t.Desired.Networks[i]; on.Network != p.id || !d.mayKeep(p, store.Holder{Kind: v1.KindTask, ID: t.Meta.ID}, on) {
			return false
		}
	}
	return true
}

// task gives a task its addresses, on all networks or none.
func (d *decision) task(t *v1.Task, r *revision) {
	why := r.why
	var networks []v1.NetworkAddress
	for _, p := range r.pools {
		if why != "" {
			break
		}
		on, ok := d.addresses(p, store.Holder{Kind: v1.KindTask, ID: t.Meta.ID}, t.Desired.Networks)
		if !ok {
			why = p.exhausted()
		}
		networks = append(networks, on)
	}
	if why != "" {
		networks = nil
	}
	next := *t.Desired
	next.Networks = networks
	switch {
	case why != "" || d.portless != "":
		next.Pending = cmp.Or(why, d.portless)
	case !sameNetworks(networks, t.Desired.Networks):
		next.Pending = "" // it waits for a node now
	}
	if next.Pending != t.Desired.Pending || !sameNetworks(next.Networks, t.Desired.Networks) {
		d.set(t, &next)
	}
}
