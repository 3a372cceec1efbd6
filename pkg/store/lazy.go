package store

import (
	"iter"
	"sync"

	"github.com/tidwall/btree"
)

// lazy is a tree that a snapshot may share with those before it. A copy shares its nodes until either is written.
type lazy[T interface{ Copy() T }] struct {
	tree T
	lent bool
}

func (l lazy[T]) shared() lazy[T] { return lazy[T]{l.tree, true} }

// edit is the tree to write to.
func (l *lazy[T]) edit() T {
	if l.lent {
		l.tree, l.lent = fork(l.tree), false
	}
	return l.tree
}

// forking guards the owner mark that a tree changes in both halves when it is copied. Reading a tree never looks at it.
var forking sync.Mutex

func fork[T interface{ Copy() T }](tree T) T {
	forking.Lock()
	defer forking.Unlock()
	return tree.Copy()
}

// grouped is a tree of small trees: the members of each group by their ID. Small trees keep what a change has to look at
// and to copy small and close together; one tree of a million keys costs a change ten times as much in cache misses.
type grouped[V any] struct {
	groups lazy[*btree.Map[string, group[V]]]
	maker  *byte // tells who may write to a group
}

// group is what is in one group. It is written to by its maker alone, and copied by others.
type group[V any] struct {
	members *btree.Map[string, V]
	maker   *byte
}

func newGrouped[V any]() grouped[V] {
	return grouped[V]{lazy[*btree.Map[string, group[V]]]{tree: new(btree.Map[string, group[V]])}, new(byte)}
}

func (g grouped[V]) shared() grouped[V] { return grouped[V]{g.groups.shared(), nil} }

// edit is the group to write to.
func (g *grouped[V]) edit(key string) *btree.Map[string, V] {
	if g.maker == nil {
		g.maker = new(byte)
	}
	in, ok := g.groups.tree.Get(key)
	switch {
	case !ok:
		in = group[V]{new(btree.Map[string, V]), g.maker}
	case in.maker == g.maker:
		return in.members
	default:
		in = group[V]{fork(in.members), g.maker}
	}
	g.groups.edit().Set(key, in)
	return in.members
}

func (g *grouped[V]) set(key, id string, v V) { g.edit(key).Set(id, v) }

func (g *grouped[V]) remove(key, id string) {
	members := g.edit(key)
	members.Delete(id)
	if members.Len() == 0 {
		g.groups.edit().Delete(key)
	}
}

// members yields a group in the order of IDs.
func (g grouped[V]) members(key string) iter.Seq[V] {
	return func(yield func(V) bool) {
		if in, ok := g.groups.tree.Get(key); ok {
			in.members.Scan(func(_ string, v V) bool { return yield(v) })
		}
	}
}

// keys yields the keys of the groups in order.
func (g grouped[V]) keys() iter.Seq[string] {
	return func(yield func(string) bool) {
		g.groups.tree.Scan(func(key string, _ group[V]) bool { return yield(key) })
	}
}
