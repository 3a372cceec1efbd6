package netplugin

import (
	"errors"
	"fmt"
	"slices"
)

// errUnsaid leaves something out without a word.
var errUnsaid = errors.New("left out")

// problemsNamed bounds how many problems of one network are told one by one.
const problemsNamed = 10

// problems are reasons why something was left out.
type problems struct {
	first []error
	more  int
}

func (p *problems) add(err error) {
	if len(p.first) < problemsNamed {
		p.first = append(p.first, err)
	} else {
		p.more++
	}
}

// error tells of all, or is nil.
func (p *problems) error() error {
	if p.more > 0 {
		return errors.Join(append(slices.Clone(p.first), fmt.Errorf("and %d more of such", p.more))...)
	}
	return errors.Join(p.first...)
}

// ordered is the list in order: itself where it already is.
func ordered[T any](list []T, compare func(a, b T) int) []T {
	if slices.IsSortedFunc(list, compare) {
		return list
	}
	list = slices.Clone(list)
	slices.SortStableFunc(list, compare)
	return list
}

// sieve is the list without what is refused, which is told the one that was kept before it. It is the list itself where all of it
// is kept.
func sieve[T any](list []T, left *problems, refuse func(before *T, one T) error) []T {
	var before *T
	for i := range list {
		if err := refuse(before, list[i]); err != nil {
			return sieveRest(list, i, left, refuse)
		}
		before = &list[i]
	}
	return list
}

func sieveRest[T any](list []T, from int, left *problems, refuse func(before *T, one T) error) []T {
	kept := slices.Clone(list[:from])
	for _, one := range list[from:] {
		var before *T
		if len(kept) > 0 {
			before = &kept[len(kept)-1]
		}
		err := refuse(before, one)
		switch {
		case err == nil:
			kept = append(kept, one)
		case !errors.Is(err, errUnsaid):
			left.add(err)
		}
	}
	return kept
}

// part is where two lists differ: from an index up to one in each of the two. What they begin and end with is the same.
type part struct{ from, have, want int }

// apart finds where two lists differ.
func apart[T any](have, want []T, same func(a, b *T) bool) part {
	p := part{0, len(have), len(want)}
	for p.from < min(p.have, p.want) && same(&have[p.from], &want[p.from]) {
		p.from++
	}
	for p.from < min(p.have, p.want) && same(&have[p.have-1], &want[p.want-1]) {
		p.have--
		p.want--
	}
	return p
}

// equal is what apart is given for values that can be compared.
func equal[T comparable](a, b *T) bool { return *a == *b }

// differences calls gone and added with what is only in one of two lists in order, and changed with what is in both by its key but
// not the same.
func differences[T any](have, want []T, compare func(a, b T) int, same func(a, b T) bool, gone func(T), added func(T), changed func(old, now T)) {
	for len(have) > 0 || len(want) > 0 {
		order := 0
		switch {
		case len(have) == 0:
			order = 1
		case len(want) == 0:
			order = -1
		default:
			order = compare(have[0], want[0])
		}
		switch {
		case order < 0:
			gone(have[0])
			have = have[1:]
		case order > 0:
			added(want[0])
			want = want[1:]
		default:
			if !same(have[0], want[0]) {
				changed(have[0], want[0])
			}
			have, want = have[1:], want[1:]
		}
	}
}
