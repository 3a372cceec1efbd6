package apiserver_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/apiserver"
	"github.com/swarmd/swarmd/pkg/store"
)

// networkOps make a network that is ready for use.
func networkOps(id, name string, vni uint32) []store.Op {
	return []store.Op{
		{Kind: v1.KindNetwork, ID: id, Value: &v1.NetworkSpec{Driver: "overlay"}, Meta: &v1.Meta{Name: name}, If: store.Always()},
		{Kind: v1.KindNetwork, ID: id, Section: v1.SectionDesired, If: store.Always(),
			Value: &v1.NetworkDesired{VNI: vni, Subnets: []v1.SubnetSpec{{Subnet: "10.0.1.0/24", Gateway: "10.0.1.1"}}}},
	}
}

// peerTaskOp is a task with addresses on networks.
func peerTaskOp(id, service, node string, networks ...string) store.Op {
	op := taskOp(id, service, node, "r-"+service, 1)
	d := op.Value.(*v1.TaskDesired)
	d.ServiceName = service
	for i, n := range networks {
		d.Networks = append(d.Networks, v1.NetworkAddress{Network: n, Addresses: []string{fmt.Sprintf("10.0.%d.5/24", i+1)}})
	}
	return op
}

func statusOp(id string, state v1.TaskState, gateway string) store.Op {
	return store.Op{Kind: v1.KindTask, ID: id, Section: v1.SectionStatus, If: store.Always(), Value: &v1.TaskStatus{State: state, Address: gateway}}
}

func serviceOp(id, name string, spec v1.ServiceSpec) store.Op {
	return store.Op{Kind: v1.KindService, ID: id, Value: &spec, Meta: &v1.Meta{Name: name}, If: store.Always()}
}

func onNetworks(targets ...string) (spec v1.ServiceSpec) {
	for _, target := range targets {
		spec.Task.Networks = append(spec.Task.Networks, v1.NetworkAttachment{Target: target, Aliases: []string{"alias-" + target}})
	}
	return spec
}

func publishing(ports ...v1.PortConfig) v1.ServiceSpec {
	return v1.ServiceSpec{Endpoint: &v1.EndpointSpec{Ports: ports}}
}

func (a *agent) knows(ids ...string) {
	a.Helper()
	ids = append(ids, a.name) // itself, always
	slices.Sort(ids)
	if diff := cmp.Diff(ids, slices.Sorted(maps.Keys(a.peers))); diff != "" {
		a.Errorf("%s knows (-want +got):\n%s", a.name, diff)
	}
}

// TestPeers: a node learns of its own networks and who is on them, of who publishes ports everywhere, and of nobody else.
func TestPeers(t *testing.T) {
	f := serve(t)
	f.commit(nodeOp("node1", 1), nodeOp("node2", 2), nodeOp("node3", 3), addrOp("node1", "10.0.0.1"), addrOp("node2", "10.0.0.2"), addrOp("node3", "10.0.0.3"),
		store.Op{Kind: v1.KindCluster, ID: v1.ClusterName, If: store.Absent(), Value: &v1.ClusterSpec{DataPathPort: 4999}})
	f.commit(append(networkOps("netA", "a", 4096), networkOps("netB", "b", 4097)...)...)
	f.commit(serviceOp("sA", "web", onNetworks("a")), serviceOp("sB", "db", onNetworks("netB")),
		store.Op{Kind: v1.KindService, ID: "sA", Section: v1.SectionDesired, If: store.Always(), Value: &v1.ServiceDesired{
			VIPs: []v1.NetworkAddress{{Network: "netA", Addresses: []string{"10.0.1.2/24"}}, {Network: "netB", Addresses: []string{"10.0.2.2/24"}}}}},
		peerTaskOp("tB", "sB", "node2", "netB"), peerTaskOp("tAB", "sA", "node3", "netA", "netB"))
	a := f.connect("node1")
	a.knows("node2", "node3")
	if a.dataPort != 4999 {
		t.Errorf("data port is %d", a.dataPort)
	}

	// The first task on a network brings all that is on it, as far as it is on it.
	f.commit(peerTaskOp("tA", "sA", "node1", "netA"))
	a.take()
	a.knows("node2", "node3", "netA", "sA", "tA", "tAB")
	if diff := cmp.Diff(v1.PeerService{ID: "sA", Name: "web", Networks: []v1.PeerServiceNetwork{
		{Network: "netA", VIPs: []string{"10.0.1.2"}, Aliases: []string{"alias-a"}}}}, a.peers["sA"]); diff != "" {
		t.Errorf("service: %s", diff)
	}
	if diff := cmp.Diff(v1.PeerTask{ID: "tAB", Service: "sA", Name: "sA.1", Node: "node3",
		Networks: []v1.NetworkAddress{{Network: "netA", Addresses: []string{"10.0.1.5/24"}}}}, a.peers["tAB"]); diff != "" {
		t.Errorf("task: %s", diff)
	}
	if diff := cmp.Diff(v1.PeerNetwork{ID: "netA", Name: "a", VNI: 4096, Subnets: []v1.SubnetSpec{{Subnet: "10.0.1.0/24", Gateway: "10.0.1.1"}}},
		a.peers["netA"]); diff != "" {
		t.Errorf("network: %s", diff)
	}

	// What becomes of others is told, and nothing of foreign networks.
	f.commit(statusOp("tB", v1.TaskRunning, "100.64.2.2"))
	f.commit(statusOp("tAB", v1.TaskRunning, "100.64.3.2"))
	a.take()
	if got := a.peers["tAB"].(v1.PeerTask); !got.Ready || got.Gateway != "100.64.3.2" || len(a.last.Peers.Tasks) != 1 {
		t.Errorf("a task that runs: %+v", a.last.Peers)
	}
	a.peerReady("tAB", false, store.Op{Kind: v1.KindNode, ID: "node3", Section: v1.SectionDesired, If: store.Always(), Value: &v1.NodeDesired{Down: time.Unix(9, 0)}})
	a.peerReady("tAB", true, store.Op{Kind: v1.KindNode, ID: "node3", Section: v1.SectionDesired, If: store.Always(), Value: &v1.NodeDesired{}})
	stopping := peerTaskOp("tAB", "sA", "node3", "netA", "netB")
	stopping.Value.(*v1.TaskDesired).State = v1.TaskShutdown
	a.peerReady("tAB", false, stopping)
	f.commit(statusOp("tAB", v1.TaskShutdown, "100.64.3.2"))
	a.take()
	a.knows("node2", "node3", "netA", "sA", "tA")

	// With its last task there it forgets the network, though the status alone says so.
	f.commit(statusOp("tA", v1.TaskFailed, "100.64.1.2"))
	a.take()
	a.knows("node2", "node3")

	// Published ports are everybody's.
	f.commit(serviceOp("sI", "lb", publishing(v1.PortConfig{Target: 80, Mode: v1.PublishIngress})), peerTaskOp("tI", "sI", "node2", "netB"),
		statusOp("tI", v1.TaskRunning, "100.64.2.3"))
	a.take()
	a.knows("node2", "node3", "sI", "tI")
	if got := a.peers["tI"].(v1.PeerTask); !got.Ready || got.Gateway != "100.64.2.3" || len(got.Networks) > 0 {
		t.Errorf("a task behind a published port: %+v", got)
	}
	f.commit(store.Op{Kind: v1.KindService, ID: "sI", Section: v1.SectionDesired, If: store.Always(),
		Value: &v1.ServiceDesired{Ports: []v1.PortConfig{{Target: 80, Published: 30000, Mode: v1.PublishIngress}}}})
	a.take()
	if got := a.peers["sI"].(v1.PeerService); len(got.Ports) != 1 || got.Ports[0].Published != 30000 {
		t.Errorf("a service with a port that may be any: %+v", got)
	}
	f.commit(serviceOp("sI", "lb", publishing(v1.PortConfig{Target: 80, Published: 80, Mode: v1.PublishHost})))
	a.take()
	a.knows("node2", "node3")
	f.commit(store.Op{Kind: v1.KindNode, ID: "node2", If: store.Always()})
	a.take()
	a.knows("node3")
}

// TestPublishedPortsAreOnEveryNode: a node that is drained, or paused, or that has no task of the service, leads to it all the same.
func TestPublishedPortsAreOnEveryNode(t *testing.T) {
	f := serve(t)
	f.commit(nodeOp("node1", 1), nodeOp("node2", 2), addrOp("node2", "10.0.0.2"), serviceOp("sI", "lb", publishing(v1.PortConfig{Target: 80, Published: 8080, Mode: v1.PublishIngress})),
		peerTaskOp("tI", "sI", "node2"), statusOp("tI", v1.TaskRunning, "100.64.2.3"))
	for _, availability := range []v1.NodeAvailability{v1.AvailabilityActive, v1.AvailabilityPause, v1.AvailabilityDrain} {
		f.commit(store.Op{Kind: v1.KindNode, ID: "node1", Value: &v1.NodeSpec{Role: v1.RoleWorker, Availability: availability, Index: 1}, If: store.Exists()})
		a := f.connect("node1")
		a.knows("node2", "sI", "tI")
		service, task := a.peers["sI"].(v1.PeerService), a.peers["tI"].(v1.PeerTask)
		if len(service.Ports) != 1 || service.Ports[0].Published != 8080 || !task.Ready || task.Gateway != "100.64.2.3" {
			t.Errorf("a node that is %s: %+v, %+v", availability, service, task)
		}
		a.stop()
	}
}

// TestPortsOfAServiceThatIsRemoved: until its tasks have ended, nodes are told of its ports, and neither of its name nor of its addresses. Who
// comes later is told the same.
func TestPortsOfAServiceThatIsRemoved(t *testing.T) {
	f := serve(t)
	f.commit(append(networkOps("netA", "a", 4096), nodeOp("node1", 1), nodeOp("node2", 2), addrOp("node1", "10.0.0.1"), addrOp("node2", "10.0.0.2"))...)
	spec := onNetworks("a")
	spec.Endpoint = publishing(v1.PortConfig{Target: 80, Published: 8080, Mode: v1.PublishIngress}, v1.PortConfig{Target: 90, Mode: v1.PublishHost}).Endpoint
	f.commit(serviceOp("sI", "lb", spec), serviceOp("sA", "web", onNetworks("a")), peerTaskOp("tI", "sI", "node2", "netA"), peerTaskOp("tA", "sA", "node1", "netA"),
		statusOp("tI", v1.TaskRunning, "100.64.2.3"))
	a := f.connect("node1")
	a.knows("node2", "netA", "sI", "sA", "tI", "tA")

	removed := serviceOp("sI", "", spec)
	removed.Meta = &v1.Meta{Deleting: time.Unix(1, 0)}
	stopping := peerTaskOp("tI", "sI", "node2", "netA")
	stopping.Value.(*v1.TaskDesired).State = v1.TaskShutdown
	f.commit(removed, stopping)
	for _, late := range []bool{false, true} {
		if late {
			a.stop()
			a = f.connect("node1")
		} else {
			a.take()
		}
		a.knows("node2", "netA", "sI", "sA", "tI", "tA")
		want := v1.PeerService{ID: "sI", Ports: spec.Endpoint.Ports[:1]}
		if diff := cmp.Diff(want, a.peers["sI"]); diff != "" {
			t.Errorf("late %t: the service (-want +got):\n%s", late, diff)
		}
		if task := a.peers["tI"].(v1.PeerTask); task.Ready || task.Gateway != "100.64.2.3" {
			t.Errorf("late %t: its task is %+v", late, task)
		}
	}
	f.commit(statusOp("tI", v1.TaskShutdown, "100.64.2.3"), store.Op{Kind: v1.KindService, ID: "sI", If: store.Always()})
	a.take()
	a.knows("node2", "netA", "sA", "tA")
}

// TestHostPortsAreForNames: a node is told which ports the services on its networks publish by the nodes of their tasks, each once and apart
// from those of the mesh. Of services that are on none of its networks it is not.
func TestHostPortsAreForNames(t *testing.T) {
	f := serve(t)
	f.commit(append(networkOps("netA", "a", 4096), nodeOp("node1", 1), nodeOp("node2", 2), addrOp("node1", "10.0.0.1"), addrOp("node2", "10.0.0.2"))...)
	mesh, host := v1.PortConfig{Target: 80, Published: 8080, Mode: v1.PublishIngress}, func(name string, target, published uint16, at string) v1.PortConfig {
		return v1.PortConfig{Name: name, Protocol: v1.TCP, Target: target, Published: published, Mode: v1.PublishHost, HostIP: at}
	}
	both, rr := onNetworks("a"), onNetworks("a")
	both.Endpoint = publishing(host("admin", 9000, 8071, "127.0.0.1"), mesh, host("admin", 9000, 8071, "10.0.0.1"), host("any", 9001, 0, "")).Endpoint
	rr.Endpoint = publishing(host("", 9000, 8072, "")).Endpoint
	rr.Endpoint.Mode = v1.EndpointDNSRR
	f.commit(serviceOp("sBoth", "web", both), serviceOp("sRR", "rr", rr), serviceOp("sAlone", "alone", publishing(host("", 9000, 8073, ""))),
		peerTaskOp("tA", "sBoth", "node1", "netA"))
	told := func(a *agent, id string, ports, hostPorts []v1.PortConfig) {
		t.Helper()
		got := a.peers[id].(v1.PeerService)
		if diff := cmp.Diff([][]v1.PortConfig{ports, hostPorts}, [][]v1.PortConfig{got.Ports, got.HostPorts}); diff != "" {
			t.Errorf("%s, the ports of %s (-want +got):\n%s", a.name, id, diff)
		}
	}
	a := f.connect("node1")
	a.knows("node2", "netA", "sBoth", "sRR", "tA")
	told(a, "sBoth", []v1.PortConfig{mesh}, []v1.PortConfig{host("admin", 9000, 0, ""), host("any", 9001, 0, "")})
	told(a, "sRR", nil, []v1.PortConfig{host("", 9000, 0, "")})
	other := f.connect("node2")
	other.knows("node1", "sBoth")
	told(other, "sBoth", []v1.PortConfig{mesh}, nil)

	rr.Endpoint = publishing(host("", 9002, 8072, "")).Endpoint
	f.commit(serviceOp("sRR", "rr", rr))
	a.take()
	told(a, "sRR", nil, []v1.PortConfig{host("", 9002, 0, "")})
}

func (a *agent) peerReady(id string, ready bool, op store.Op) {
	a.Helper()
	a.commit(op)
	a.take()
	if got := a.peers[id].(v1.PeerTask); got.Ready != ready {
		a.Errorf("after %s %s, task %s is %+v", op.Kind, op.ID, id, got)
	}
}

// TestStampsOfPeers: when a task of another node became ready, and ceased to be, is told as the store has it, and nothing else is.
func TestStampsOfPeers(t *testing.T) {
	f := serve(t)
	f.commit(append(networkOps("netA", "a", 4096), nodeOp("node1", 1), nodeOp("node2", 2), serviceOp("sA", "web", onNetworks("a")),
		addrOp("node1", "10.0.0.1"), addrOp("node2", "10.0.0.2"), peerTaskOp("tA", "sA", "node1", "netA"), peerTaskOp("tB", "sA", "node2", "netA"))...)
	a := f.connect("node1")
	at := func(second int64) time.Time { return time.Unix(second, 0).UTC() }
	status := func(id string, state v1.TaskState, second int64) store.Op {
		op := statusOp(id, state, "100.64.2.2")
		op.Value.(*v1.TaskStatus).At = at(second)
		return op
	}
	stopping := peerTaskOp("tB", "sA", "node2", "netA")
	stopping.Value.(*v1.TaskDesired).State, stopping.Meta = v1.TaskShutdown, &v1.Meta{UpdatedAt: at(4)}
	for _, c := range []struct {
		what string
		op   store.Op
		want []time.Time
	}{
		{"it starts", status("tB", v1.TaskStarting, 1), nil},
		{"it runs", status("tB", v1.TaskRunning, 2), []time.Time{at(2)}},
		{"one of the node's own runs", status("tA", v1.TaskRunning, 3), nil},
		{"it is to stop", stopping, []time.Time{at(4)}},
		{"it has stopped", status("tB", v1.TaskShutdown, 5), nil},
	} {
		f.commit(c.op)
		a.take()
		if diff := cmp.Diff(c.want, a.last.Peers.Stamps); diff != "" {
			t.Errorf("%s: stamps (-want +got):\n%s", c.what, diff)
		}
	}
}

// TestPeersConverge changes everything at random while three nodes listen; each ends with exactly what a fresh session is told,
// and was never told of a network that it has no task on.
func TestPeersConverge(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			f := serve(t, func(o *apiserver.Options) { o.Limits.SessionGap = time.Millisecond })
			f.commit(nodeOp("node0", 1), nodeOp("node1", 2), nodeOp("node2", 3), nodeOp("node3", 4))
			agents := []*agent{f.connect("node0"), f.connect("node1"), f.connect("node2")}
			for range 150 {
				var ops []store.Op
				for range 1 + random.IntN(4) {
					ops = append(ops, randomOps(random)...)
				}
				f.store.Commit(f.ctx, store.Commit{Ops: oncePerSection(ops)}) // some change what is not there, and are refused
			}
			for _, a := range agents {
				marker := "marker-" + a.name
				f.commit(taskOp(marker, "m", a.name, "r", 1))
				a.until(func() bool { return a.tasks[marker] != nil })
				a.stop()
				fresh := f.connect(a.name)
				if diff := cmp.Diff(fresh.peers, a.peers); diff != "" {
					t.Errorf("%s (-fresh session +incremental):\n%s", a.name, diff)
				}
				fresh.knowsOwnNetworksOnly()
			}
		})
	}
}

// oncePerSection leaves the last operation of each section: one commit holds no more.
func oncePerSection(ops []store.Op) []store.Op {
	seen := make(map[string]bool)
	var kept []store.Op
	for _, op := range slices.Backward(ops) {
		if key := fmt.Sprint(op.Kind, op.ID, op.Section); !seen[key] {
			seen[key] = true
			kept = append(kept, op)
		}
	}
	slices.Reverse(kept)
	return kept
}

// TestPeersAtOneAddress: of nodes with one address the one that is there is told with it, and only its tasks are; those of a node that is
// no more are not either, whatever they were seen as last.
func TestPeersAtOneAddress(t *testing.T) {
	f := serve(t)
	down := func(id string, since time.Time) store.Op {
		return store.Op{Kind: v1.KindNode, ID: id, Section: v1.SectionDesired, If: store.Always(), Value: &v1.NodeDesired{Down: since}}
	}
	older, newer := nodeOp("older", 2), nodeOp("newer", 3)
	older.Meta.CreatedAt, newer.Meta.CreatedAt = time.Unix(1, 0), time.Unix(2, 0)
	published := v1.ServiceSpec{Endpoint: &v1.EndpointSpec{Ports: []v1.PortConfig{{Target: 80, Published: 8080}}}}
	f.commit(nodeOp("node1", 1), older, addrOp("older", "10.0.0.5"), serviceOp("s", "s", published),
		peerTaskOp("ofOlder", "s", "older"), statusOp("ofOlder", v1.TaskRunning, "100.64.2.2"),
		peerTaskOp("ofNewer", "s", "newer"), statusOp("ofNewer", v1.TaskRunning, "100.64.3.2"))
	a := f.connect("node1")
	told := func(step, ofOlder, ofNewer string) {
		t.Helper()
		older, _ := a.peers["older"].(v1.PeerNode)
		newer, _ := a.peers["newer"].(v1.PeerNode)
		if older.Addr != ofOlder || newer.Addr != ofNewer {
			t.Errorf("%s: older at %q, newer at %q", step, older.Addr, newer.Addr)
		}
		for task, node := range map[string]v1.PeerNode{"ofOlder": older, "ofNewer": newer} {
			if _, is := a.peers[task]; is != (node.Addr != "") {
				t.Errorf("%s: task %s is told: %t", step, task, is)
			}
		}
		fresh := f.connect("node1")
		if diff := cmp.Diff(fresh.peers, a.peers); diff != "" {
			t.Errorf("%s (-fresh session +incremental):\n%s", step, diff)
		}
		a = fresh
	}
	told("one", "10.0.0.5", "")
	for _, c := range []struct {
		step             string
		op               store.Op
		ofOlder, ofNewer string
	}{
		{"lost", down("older", time.Unix(9, 0)), "10.0.0.5", ""},
		{"the machine joins again", newer, "10.0.0.5", ""},
		{"and tells where it is", addrOp("newer", "::ffff:10.0.0.5"), "", "10.0.0.5"},
		{"the newer is lost too", down("newer", time.Unix(9, 0)), "", "10.0.0.5"},
		{"the older is back", down("older", time.Time{}), "10.0.0.5", ""},
		{"both are there", down("newer", time.Time{}), "", "10.0.0.5"},
		{"the newer moves", addrOp("newer", "10.0.0.6"), "10.0.0.5", "10.0.0.6"},
		{"and comes back", addrOp("newer", "10.0.0.5"), "", "10.0.0.5"},
		{"the newer is removed", store.Op{Kind: v1.KindNode, ID: "newer", If: store.Always()}, "10.0.0.5", ""},
	} {
		f.commit(c.op, taskOp(c.step, "marker", "node1", "r", 1)) // some steps are no news by themselves
		a.until(func() bool { return a.tasks[c.step] != nil })
		told(c.step, c.ofOlder, c.ofNewer)
	}
	// A node at the address of its own earlier entry is not told of another there.
	f.commit(newer, addrOp("newer", "10.0.0.5"))
	if got := f.connect("newer").peers["older"].(v1.PeerNode); got.Addr != "" {
		t.Errorf("a node is told of its earlier entry: %+v", got)
	}
}

func randomOps(random *rand.Rand) []store.Op {
	pick := func(prefix string, n int) string { return fmt.Sprint(prefix, random.IntN(n)) }
	switch task, service, network := pick("t", 12), pick("s", 4), pick("n", 4); random.IntN(12) {
	case 0, 1, 2:
		op := peerTaskOp(task, pick("s", 4), pick("node", 4), slices.Compact([]string{pick("n", 2), "n" + fmt.Sprint(2+random.IntN(2))})[:random.IntN(3)]...)
		op.Value.(*v1.TaskDesired).State = []v1.TaskState{v1.TaskReady, v1.TaskRunning, v1.TaskRunning, v1.TaskShutdown}[random.IntN(4)]
		return []store.Op{op}
	case 3, 4, 5:
		state := []v1.TaskState{v1.TaskAccepted, v1.TaskStarting, v1.TaskRunning, v1.TaskRunning, v1.TaskFailed}[random.IntN(5)]
		return []store.Op{statusOp(task, state, []string{"", "100.64.0.2"}[random.IntN(2)])}
	case 6:
		return []store.Op{{Kind: v1.KindTask, ID: task, Section: v1.SectionDesired, If: store.Always()}}
	case 7:
		spec := onNetworks(network, pick("name", 4))
		if random.IntN(2) == 0 {
			spec.Endpoint = &v1.EndpointSpec{Ports: []v1.PortConfig{{Target: 80, Published: 8080, Mode: []v1.PublishMode{"", v1.PublishHost}[random.IntN(2)]}}}
		}
		op := serviceOp(service, service, spec)
		if random.IntN(4) == 0 {
			op.Meta.Deleting = time.Unix(1, 0)
		}
		return []store.Op{op}
	case 8:
		return []store.Op{{Kind: v1.KindService, ID: service, Section: v1.SectionDesired, If: store.Always(), Value: &v1.ServiceDesired{
			Attempts: random.Uint64(), VIPs: []v1.NetworkAddress{{Network: network, Addresses: []string{"10.0.1.2/24"}}}}}}
	case 9:
		return networkOps(network, "name"+network[1:], 4096+random.Uint32N(3))
	case 10:
		return []store.Op{{Kind: []v1.Kind{v1.KindService, v1.KindNetwork}[random.IntN(2)], ID: []string{service, network}[random.IntN(2)], If: store.Always()}}
	}
	if random.IntN(2) == 0 {
		id := pick("node", 4)
		return []store.Op{{Kind: v1.KindNode, ID: id, Section: v1.SectionStatus, If: store.Exists(), // with the description that its session gives
			Value: &v1.NodeStatus{State: v1.NodeReady, Addr: pick("10.0.0.", 3), Description: v1.NodeDescription{Hostname: "host-" + id}}}}
	}
	desired := &v1.NodeDesired{}
	if random.IntN(2) == 0 {
		desired.Down = time.Unix(1, 0)
	}
	return []store.Op{{Kind: v1.KindNode, ID: pick("node", 4), Section: v1.SectionDesired, If: store.Always(), Value: desired}}
}

// knowsOwnNetworksOnly checks that nothing in what the node was told is of a network that it has no task on.
func (a *agent) knowsOwnNetworksOnly() {
	a.Helper()
	own := make(map[string]bool)
	for task := range a.snapshot().TasksOfNode(a.name) {
		for _, n := range task.Desired.Networks {
			own[n.Network] = own[n.Network] || !v1.Observed(task).Terminal()
		}
	}
	for id, p := range a.peers {
		var on []string
		switch p := p.(type) {
		case v1.PeerNetwork:
			on = append(on, p.ID)
		case v1.PeerService:
			for _, n := range p.Networks {
				on = append(on, n.Network)
			}
		case v1.PeerTask:
			for _, n := range p.Networks {
				on = append(on, n.Network)
			}
		}
		for _, network := range on {
			if !own[network] {
				a.Errorf("%s was told of %s on %s", a.name, id, network)
			}
		}
	}
}

// TestPeersOfManyTasks: a complete message of 10,000 tasks is one line, and each side takes it.
func TestPeersOfManyTasks(t *testing.T) {
	f := serve(t)
	const tasks = 10_000
	f.commit(append(networkOps("n0", "name0", 4096), nodeOp("node1", 1), nodeOp("node2", 2), addrOp("node1", "10.0.0.1"), addrOp("node2", "10.0.0.2"),
		serviceOp("s0", "s0", onNetworks("n0")))...)
	var ops []store.Op
	for i := range tasks {
		node := "node2"
		if i == 0 {
			node = "node1"
		}
		op := peerTaskOp(fmt.Sprintf("task%021d", i), "s0", node, "n0")
		op.Value.(*v1.TaskDesired).Networks[0].Addresses[0] = fmt.Sprintf("10.0.%d.%d/16", i/250, i%250)
		if ops = append(ops, op); len(ops) == store.MaxOps {
			f.commit(ops...)
			ops = nil
		}
	}
	a := f.connect("node1")
	if len(a.peers) != tasks+4 {
		t.Fatalf("told of %d peers", len(a.peers))
	}
	f.commit(statusOp("task000000000000000004321", v1.TaskRunning, "100.64.2.9"))
	a.take()
	if len(a.last.Peers.Tasks) != 1 || strings.Contains(fmt.Sprint(a.last.Tasks), "task") {
		t.Errorf("one task changed: %+v", a.last)
	}
}

// TestPeersHaveTheirOwnPorts: of each task others are told the ports that its revision has in the mesh, which a change of the service's is no
// news of.
func TestPeersHaveTheirOwnPorts(t *testing.T) {
	f := serve(t)
	before, after := v1.PortConfig{Target: 80, Published: 8080, Protocol: v1.TCP}, v1.PortConfig{Target: 81, Published: 8080, Protocol: v1.TCP}
	revision := func(id string, ports ...v1.PortConfig) store.Op {
		return store.Op{Kind: v1.KindServiceRevision, ID: id, If: store.Absent(), Meta: &v1.Meta{}, Value: &v1.ServiceRevisionSpec{Service: "s", Endpoint: publishing(ports...).Endpoint}}
	}
	of := func(id, revision string) store.Op {
		op := peerTaskOp(id, "s", "node2")
		op.Value.(*v1.TaskDesired).Revision = revision
		return op
	}
	named := before
	named.Name, named.Mode = "http", v1.PublishIngress
	f.commit(nodeOp("node1", 1), nodeOp("node2", 2), addrOp("node2", "10.0.0.2"), serviceOp("s", "s", publishing(before)),
		revision("r1", named, v1.PortConfig{Target: 9, Published: 9, Mode: v1.PublishHost}), revision("r2", after), revision("r3"),
		of("old", "r1"), statusOp("old", v1.TaskRunning, "100.64.2.2"))
	a := f.connect("node1")
	f.commit(serviceOp("s", "s", publishing(after)))
	a.take()
	if m := a.last.Peers; len(m.Services) != 1 || len(m.Tasks) > 0 {
		t.Errorf("after the service's change the node is told %+v", m)
	}
	f.commit(of("new", "r2"), statusOp("new", v1.TaskRunning, "100.64.2.3"), of("without", "r3"), statusOp("without", v1.TaskRunning, "100.64.2.4"),
		of("unknown", "r4"), statusOp("unknown", v1.TaskRunning, "100.64.2.5"))
	a.take()
	got := map[string][]v1.PortConfig{}
	for _, id := range []string{"old", "new", "without", "unknown"} {
		got[id] = a.peers[id].(v1.PeerTask).Ports
	}
	if diff := cmp.Diff(map[string][]v1.PortConfig{"old": {before}, "new": {after}, "without": {}, "unknown": nil}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
