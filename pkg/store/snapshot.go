package store

import (
	"fmt"
	"iter"
	"slices"
	"sync"

	"github.com/tidwall/btree"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// Snapshot is everything at one revision. It never changes; reading it needs no lock. Making the next one copies only what
// changed: the maps are persistent B-trees.
type Snapshot struct {
	revision int64
	objects  map[v1.Kind]*objects
	index    index
}

// objects are those of one kind, by ID.
type objects = btree.Map[string, v1.Object]

// NewSnapshot is an empty snapshot.
func NewSnapshot() *Snapshot {
	s := &Snapshot{objects: make(map[v1.Kind]*objects, len(v1.Kinds))}
	for _, d := range v1.Kinds {
		s.objects[d.Kind()] = new(objects)
	}
	return s
}

// Revision is the store's revision that the snapshot shows.
func (s *Snapshot) Revision() int64 { return s.revision }

// Lookup finds an object of any kind by its ID.
func (s *Snapshot) Lookup(kind v1.Kind, id string) (v1.Object, bool) {
	m, ok := s.objects[kind]
	if !ok {
		return nil, false
	}
	return m.Get(id)
}

// Objects yields the objects of a kind in the order of their IDs.
func (s *Snapshot) Objects(kind v1.Kind) iter.Seq[v1.Object] {
	return func(yield func(v1.Object) bool) {
		if m, ok := s.objects[kind]; ok {
			m.Scan(func(_ string, o v1.Object) bool { return yield(o) })
		}
	}
}

// Count is the number of objects of a kind.
func (s *Snapshot) Count(kind v1.Kind) int {
	if m, ok := s.objects[kind]; ok {
		return m.Len()
	}
	return 0
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

// Revised are the operations of one revision.
type Revised struct {
	Revision int64
	Ops      []Op
}

// WithAll is With for several revisions in order, cheaper than one after the other: the snapshots between are not made.
// The result is at the revision given, which may be later than the last of them. There is a Batch for each revision that
// changed something.
func (s *Snapshot) WithAll(revision int64, revisions []Revised) (*Snapshot, []Batch, error) {
	next := &Snapshot{objects: make(map[v1.Kind]*objects, len(s.objects)), index: s.index.copy()}
	for k, m := range s.objects {
		next.objects[k] = m // copied when first written
	}
	batches := make([]Batch, 0, len(revisions))
	for _, r := range revisions {
		next.revision = r.Revision
		changes, err := next.applyAll(s, r.Ops)
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
func (s *Snapshot) applyAll(base *Snapshot, ops []Op) ([]Change, error) {
	changes := make([]Change, 0, len(ops))
	position := make(map[objectKey]int, len(ops))
	for i := range ops {
		change, err := s.apply(base, &ops[i])
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

// apply does one operation to a snapshot that is still being made from base.
func (s *Snapshot) apply(base *Snapshot, op *Op) (Change, error) {
	d, ok := v1.Describe(op.Kind)
	if !ok {
		return Change{}, fmt.Errorf("store: %s %q: no such kind", op.Kind, op.ID)
	}
	m := s.objects[op.Kind]
	if m == base.objects[op.Kind] {
		m = fork(m)
		s.objects[op.Kind] = m
	}
	old, exists := m.Get(op.ID)
	change := Change{Kind: op.Kind, ID: op.ID, Old: old}
	if op.Value == nil && op.Section == d.Home() {
		if exists {
			m.Delete(op.ID)
			s.index.remove(old)
		}
		return change, nil
	}
	if op.Section != d.Home() && (!exists || op.Value == nil && d.Section(old, op.Section) == nil) {
		return Change{}, nil // a section of an object that is gone, or one that is gone itself
	}
	var meta *v1.Meta
	if op.Section == d.Home() {
		meta = &v1.Meta{ID: op.ID}
		if op.Meta != nil {
			*meta = *op.Meta
			meta.ID = op.ID
		} else if exists {
			*meta = *old.GetMeta()
		}
	}
	next, err := d.With(old, op.Section, meta, op.Value, s.revision)
	if err != nil {
		return Change{}, fmt.Errorf("store: %s %q: %w", op.Kind, op.ID, err)
	}
	m.Set(op.ID, next)
	if exists {
		s.index.remove(old)
	}
	s.index.add(next)
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

// forking guards the owner mark that a tree changes in both halves when it is copied. Reading a tree never looks at it.
var forking sync.Mutex

// fork is a copy of a tree that shares its nodes until either is written.
func fork[V any](m *btree.Map[string, V]) *btree.Map[string, V] {
	forking.Lock()
	defer forking.Unlock()
	return m.Copy()
}
