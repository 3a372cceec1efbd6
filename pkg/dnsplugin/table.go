package dnsplugin

import (
	"iter"

	"github.com/tidwall/btree"
)

// Table holds values by string. Its Clone takes no time, whatever is in it: the two share what they have until one of them is changed, which
// copies a few pages of it. So one name of ten thousand costs what it costs among ten. The zero value, and nil, hold nothing. Several may
// read at a time; only one who writes must be alone with the Table, and not with its clones.
type Table[V any] struct{ tree btree.Map[string, V] }

// TableOf is a Table of what a map holds.
func TableOf[V any](m map[string]V) *Table[V] {
	t := new(Table[V])
	for key, v := range m {
		t.Set(key, v)
	}
	return t
}

// Get is the value of a key, and whether it is there.
func (t *Table[V]) Get(key string) (v V, ok bool) {
	if t == nil {
		return v, false
	}
	return t.tree.Get(key)
}

// Set puts a value in the place of the one that the key had, if any.
func (t *Table[V]) Set(key string, v V) { t.tree.Set(key, v) }

// Delete removes a key, if it is there.
func (t *Table[V]) Delete(key string) { t.tree.Delete(key) }

// Clone is a Table with the same in it, and a life of its own.
func (t *Table[V]) Clone() *Table[V] { return &Table[V]{*t.tree.Copy()} }

// All yields keys and values in the order of the keys.
func (t *Table[V]) All() iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		if t != nil {
			t.tree.Scan(yield)
		}
	}
}
