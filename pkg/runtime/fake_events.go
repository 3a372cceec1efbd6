package runtime

import (
	"container/heap"
	"context"
	"errors"
	"iter"
	"time"
)

// errFakeBehind is what Events ends with for a reader that fell too far behind.
var errFakeBehind = errors.New("runtime: events were lost")

// Events implements Runtime. It costs no goroutine: a reader keeps its place in the list of ends.
func (f *Fake) Events(ctx context.Context) iter.Seq2[State, error] {
	f.mu.Lock()
	next := f.firstEnd + len(f.ends)
	f.mu.Unlock()
	return func(yield func(State, error) bool) {
		for {
			f.mu.Lock()
			var ends []State
			err := f.lost
			if next < f.firstEnd {
				err = errFakeBehind
			} else {
				ends = append(ends, f.ends[next-f.firstEnd:]...)
			}
			changed := f.watch()
			f.mu.Unlock()
			for _, s := range ends {
				if !yield(s, nil) {
					return
				}
			}
			next += len(ends)
			if err != nil {
				yield(State{}, err)
				return
			}
			if len(ends) > 0 {
				continue
			}
			select {
			case <-changed:
			case <-ctx.Done():
				yield(State{}, context.Cause(ctx))
				return
			}
		}
	}
}

// watch is closed at the next change; the lock is held.
func (f *Fake) watch() <-chan struct{} {
	if f.changed == nil {
		f.changed = make(chan struct{})
	}
	return f.changed
}

// wake tells those who wait; the lock is held.
func (f *Fake) wake() {
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

// end makes a running container an ended one; the lock is held.
func (f *Fake) end(c *fakeContainer, code int, oom bool) {
	c.state.Status, c.state.ExitCode, c.state.OOMKilled, c.state.Ended = Ended, code, oom, f.o.Now()
	f.ends = append(f.ends, c.state)
	if over := len(f.ends) - fakeEnds; over > fakeEnds { // cut off half now and then, not one each time
		f.ends = append([]State(nil), f.ends[over:]...)
		f.firstEnd += over
	}
	f.wake()
}

// Kill ends a running container with the exit code, as if its process had done so by itself. It tells whether there was
// one.
func (f *Fake) Kill(id string, code int) bool { return f.kill(id, code, false) }

// OOM ends a running container as the kernel does when it runs out of memory. It tells whether there was one.
func (f *Fake) OOM(id string) bool { return f.kill(id, 137, true) }

func (f *Fake) kill(id string, code int, oom bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.containers[id]
	if !ok || c.state.Status != Running {
		return false
	}
	f.end(c, code, oom)
	return true
}

// Lose makes the runtime unreachable: Events end with the error and every call fails with it, until Lose(nil). The
// containers go on meanwhile.
func (f *Fake) Lose(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lost = err
	f.wake()
}

// Vanish takes all containers away with no event, as a machine that restarts does. Logs and images stay.
func (f *Fake) Vanish() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.containers)
	f.wake()
}

// fakeEnd is when a container is to end by itself.
type fakeEnd struct {
	at time.Time
	id string
}

// fakeDue is a heap of them, soonest first.
type fakeDue []fakeEnd

func (d fakeDue) Len() int           { return len(d) }
func (d fakeDue) Less(i, j int) bool { return d[i].at.Before(d[j].at) }
func (d fakeDue) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }

// Push implements heap.Interface.
func (d *fakeDue) Push(x any) { *d = append(*d, x.(fakeEnd)) }

// Pop implements heap.Interface.
func (d *fakeDue) Pop() any {
	old := *d
	last := old[len(old)-1]
	*d = old[:len(old)-1]
	return last
}

// endAt has a container end by itself after a time; the lock is held.
func (f *Fake) endAt(id string, after time.Duration) {
	at := time.Now().Add(after)
	heap.Push(&f.due, fakeEnd{at, id})
	if f.timer == nil {
		f.timer = time.AfterFunc(after, f.endDue)
	} else if f.due[0].id == id {
		f.timer.Reset(after)
	}
}

// endDue ends the containers whose time has come, and sets the timer for the next.
func (f *Fake) endDue() {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	for len(f.due) > 0 && !f.due[0].at.After(now) {
		due := heap.Pop(&f.due).(fakeEnd)
		if c, ok := f.containers[due.id]; ok && c.state.Status == Running {
			f.end(c, c.process.ExitCode, c.process.OOMKilled)
		}
	}
	if len(f.due) > 0 {
		f.timer.Reset(f.due[0].at.Sub(now))
	}
}
