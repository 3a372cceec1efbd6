package controllers_test

import (
	"fmt"
	"net/netip"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/controllers"
	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/store"
)

// onNetwork is a cluster whose services are on one network.
func onNetwork(tb testing.TB, subnet string, nodes, services, replicas int) *store.Snapshot {
	tb.Helper()
	s := cluster(tb, nodes, services, replicas)
	p := netip.MustParsePrefix(subnet)
	ops := []store.Op{{Kind: v1.KindNetwork, ID: "back", Value: &v1.NetworkSpec{}, Meta: &v1.Meta{Name: "back"}},
		{Kind: v1.KindNetwork, ID: "back", Section: v1.SectionDesired, Value: &v1.NetworkDesired{VNI: v1.FirstVNI,
			Subnets: []v1.SubnetSpec{{Subnet: subnet, Gateway: p.Addr().Next().String()}}}}}
	for o := range store.All(s, v1.Services) {
		spec := *o.Spec
		spec.Task.Networks = []v1.NetworkAttachment{{Target: "back"}}
		ops = append(ops, store.Op{Kind: v1.KindService, ID: o.Meta.ID, Value: &spec, Meta: &o.Meta})
	}
	return apply(tb, s, ops)
}

// TestEveryAddressIsGiven fills a network to the last address, by many services in one go: none is given twice, none is left, and who
// gets none says so.
func TestEveryAddressIsGiven(t *testing.T) {
	s := onNetwork(t, "10.0.0.0/22", 10, 30, 40)
	e := reconcile.New(store.NewMemory(), controllers.Rules(), reconcile.Options{MaxOps: 1 << 30})
	ops, _ := e.Step(epoch, s, reconcile.AllKeys(s))
	after := apply(t, s, ops)
	const all = 1<<10 - 3
	if got := after.AddressesTaken("back", false); got != all {
		t.Errorf("%d addresses are held, want %d", got, all)
	}
	for c := range after.Contests() {
		t.Errorf("%s is held twice", c.Address)
	}
	waiting := 0
	for task := range store.All(after, v1.Tasks) {
		switch {
		case v1.TaskNode(task) != "":
		case task.Desired.Pending != "network back has no free address (10.0.0.0/22: all 1021 are in use)":
			t.Fatalf("%s says %q", v1.TaskName(task.Desired), task.Desired.Pending)
		default:
			waiting++
		}
	}
	vips := 0
	for o := range after.ServicesOfNetwork("back") {
		vips += len(o.Desired.VIPs[0].Addresses)
	}
	if vips+30*40-waiting != all {
		t.Errorf("%d services and %d tasks have an address, want %d in all", vips, 30*40-waiting, all)
	}
	if ops, _ := e.Step(epoch, after, reconcile.AllKeys(after)); len(ops) != 0 {
		t.Errorf("deciding again gives %d operations, want none: %+v", len(ops), ops[0])
	}
}

// TestFreedInTheSameStep has a service that is deleted and one that waits for its addresses, decided in one go: what the first gives up
// is not given to the second before it is written.
func TestFreedInTheSameStep(t *testing.T) {
	s := onNetwork(t, "10.0.0.0/29", 1, 2, 4)
	e := reconcile.New(store.NewMemory(), controllers.Rules(), reconcile.Options{})
	keys := reconcile.AllKeys(s)
	ops, _ := e.Step(epoch, s, keys)
	s = apply(t, s, ops)
	for task := range store.All(s, v1.Tasks) { // a service of tasks that are gone is removed by one Step
		if task.Desired.Service == keys[0] {
			s = apply(t, s, []store.Op{{Kind: v1.KindTask, ID: task.Meta.ID, Section: v1.SectionDesired}})
		}
	}
	o := serviceOf(t, s, keys[0])
	meta := o.Meta
	meta.Deleting = epoch
	s = apply(t, s, []store.Op{{Kind: v1.KindService, ID: keys[0], Value: o.Spec, Meta: &meta}})
	first := s
	held := func(s *store.Snapshot) (n int) { return s.AddressesTaken("back", false) }
	if held(first) != 1 {
		t.Fatalf("%d addresses are held, want the service's", held(first))
	}
	ops, _ = e.Step(epoch, s, keys)
	s = apply(t, s, ops)
	if _, left := store.Get(s, v1.Services, keys[0]); left {
		t.Fatal("the service is still there")
	}
	for _, on := range o.Desired.VIPs {
		a := netip.MustParsePrefix(on.Addresses[0]).Addr()
		for h := range s.AddressHolders("back", a) {
			t.Errorf("%s %s was given %s, which is given up in the same go", h.Kind, h.ID, a)
		}
	}
	ops, _ = e.Step(epoch, s, keys)
	if s = apply(t, s, ops); held(s) != 5 {
		t.Errorf("%d addresses are held, want all 5", held(s))
	}
}

// TestNetworksInOneGo gives many networks what they need at once: each has a subnet and a VNI of its own.
func TestNetworksInOneGo(t *testing.T) {
	var ops []store.Op
	for _, id := range []string{"a", "b", "c", "d", "e", "f"} {
		ops = append(ops, store.Op{Kind: v1.KindNetwork, ID: id, Value: &v1.NetworkSpec{}, Meta: &v1.Meta{Name: id}})
	}
	s := apply(t, store.NewSnapshot(), ops)
	for _, p := range controllers.Pipelines() {
		if p.Name != "network" {
			continue
		}
		ops, _ := p.Engine(store.NewMemory(), reconcile.Options{}).Step(epoch, s, p.AllKeys(s))
		s = apply(t, s, ops)
	}
	var subnets []netip.Prefix
	for r := range s.Subnets() {
		for _, other := range subnets {
			if other.Overlaps(r.Prefix) {
				t.Errorf("%s overlaps %s", other, r.Prefix)
			}
		}
		subnets = append(subnets, r.Prefix)
	}
	if len(subnets) != 6 || s.NextFreeVNI(v1.FirstVNI) != v1.FirstVNI+6 {
		t.Errorf("got %d subnets, and the next free VNI is %d; want 6 of each", len(subnets), s.NextFreeVNI(v1.FirstVNI))
	}
}

// TestEncryptedNetworksHaveVNIsWithPorts: of the VNIs that an encrypted network may have, the last is given as any, and the next is not.
func TestEncryptedNetworksHaveVNIsWithPorts(t *testing.T) {
	sealed, open := &v1.NetworkSpec{Options: map[string]string{v1.OptionEncrypted: ""}}, &v1.NetworkSpec{}
	var ops []store.Op
	add := func(id string, spec *v1.NetworkSpec, vni uint32) {
		ops = append(ops, store.Op{Kind: v1.KindNetwork, ID: id, Value: spec, Meta: &v1.Meta{Name: id}})
		if vni != 0 {
			ops = append(ops, store.Op{Kind: v1.KindNetwork, ID: id, Section: v1.SectionDesired, Value: &v1.NetworkDesired{VNI: vni}})
		}
	}
	for vni := uint32(v1.FirstVNI); vni < v1.LastEncryptedVNI; vni++ {
		add(fmt.Sprintf("n%d", vni), open, vni)
	}
	add("x", sealed, v1.LastEncryptedVNI+1) // as no rule would have given it
	s := apply(t, store.NewSnapshot(), ops)
	step := func(ids ...string) {
		for _, p := range controllers.Pipelines() {
			if p.Name == "network" {
				ops, _ := p.Engine(store.NewMemory(), reconcile.Options{}).Step(epoch, s, ids)
				s = apply(t, s, ops)
			}
		}
	}
	desired := func(id string) *v1.NetworkDesired {
		n, _ := store.Get(s, v1.Networks, id)
		return n.Desired
	}
	step("x")
	if vni := desired("x").VNI; vni != v1.LastEncryptedVNI {
		t.Errorf("an encrypted network has the VNI %d, want the last one %d", vni, v1.LastEncryptedVNI)
	}
	ops = nil
	add("y", sealed, 0)
	add("z", open, 0)
	s = apply(t, s, ops)
	step("y", "z")
	const want = "every VXLAN ID from 4096 to 8631 is in use: remove networks that are not needed"
	if d := desired("y"); d.VNI != 0 || d.Problem != want {
		t.Errorf("one more has the VNI %d and the problem %q, want none and %q", d.VNI, d.Problem, want)
	}
	if vni := desired("z").VNI; vni != v1.LastEncryptedVNI+1 {
		t.Errorf("one in the clear has the VNI %d, want the next one", vni)
	}
}

// BenchmarkScaleUpOnNetwork is BenchmarkScaleUp with an address for each task: three quarters of the subnet, and then all of it.
func BenchmarkScaleUpOnNetwork(b *testing.B) {
	for _, test := range []struct {
		name, subnet string
		replicas     int
	}{{"roomy", "10.0.0.0/8", 100_000}, {"three quarters", "10.0.0.0/15", 98_000}, {"to the last", "10.0.0.0/16", 65_532}, {"half of them none", "10.0.0.0/16", 131_000}} {
		b.Run(test.name, func(b *testing.B) {
			s := onNetwork(b, test.subnet, 1000, 1, test.replicas)
			e := reconcile.New(store.NewMemory(), controllers.Rules(), reconcile.Options{})
			for b.Loop() {
				e.Step(epoch, s, []string{"service00000"})
			}
		})
	}
}

// BenchmarkOneFreed is what it costs that a task on a full network ends, which many wait for.
func BenchmarkOneFreed(b *testing.B) {
	s := onNetwork(b, "10.0.0.0/16", 1000, 1, 100_000)
	e := reconcile.New(store.NewMemory(), controllers.Rules(), reconcile.Options{})
	ops, _ := e.Step(epoch, s, []string{"service00000"})
	s = apply(b, s, ops)
	for task := range s.TasksOfNetwork("back") {
		s = apply(b, s, []store.Op{{Kind: v1.KindTask, ID: task.Meta.ID, Section: v1.SectionStatus, Value: &v1.TaskStatus{State: v1.TaskShutdown}}})
		break
	}
	for b.Loop() {
		if ops, _ := e.Step(epoch, s, []string{"service00000"}); len(ops) == 0 {
			b.Fatal("nothing was decided")
		}
	}
}
