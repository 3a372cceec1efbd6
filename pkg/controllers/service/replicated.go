package service

import (
	"cmp"
	"slices"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// replicated keeps as many slots as there are to be replicas. New ones get the lowest free numbers.
func replicated(v *view) (l layout) {
	replicas := 1
	if r := v.service.Spec.Replicas; r != nil {
		replicas = int(min(*r, 1<<31))
	}
	gone := make(map[uint64]*slot) // slots that were given up, whose tasks are not removed yet
	for _, s := range v.slots {
		switch {
		case s.number == 0:
			l.drop = append(l.drop, s) // no replica's number
		case s.abandoned():
			gone[s.number] = s
		default:
			l.keep = append(l.keep, s)
		}
	}
	if len(l.keep) > replicas {
		v.victimsLast(l.keep)
		l.keep, l.drop = l.keep[:replicas], append(l.drop, l.keep[replicas:]...)
		return l
	}
	l.keep = fill(l.keep, gone, replicas)
	return l
}

// fill adds slots with the lowest free numbers, in ascending order, until there are enough.
func fill(slots []*slot, gone map[uint64]*slot, replicas int) []*slot {
	missing := replicas - len(slots)
	if missing <= 0 {
		return slots
	}
	added := make([]slot, missing)
	filled := make([]*slot, 0, replicas)
	next := 0
	for number := uint64(1); missing > 0; number++ {
		if next < len(slots) && slots[next].number == number {
			filled = append(filled, slots[next])
			next++
			continue
		}
		missing--
		s, was := gone[number]
		if !was {
			s = &added[missing]
			s.number = number
		}
		filled = append(filled, s)
	}
	return append(filled, slots[next:]...)
}

// abandoned tells whether the slot was given up: all its tasks are to be removed.
func (s *slot) abandoned() bool {
	for _, t := range s.tasks {
		if t.Desired.State < v1.TaskRemove {
			return false
		}
	}
	return true
}

// victimsLast sorts slots so that those to give up first are last: slots that are on no node, then those on the nodes
// with the most copies, so that what stays is balanced; among equals those not running, then those with high numbers.
func (v *view) victimsLast(slots []*slot) {
	type candidate struct {
		*slot
		node    string
		running bool
		copy    int // the nth on its node
	}
	candidates := make([]candidate, len(slots))
	for i, s := range slots {
		c := candidate{slot: s}
		if t := v.best(s.tasks); t != nil {
			c.node, c.running = v1.TaskNode(t), v1.Observed(t) == v1.TaskRunning
		}
		candidates[i] = c
	}
	slices.SortFunc(candidates, func(a, b candidate) int {
		return cmp.Or(compareBool(b.running, a.running), cmp.Compare(a.number, b.number))
	})
	copies := make(map[string]int)
	for i := range candidates {
		c := &candidates[i]
		copies[c.node]++
		c.copy = copies[c.node]
	}
	slices.SortStableFunc(candidates, func(a, b candidate) int {
		return cmp.Or(compareBool(a.node == "", b.node == ""), cmp.Compare(a.copy, b.copy))
	})
	for i, c := range candidates {
		slots[i] = c.slot
	}
}

// best is the live task on a usable node that is most worth keeping, or nil: one that runs, then one that runs what the
// spec asks for, then the newest.
func (v *view) best(tasks []*v1.Task) *v1.Task {
	var best *v1.Task
	for _, t := range tasks {
		if v.good(t) && (best == nil || v.better(t, best)) {
			best = t
		}
	}
	return best
}

func (v *view) better(a, b *v1.Task) bool {
	return cmp.Or(
		compareBool(v1.Observed(a) == v1.TaskRunning, v1.Observed(b) == v1.TaskRunning),
		compareBool(v.clean(a), v.clean(b)),
		cmp.Compare(a.Desired.Attempt, b.Desired.Attempt)) > 0
}

// compareBool puts false before true.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
