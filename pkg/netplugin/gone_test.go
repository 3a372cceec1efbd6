package netplugin

import (
	"net/netip"
	"slices"
	"testing"
)

// TestGone: who leaves a virtual address, whichever slots others move to.
func TestGone(t *testing.T) {
	all := func(numbers ...byte) (list []netip.Addr) {
		for _, n := range numbers {
			list = append(list, netip.AddrFrom4([4]byte{10, 0, 0, n}))
		}
		return list
	}
	for _, c := range []struct{ old, now, want []netip.Addr }{
		{nil, nil, nil},
		{nil, all(1, 2), nil},
		{all(1, 2), nil, all(1, 2)},
		{all(1, 2, 3), all(1, 2, 3), nil},
		{all(1, 2, 3), all(3, 2), all(1)},
		{all(1, 2, 3), all(1, 2, 3, 4), nil},
		{all(1, 2, 3), all(4, 3, 5), all(1, 2)},
		{all(3, 2, 1), all(1, 2, 3), nil},
	} {
		got := edit{old: c.old, now: c.now}.gone()
		slices.SortFunc(got, netip.Addr.Compare)
		if !slices.Equal(got, c.want) {
			t.Errorf("of %v to %v %v are gone, want %v", c.old, c.now, got, c.want)
		}
	}
}
