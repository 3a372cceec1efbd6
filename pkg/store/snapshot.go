package store

import (
	"fmt"
	"iter"
	"slices"

	"github.com/tidwall/btree"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// Snapshot is everything at one revision. It never changes; reading it needs no lock. Making the next one copies only what
// changed: the maps are persistent B-trees.
type Snapshot struct {
	revision int64
	objects  []lazy[*objects] // in the order of v1.Kinds
	index    index
	stored   *Snapshot // see Stored; nil is itself
}

// objects are those of one kind, by ID.
type objects = btree.Map[string, v1.Object]

// kindAt is where a kind is in v1.Kinds.
var kindAt = func() map[v1.Kind]int {
	at := make(map[v1.Kind]int, len(v1.Kinds))
	for i, d := range v1.Kinds {
		at[d.Kind()] = i
	}
	return at
}()

// NewSnapshot is an empty snapshot.
func NewSnapshot() *Snapshot {
	s := &Snapshot{objects: make([]lazy[*objects], len(v1.Kinds)), index: newIndex()}
	for i := range s.objects {
		s.objects[i].tree = new(objects)
	}
	return s
}

// Revision is the store's revision that the snapshot shows.
func (s *Snapshot) Revision() int64 { return s.revision }

// Lookup finds an object of any kind by its ID.
func (s *Snapshot) Lookup(kind v1.Kind, id string) (v1.Object, bool) {
	at, ok := kindAt[kind]
	if !ok {
		return nil, false
	}
	return s.objects[at].tree.Get(id)
}

// Objects yields the objects of a kind in the order of their IDs.
func (s *Snapshot) Objects(kind v1.Kind) iter.Seq[v1.Object] {
	return func(yield func(v1.Object) bool) {
		if at, ok := kindAt[kind]; ok {
			s.objects[at].tree.Scan(func(_ string, o v1.Object) bool { return yield(o) })
		}
	}
}

// Count is the number of objects of a kind.
func (s *Snapshot) Count(kind v1.Kind) int {
	if at, ok := kindAt[kind]; ok {
		return s.objects[at].tree.Len()
	}
	return 0
}

// size is the number of objects of all kinds.
func (s *Snapshot) size() int {
	n := 0
	for i := range s.objects {
		n += s.objects[i].tree.Len()
	}
	return n
}

// Get finds an object by its ID.
func Get[S, D, T any](s *Snapshot, k v1.KindOf[S, D, T], id string) (*v1.Resource[S, D, T], bool) {
	o, ok := s.Lookup(k.Kind(), id)
	if !ok {
		return nil, false
	}
	return o.(*v1.Resource[S, D, T]), true
}

// All yields the objects of a kind in the order of their IDs.
func All[S, D, T any](s *Snapshot, k v1.KindOf[S, D, T]) iter.Seq[*v1.Resource[S, D, T]] {
	return func(yield func(*v1.Resource[S, D, T]) bool) {
		for o := range s.Objects(k.Kind()) {
			if !yield(o.(*v1.Resource[S, D, T])) {
				return
			}
		}
	}
}

// With is the snapshot after the operations, as if they had been committed at the revision, and what they changed. It does
// not look at the operations' conditions (see Check). The snapshot it is called on stays as it was.
func (s *Snapshot) With(revision int64, ops []Op) (*Snapshot, []Change, error) {
	next, batches, err := s.WithAll(revision, []Revised{{revision, ops}})
	if err != nil || len(batches) == 0 {
		return next, nil, err
	}
	return next, batches[0].Changes, nil
}

// Over is the snapshot after operations that are not committed yet, at the next revision, and remembers what is. The snapshot it
// is called on stays as it was.
func (s *Snapshot) Over(ops []Op) (*Snapshot, error) {
	next, _, err := s.With(s.revision+1, ops)
	if err != nil {
		return nil, err
	}
	next.stored = s.Stored()
	return next, nil
}

// Stored is what the store has: the snapshot itself, or the one that operations were laid over that are not committed yet. A
// commit of many operations may be cut into parts, so what those give up is still held there until all of it is written.
func (s *Snapshot) Stored() *Snapshot {
	if s.stored != nil {
		return s.stored
	}
	return s
}

// Revised are the operations of one revision.
type Revised struct {
	Revision int64
	Ops      []Op
}

// WithAll is With for several revisions in order, cheaper than one after the other: the snapshots between are not made.
// The result is at the revision given, which may be later than the last of them. There is a Batch for each revision that
// changed something.
func (s *Snapshot) WithAll(revision int64, revisions []Revised) (*Snapshot, []Batch, error) {
	next := s.shared()
	batches := make([]Batch, 0, len(revisions))
	for _, r := range revisions {
		next.revision = r.Revision
		changes, err := next.applyAll(r.Ops)
		if err != nil {
			return nil, nil, err
		}
		if len(changes) > 0 {
			batches = append(batches, Batch{r.Revision, changes})
		}
	}
	next.revision = revision
	return next, batches, nil
}

// applyAll does the operations of one revision. An object that several of them change has one change.
func (s *Snapshot) applyAll(ops []Op) ([]Change, error) {
	changes := make([]Change, 0, len(ops))
	position := make(map[objectKey]int, len(ops))
	for i := range ops {
		change, err := s.apply(&ops[i])
		if err != nil {
			return nil, err
		}
		if change.Old == change.New {
			continue
		}
		key := objectKey{change.Kind, change.ID}
		if at, seen := position[key]; seen {
			changes[at].New = change.New
			continue
		}
		position[key] = len(changes)
		changes = append(changes, change)
	}
	return slices.DeleteFunc(changes, func(c Change) bool { return c.Old == nil && c.New == nil }), nil
}

type objectKey struct {
	kind v1.Kind
	id   string
}

// apply does one operation to a snapshot that is still being made.
func (s *Snapshot) apply(op *Op) (Change, error) {
	at, ok := kindAt[op.Kind]
	if !ok {
		return Change{}, fmt.Errorf("store: %s %q: no such kind", op.Kind, op.ID)
	}
	d, table := v1.Kinds[at], &s.objects[at]
	old, exists := table.tree.Get(op.ID)
	change := Change{Kind: op.Kind, ID: op.ID, Old: old}
	home := op.Section == d.Home()
	if !home && (!exists || op.Value == nil && d.Section(old, op.Section) == nil) {
		return Change{}, nil // a section of an object that is gone, or one that is gone itself
	}
	if home && op.Value == nil {
		if exists {
			table.edit().Delete(op.ID)
			s.index.change(old, nil)
		}
		return change, nil
	}
	var meta *v1.Meta
	if home {
		meta = &v1.Meta{}
		if op.Meta != nil {
			*meta = *op.Meta
		} else if exists {
			*meta = *old.GetMeta()
		}
		meta.ID = op.ID
	}
	next, err := d.With(old, op.Section, meta, op.Value, s.revision)
	if err != nil {
		return Change{}, fmt.Errorf("store: %s %q: %w", op.Kind, op.ID, err)
	}
	table.edit().Set(op.ID, next)
	s.index.change(old, next)
	change.New = next
	return change, nil
}

// Check tells whether the operation's condition holds in the snapshot.
func (s *Snapshot) Check(op *Op) bool {
	obj, exists := s.Lookup(op.Kind, op.ID)
	switch op.If.check {
	case checkExists:
		return exists
	case checkAbsent:
		return !exists
	case checkRevision:
		return exists && obj.GetMeta().Revisions[op.Section] == op.If.revision
	}
	return true
}

// shared is the beginning of the next snapshot: the same trees, each copied when it is first written.
func (s *Snapshot) shared() *Snapshot {
	next := &Snapshot{revision: s.revision, objects: make([]lazy[*objects], len(s.objects)), index: s.index.shared()}
	for i := range s.objects {
		next.objects[i] = s.objects[i].shared()
	}
	return next
}
