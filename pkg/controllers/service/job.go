package service

import (
	"slices"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// A job is done when every slot has had a task that completed. Each change of the service begins it anew: the tasks that were made
// for an earlier generation are given up, whatever became of them. A job is never updated step by step, and its tasks leave a drained
// node as those of a lost one do, for two of a slot must not work at once.

// replicatedJob has as many slots as are to complete, of which no more than may are at work. New ones begin in ascending order.
func replicatedJob(v *view) (l layout) {
	total, most := uint64(1), v.service.Spec.MaxConcurrent
	if r := v.service.Spec.Replicas; r != nil {
		total = *r
	}
	if most == nil {
		most = &total
	}
	had := make(map[uint64]*slot, len(v.slots))
	atWork := uint64(0)
	for _, s := range v.slots {
		if s.number == 0 || s.number > total {
			l.drop = append(l.drop, s)
			continue
		}
		had[s.number] = s
		if v.newest(s) == nil {
			continue // of an earlier iteration
		}
		l.keep = append(l.keep, s)
		if v.open(s) {
			atWork++
		}
	}
	for number := uint64(1); number <= total && atWork < *most; number++ {
		s := had[number]
		if s != nil && v.newest(s) != nil {
			continue
		}
		if s == nil {
			s = &slot{number: number}
		}
		delete(had, number)
		l.keep = append(l.keep, s)
		atWork++
	}
	for _, s := range v.slots {
		if had[s.number] == s && v.newest(s) == nil {
			l.drop = append(l.drop, s) // its turn in this iteration comes later
		}
	}
	return l
}

// globalJob has a slot for each node that takes tasks. What has completed on a node has, whatever becomes of the node.
func globalJob(v *view) layout {
	l := global(v)
	l.rest = slices.DeleteFunc(l.rest, v.completed)
	return l
}

// completed tells whether a task of the slot has completed in this iteration.
func (v *view) completed(s *slot) bool {
	return slices.ContainsFunc(s.tasks, func(t *v1.Task) bool { return v.has(t) && v1.Observed(t) == v1.TaskComplete })
}

// has tells whether a task counts in this iteration.
func (v *view) has(t *v1.Task) bool {
	return t.Desired.Iteration == v.iteration && t.Desired.State < v1.TaskRemove
}

// open tells whether a slot has not completed, and may yet. One whose task failed and is not to be restarted may not.
func (v *view) open(s *slot) bool {
	last := v.newest(s)
	return !v.completed(s) && (last == nil || v.good(last) || v.again(last, new(v1.TaskDesired)))
}

// decideJob decides the one task that a slot of a job is to have, until one has completed.
func (v *view) decideJob(s *slot) {
	done := v.completed(s)
	live := make([]*v1.Task, 0, 1)
	for _, t := range s.tasks {
		switch {
		case t.Desired.Iteration != v.iteration:
			v.stop(t, v1.TaskRemove, "")
		case v1.Observed(t) == v1.TaskComplete:
		case v.good(t) && !done:
			live = append(live, t)
		case t.Desired.State <= v1.TaskComplete:
			v.stop(t, v1.TaskShutdown, v.why(t))
		}
	}
	if done {
		return
	}
	if keep := v.best(live); keep != nil {
		v.keepOnly(s, live, keep)
		return
	}
	v.replace(s, nil)
}
