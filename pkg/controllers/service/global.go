package service

import (
	"cmp"
	"slices"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// global has a slot for each node, numbered by the node's index, so that a rollout goes from node to node. The slot of a node
// that the service is not to be on rests; that of one that is gone is given up.
func global(v *view) (l layout) {
	constraints := v1.Constraints(&v.service.Spec.Task)
	slots := make(map[uint64]*slot, len(v.slots))
	for _, s := range v.slots {
		slots[s.number] = s
	}
	for n := range store.All(v.snapshot, v1.Nodes) {
		if n.Spec == nil || n.Spec.Index == 0 {
			continue
		}
		number := uint64(n.Spec.Index)
		s, has := slots[number]
		delete(slots, number)
		if !has {
			s = &slot{number: number}
		}
		s.node, s.closed = n.Meta.ID, v1.NodePaused(n)
		switch {
		case v1.Hosts(n, constraints) && (has || !s.closed):
			l.keep = append(l.keep, s)
		case has:
			l.rest = append(l.rest, s)
		}
	}
	for _, s := range v.slots {
		if slots[s.number] != nil {
			l.drop = append(l.drop, s)
		}
	}
	for _, of := range [][]*slot{l.keep, l.rest} {
		slices.SortFunc(of, func(a, b *slot) int { return cmp.Compare(a.number, b.number) })
	}
	return l
}

// rest stops what a slot has, and makes nothing new. What a job has left of before it began anew goes.
func (v *view) rest(s *slot) {
	for _, t := range s.tasks {
		switch {
		case t.Desired.Iteration != v.iteration:
			v.stop(t, v1.TaskRemove, "")
		case t.Desired.State <= v1.TaskComplete:
			v.stop(t, v1.TaskShutdown, cmp.Or(v.why(t), s.reason, reasonUnfit))
		}
	}
}
