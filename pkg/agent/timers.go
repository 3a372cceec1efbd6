package agent

import (
	"container/heap"
	"time"
)

// timer is when a task is to be looked at again. Looking too often does no harm, so timers are never taken back.
type timer struct {
	at time.Time
	id string
}

// timers is a heap, the soonest first.
type timers []timer

// Len implements heap.Interface.
func (t timers) Len() int { return len(t) }

// Less implements heap.Interface.
func (t timers) Less(i, j int) bool { return t[i].at.Before(t[j].at) }

// Swap implements heap.Interface.
func (t timers) Swap(i, j int) { t[i], t[j] = t[j], t[i] }

// Push implements heap.Interface.
func (t *timers) Push(x any) { *t = append(*t, x.(timer)) }

// Pop implements heap.Interface.
func (t *timers) Pop() any {
	old := *t
	last := old[len(old)-1]
	*t = old[:len(old)-1]
	return last
}

func (t *timers) pop() timer { return heap.Pop(t).(timer) }

func (t *timers) add(at time.Time, id string) { heap.Push(t, timer{at, id}) }

// queue are tasks that wait for a worker. Those that were begun come first, so that the first of many is done early.
type queue struct {
	limit, running int
	begun, fresh   []*task
}

func (q *queue) push(t *task, begun bool) {
	if begun {
		q.begun = append(q.begun, t)
	} else {
		q.fresh = append(q.fresh, t)
	}
}

func (q *queue) pop() *task {
	from := &q.begun
	if len(*from) == 0 {
		from = &q.fresh
	}
	if len(*from) == 0 {
		return nil
	}
	t := (*from)[0]
	(*from)[0] = nil
	*from = (*from)[1:]
	return t
}

func (q *queue) waiting() int { return len(q.begun) + len(q.fresh) }
