package store_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// TestPeerIndexes compares what the indexes of services and nodes say with what the objects say, after random changes.
func TestPeerIndexes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := store.NewSnapshot()
		for i := range rapid.IntRange(1, 30).Draw(t, "commits") {
			var err error
			if s, _, err = s.With(int64(i+2), []store.Op{drawPeer(t), drawPeer(t)}); err != nil {
				t.Fatal(err)
			}
			want, got := map[string][]string{}, map[string][]string{}
			for service := range store.All(s, v1.Services) {
				for _, ref := range store.NetworkRefs(service) {
					want["services "+ref] = append(want["services "+ref], service.Meta.ID)
				}
				if v1.Global(service) {
					want["global"] = append(want["global"], service.Meta.ID)
				}
				if store.PublishesIngress(service) {
					want["ingress"] = append(want["ingress"], service.Meta.ID)
				}
			}
			for node := range store.All(s, v1.Nodes) {
				if at := v1.DataAddress(node); at != "" {
					want["at "+at] = append(want["at "+at], node.Meta.ID)
				}
			}
			for _, at := range []string{"10.0.0.1", "10.0.0.2"} {
				for node := range s.NodesAt(at) {
					got["at "+at] = append(got["at "+at], node.Meta.ID)
				}
			}
			for _, n := range []string{"n1", "n2", "n3"} {
				for service := range s.ServicesReferring(n) {
					got["services "+n] = append(got["services "+n], service.Meta.ID)
				}
			}
			for service := range s.GlobalServices() {
				got["global"] = append(got["global"], service.Meta.ID)
			}
			for service := range s.IngressServices() {
				got["ingress"] = append(got["ingress"], service.Meta.ID)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("-objects +indexes:\n%s", diff)
			}
		}
	})
}

func drawPeer(t *rapid.T) store.Op {
	op := store.Op{ID: rapid.SampledFrom([]string{"1", "2", "3"}).Draw(t, "id"), If: store.Always()}
	networks := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"n1", "n2", "n3"}), 0, 3, rapid.ID[string]).Draw(t, "networks")
	var addresses []v1.NetworkAddress
	for _, n := range networks {
		addresses = append(addresses, v1.NetworkAddress{Network: n})
	}
	gone := rapid.IntRange(0, 4).Draw(t, "gone") == 0
	switch rapid.IntRange(0, 2).Draw(t, "what") {
	case 2:
		op.Kind = v1.KindNode
		if !gone {
			op.Section, op.Value = v1.SectionStatus, &v1.NodeStatus{Addr: rapid.SampledFrom([]string{"", "10.0.0.1", "10.0.0.2"}).Draw(t, "addr")}
		}
	case 0:
		op.Kind, op.Section, op.Value = v1.KindService, v1.SectionDesired, &v1.ServiceDesired{VIPs: addresses}
	default:
		op.Kind = v1.KindService
		if !gone {
			spec := &v1.ServiceSpec{Mode: rapid.SampledFrom([]v1.ServiceMode{v1.ModeReplicated, v1.ModeGlobal, v1.ModeGlobalJob}).Draw(t, "tasks")}
			for _, n := range slices.Backward(networks) {
				spec.Task.Networks = append(spec.Task.Networks, v1.NetworkAttachment{Target: n})
			}
			if mode := rapid.SampledFrom([]v1.PublishMode{"none", "", v1.PublishHost, v1.PublishIngress}).Draw(t, "mode"); mode != "none" {
				spec.Endpoint = &v1.EndpointSpec{Ports: []v1.PortConfig{{Target: 80, Mode: mode}}}
			}
			op.Value, op.Meta = spec, &v1.Meta{Name: "web"}
		}
	}
	return op
}
