package reconcile

import (
	"slices"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// batch is a Step under way.
type batch struct {
	engine *Engine
	now    time.Time
	awake  time.Time // since when the process is; zero for always
	// snapshot is what the next key sees: the base with what was decided so far. pending was decided and is not in it
	// yet: it is put in when a rule asks, which after the last key none does.
	snapshot *store.Snapshot
	pending  []store.Op
	ops      []store.Op
	again    map[string]time.Time
}

func newBatch(e *Engine, now, awake time.Time, s *store.Snapshot) *batch {
	return &batch{engine: e, now: now, awake: awake, snapshot: s, again: make(map[string]time.Time)}
}

// full tells whether the batch takes no more keys.
func (b *batch) full() bool { return len(b.ops) >= b.engine.options.MaxOps }

// decide runs the rules for a key. If a rule panics, the batch is as it was before the key.
func (b *batch) decide(key string) {
	if b.full() {
		b.again[key] = b.now
		return
	}
	d := decision{ops: make([]store.Op, 0)}
	var again time.Time
	snapshot, pending := b.snapshot, b.pending
	for _, rule := range b.engine.pipeline.Rules {
		if len(pending) > 0 {
			snapshot = overlay(snapshot, pending)
		}
		start := time.Now()
		plan := b.heard(rule.Decide(b.now, snapshot, key))
		b.engine.metrics.decided(rule.Name(), time.Since(start))
		d.add(plan.Ops)
		pending = plan.Ops
		if !plan.Again.IsZero() && (again.IsZero() || plan.Again.Before(again)) {
			again = plan.Again
		}
	}
	b.snapshot, b.pending = snapshot, pending
	b.ops = append(b.ops, d.result()...)
	if !again.IsZero() {
		b.again[key] = again
	}
}

// heard is a plan, or where the process was not awake for as long as that asks for, when to ask again.
func (b *batch) heard(p Plan) Plan {
	if p.Awake == 0 || b.awake.IsZero() {
		return p
	}
	if until := b.awake.Add(p.Awake); b.now.Before(until) {
		return Plan{Again: Sooner(p.Again, until)}
	}
	return p
}

// overlay is the snapshot with operations that were not committed yet.
func overlay(s *store.Snapshot, ops []store.Op) *store.Snapshot {
	next, err := s.Over(ops)
	if err != nil {
		panic("reconcile: a rule's operation cannot be: " + err.Error())
	}
	return next
}

// decision merges what the rules want of one key's objects, so that a section is written once. Objects belong to one key:
// there is nothing to merge between keys.
type decision struct {
	ops   []store.Op
	at    map[section]int // made when a second rule has operations
	holes int
}

type section struct {
	kind    v1.Kind
	id      string
	section v1.Section
}

func sectionOf(op *store.Op) section { return section{op.Kind, op.ID, op.Section} }

// add puts a later rule's operations on top. The first condition on a section stays: it is about what is stored.
func (d *decision) add(ops []store.Op) {
	if len(ops) == 0 {
		return
	}
	if len(d.ops) == 0 {
		d.ops = slices.Clone(ops)
		return
	}
	if d.at == nil {
		d.at = make(map[section]int, len(d.ops))
		for i := range d.ops {
			d.at[sectionOf(&d.ops[i])] = i
		}
	}
	for _, op := range ops {
		d.merge(op)
	}
}

func (d *decision) merge(op store.Op) {
	at, seen := d.at[sectionOf(&op)]
	if removes(&op) {
		for other := range v1.SectionStatus + 1 {
			if i, ok := d.at[section{op.Kind, op.ID, other}]; ok && other != op.Section {
				d.drop(i)
			}
		}
		if seen && d.ops[at].If == store.Absent() {
			d.drop(at) // what was never there need not be removed
			return
		}
	}
	if !seen {
		d.at[sectionOf(&op)] = len(d.ops)
		d.ops = append(d.ops, op)
		return
	}
	op.If = d.ops[at].If
	if op.Meta == nil && op.Value != nil {
		op.Meta = d.ops[at].Meta
	}
	d.ops[at] = op
}

func (d *decision) drop(at int) {
	delete(d.at, sectionOf(&d.ops[at]))
	d.ops[at].Kind = "" // a hole
	d.holes++
}

func (d *decision) result() []store.Op {
	if d.holes == 0 {
		return d.ops
	}
	return slices.DeleteFunc(d.ops, func(op store.Op) bool { return op.Kind == "" })
}

// removes tells whether the operation removes a whole object.
func removes(op *store.Op) bool {
	if op.Value != nil {
		return false
	}
	d, ok := v1.Describe(op.Kind)
	return ok && d.Home() == op.Section
}
