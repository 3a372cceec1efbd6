package apiserver_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/apiserver"
	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/pkg/store"
)

// follow says that the node follows what it was told last, where it was asked for that.
func (a *agent) follow() {
	if a.last.Peers != nil && a.last.Peers.Number != 0 {
		a.client.Node(a.name).Followed(a.last.Peers.Number)
	}
}

// unhurried gives nodes all the time that a test has: on a busy machine its steps may take longer than nodes have.
func unhurried(o *apiserver.Options) { o.Limits.WithdrawWait = patience }

// stopOp has a task of peerTaskOp stop.
func stopOp(id, service, node string, networks ...string) store.Op {
	op := peerTaskOp(id, service, node, networks...)
	op.Value.(*v1.TaskDesired).State = v1.TaskShutdown
	return op
}

// takeReleased takes messages until one releases tasks, and wants these.
func (a *agent) takeReleased(ids ...string) {
	a.Helper()
	for a.take(); len(a.last.Released) == 0; a.take() {
		a.follow()
	}
	slices.Sort(a.last.Released)
	if !slices.Equal(a.last.Released, ids) {
		a.Errorf("%s: released are %v, want %v", a.name, a.last.Released, ids)
	}
}

// webOnNetA is a service on a network with a task on each of two nodes, which run; node3 and tB have nothing to do with it.
func webOnNetA(f *fixture) {
	f.commit(nodeOp("node1", 1), nodeOp("node2", 2), nodeOp("node3", 3))
	f.commit(append(networkOps("netA", "a", 4096), networkOps("netB", "b", 4097)...)...)
	f.commit(addrOp("node1", "10.0.0.1"), addrOp("node2", "10.0.0.2"), addrOp("node3", "10.0.0.3"))
	f.commit(serviceOp("sA", "web", onNetworks("a")), peerTaskOp("t1", "sA", "node1", "netA"), peerTaskOp("t2", "sA", "node2", "netA"),
		serviceOp("sB", "db", onNetworks("b")), peerTaskOp("tB", "sB", "node3", "netB"))
	f.commit(statusOp("t1", v1.TaskRunning, "100.64.1.2"), statusOp("t2", v1.TaskRunning, "100.64.2.2"), statusOp("tB", v1.TaskRunning, "100.64.3.2"))
}

// TestReleased: a task that is to stop is released once all nodes that may send to it have confirmed that they do not any more, and a node
// that has nothing to do with it is not asked.
func TestReleased(t *testing.T) {
	f := serve(t, unhurried)
	webOnNetA(f)
	one, two := f.connect("node1"), f.connect("node2")
	f.connect("node3") // which never confirms anything
	one.follow()
	two.follow()
	f.commit(stopOp("t1", "sA", "node1", "netA"))
	one.take()
	two.take()
	one.follow()
	if two.last.Peers == nil || two.last.Peers.Number == 0 || two.last.Peers.Tasks[0].Ready {
		t.Fatalf("the other node is told %+v", two.last.Peers)
	}
	f.commit(taskOp("t9", "sA", "node1", "r-sA", 9))
	one.take()
	if len(one.last.Released) > 0 {
		t.Fatal("released before the other node had confirmed")
	}
	two.client.Node("node2").Followed(two.last.Peers.Number + 1) // nothing that it was asked
	f.commit(taskOp("t10", "sA", "node1", "r-sA", 10))
	one.take()
	if len(one.last.Released) > 0 {
		t.Fatal("released by a number that nobody asked for")
	}
	two.follow()
	one.takeReleased("t1")

	// A new session of the node, which may have missed the word, has it again.
	one.stop()
	again := f.connect("node1")
	again.follow()
	again.takeReleased("t1")

	// What begins to run asks for nothing.
	f.commit(peerTaskOp("t3", "sA", "node2", "netA"), statusOp("t3", v1.TaskRunning, "100.64.2.3"))
	again.take()
	if again.last.Peers == nil || again.last.Peers.Number != 0 {
		t.Errorf("a task that begins to run: %+v", again.last.Peers)
	}
}

// TestReleasedOnce: a task that is waited for as a session of its node begins is waited for once, and the new session has the word.
func TestReleasedOnce(t *testing.T) {
	f := serve(t, unhurried)
	webOnNetA(f)
	one, two := f.connect("node1"), f.connect("node2")
	two.follow()
	f.commit(stopOp("t1", "sA", "node1", "netA"))
	one.take()
	two.take()
	one.stop()
	again := f.connect("node1")
	again.follow()
	two.follow()
	again.takeReleased("t1")
	for i := range 5 {
		f.commit(taskOp(fmt.Sprintf("t1%d", i), "sA", "node1", "r-sA", uint64(10+i)))
		if again.take(); len(again.last.Released) > 0 {
			t.Fatalf("and again: %v", again.last.Released)
		}
	}
}

// TestReleasedBehindPorts: every node may send to a task behind a published port, also where its service is gone by then.
func TestReleasedBehindPorts(t *testing.T) {
	f := serve(t, unhurried)
	f.commit(nodeOp("node1", 1), nodeOp("node2", 2), addrOp("node1", "10.0.0.1"), addrOp("node2", "10.0.0.2"))
	spec := publishing(v1.PortConfig{Target: 80, Published: 8080, Mode: v1.PublishIngress})
	f.commit(serviceOp("sI", "lb", spec), peerTaskOp("t1", "sI", "node1"), statusOp("t1", v1.TaskRunning, "100.64.1.2"),
		store.Op{Kind: v1.KindServiceRevision, ID: "r-sI", If: store.Always(), Value: &v1.ServiceRevisionSpec{Service: "sI", Endpoint: spec.Endpoint}, Meta: &v1.Meta{}})
	one, two := f.connect("node1"), f.connect("node2")
	one.follow()
	two.follow()
	stop := stopOp("t1", "sI", "node1")
	f.commit(stop, store.Op{Kind: v1.KindService, ID: "sI", Section: v1.SectionSpec, If: store.Exists()})
	one.take()
	two.take()
	if two.last.Peers == nil || two.last.Peers.Number == 0 {
		t.Fatalf("the other node is told %+v", two.last.Peers)
	}
	one.follow()
	two.follow()
	one.takeReleased("t1")
}

// TestReleasedWithoutTheLost: a node that is gone is not waited for.
func TestReleasedWithoutTheLost(t *testing.T) {
	f := serve(t, unhurried)
	webOnNetA(f)
	one, two := f.connect("node1"), f.connect("node2")
	one.follow()
	f.commit(stopOp("t1", "sA", "node1", "netA"))
	one.take()
	one.follow()
	two.take() // and is never heard of again
	f.commit(store.Op{Kind: v1.KindNode, ID: "node2", Section: v1.SectionDesired, If: store.Always(), Value: &v1.NodeDesired{Down: time.Now()}})
	one.takeReleased("t1")
}

// TestReleasedAcrossManagers: nodes confirm to the manager that they are connected to, and go on with another one where that dies.
func TestReleasedAcrossManagers(t *testing.T) {
	c := form(t, unhurried)
	m2 := c.another()
	c.commit(append(networkOps("netA", "a", 4096), serviceOp("sA", "web", onNetworks("a")), peerTaskOp("t1", "sA", "w1", "netA"),
		peerTaskOp("t2", "sA", "w2", "netA"), statusOp("t1", v1.TaskRunning, "100.64.1.2"), statusOp("t2", v1.TaskRunning, "100.64.2.2"))...)
	one, two := c.agentAt("w1", c.addr), c.agentAt("w2", m2.addr)
	c.commit(addrOp("w1", "10.0.0.1"), addrOp("w2", "10.0.0.2")) // else both were at the address of this machine
	two.until(func() bool { return two.peers["t1"] != nil })
	one.follow()
	two.follow()
	c.commit(stopOp("t1", "sA", "w1", "netA"))
	one.take()
	one.follow()
	two.take()
	two.follow()
	one.takeReleased("t1")

	c.commit(peerTaskOp("t3", "sA", "w1", "netA"), statusOp("t3", v1.TaskRunning, "100.64.1.3"))
	two.take()
	c.commit(stopOp("t3", "sA", "w1", "netA"))
	two.take() // but before it could confirm, its manager is gone
	m2.stop()
	two.hangUp()
	two = c.agentAt("w2", c.addr)
	one.follow()
	two.follow()
	one.takeReleased("t3")
}

// TestFollowedIsForManagers: who asks has to be one, and to ask for something sensible.
func TestFollowedIsForManagers(t *testing.T) {
	c := form(t, unhurried)
	c.node("w1", ca.RoleWorker).expect(http.StatusForbidden, http.MethodPost, "/v1/followed", `{"revision":1,"nodes":["w1"]}`)
	m := c.node("m2", ca.RoleManager)
	m.expect(http.StatusOK, http.MethodPost, "/v1/followed", `{"revision":1,"nodes":["w1"]}`, "{}")
	m.expect(http.StatusRequestEntityTooLarge, http.MethodPost, "/v1/followed", `{"revision":1,"nodes":[`+strings.Repeat(`"",`, 10_000)+`""]}`, "at most 10000")
	m.expect(http.StatusBadRequest, http.MethodPost, "/v1/followed", `{"revison":1}`, "revison")
}
