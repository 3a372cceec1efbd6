package store

import (
	"fmt"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// Builder makes a snapshot of what is there already, where each section was written at a revision of its own: for
// stores that load. It is for one goroutine, and one snapshot.
type Builder struct {
	snapshot *Snapshot
	pending  v1.Object // the object whose sections are still coming
	kind     v1.Descriptor
	id       string
	homeless v1.Section // the first section that came, while the home section has not
	home     bool
}

// NewBuilder begins with nothing.
func NewBuilder() *Builder { return &Builder{snapshot: NewSnapshot()} }

// Add adds a section that was written at the revision. Sections of one object must come one after the other. Of the
// operation, its condition is ignored.
func (b *Builder) Add(op Op, revision int64) error {
	if b.kind == nil || b.kind.Kind() != op.Kind || b.id != op.ID {
		if err := b.flush(); err != nil {
			return err
		}
		d, ok := v1.Describe(op.Kind)
		if !ok {
			return fmt.Errorf("store: %s %q: no such kind", op.Kind, op.ID)
		}
		b.kind, b.id, b.homeless = d, op.ID, op.Section
	}
	var meta *v1.Meta
	if op.Section == b.kind.Home() {
		b.home = true
		meta = &v1.Meta{}
		if op.Meta != nil {
			*meta = *op.Meta
		}
		meta.ID = op.ID
	}
	next, err := b.kind.With(b.pending, op.Section, meta, op.Value, revision)
	if err != nil {
		return fmt.Errorf("store: %s %q: %w", op.Kind, op.ID, err)
	}
	b.pending = next
	return nil
}

// AddObject adds a whole object, with the revisions in its Meta.
func (b *Builder) AddObject(kind v1.Kind, o v1.Object) error {
	if err := b.flush(); err != nil {
		return err
	}
	d, ok := v1.Describe(kind)
	if !ok {
		return fmt.Errorf("store: %s: no such kind", kind)
	}
	id := o.GetMeta().ID
	if d.Section(o, d.Home()) == nil {
		return fmt.Errorf("store: %s %q is a %T without section %s", kind, id, o, d.Home())
	}
	b.kind, b.id, b.pending, b.home = d, id, o, true
	return b.flush()
}

func (b *Builder) flush() error {
	if b.pending == nil {
		return nil
	}
	if !b.home {
		return fmt.Errorf("store: %s %q has a section %s, but no section %s, without which it does not exist",
			b.kind.Kind(), b.id, b.homeless, b.kind.Home())
	}
	if _, twice := b.snapshot.objects[kindAt[b.kind.Kind()]].edit().Load(b.id, b.pending); twice {
		return fmt.Errorf("store: %s %q came twice", b.kind.Kind(), b.id)
	}
	b.snapshot.index.change(nil, b.pending)
	b.pending, b.kind, b.home = nil, nil, false
	return nil
}

// Snapshot is what was added, at the revision. The Builder must not be used again.
func (b *Builder) Snapshot(revision int64) (*Snapshot, error) {
	if err := b.flush(); err != nil {
		return nil, err
	}
	b.snapshot.revision = revision
	return b.snapshot, nil
}
