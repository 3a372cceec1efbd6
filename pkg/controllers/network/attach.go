package network

import (
	"slices"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// attach finds the networks that a spec names, by ID or by name, in its order. why says which of them nobody can be on yet, and
// is "" where all are ready; those that are not are left out.
func (d *decision) attach(t *v1.TaskSpec) (pools []*pool, why string) {
	for _, a := range t.Networks {
		p, problem := d.find(a.Target)
		if problem == "" && slices.Contains(pools, p) {
			problem = "the service is attached to network " + p.name + " twice"
		}
		if problem != "" {
			if why == "" {
				why = problem
			}
			continue
		}
		pools = append(pools, p)
	}
	return pools, why
}

// find is the pool of a network, or why there is none.
func (d *decision) find(target string) (p *pool, problem string) {
	n, ok := store.Get(d.snapshot, v1.Networks, target)
	if !ok || !n.Meta.Deleting.IsZero() {
		id, named := d.snapshot.ByName(v1.KindNetwork, target)
		if !named {
			return nil, "network " + target + " is not there"
		}
		n, _ = store.Get(d.snapshot, v1.Networks, id)
	}
	if p, seen := d.pools[n.Meta.ID]; seen {
		return p, ""
	}
	switch {
	case !ready(n) && n.Desired != nil && n.Desired.Problem != "":
		return nil, "network " + nameOf(n) + ": " + n.Desired.Problem
	case !ready(n):
		return nil, "network " + nameOf(n) + " has no subnet yet"
	}
	p = newPool(d.snapshot, n)
	d.pools[n.Meta.ID] = p
	return p, ""
}

func nameOf(n *v1.Network) string {
	if n.Meta.Name != "" {
		return n.Meta.Name
	}
	return n.Meta.ID
}

// revision is what tasks of a revision are attached to: nothing where it is not in the store.
type revision struct {
	pools []*pool
	why   string
}

// of is what a task is to be on.
func (d *decision) of(t *v1.Task) *revision {
	if a := t.Desired.Attachment; a != nil {
		r := &revision{}
		r.pools, r.why = d.attach(a.Spec())
		return r
	}
	return d.revision(t.Desired.Revision)
}

func (d *decision) revision(id string) *revision {
	if r, seen := d.revisions[id]; seen {
		return r
	}
	r := &revision{}
	d.revisions[id] = r
	if found, ok := store.Get(d.snapshot, v1.ServiceRevisions, id); ok {
		r.pools, r.why = d.attach(&found.Spec.Task)
	} else if d.service != nil && v1.RevisionID(d.service) == id {
		r.pools, r.why = d.attach(&d.service.Spec.Task)
	}
	return r
}
