package network

import (
	"cmp"
	"slices"
	"strings"

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

// behind finds the task of the same slot that a task stands behind: one that runs what is older, and holds an address on each of the
// networks that have none left. So start-first never waits for an address that only the old task could give up.
func (d *decision) behind(t *v1.Task, r *revision) string {
	if t.Desired.Attachment != nil || t.Desired.Move != nil {
		return ""
	}
	for old := range d.snapshot.TasksOfService(d.key) {
		if old.Desired.Slot != t.Desired.Slot || old.Desired.Attempt >= t.Desired.Attempt || !v1.Live(old) || v1.TaskNode(old) == "" {
			continue
		}
		if !slices.ContainsFunc(r.pools, func(p *pool) bool { return !holds(old, p) && !p.room() }) {
			return old.Meta.ID
		}
	}
	return ""
}

// exhausted says of each of the networks that has no address left that it has none, the first of which is one of them.
func exhausted(pools []*pool) string {
	why := []string{pools[0].exhausted()}
	for _, p := range pools[1:] {
		if !p.room() {
			why = append(why, p.exhausted())
		}
	}
	return strings.Join(why, "; ")
}

// holds tells whether a task has an address on a network.
func holds(t *v1.Task, p *pool) bool {
	return slices.ContainsFunc(t.Desired.Networks, func(on v1.NetworkAddress) bool { return on.Network == p.id && len(on.Addresses) > 0 })
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
	why, behind := r.why, t.Desired.Behind
	var networks []v1.NetworkAddress
	for i, p := range r.pools {
		if why != "" {
			break
		}
		on, ok := d.addresses(p, store.Holder{Kind: v1.KindTask, ID: t.Meta.ID}, t.Desired.Networks)
		if !ok {
			why, behind = exhausted(r.pools[i:]), cmp.Or(behind, d.behind(t, r))
		}
		networks = append(networks, on)
	}
	if why != "" {
		networks = nil
	}
	next := *t.Desired
	next.Networks, next.Behind = networks, behind
	switch {
	case why != "" || d.portless != "":
		next.Pending = cmp.Or(why, d.portless)
	case !sameNetworks(networks, t.Desired.Networks):
		next.Pending = "" // it waits for a node now
	}
	if next.Pending != t.Desired.Pending || next.Behind != t.Desired.Behind || !sameNetworks(next.Networks, t.Desired.Networks) {
		d.set(t, &next)
	}
}
