package apiserver_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/apiserver"
	"github.com/swarmd/swarmd/pkg/store"
)

// agent is a node's side of a session, and what it knows by it.
type agent struct {
	*fixture
	name     string
	next     func() (v1.Assignment, error, bool)
	hangUp   func() // may be called while next waits
	stop     func()
	tasks    map[string]*v1.Task
	services map[string]*v1.ServiceRevision
	node     *v1.Node
	pool     string
	last     v1.Assignment
	peers    map[string]any // by ID
	dataPort uint16
}

// connect opens a session and takes its first message.
func (f *fixture) connect(node string) *agent {
	f.Helper()
	ctx, cancel := context.WithCancel(f.ctx)
	next, stop := iter.Pull2(f.client.Node(node).Session(ctx, func() v1.NodeDescription { return v1.NodeDescription{Hostname: "host-" + node} }))
	a := &agent{fixture: f, name: node, next: next, tasks: make(map[string]*v1.Task), services: make(map[string]*v1.ServiceRevision), peers: make(map[string]any)}
	a.hangUp, a.stop = cancel, func() { cancel(); stop() }
	f.Cleanup(a.stop)
	a.take()
	if !a.last.Complete {
		f.Errorf("the first message of a session is not complete: %+v", a.last)
	}
	return a
}

// take takes the next message that tells more than what other nodes are: those connect when they do, and say so.
func (a *agent) take() {
	a.Helper()
	for a.takeAny(); onlyNodes(a.last); {
		a.takeAny()
	}
}

func onlyNodes(m v1.Assignment) bool {
	if m.Complete || m.Peers == nil || m.Peers.Number != 0 || len(m.Peers.Nodes) == 0 {
		return false
	}
	rest, peers := m, *m.Peers
	peers.Nodes, rest.Peers, rest.Revision = nil, nil, 0
	return reflect.DeepEqual(rest, v1.Assignment{}) && reflect.DeepEqual(peers, v1.Peers{})
}

func (a *agent) takeAny() {
	a.Helper()
	m, err, ok := a.next()
	if err != nil || !ok {
		a.Fatalf("the session ended: %v", err)
	}
	if m.Revision < a.last.Revision {
		a.Errorf("revision %d after %d", m.Revision, a.last.Revision)
	}
	a.last = m
	for _, s := range m.Services {
		if a.services[s.Meta.ID] != nil {
			a.Errorf("service revision %s came twice", s.Meta.ID)
		}
		a.services[s.Meta.ID] = s
	}
	for _, t := range m.Tasks {
		if t.Status != nil && !m.Complete {
			a.Errorf("task %s came with its status", t.Meta.ID)
		}
		a.tasks[t.Meta.ID] = t
	}
	for _, id := range m.Removed {
		if a.tasks[id] == nil {
			a.Errorf("%s was removed but not known", id)
		}
		delete(a.tasks, id)
	}
	a.forget()
	if m.Node != nil {
		a.node = m.Node
	}
	if m.GatewayPool != "" {
		a.pool = m.GatewayPool
	}
	a.meet(m)
}

// forget drops the service revisions that no task runs: an agent may do so, for a session sends them again.
func (a *agent) forget() {
	used := make(map[string]bool)
	for _, t := range a.tasks {
		used[t.Desired.Revision] = true
	}
	maps.DeleteFunc(a.services, func(id string, _ *v1.ServiceRevision) bool { return !used[id] })
}

// meet takes what a message says of peers.
func (a *agent) meet(m v1.Assignment) {
	a.Helper()
	if m.Complete {
		clear(a.peers)
		if m.Peers == nil {
			a.Fatal("a complete message says nothing of peers")
		}
		a.dataPort = m.Peers.DataPort
	}
	if m.Peers == nil {
		return
	}
	for _, p := range m.Peers.Nodes {
		a.peers[p.ID] = p
	}
	for _, p := range m.Peers.Networks {
		a.peers[p.ID] = p
	}
	for _, p := range m.Peers.Services {
		a.peers[p.ID] = p
	}
	for _, p := range m.Peers.Tasks {
		a.peers[p.ID] = p
	}
	for _, id := range m.Peers.Gone {
		if a.peers[id] == nil {
			a.Errorf("peer %s is gone but was not known", id)
		}
		delete(a.peers, id)
	}
}

// until takes messages until it is as it should be.
func (a *agent) until(ok func() bool) {
	a.Helper()
	for !ok() {
		a.take()
	}
}

func revisionOf(id string) store.Op {
	return store.Op{Kind: v1.KindServiceRevision, ID: id, If: store.Absent(), Value: &v1.ServiceRevisionSpec{Service: "s", Number: 1}}
}

func TestSession(t *testing.T) {
	f := serve(t)
	f.commit(nodeOp("node1", 1), nodeOp("node2", 2), revisionOf("r1"), revisionOf("r2"),
		taskOp("a", "s", "node1", "r1", 1), taskOp("b", "s", "node2", "r1", 2), taskOp("c", "s", "", "r1", 3))
	a := f.connect("node1")
	if len(a.tasks) != 1 || a.tasks["a"] == nil || a.services["r1"] == nil || a.node == nil || a.node.Spec.Index != 1 || a.pool != v1.DefaultGatewayPool {
		t.Fatalf("the beginning: %+v", a.last)
	}
	n, _ := store.Get(f.snapshot(), v1.Nodes, "node1")
	if n.Status.State != v1.NodeReady || n.Status.Description.Hostname != "host-node1" {
		t.Errorf("status of a node with a session: %+v", n.Status)
	}

	f.commit(taskOp("c", "s", "node1", "r1", 3), taskOp("d", "s", "node1", "r2", 4))
	a.until(func() bool { return len(a.tasks) == 3 })
	if len(a.last.Tasks) != 2 || a.services["r2"] == nil || a.last.Complete {
		t.Errorf("two more tasks in one batch: %+v", a.last)
	}
	// What a node reports is not sent back to it; what is another node's is not sent at all.
	f.commit(store.Op{Kind: v1.KindTask, ID: "a", Section: v1.SectionStatus, Value: &v1.TaskStatus{State: v1.TaskRunning}, If: store.Exists()},
		taskOp("b", "s", "node2", "r2", 2))
	f.commit(stopped("a", "r1"))
	a.take()
	if len(a.last.Tasks) != 1 || a.last.Tasks[0].Desired.State != v1.TaskShutdown {
		t.Errorf("a change of one task: %+v", a.last)
	}
	f.commit(store.Op{Kind: v1.KindTask, ID: "a", Section: v1.SectionDesired, If: store.Exists()})
	a.take()
	if diff := cmp.Diff([]string{"a"}, a.last.Removed); diff != "" || a.tasks["a"] != nil {
		t.Errorf("removed: %s", diff)
	}
	f.commit(store.Op{Kind: v1.KindNode, ID: "node1", If: store.Exists(), Value: &v1.NodeSpec{Role: v1.RoleWorker, Availability: v1.AvailabilityDrain, Index: 1}})
	a.take()
	if a.last.Node == nil || a.node.Spec.Availability != v1.AvailabilityDrain || a.node.Status != nil {
		t.Errorf("drained: %+v", a.last)
	}
	f.commit(store.Op{Kind: v1.KindCluster, ID: v1.ClusterName, If: store.Absent(), Value: &v1.ClusterSpec{GatewayPool: "100.80.0.0/12"}})
	a.take()
	if a.pool != "100.80.0.0/12" || a.last.Node != nil {
		t.Errorf("a new pool: %+v", a.last)
	}
	f.commit(store.Op{Kind: v1.KindAuthority, ID: v1.AuthorityName, If: store.Absent(), Value: &v1.AuthoritySpec{ClusterID: "swarm1"}})
	a.take()
	if want := v1.GatewayPrefix6("swarm1").String(); a.last.GatewayPrefix6 != want {
		t.Errorf("the prefix of a swarm that has its ID: %q, want %q", a.last.GatewayPrefix6, want)
	}
}

// TestSessionIsReplaced opens a second session of one node, as an agent does that lost the first without knowing.
// TestSessionRevisions has tasks of two revisions come and go: whoever forgets a revision with the last task of it is sent it again with
// the next one, and one that a task still runs is not sent twice.
func TestSessionRevisions(t *testing.T) {
	f := serve(t)
	f.commit(nodeOp("node1", 1), revisionOf("r1"), revisionOf("r2"), taskOp("a", "s", "node1", "r1", 1))
	a := f.connect("node1")
	remove := func(id string) store.Op {
		return store.Op{Kind: v1.KindTask, ID: id, Section: v1.SectionDesired, If: store.Exists()}
	}
	for i, test := range []struct {
		ops  []store.Op
		sent string
	}{
		{[]store.Op{taskOp("b", "s", "node1", "r1", 2)}, ""},
		{[]store.Op{remove("a")}, ""},
		{[]store.Op{remove("b")}, ""},
		{[]store.Op{taskOp("c", "s", "node1", "r1", 3)}, "r1"},
		{[]store.Op{taskOp("d", "s", "node1", "r2", 4)}, "r2"},
		{[]store.Op{remove("c")}, ""},
		{[]store.Op{remove("d"), taskOp("e", "s", "node1", "r1", 5)}, "r1"},
	} {
		f.commit(test.ops...)
		a.take()
		sent := ""
		for _, r := range a.last.Services {
			sent += r.Meta.ID
		}
		if sent != test.sent {
			t.Errorf("step %d: sent %q, want %q", i+1, sent, test.sent)
		}
		for id, task := range a.tasks {
			if a.services[task.Desired.Revision] == nil {
				t.Errorf("step %d: task %s is there without its revision", i+1, id)
			}
		}
	}
}

func TestSessionIsReplaced(t *testing.T) {
	f := serve(t)
	f.commit(nodeOp("node1", 1))
	old := f.connect("node1")
	younger := f.connect("node1")
	_, err, _ := old.next()
	f.refused(err, http.StatusConflict, "a newer session")
	f.commit(taskOp("a", "s", "node1", "r1", 1))
	younger.until(func() bool { return younger.tasks["a"] != nil })
	if n, _ := store.Get(f.snapshot(), v1.Nodes, "node1"); n.Status.State != v1.NodeReady {
		t.Errorf("the end of the older session made the node %s", n.Status.State)
	}
}

func TestSessionOfRemovedNode(t *testing.T) {
	f := serve(t)
	f.commit(nodeOp("node1", 1))
	a := f.connect("node1")
	f.commit(store.Op{Kind: v1.KindNode, ID: "node1", If: store.Exists()})
	_, err, _ := a.next()
	f.refused(err, http.StatusNotFound, "was removed")
	for _, err := range f.client.Node("node1").Session(f.ctx, func() v1.NodeDescription { return v1.NodeDescription{} }) {
		f.refused(err, http.StatusNotFound, "node node1 not found")
	}
}

// TestSessionConverges changes tasks at random while sessions come and go; each ends with exactly what the store says.
func TestSessionConverges(t *testing.T) {
	f := serve(t, func(o *apiserver.Options) { o.Limits.SessionGap = time.Millisecond })
	f.commit(nodeOp("node1", 1), revisionOf("r1"))
	a := f.connect("node1")
	for round := range 30 {
		var ops []store.Op
		for i := range 200 {
			id := fmt.Sprintf("t%03d", (i*7+round*13)%300)
			switch (i + round) % 5 {
			case 0:
				ops = append(ops, store.Op{Kind: v1.KindTask, ID: id, Section: v1.SectionDesired, If: store.Always()})
			default:
				ops = append(ops, taskOp(id, "s", "node1", "r1", uint64(round)))
			}
		}
		f.commit(ops...)
		if round%10 == 9 {
			a.stop()
			a = f.connect("node1")
		}
	}
	f.commit(taskOp("last", "s", "node1", "r1", 1))
	a.until(func() bool { return a.tasks["last"] != nil })
	want := make(map[string]int64)
	for task := range f.snapshot().TasksOfNode("node1") {
		want[task.Meta.ID] = task.Meta.Revisions[v1.SectionDesired]
	}
	got := make(map[string]int64)
	for id, task := range a.tasks {
		got[id] = task.Meta.Revisions[v1.SectionDesired]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestTooManySessions(t *testing.T) {
	f := serve(t, func(o *apiserver.Options) { o.Limits.Sessions = 1 })
	f.commit(nodeOp("node1", 1), nodeOp("node2", 2))
	f.connect("node1")
	for _, err := range f.client.Node("node2").Session(f.ctx, func() v1.NodeDescription { return v1.NodeDescription{} }) {
		f.refused(err, http.StatusTooManyRequests)
	}
	f.connect("node1") // in its own place there is room
}

func TestReport(t *testing.T) {
	f := serve(t)
	f.commit(nodeOp("node1", 1), nodeOp("node2", 2), taskOp("a", "s", "node1", "r", 1), taskOp("b", "s", "node2", "r", 2), taskOp("c", "s", "", "r", 3))
	node := f.client.Node("node1")
	report := func(reports ...v1.TaskReport) v1.StatusResult {
		t.Helper()
		result, err := node.Report(f.ctx, v1.StatusReport{Tasks: reports})
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
	state := func() v1.TaskStatus {
		task, _ := store.Get(f.snapshot(), v1.Tasks, "a")
		return *task.Status
	}
	running := v1.TaskReport{ID: "a", Status: v1.TaskStatus{State: v1.TaskRunning, Message: "started"}}
	result := report(running, v1.TaskReport{ID: "b", Status: running.Status}, v1.TaskReport{ID: "c", Status: running.Status}, v1.TaskReport{ID: "zz"})
	if diff := cmp.Diff([]string{"b", "c", "zz"}, result.Unknown); diff != "" {
		t.Errorf("foreign tasks: %s", diff)
	}
	if got := state(); got.State != v1.TaskRunning {
		t.Errorf("%+v", got)
	}
	at := f.snapshot().Revision()
	report(running)
	report(v1.TaskReport{ID: "a", Status: v1.TaskStatus{State: v1.TaskStarting}})
	if got := f.snapshot().Revision(); got != at {
		t.Error("the same again, or a step back, was written")
	}
	report(v1.TaskReport{ID: "a", Status: v1.TaskStatus{State: v1.TaskFailed, Err: "exit 1"}})
	report(running)
	if got := state(); got.State != v1.TaskFailed || got.Err != "exit 1" {
		t.Errorf("a state went back: %+v", got)
	}
	for _, id := range []string{"b", "c"} {
		if task, _ := store.Get(f.snapshot(), v1.Tasks, id); task.Status != nil {
			t.Errorf("%s was written by a foreign node", id)
		}
	}
}

// TestReportsOfGoneTasks reports of tasks that are removed all the while.
func TestReportsOfGoneTasks(t *testing.T) {
	f := serve(t)
	f.commit(nodeOp("node1", 1))
	const n = 2000 // more than one commit holds
	var ops []store.Op
	var report v1.StatusReport
	for i := range n {
		id := fmt.Sprintf("t%04d", i)
		ops = append(ops, taskOp(id, "s", "node1", "r", uint64(i+1)))
		report.Tasks = append(report.Tasks, v1.TaskReport{ID: id, Status: v1.TaskStatus{State: v1.TaskRunning}})
	}
	f.commit(ops[:n/2]...)
	f.commit(ops[n/2:]...)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; i < n; i += 20 {
			f.store.Commit(f.ctx, store.Commit{Ops: []store.Op{{Kind: v1.KindTask, ID: fmt.Sprintf("t%04d", i), Section: v1.SectionDesired, If: store.Always()}}})
		}
	}()
	for {
		_, err := f.client.Node("node1").Report(f.ctx, report)
		if err == nil {
			break
		}
		f.refused(err, http.StatusConflict) // others wrote all the time
	}
	<-done
	for task := range store.All(f.snapshot(), v1.Tasks) {
		if task.Status == nil || task.Status.State != v1.TaskRunning {
			t.Fatalf("%s was reported and is not written", task.Meta.ID)
		}
	}
}

// TestReportStorm lets many nodes report at once: all is written, in few commits.
func TestReportStorm(t *testing.T) {
	f := serve(t)
	const nodes, tasks = 50, 40
	for n := range nodes {
		ops := []store.Op{nodeOp(fmt.Sprintf("node%d", n), uint32(n+1))}
		for i := range tasks {
			ops = append(ops, taskOp(fmt.Sprintf("t%d.%d", n, i), "s", fmt.Sprintf("node%d", n), "r", uint64(i+1)))
		}
		f.commit(ops...)
	}
	errs := make(chan error, nodes)
	for n := range nodes {
		go func() {
			var report v1.StatusReport
			for i := range tasks {
				report.Tasks = append(report.Tasks, v1.TaskReport{ID: fmt.Sprintf("t%d.%d", n, i), Status: v1.TaskStatus{State: v1.TaskRunning}})
			}
			_, err := f.client.Node(fmt.Sprintf("node%d", n)).Report(f.ctx, report)
			errs <- err
		}()
	}
	var all error
	for range nodes {
		all = errors.Join(all, <-errs)
	}
	if all != nil {
		t.Fatal(all)
	}
	for task := range store.All(f.snapshot(), v1.Tasks) {
		if task.Status == nil {
			t.Fatalf("%s was reported and is not written", task.Meta.ID)
		}
	}
}
