package store_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// TestNetworkIndexes does random operations, several at once, and compares what the indexes of networks say with what the objects
// say. Old snapshots never change, also where several are made from one.
func TestNetworkIndexes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := []*store.Snapshot{store.NewSnapshot()}
		said := []map[string][]string{networkIndexes(all[0])}
		for i := range rapid.IntRange(1, 25).Draw(t, "commits") {
			base := all[len(all)-1]
			if rapid.IntRange(0, 9).Draw(t, "branch") == 0 {
				base = rapid.SampledFrom(all).Draw(t, "base")
			}
			ops := make([]store.Op, rapid.IntRange(1, 6).Draw(t, "ops"))
			for j := range ops {
				ops[j] = drawNetworkOp(t)
			}
			next, _, err := base.With(int64(i+2), ops)
			if err != nil {
				t.Fatal(err)
			}
			got := networkIndexes(next)
			if diff := cmp.Diff(networkObjects(next), got); diff != "" {
				t.Fatalf("-objects +indexes:\n%s", diff)
			}
			all, said = append(all, next), append(said, got)
		}
		for i, s := range all {
			if diff := cmp.Diff(said[i], networkIndexes(s)); diff != "" {
				t.Fatalf("snapshot %d changed:\n%s", i, diff)
			}
		}
	})
}

var (
	fewNetworks  = []string{"n", "n\x01", "na"}
	fewAddresses = []string{"10.0.0.2/24", "10.0.0.3/24", "10.0.0.4/24", "255.255.255.255/24", "fd00::2/64", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/64", "none"}
	fewPorts     = []uint16{0, 80, 81, 30000, 65535}
	fewSubnets   = []string{"10.0.0.0/24", "10.0.0.0/25", "10.0.1.0/24", "fd00::/64", "none"}
)

func drawAddresses(t *rapid.T) []v1.NetworkAddress {
	var on []v1.NetworkAddress
	for range rapid.IntRange(0, 3).Draw(t, "networks") {
		on = append(on, v1.NetworkAddress{Network: rapid.SampledFrom(fewNetworks).Draw(t, "network"),
			Addresses: rapid.SliceOfN(rapid.SampledFrom(fewAddresses), 0, 2).Draw(t, "addresses")})
	}
	return on
}

func drawNetworkOp(t *rapid.T) store.Op {
	op := store.Op{ID: rapid.SampledFrom([]string{"1", "2", "3"}).Draw(t, "id")}
	gone := rapid.IntRange(0, 4).Draw(t, "gone") == 0
	switch rapid.IntRange(0, 5).Draw(t, "what") {
	case 0:
		if op.Kind = v1.KindTask; !gone {
			op.Value = &v1.TaskDesired{Service: "s", State: drawState(t), Networks: drawAddresses(t)}
		}
		op.Section = v1.SectionDesired
	case 1:
		op.Kind, op.Section, op.Value = v1.KindTask, v1.SectionStatus, &v1.TaskStatus{State: drawState(t)}
	case 2:
		if op.Kind = v1.KindService; !gone {
			spec := &v1.ServiceSpec{Endpoint: &v1.EndpointSpec{}}
			for range rapid.IntRange(0, 2).Draw(t, "ports") {
				spec.Endpoint.Ports = append(spec.Endpoint.Ports, drawPort(t))
			}
			op.Value = spec
		}
	case 3:
		if op.Kind, op.Section = v1.KindService, v1.SectionDesired; !gone {
			op.Value = &v1.ServiceDesired{VIPs: drawAddresses(t), Ports: []v1.PortConfig{drawPort(t)}}
		}
	case 4:
		if op.Kind = v1.KindNetwork; !gone {
			op.Value = &v1.NetworkSpec{}
		}
	default:
		if op.Kind, op.Section = v1.KindNetwork, v1.SectionDesired; !gone {
			d := &v1.NetworkDesired{VNI: rapid.Uint32Range(0, 4).Draw(t, "vni")}
			for _, text := range rapid.SliceOfNDistinct(rapid.SampledFrom(fewSubnets), 0, 2, rapid.ID[string]).Draw(t, "subnets") {
				d.Subnets = append(d.Subnets, v1.SubnetSpec{Subnet: text})
			}
			op.Value = d
		}
	}
	return op
}

func drawPort(t *rapid.T) v1.PortConfig {
	return v1.PortConfig{Target: 80, Published: rapid.SampledFrom(fewPorts).Draw(t, "port"),
		Protocol: rapid.SampledFrom([]v1.Protocol{"", v1.TCP, v1.UDP}).Draw(t, "protocol")}
}

// note adds a line under a heading, once.
func note(m map[string][]string, heading, format string, args ...any) {
	if line := fmt.Sprintf(format, args...); !slices.Contains(m[heading], line) {
		m[heading] = append(m[heading], line)
	}
}

// networkObjects looks at the objects alone.
func networkObjects(s *store.Snapshot) map[string][]string {
	m := make(map[string][]string)
	holders := make(map[string]int)
	hold := func(network, text, holder string) {
		p, err := netip.ParsePrefix(text)
		if err != nil || slices.Contains(m["holders of "+network+" "+p.Addr().String()], holder) {
			return
		}
		note(m, "holders of "+network+" "+p.Addr().String(), "%s", holder)
		note(m, fmt.Sprint("taken of ", network, p.Addr().Is6()), "%s %s", p.Addr(), holder)
		if holders[network+p.Addr().String()]++; holders[network+p.Addr().String()] == 2 {
			note(m, "contested", "%s %s", network, p.Addr())
		}
	}
	for o := range store.All(s, v1.Services) {
		if o.Desired != nil {
			for _, on := range o.Desired.VIPs {
				note(m, "services of "+on.Network, "%s", show(nil, o))
				if len(on.Addresses) == 0 {
					note(m, "without VIP on "+on.Network, "%s", o.Meta.ID)
				}
				for _, text := range on.Addresses {
					hold(on.Network, text, "Service/"+o.Meta.ID)
				}
			}
		}
		for _, p := range v1.PublishedPorts(o) {
			if p.Published != 0 {
				protocol := p.Protocol
				if protocol == "" {
					protocol = v1.TCP
				}
				note(m, fmt.Sprint("publish ", protocol, p.Published), "%s", show(nil, o))
			}
		}
	}
	for task := range store.All(s, v1.Tasks) {
		if v1.Observed(task).Terminal() {
			continue
		}
		for _, on := range task.Desired.Networks {
			note(m, "tasks of "+on.Network, "%s", show(nil, task))
			for _, text := range on.Addresses {
				hold(on.Network, text, "Task/"+task.Meta.ID)
			}
		}
	}
	for n := range store.All(s, v1.Networks) {
		if n.Desired == nil {
			continue
		}
		if n.Desired.VNI != 0 {
			note(m, fmt.Sprint("VNI ", n.Desired.VNI), "%s", n.Meta.ID)
		}
		for _, sub := range n.Desired.Subnets {
			if p, err := netip.ParsePrefix(sub.Subnet); err == nil {
				note(m, "subnets", "%s of %s", p, n.Meta.ID)
			}
		}
	}
	for _, lines := range m {
		slices.Sort(lines)
	}
	return m
}

// networkIndexes asks the snapshot. It checks on the way what has an order, and what is the next that is free.
func networkIndexes(s *store.Snapshot) map[string][]string {
	m := make(map[string][]string)
	for _, network := range fewNetworks {
		for o := range s.ServicesOfNetwork(network) {
			note(m, "services of "+network, "%s", show(nil, o))
		}
		for o := range s.ServicesWithoutVIP(network) {
			note(m, "without VIP on "+network, "%s", o.Meta.ID)
		}
		for task := range s.TasksOfNetwork(network) {
			note(m, "tasks of "+network, "%s", show(nil, task))
		}
		count := map[bool]int{}
		for _, text := range fewAddresses[:len(fewAddresses)-1] {
			a := netip.MustParsePrefix(text).Addr()
			for h := range s.AddressHolders(network, a) {
				note(m, "holders of "+network+" "+a.String(), "%s/%s", h.Kind, h.ID)
				note(m, fmt.Sprint("taken of ", network, a.Is6()), "%s %s/%s", a, h.Kind, h.ID)
				count[a.Is6()]++
			}
			if got := len(slices.Collect(s.AddressHolders(network, a))) > 1; got != s.Contested(network, a) {
				panic(fmt.Sprintf("%s on %s has several holders (%v), and says otherwise", a, network, got))
			}
			checkNextFree(s, network, a)
		}
		for v6, n := range count {
			if got := s.AddressesTaken(network, v6); got != n {
				panic(fmt.Sprintf("%s has %d addresses taken (IPv6 %v), and says %d", network, n, v6, got))
			}
		}
	}
	for c := range s.Contests() {
		note(m, "contested", "%s %s", c.Network, c.Address)
	}
	for _, port := range fewPorts[1:] {
		for _, protocol := range []v1.Protocol{v1.TCP, v1.UDP} {
			for o := range s.ServicesPublishing(protocol, port) {
				note(m, fmt.Sprint("publish ", protocol, port), "%s", show(nil, o))
			}
		}
	}
	for vni := range uint32(5) {
		for id := range s.NetworksWithVNI(vni) {
			note(m, fmt.Sprint("VNI ", vni), "%s", id)
		}
		free := vni
		for len(slices.Collect(s.NetworksWithVNI(free))) > 0 {
			free++
		}
		if got := s.NextFreeVNI(vni); got != free {
			panic(fmt.Sprintf("the next free VNI from %d is %d, and %d is said", vni, free, got))
		}
	}
	var before netip.Addr
	for r := range s.Subnets() {
		if before.IsValid() && r.Prefix.Addr().Is4() == before.Is4() && r.Prefix.Addr().Less(before) {
			panic(r.Prefix.String() + " is out of order")
		}
		before = r.Prefix.Addr()
		note(m, "subnets", "%s of %s", r.Prefix, r.Network)
	}
	for _, lines := range m {
		slices.Sort(lines)
	}
	return m
}

func checkNextFree(s *store.Snapshot, network string, from netip.Addr) {
	want := from
	for want.IsValid() && len(slices.Collect(s.AddressHolders(network, want))) > 0 {
		want = want.Next()
	}
	if got := s.NextFreeAddress(network, from); got != want {
		panic(fmt.Sprintf("the next free address of %s from %s is %s, and %s is said", network, from, want, got))
	}
}

// TestStored: what is laid over a snapshot remembers what is stored, and what is committed does not.
func TestStored(t *testing.T) {
	stored, _, err := store.NewSnapshot().With(2, []store.Op{{Kind: v1.KindNetwork, ID: "n", Value: &v1.NetworkSpec{}}})
	if err != nil {
		t.Fatal(err)
	}
	if stored.Stored() != stored {
		t.Error("a snapshot is not what is stored")
	}
	once, err := stored.Over([]store.Op{{Kind: v1.KindNetwork, ID: "n"}})
	if err != nil {
		t.Fatal(err)
	}
	twice, err := once.Over([]store.Op{{Kind: v1.KindNetwork, ID: "m", Value: &v1.NetworkSpec{}}})
	if err != nil {
		t.Fatal(err)
	}
	if once.Stored() != stored || twice.Stored() != stored || twice.Count(v1.KindNetwork) != 1 || twice.Revision() != 4 {
		t.Errorf("laid over twice at revision %d, with %d networks, over what is %v stored", twice.Revision(), twice.Count(v1.KindNetwork), twice.Stored() == stored)
	}
	if next, _, _ := twice.With(9, nil); next.Stored() != next {
		t.Error("what is committed is not what is stored")
	}
	if _, err := stored.Over([]store.Op{{Kind: "Pod"}}); err == nil || !strings.Contains(err.Error(), "no such kind") {
		t.Errorf("got %v of a kind that is none", err)
	}
}

// BenchmarkAddresses gives a task an address on a network that has many.
func BenchmarkAddresses(b *testing.B) {
	low := netip.MustParseAddr("10.0.0.2")
	var ops []store.Op
	for i := range 100_000 {
		ops = append(ops, store.Op{Kind: v1.KindTask, ID: fmt.Sprintf("%025d", i), Section: v1.SectionDesired, Value: &v1.TaskDesired{Service: "s",
			Networks: []v1.NetworkAddress{{Network: "n", Addresses: []string{low.String() + "/8"}}}}})
		low = low.Next()
	}
	s, _, err := store.NewSnapshot().With(2, ops)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("give", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			free := s.NextFreeAddress("n", low)
			_, _, _ = s.With(3, []store.Op{{Kind: v1.KindTask, ID: "next", Section: v1.SectionDesired, Value: &v1.TaskDesired{Service: "s",
				Networks: []v1.NetworkAddress{{Network: "n", Addresses: []string{free.String() + "/8"}}}}}})
		}
	})
	b.Run("pass all", func(b *testing.B) {
		for b.Loop() {
			s.NextFreeAddress("n", netip.MustParseAddr("10.0.0.2"))
		}
	})
}
