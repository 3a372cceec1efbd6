package apiserver_test

import (
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/pkg/store"
)

// network creates a network that is in order.
func (f *fixture) network(name string, subnets ...string) *v1.Network {
	f.Helper()
	n := &v1.Network{Meta: v1.Meta{Name: name}, Spec: &v1.NetworkSpec{}}
	for _, s := range subnets {
		n.Spec.Subnets = append(n.Spec.Subnets, v1.SubnetSpec{Subnet: s})
	}
	made, _, err := client.Create(f.ctx, f.client, v1.Networks, n)
	if err != nil {
		f.Fatalf("create network %s: %v", name, err)
	}
	return made
}

// on is a service on networks.
func on(name string, networks ...string) *v1.Service {
	s := web(name)
	for _, n := range networks {
		s.Spec.Task.Networks = append(s.Spec.Task.Networks, v1.NetworkAttachment{Target: n})
	}
	return s
}

// TestNamesInDNS: of two names that differ in upper and lower case alone, one is there, however they are asked for; other kinds may have both.
func TestNamesInDNS(t *testing.T) {
	f := serve(t)
	f.network("red")
	_, _, err := client.Create(f.ctx, f.client, v1.Networks, &v1.Network{Meta: v1.Meta{Name: "Red"}, Spec: &v1.NetworkSpec{}})
	want := "network red already exists, and DNS cannot tell Red from it: want a name that differs by more than upper and lower case"
	if problem, ok := errors.AsType[*v1.Problem](err); !ok || problem.Status != http.StatusConflict || !strings.Contains(problem.Detail, want) {
		t.Errorf("network Red beside red: %v", err)
	}
	var made atomic.Int32
	var group sync.WaitGroup
	for _, name := range []string{"web", "Web", "wEb", "weB", "WEB"} {
		group.Go(func() {
			if _, _, err := client.Create(f.ctx, f.client, v1.Services, web(name)); err == nil {
				made.Add(1)
			}
		})
	}
	group.Wait()
	if made.Load() != 1 {
		t.Errorf("%d services of one name in DNS", made.Load())
	}
	for _, name := range []string{"a", "A"} {
		if _, _, err := client.Create(f.ctx, f.client, v1.Configs, &v1.Config{Meta: v1.Meta{Name: name}, Spec: &v1.ConfigSpec{Data: []byte("x")}}); err != nil {
			t.Errorf("config %s: %v", name, err)
		}
	}
	if err := client.Delete(f.ctx, f.client, v1.Networks, "red"); err != nil {
		t.Fatal(err)
	}
	f.network("RED") // the name is free
}

func TestNetworks(t *testing.T) {
	f := serve(t)
	made := f.network("front", "10.1.0.0/24")
	if len(made.Meta.ID) != v1.IDLength || made.Spec.Driver != "overlay" || made.Meta.Generation != 1 {
		t.Errorf("a new network: %+v %+v", made.Meta, made.Spec)
	}
	if claim, ok := store.Get(f.snapshot(), v1.Claims, "Network/front"); !ok || claim.Spec.Holder != made.Meta.ID {
		t.Errorf("the name is not claimed: %+v", claim)
	}
	_, _, err := client.Create(f.ctx, f.client, v1.Networks, &v1.Network{Meta: v1.Meta{Name: "front"}})
	f.refused(err, http.StatusConflict, "network with name front already exists")
	f.network("back", "10.1.0.0/24") // networks are apart, also with the same subnet

	labelled := *made
	labelled.Meta.Labels = map[string]string{"team": "a"}
	got, _, err := client.Update(f.ctx, f.client, v1.Networks, &labelled)
	if err != nil || got.Meta.Labels["team"] != "a" || got.Meta.Generation != 1 {
		t.Errorf("labels: %+v, %v", got, err)
	}
	_, _, err = client.Update(f.ctx, f.client, v1.Networks, made)
	f.refused(err, http.StatusConflict, "update out of sequence")
	for name, change := range map[string]func(*v1.NetworkSpec){
		"attachable": func(s *v1.NetworkSpec) { s.Attachable = true },
		"ipv6":       func(s *v1.NetworkSpec) { s.IPv6 = true },
		"subnet":     func(s *v1.NetworkSpec) { s.Subnets = nil },
		"options":    func(s *v1.NetworkSpec) { s.Options = map[string]string{v1.OptionMTU: "1400"} },
	} {
		changed, spec := *got, *got.Spec
		change(&spec)
		changed.Spec = &spec
		_, _, err = client.Update(f.ctx, f.client, v1.Networks, &changed)
		f.refused(err, http.StatusBadRequest, "only updates to Labels are allowed", "network front never changes", "create it again")
		if t.Failed() {
			t.Fatalf("changed: %s", name)
		}
	}
	renamed := *got
	renamed.Meta.Name = "other"
	_, _, err = client.Update(f.ctx, f.client, v1.Networks, &renamed)
	f.refused(err, http.StatusNotImplemented, "renaming networks is not supported")

	if err := client.Delete(f.ctx, f.client, v1.Networks, "front"); err != nil {
		t.Fatal(err)
	}
	if _, ok := store.Get(f.snapshot(), v1.Networks, made.Meta.ID); ok {
		t.Error("a network that nobody uses is still there")
	}
	f.refused(client.Delete(f.ctx, f.client, v1.Networks, "front"), http.StatusNotFound, "network front not found")
	if again := f.network("front"); again.Meta.ID == made.Meta.ID {
		t.Error("a new network has the ID of an old one")
	}
}

func TestNetworksRefused(t *testing.T) {
	f := serve(t)
	for _, c := range []struct{ name, spec, want string }{
		{"host", "{}", "operation is not permitted on predefined host network"},
		{"ingress", "{}", "operation is not permitted on predefined ingress network"},
		{"a", `{"ingress":true}`, "swarmctl swarm init --gateway-pool"},
		{"a", `{"driver":"bridge"}`, "want overlay"},
		{"a", `{"subnets":[{"subnet":"10.1.0.0/33"}]}`, "spec.subnets[0].subnet"},
		{"a", `{"ipv6":true,"subnets":[{"subnet":"fd00::/64"},{"subnet":"100.64.7.0/24"}]}`, "spec.subnets[1].subnet: 100.64.7.0/24 overlaps 100.64.0.0/10"},
		{"a", `{"subnets":[{"subnet":"0.0.0.0/1"}]}`, "has addresses that are not for hosts"},
		{"a", `{"options":{"mtu":"1400"}}`, "unknown option: want encrypted"},
	} {
		got := f.do("POST", "/v1/networks", `{"apiVersion":"swarm/v1","kind":"Network","metadata":{"name":"`+c.name+`"},"spec":`+c.spec+`}`)
		said := strings.NewReplacer(`"},{"field":"`, "", `"field":"`, "", `","message":"`, ": ").Replace(got.body)
		if got.code != http.StatusBadRequest && got.code != http.StatusUnprocessableEntity || !strings.Contains(said, c.want) {
			t.Errorf("%s %s: %d %s, want %q", c.name, c.spec, got.code, said, c.want)
		}
	}
	if n := f.snapshot().Count(v1.KindNetwork); n != 0 {
		t.Errorf("%d networks are there", n)
	}
}

func TestAttachments(t *testing.T) {
	f := serve(t)
	front, back := f.network("front"), f.network("back")
	f.create(on("web", "front", back.Meta.ID))
	for _, c := range []struct {
		networks []string
		want     string
	}{
		{[]string{"none-such"}, "network none-such not found"},
		{[]string{front.Meta.ID[:8]}, "not found"}, // a beginning may mean another one tomorrow
		{[]string{"front", front.Meta.ID}, "attached to network front twice"},
		{[]string{"front", "front"}, "is given twice"},
		{[]string{"ingress"}, "publish a port instead"},
		{[]string{"host"}, "publish it in mode host"},
		{[]string{"bridge"}, "every task has a way out without it"},
	} {
		_, _, err := client.Create(f.ctx, f.client, v1.Services, on("other", c.networks...))
		f.refused(err, http.StatusBadRequest, c.want)
		changed := on("web", c.networks...)
		_, _, err = client.Update(f.ctx, f.client, v1.Services, changed)
		f.refused(err, http.StatusBadRequest, c.want)
	}
	f.network("red", "10.9.0.0/24")
	f.network("blue", "10.9.0.128/25")
	_, _, err := client.Create(f.ctx, f.client, v1.Services, on("both", "red", "blue"))
	f.refused(err, http.StatusBadRequest, "networks red (10.9.0.0/24) and blue (10.9.0.128/25) have addresses in common")
	mesh := on("mesh", "front")
	mesh.Spec.Endpoint = port(8080, v1.PublishIngress)
	mesh.Spec.Endpoint.Mode = v1.EndpointDNSRR
	_, _, err = client.Create(f.ctx, f.client, v1.Services, mesh)
	f.refused(err, http.StatusBadRequest, "ingress needs endpoint mode vip")
	mesh.Spec.Endpoint.Ports[0].Mode = v1.PublishHost
	f.create(mesh)
}

// TestNetworkInUse: a network stays while a service's spec, or a task that has not ended, uses it.
func TestNetworkInUse(t *testing.T) {
	f := serve(t)
	n := f.network("front")
	made := f.create(on("web", "front"))
	f.refused(client.Delete(f.ctx, f.client, v1.Networks, "front"), http.StatusBadRequest, "network front is in use by service web")

	// The service lets go of it; a task of the revision before still runs.
	f.commit(nodeOp("node1", 1), taskOp("t1", made.Meta.ID, "node1", v1.RevisionID(made), 1))
	status := func(state v1.TaskState) store.Op {
		return store.Op{Kind: v1.KindTask, ID: "t1", Section: v1.SectionStatus, If: store.Always(), Value: &v1.TaskStatus{State: state}}
	}
	f.commit(status(v1.TaskRunning))
	if _, _, err := client.Update(f.ctx, f.client, v1.Services, on("web")); err != nil {
		t.Fatal(err)
	}
	f.refused(client.Delete(f.ctx, f.client, v1.Networks, n.Meta.ID), http.StatusBadRequest, "network front is in use by task t1")
	if got := f.do("DELETE", "/v1/networks/front?dryRun=true", ""); got.code != http.StatusBadRequest {
		t.Errorf("dry run: %d %s", got.code, got.body)
	}

	// So it does when the service is removed.
	if err := client.Delete(f.ctx, f.client, v1.Services, "web"); err != nil {
		t.Fatal(err)
	}
	f.refused(client.Delete(f.ctx, f.client, v1.Networks, "front"), http.StatusBadRequest, "is in use by task t1")
	f.commit(status(v1.TaskShutdown))
	if err := client.Delete(f.ctx, f.client, v1.Networks, "front"); err != nil {
		t.Error(err)
	}
}

// TestNetworkRemovedWhileAttached: of one who removes a network and one who makes a service on it, one is refused.
func TestNetworkRemovedWhileAttached(t *testing.T) {
	f := serve(t)
	for range 20 {
		f.network("front")
		var both sync.WaitGroup
		var created, removed error
		both.Go(func() { _, _, created = client.Create(f.ctx, f.client, v1.Services, on("web", "front")) })
		both.Go(func() { removed = client.Delete(f.ctx, f.client, v1.Networks, "front") })
		both.Wait()
		if (created == nil) == (removed == nil) {
			t.Fatalf("created: %v, removed: %v", created, removed)
		}
		if created == nil {
			if err := client.Delete(f.ctx, f.client, v1.Services, "web"); err != nil {
				t.Fatal(err)
			}
			if err := client.Delete(f.ctx, f.client, v1.Networks, "front"); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestNetworkFilters(t *testing.T) {
	f := serve(t)
	n := &v1.Network{Meta: v1.Meta{Name: "front", Labels: map[string]string{"tier": "a"}}, Spec: &v1.NetworkSpec{}}
	if _, _, err := client.Create(f.ctx, f.client, v1.Networks, n); err != nil {
		t.Fatal(err)
	}
	back := f.network("back")
	f.create(on("web", "front"))
	for _, c := range []struct{ filter, want string }{
		{"name=fro", "front"}, {"name=ron", "front"}, {"name=x", ""}, {"id=" + back.Meta.ID[3:20], "back"},
		{"dangling=true", "back"}, {"dangling=false", "front"}, {"driver=overlay", "back front"}, {"driver=bridge", ""},
		{"scope=swarm", "back front"}, {"scope=local", ""}, {"type=custom", "back front"}, {"type=builtin", ""},
		{"label=tier", "front"}, {"label=tier=b", ""},
	} {
		filter, err := v1.ParseFilters([]string{c.filter})
		if err != nil {
			t.Fatal(err)
		}
		all, err := client.List(f.ctx, f.client, v1.Networks, filter)
		if err != nil {
			t.Errorf("%s: %v", c.filter, err)
		}
		var names []string
		for _, n := range all {
			names = append(names, n.Meta.Name)
		}
		slices.Sort(names)
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("%s: %q, want %q", c.filter, got, c.want)
		}
	}
}

// A UDP port that encrypted networks have between nodes cannot be published; TCP's can, and those of other networks.
func TestPortsOfEncryptedNetworks(t *testing.T) {
	f := serve(t)
	n := f.network("vault")
	f.commit(store.Op{Kind: v1.KindNetwork, ID: n.Meta.ID, Section: v1.SectionDesired, Value: &v1.NetworkDesired{VNI: v1.FirstVNI + 3}})
	publishing := func(name string, p v1.PortConfig) error {
		s := web(name)
		s.Spec.Endpoint = &v1.EndpointSpec{Ports: []v1.PortConfig{p}}
		_, _, err := client.Create(f.ctx, f.client, v1.Services, s)
		return err
	}
	if err := publishing("plain", v1.PortConfig{Protocol: v1.UDP, Target: 53, Published: 61003, Mode: v1.PublishHost}); err != nil {
		t.Errorf("the network is not encrypted: %v", err)
	}
	sealed, _, err := client.Create(f.ctx, f.client, v1.Networks, &v1.Network{Meta: v1.Meta{Name: "sealed"}, Spec: &v1.NetworkSpec{Options: map[string]string{v1.OptionEncrypted: ""}}})
	if err != nil {
		t.Fatal(err)
	}
	f.commit(store.Op{Kind: v1.KindNetwork, ID: sealed.Meta.ID, Section: v1.SectionDesired, Value: &v1.NetworkDesired{VNI: v1.FirstVNI + 5}})
	f.refused(publishing("mesh", v1.PortConfig{Protocol: v1.UDP, Target: 53, Published: 61005}), http.StatusBadRequest, "port '61005/udp'", "encrypted network 'sealed'", "publish another")
	f.refused(publishing("host", v1.PortConfig{Protocol: v1.UDP, Target: 53, Published: 61005, Mode: v1.PublishHost}), http.StatusBadRequest, "port '61005/udp'")
	if err := publishing("tcp", v1.PortConfig{Protocol: v1.TCP, Target: 53, Published: 61005}); err != nil {
		t.Error(err)
	}
}

// TestSubnetsOfTheGateway: what every task has addresses of is no network's, in either IP version.
func TestSubnetsOfTheGateway(t *testing.T) {
	f := serve(t)
	f.commit(store.Op{Kind: v1.KindAuthority, ID: v1.AuthorityName, If: store.Absent(), Value: &v1.AuthoritySpec{ClusterID: "swarm1"}})
	prefix := v1.GatewayPrefix6("swarm1")
	for _, subnet := range []string{"100.64.7.0/24", "100.0.0.0/8", prefix.String(), netip.PrefixFrom(prefix.Addr(), 64).String(), netip.PrefixFrom(prefix.Addr(), 112).String()} {
		n := &v1.Network{Meta: v1.Meta{Name: "taken"}, Spec: &v1.NetworkSpec{IPv6: true, Subnets: []v1.SubnetSpec{{Subnet: subnet}}}}
		_, _, err := client.Create(f.ctx, f.client, v1.Networks, n)
		if problem, ok := errors.AsType[*v1.Problem](err); !ok || problem.Status != http.StatusBadRequest || !strings.Contains(err.Error(), "the pool of the gateway network") {
			t.Errorf("%s: %v", subnet, err)
		}
	}
	f.network("beside", "10.1.0.0/24")
}
