// Package reconciletest runs rules over scenarios: objects, steps such as "scale web 5" or "node n1 down", and the tables
// that are expected after them. It drives the real engine's Step over the store in memory, by the wakes that the rules ask
// for, on a clock that only a step moves.
//
// It owns the scenario language (see Run) and the invariants that hold whatever happens (see Check). It has no rules of
// its own.
package reconciletest

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/store"
)

// Epoch is when every World begins.
var Epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// World is a store with the rules at work on it, in one goroutine. It is not safe for use by several.
type World struct {
	Now     time.Time
	store   *store.Memory
	lines   []*line
	gone    map[string]bool // the IDs of tasks that were removed
	indexes uint32          // how many were made, for their indexes
	commits int             // of the rules
	// dies tells whether the leader dies just before a commit, by its number from 1, or just after it; nil is never.
	dies func(commit int) (before, after bool)
}

// line is a pipeline at work.
type line struct {
	reconcile.Pipeline
	engine *reconcile.Engine
	woken  map[string]bool
	due    map[string]time.Time
}

// NewWorld is an empty one at Epoch, where the pipelines decide in turn.
func NewWorld(pipelines []reconcile.Pipeline) *World {
	w := &World{Now: Epoch, store: store.NewMemory(), gone: make(map[string]bool)}
	for _, p := range pipelines {
		w.lines = append(w.lines, &line{p, p.Engine(w.store, reconcile.Options{}), make(map[string]bool), make(map[string]time.Time)})
	}
	return w
}

// Snapshot is the newest.
func (w *World) Snapshot() *store.Snapshot {
	s, err := w.store.Snapshot(context.Background(), 0)
	if err != nil {
		panic(err) // a memory store that is open has one
	}
	return s
}

// Commit writes operations as anybody might, and wakes what they change.
func (w *World) Commit(ops ...store.Op) error {
	before := w.Snapshot()
	if _, err := w.lines[0].engine.Commit(context.Background(), ops, nil); err != nil {
		return err
	}
	_, changes, err := before.With(before.Revision()+1, ops)
	if err != nil {
		return err
	}
	after := w.Snapshot()
	for _, c := range changes {
		for _, l := range w.lines {
			for _, key := range l.engine.Keys(after, c) {
				l.woken[key] = true
			}
		}
	}
	return nil
}

// Ran is what a Run did.
type Ran struct {
	Steps   int
	Created int // tasks
	Written map[v1.Kind]int
	Removed map[v1.Kind]int
}

// maxSteps bounds a Run: rules that still want something after so many never stop.
const maxSteps = 50

// Run decides whatever was woken or is due, until nothing is. It fails where the rules do not come to rest, where they
// decide differently on the same snapshot, where a task ID is used a second time, where a task is let run or placed as it
// must not be (see CheckStep), where a key that nobody woke would still want something, and where the result must never be (see Check).
func (w *World) Run() (Ran, error) {
	ran := Ran{Written: make(map[v1.Kind]int), Removed: make(map[v1.Kind]int)}
	for rested := false; !rested; {
		rested = true
		for _, l := range w.lines {
			acted, err := w.step(l, &ran)
			if err != nil {
				return ran, err
			}
			rested = rested && !acted
		}
	}
	s := w.Snapshot()
	for _, l := range w.lines {
		ops, _ := l.engine.Step(w.Now, s, l.AllKeys(s))
		if ops = slices.DeleteFunc(ops, func(op store.Op) bool { return onlyExplains(s, op) }); len(ops) > 0 {
			return ran, fmt.Errorf("nobody was woken for %s", describe(ops))
		}
	}
	return ran, Check(s)
}

// step has a pipeline decide once, if there is anything to decide.
func (w *World) step(l *line, ran *Ran) (acted bool, err error) {
	for key, at := range l.due {
		if !w.Now.Before(at) {
			l.woken[key] = true
			delete(l.due, key)
		}
	}
	if len(l.woken) == 0 {
		return false, nil
	}
	keys := slices.Sorted(maps.Keys(l.woken))
	clear(l.woken)
	s := w.Snapshot()
	ops, again := l.engine.Step(w.Now, s, keys)
	if twice, _ := l.engine.Step(w.Now, s, keys); !reflect.DeepEqual(ops, twice) {
		return true, fmt.Errorf("decided %s, and then on the same snapshot %s", describe(ops), describe(twice))
	}
	maps.Copy(l.due, again)
	if len(ops) == 0 {
		return true, nil
	}
	if ran.Steps++; ran.Steps > maxSteps {
		return true, fmt.Errorf("the rules did not come to rest in %d steps; the last wanted %s", maxSteps, describe(ops))
	}
	w.commits++
	before, after := false, false
	if w.dies != nil {
		before, after = w.dies(w.commits)
	}
	if before {
		w.succeed()
		return true, nil
	}
	ran.count(s, ops)
	if err := w.bury(s, ops); err != nil {
		return true, err
	}
	if err := w.Commit(ops...); err != nil {
		return true, err
	}
	if after {
		w.succeed()
	}
	return true, CheckStep(s, w.Snapshot(), ops)
}

// succeed has another leader take over, who knows nothing but what is in the store.
func (w *World) succeed() {
	for _, l := range w.lines {
		clear(l.due)
		clear(l.woken)
		for _, key := range l.AllKeys(w.Snapshot()) {
			l.woken[key] = true
		}
	}
}

// onlyExplains tells whether an operation changes nothing but the sentence of why a task has no node. What other services
// do changes what that counts, and nobody is woken for it.
func onlyExplains(s *store.Snapshot, op store.Op) bool {
	t, ok := store.Get(s, v1.Tasks, op.ID)
	next, isTask := op.Value.(*v1.TaskDesired)
	if !ok || !isTask {
		return false
	}
	before, after := *t.Desired, *next
	before.Pending, after.Pending = "", ""
	return reflect.DeepEqual(before, after)
}

func (r *Ran) count(s *store.Snapshot, ops []store.Op) {
	for _, op := range ops {
		if op.Value == nil {
			r.Removed[op.Kind]++
			continue
		}
		r.Written[op.Kind]++
		if _, was := s.Lookup(op.Kind, op.ID); op.Kind == v1.KindTask && !was {
			r.Created++
		}
	}
}

// bury remembers which tasks are gone, and tells which is made again.
func (w *World) bury(s *store.Snapshot, ops []store.Op) error {
	for _, op := range ops {
		if op.Kind != v1.KindTask {
			continue
		}
		if _, was := s.Lookup(op.Kind, op.ID); !was && w.gone[op.ID] {
			return fmt.Errorf("the ID of a task that is gone is used again: %+v", op.Value)
		}
		w.gone[op.ID] = w.gone[op.ID] || op.Value == nil
	}
	return nil
}

func describe(ops []store.Op) string {
	if len(ops) == 0 {
		return "nothing"
	}
	op := ops[0]
	return fmt.Sprintf("%d operations, the first on %s %s: %+v", len(ops), op.Kind, op.ID, op.Value)
}

// Play does what the agents of all nodes that have a session would do next: tasks that are to run do, those that are to be
// ready are, those that are to stop have, and those that are to have other secrets and configs do. Those that are to complete run until a script says otherwise. It tells how many tasks
// changed.
func (w *World) Play() (int, error) {
	s := w.Snapshot()
	var ops []store.Op
	for n := range store.All(s, v1.Nodes) {
		if _, present := store.Get(s, v1.Presences, n.Meta.ID); !present {
			continue
		}
		for t := range s.TasksOfNode(n.Meta.ID) {
			next, changed := played(t)
			switch {
			case changed:
				ops = append(ops, w.statusOp(t, &v1.TaskStatus{State: next, At: w.Now, Refit: refitted(t, "")}))
			case v1.Refitting(t) && !next.Terminal():
				ops = append(ops, w.refitOp(t, ""))
			}
		}
	}
	if len(ops) == 0 {
		return 0, nil
	}
	return len(ops), w.Commit(ops...)
}

func played(t *v1.Task) (v1.TaskState, bool) {
	have := v1.Observed(t)
	want := min(t.Desired.State, v1.TaskRunning)
	switch {
	case have.Terminal():
		return have, false
	case t.Desired.State > v1.TaskComplete:
		return v1.TaskShutdown, true
	case have < want:
		return want, true
	}
	return have, false
}

// refitted is what an agent says of the secrets and configs that a task was told to have, with why it has not got them.
func refitted(t *v1.Task, why string) *v1.TaskRefit {
	if t.Desired.RefitAt.IsZero() {
		return nil
	}
	return &v1.TaskRefit{At: t.Desired.RefitAt, Err: why}
}

func (w *World) refitOp(t *v1.Task, why string) store.Op {
	status := v1.TaskStatus{State: v1.Observed(t), At: w.Now}
	if t.Status != nil {
		status = *t.Status
	}
	status.Refit = refitted(t, why)
	return w.statusOp(t, &status)
}

func (w *World) statusOp(t *v1.Task, status *v1.TaskStatus) store.Op {
	if status.State.Terminal() && status.Ran == nil {
		ran := v1.Duration(0)
		if t.Status != nil && t.Status.State == v1.TaskRunning {
			ran = v1.Duration(w.Now.Sub(t.Status.At))
		}
		status.Ran = &ran
	}
	return store.Op{Kind: v1.KindTask, ID: t.Meta.ID, Section: v1.SectionStatus, Value: status, If: store.Exists()}
}
