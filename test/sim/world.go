package sim

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/store"
)

// Options of a run.
type Options struct {
	Seed      uint64
	Pipelines []reconcile.Pipeline
	// Trace takes what happens, line by line; nil is nobody.
	Trace func(line string)

	// The defences that a run may be made without, to see that they are needed.
	NoFence  bool // commits of a manager that was deposed are taken
	NoFloor  bool // a manager may be shown less than it wrote itself, and less than was there when it took the lead
	NoPhases bool // commits are cut into parts in any order
	// NoReportCondition: an API server writes a status report by what it sees, however old that is.
	NoReportCondition bool
	// NoReportRevision: an API server takes a report though it has not yet seen the task that it is about, and drops it.
	NoReportRevision bool
}

// World is one run.
type World struct {
	o     Options
	rng   *rand.Rand
	start time.Time
	now   time.Duration // since start
	queue events
	seq   uint64
	stats Stats

	memory *store.Memory
	log    []revision // of the store, from revision 1

	sessions int        // that there were
	ending   []*session // whose leases nobody keeps
	managers []*manager
	holder   *manager // who has the lead; nil if its process crashed
	machines []*machine
	servers  []*server
	user     user
	cuts     float64 // how likely it is that a commit is cut into parts
	calm     bool    // no more faults
	fate     fate    // of one machine from then on
	// watched are services that must have so many containers that run, at every moment; nil is nobody looks.
	watched map[string]int
	checks  checks
	failure error
}

// Stats are what a run was made of.
type Stats struct {
	Events, Commits, Conflicts, Fenced, Starts, Leads int
	// Lost counts the times that a node was found missing, Moves the tasks that took over from one on a drained node.
	Lost, Moves int
	// Rollbacks counts the updates that failed and were rolled back.
	Rollbacks int
	// Attached counts the tasks that were placed on networks, Waited those that had to wait for an address.
	Attached, Waited int
	// Joins counts the nodes that joined later, Balanced the tasks that were made to give a node its share.
	Joins, Balanced int
	// Runs counts the runs of schedules, Ordered the first tasks that waited for other services.
	Runs, Ordered int
	// Settled is how long the swarm took to become what was wanted once the faults had stopped.
	Settled time.Duration
}

// revision is a state of the store, and what led to it.
type revision struct {
	snapshot *store.Snapshot
	changes  []store.Change
}

// epoch is when every simulation begins.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Run plays one seed and returns what went wrong, if anything.
func Run(o Options) (Stats, error) {
	w := &World{o: o, rng: rand.New(rand.NewPCG(o.Seed, 0x5eed)), start: epoch, memory: store.NewMemory()}
	defer func() { _ = w.memory.Close() }()
	s, err := w.memory.Snapshot(context.Background(), 0)
	if err != nil {
		return Stats{}, err
	}
	w.log = []revision{{snapshot: s}}
	w.checks = newChecks()
	w.cuts = 0.2
	if w.chance(0.5) {
		w.cuts = 0.02 // what is cut off hides other faults
	}
	w.setUp()
	w.play(w.between(20*time.Second, 60*time.Second))
	if w.failure == nil {
		w.settle()
	}
	return w.stats, w.failure
}

// setUp makes the swarm before anything goes wrong.
func (w *World) setUp() {
	for i := range 2 {
		w.servers = append(w.servers, &server{w: w, number: i})
		w.managers = append(w.managers, newManager(w, i))
	}
	for i := range 3 + w.rng.IntN(2) {
		m := newMachine(w, i)
		w.machines = append(w.machines, m)
		m.boot()
	}
	for _, name := range networkNames {
		w.createNetwork(name)
	}
	w.elect()
	w.userActs()
	w.fails()
}

// play lets things happen for a time.
func (w *World) play(d time.Duration) {
	until := w.now + d
	for w.failure == nil && len(w.queue) > 0 && w.queue[0].at <= until {
		e := heap.Pop(&w.queue).(event)
		w.now = e.at
		w.stats.Events++
		e.do()
		if w.watched != nil {
			w.watch()
		}
	}
	w.now = until
}

// fail ends the run.
func (w *World) fail(format string, args ...any) {
	if w.failure == nil {
		w.failure = fmt.Errorf("at %v: %s", w.now, fmt.Sprintf(format, args...))
		w.trace("FAILED: %v", w.failure)
	}
}

// trace notes what happens. Its arguments cost nothing but their own making where nobody listens.
func (w *World) trace(format string, args ...any) {
	if w.o.Trace != nil {
		w.o.Trace(fmt.Sprintf("%10.3fs r%-4d ", w.now.Seconds(), w.newest()) + fmt.Sprintf(format, args...))
	}
}

// time is what a clock shows that is off by skew.
func (w *World) time(skew time.Duration) time.Time {
	return w.start.Add(w.now + skew).Truncate(time.Millisecond)
}

// after lets something happen later.
func (w *World) after(d time.Duration, do func()) {
	w.seq++
	heap.Push(&w.queue, event{w.now + d, w.seq, do})
}

// event is something that will happen. Those at the same time happen in the order in which they were thought of.
type event struct {
	at  time.Duration
	seq uint64
	do  func()
}

type events []event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(e any)   { *q = append(*q, e.(event)) }
func (q *events) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last] = event{}
	*q = (*q)[:last]
	return e
}

// between is a random time span.
func (w *World) between(low, high time.Duration) time.Duration {
	return low + time.Duration(w.rng.Int64N(int64(high-low)+1))
}

func (w *World) chance(p float64) bool { return w.rng.Float64() < p }

// lag is how long a message or a disk takes: mostly milliseconds, and now and then seconds.
func (w *World) lag() time.Duration {
	if !w.calm && w.chance(0.04) {
		return w.between(100*time.Millisecond, 4*time.Second)
	}
	return w.between(time.Millisecond, 30*time.Millisecond)
}

// newest is the store's revision.
func (w *World) newest() int64 { return w.log[len(w.log)-1].snapshot.Revision() }

// at is the store as it was at a revision.
func (w *World) at(r int64) *store.Snapshot { return w.log[r-w.log[0].snapshot.Revision()].snapshot }

// current is the store as it is.
func (w *World) current() *store.Snapshot { return w.log[len(w.log)-1].snapshot }

// changes are those after a revision, up to another, batch by batch.
func (w *World) changes(after, upTo int64) []revision {
	first := w.log[0].snapshot.Revision()
	return w.log[after-first+1 : upTo-first+1]
}

// stale is a revision that somebody may see who has to see at least that one.
func (w *World) stale(atLeast int64) int64 {
	newest := w.newest()
	if atLeast >= newest || w.calm || w.chance(0.6) {
		return max(newest, atLeast)
	}
	return atLeast + w.rng.Int64N(newest-atLeast+1)
}

// commit writes for somebody, and tells everybody who watches.
func (w *World) commit(who actor, c store.Commit) (int64, error) {
	if err := w.checks.mayWrite(w, who, c.Ops); err != nil {
		w.fail("%v", err)
		return 0, err
	}
	if w.o.NoFence {
		c.Fence = nil
	}
	before := w.newest()
	r, err := w.memory.Commit(context.Background(), c)
	switch {
	case errors.Is(err, store.ErrConflict):
		w.stats.Conflicts++
		return 0, err
	case errors.Is(err, store.ErrFenced):
		w.stats.Fenced++
		return 0, err
	case err != nil:
		w.fail("%s commits: %v", who, err)
		return 0, err
	case r == before:
		return r, nil
	}
	w.stats.Commits++
	w.record(before)
	return r, nil
}

// expire ends a lease, and what lives under it.
func (w *World) expire(lease store.LeaseID, node string) {
	w.memory.Expire(lease)
	s, err := w.memory.Snapshot(context.Background(), 0)
	if err != nil {
		w.fail("snapshot: %v", err)
		return
	}
	if before := w.newest(); s.Revision() > before {
		w.record(before)
		w.trace("%s is no longer there", node)
	}
}

// record takes over what the store did after a revision. Every commit here changes something: its conditions see to that.
func (w *World) record(after int64) {
	var changes []store.Change
	for b, err := range w.memory.Watch(context.Background(), after) {
		if err != nil {
			w.fail("watch: %v", err)
			return
		}
		changes = b.Changes
		break
	}
	s, err := w.memory.Snapshot(context.Background(), 0)
	if err != nil {
		w.fail("snapshot: %v", err)
		return
	}
	w.log = append(w.log, revision{s, changes})
	w.checks.changed(w, changes)
	for _, m := range w.managers {
		m.notify()
	}
	for _, m := range w.machines {
		for _, c := range changes {
			if t, ok := c.New.(*v1.Task); ok && v1.TaskNode(t) == m.id {
				m.push()
			} else if t, ok := c.Old.(*v1.Task); ok && v1.TaskNode(t) == m.id {
				m.push()
			}
		}
	}
}
