package network

import (
	"fmt"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// holding is a snapshot in which tasks hold addresses of network n.
func holding(tb rapid.TB, addresses ...netip.Addr) *store.Snapshot {
	tb.Helper()
	var ops []store.Op
	for i, a := range addresses {
		ops = append(ops, store.Op{Kind: v1.KindTask, ID: fmt.Sprint("t", i), Section: v1.SectionDesired, Value: &v1.TaskDesired{
			Networks: []v1.NetworkAddress{{Network: "n", Addresses: []string{netip.PrefixFrom(a, a.BitLen()).String()}}}}})
	}
	s, _, err := store.NewSnapshot().With(2, ops)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func TestSpanGivesAllThereIs(t *testing.T) {
	for _, test := range []struct {
		spec        v1.SubnetSpec
		first, last string
		count       int
	}{
		{v1.SubnetSpec{Subnet: "10.0.0.0/30", Gateway: "10.0.0.1"}, "10.0.0.2", "10.0.0.2", 1},
		{v1.SubnetSpec{Subnet: "10.0.0.0/30", Gateway: "10.0.0.2"}, "10.0.0.1", "10.0.0.1", 1},
		{v1.SubnetSpec{Subnet: "10.0.0.0/24", Gateway: "10.0.0.1"}, "10.0.0.2", "10.0.0.254", 253},
		{v1.SubnetSpec{Subnet: "10.0.0.0/24", Gateway: "10.0.0.254"}, "10.0.0.1", "10.0.0.253", 253},
		{v1.SubnetSpec{Subnet: "10.0.0.0/24", Gateway: "10.0.0.77"}, "10.0.0.1", "10.0.0.254", 253},
		{v1.SubnetSpec{Subnet: "255.255.255.0/24", Gateway: "255.255.255.1"}, "255.255.255.2", "255.255.255.254", 253},
		{v1.SubnetSpec{Subnet: "10.0.0.0/24", Gateway: "10.0.0.1", IPRange: "10.0.0.128/28"}, "10.0.0.128", "10.0.0.143", 16},
		{v1.SubnetSpec{Subnet: "10.0.0.0/24", Gateway: "10.0.0.1", IPRange: "10.0.0.0/28"}, "10.0.0.2", "10.0.0.15", 14},
		{v1.SubnetSpec{Subnet: "10.0.0.0/24", Gateway: "10.0.0.1", IPRange: "10.0.0.240/28"}, "10.0.0.240", "10.0.0.254", 15},
		{v1.SubnetSpec{Subnet: "10.0.0.0/24", Gateway: "10.0.0.1", IPRange: "10.0.0.9/32"}, "10.0.0.9", "10.0.0.9", 1},
		{v1.SubnetSpec{Subnet: "10.0.0.0/24", Gateway: "10.0.0.9", IPRange: "10.0.0.9/32"}, "", "", 0},
		{v1.SubnetSpec{Subnet: "10.0.0.0/24", Gateway: "10.0.0.1", IPRange: "10.0.0.0/32"}, "", "", 0},
		{v1.SubnetSpec{Subnet: "fd00::/120", Gateway: "fd00::1"}, "fd00::2", "fd00::ff", 254},
		{v1.SubnetSpec{Subnet: "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00/120", Gateway: "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff01"},
			"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff02", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 254},
	} {
		r := newSpan(store.NewSnapshot(), "n", test.spec)
		given := make(map[netip.Addr]bool)
		var first, last netip.Addr
		for i := 0; ; i++ {
			a, ok := r.give(fmt.Sprint(i))
			if !ok {
				break
			}
			if given[a] || !r.usable(a) {
				t.Fatalf("%+v: %s is given twice, or not usable", test.spec, a)
			}
			given[a] = true
			if !first.IsValid() || a.Less(first) {
				first = a
			}
			if last.Less(a) {
				last = a
			}
		}
		want := func(text string) netip.Addr { a, _ := netip.ParseAddr(text); return a }
		if len(given) != test.count || first != want(test.first) || last != want(test.last) {
			t.Errorf("%+v: %d from %s to %s, want %d from %s to %s", test.spec, len(given), first, last, test.count, test.first, test.last)
		}
	}
}

// TestExhaustedNamesTheRange: what has no free address is the part of the subnet that addresses are given from.
func TestExhaustedNamesTheRange(t *testing.T) {
	for want, spec := range map[string]v1.SubnetSpec{
		"network back has no free address (10.0.0.0/30: all 1 are in use)":   {Subnet: "10.0.0.0/30", Gateway: "10.0.0.1"},
		"network back has no free address (10.0.0.128/30: all 4 are in use)": {Subnet: "10.0.0.0/24", Gateway: "10.0.0.1", IPRange: "10.0.0.128/30"},
		"network back has no free address (fd00::7:0/127: all 2 are in use)": {Subnet: "fd00::/64", Gateway: "fd00::1", IPRange: "fd00::7:0/127"},
		"network back has no free address (10.0.0.0/30: all 2 are in use)":   {Subnet: "10.0.0.0/24", Gateway: "10.0.0.1", IPRange: "10.0.0.0/30"},
	} {
		p := &pool{name: "back", ranges: []*span{newSpan(store.NewSnapshot(), "n", spec)}}
		for i := 0; !p.ranges[0].full; i++ {
			p.ranges[0].give(fmt.Sprint(i))
		}
		if text := p.exhausted(); text != want {
			t.Errorf("%+v: %s, want %s", spec, text, want)
		}
	}
}

func TestLargeSpans(t *testing.T) {
	for _, spec := range []v1.SubnetSpec{
		{Subnet: "fd00::/64", Gateway: "fd00::1"}, {Subnet: "fd00::/8", Gateway: "fd00::1"},
		{Subnet: "fd00::/48", Gateway: "fd00::1", IPRange: "fd00:0:0:7::/64"}, {Subnet: "fd00::/48", Gateway: "fd00::1", IPRange: "fd00:0:0:8::/61"},
		{Subnet: "10.0.0.0/8", Gateway: "10.0.0.1"}, {Subnet: "0.0.0.0/0", Gateway: "10.0.0.1"},
	} {
		r := newSpan(store.NewSnapshot(), "n", spec)
		given := make(map[netip.Addr]bool)
		for i := range 2000 {
			a, ok := r.give(fmt.Sprint(i))
			if !ok || given[a] || !r.usable(a) {
				t.Fatalf("%+v: %s is given twice, or not usable (%v)", spec, a, ok)
			}
			given[a] = true
		}
	}
}

// TestSpanAgrees: whatever is held, the same holder gets the same address, none that is held, and one as long as there is one; so it is
// when what is decided so far and what is stored hold different ones.
func TestSpanAgrees(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		spec := v1.SubnetSpec{Subnet: "10.0.0.0/28", Gateway: "10.0.0.1"}
		draw := func(label string) (list []netip.Addr) {
			for _, n := range rapid.SliceOfNDistinct(rapid.ByteRange(0, 15), 0, 16, rapid.ID[byte]).Draw(t, label) {
				list = append(list, netip.AddrFrom4([4]byte{10, 0, 0, n}))
			}
			return list
		}
		stored, more := draw("stored"), draw("decided")
		s := holding(t, stored...)
		gone := rapid.IntRange(0, len(stored)).Draw(t, "given up")
		var ops []store.Op
		for i := range gone {
			ops = append(ops, store.Op{Kind: v1.KindTask, ID: fmt.Sprint("t", i), Section: v1.SectionDesired})
		}
		for i, a := range more {
			ops = append(ops, store.Op{Kind: v1.KindTask, ID: fmt.Sprint("m", i), Section: v1.SectionDesired, Value: &v1.TaskDesired{
				Networks: []v1.NetworkAddress{{Network: "n", Addresses: []string{netip.PrefixFrom(a, 28).String()}}}}})
		}
		over, err := s.Over(ops)
		if err != nil {
			t.Fatal(err)
		}
		held := make(map[netip.Addr]bool)
		for _, a := range append(stored, more...) {
			held[a] = true
		}
		free := 0
		for n := byte(2); n < 15; n++ {
			if !held[netip.AddrFrom4([4]byte{10, 0, 0, n})] {
				free++
			}
		}
		one, two := newSpan(over, "n", spec), newSpan(over, "n", spec)
		for i := range 20 {
			a, ok := one.give(fmt.Sprint(i))
			if b, also := two.give(fmt.Sprint(i)); a != b || ok != also {
				t.Fatalf("%s, and then %s", a, b)
			}
			if ok != (i < free) || ok && (held[a] || !one.usable(a)) {
				t.Fatalf("the %d. of %d is %s (%v)", i+1, free, a, ok)
			}
			held[a] = true
		}
	})
}

func TestCutBesideWhatIsThere(t *testing.T) {
	for _, test := range []struct {
		pools, there []string
		size         int
		want         string
	}{
		{[]string{"10.0.0.0/8"}, nil, 24, "10.0.0.0/24"},
		{[]string{"10.0.0.0/8"}, []string{"10.0.0.0/24", "10.0.1.0/24"}, 24, "10.0.2.0/24"},
		{[]string{"10.0.0.0/8"}, []string{"10.0.0.128/25"}, 24, "10.0.1.0/24"},
		{[]string{"10.0.0.0/8"}, []string{"10.0.0.0/15", "10.0.0.4/30", "10.2.0.0/24"}, 24, "10.2.1.0/24"},
		{[]string{"10.0.0.0/8"}, []string{"0.0.0.0/0"}, 24, "invalid Prefix"},
		{[]string{"10.0.0.0/23"}, []string{"10.0.0.0/24", "10.0.1.128/32"}, 24, "invalid Prefix"},
		{[]string{"10.0.0.0/24", "10.9.0.0/24"}, []string{"10.0.0.0/24", "fd00::/8"}, 24, "10.9.0.0/24"},
		{[]string{"255.255.255.0/24"}, []string{"255.255.255.0/25"}, 25, "255.255.255.128/25"},
		{[]string{"255.255.255.0/24"}, []string{"255.255.255.128/25", "255.255.255.0/25"}, 25, "invalid Prefix"},
		{[]string{"100.0.0.0/8"}, []string{"100.0.0.0/10"}, 16, "100.128.0.0/16"},
	} {
		var ops []store.Op
		for i, subnet := range test.there {
			id := fmt.Sprint("n", i)
			ops = append(ops, store.Op{Kind: v1.KindNetwork, ID: id, Value: &v1.NetworkSpec{}},
				store.Op{Kind: v1.KindNetwork, ID: id, Section: v1.SectionDesired, Value: &v1.NetworkDesired{Subnets: []v1.SubnetSpec{{Subnet: subnet}}}})
		}
		s, _, err := store.NewSnapshot().With(2, ops)
		if err != nil {
			t.Fatal(err)
		}
		is := settings{size: test.size, gateway: netip.MustParsePrefix(v1.DefaultGatewayPool)}
		for _, p := range test.pools {
			is.pools = append(is.pools, netip.MustParsePrefix(p))
		}
		if got := cut(s, is).String(); got != test.want {
			t.Errorf("/%d of %v beside %v: %s, want %s", test.size, test.pools, test.there, got, test.want)
		}
	}
}
