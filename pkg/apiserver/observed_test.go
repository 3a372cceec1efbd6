package apiserver_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/apiserver"
	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/pkg/store"
)

// report is the body of a report of one task.
func report(id string, st v1.TaskStatus) string {
	body, _ := json.Marshal(v1.StatusReport{Tasks: []v1.TaskReport{{ID: id, Status: st}}})
	return string(body)
}

// TestStatusIsBounded: what no honest agent says of a task is refused by the name of its field, and nothing of it is written.
func TestStatusIsBounded(t *testing.T) {
	f := serve(t)
	f.commit(nodeOp("w1", 1), taskOp("a", "s", "w1", "r1", 1))
	before := f.snapshot().Revision()
	large := strings.Repeat("x", 2<<20)
	running := func(change func(*v1.TaskStatus)) string {
		st := v1.TaskStatus{State: v1.TaskRunning}
		change(&st)
		return report("a", st)
	}
	for _, c := range []struct{ name, body, want string }{
		{"container ID", running(func(s *v1.TaskStatus) { s.Container = &v1.ContainerStatus{ID: large} }), "tasks[0].status.container.id"},
		{"container ID of a line", running(func(s *v1.TaskStatus) { s.Container = &v1.ContainerStatus{ID: "a\nb"} }), "tasks[0].status.container.id"},
		{"address", running(func(s *v1.TaskStatus) { s.Address = large }), "tasks[0].status.address"},
		{"no address", running(func(s *v1.TaskStatus) { s.Address = "\x1b[2J" }), "tasks[0].status.address"},
		{"zone of an address", running(func(s *v1.TaskStatus) { s.Address = "fe80::1%\x1b[2J" }), "tasks[0].status.address"},
		{"ports", running(func(s *v1.TaskStatus) { s.Ports = make([]v1.PortConfig, 1001) }), "tasks[0].status.ports"},
		{"port's name", running(func(s *v1.TaskStatus) { s.Ports = []v1.PortConfig{{Name: large}} }), "tasks[0].status.ports[0].name"},
		{"port's protocol", running(func(s *v1.TaskStatus) { s.Ports = []v1.PortConfig{{Protocol: v1.Protocol(large)}} }), "tasks[0].status.ports[0].protocol"},
		{"port's mode", running(func(s *v1.TaskStatus) { s.Ports = []v1.PortConfig{{Mode: v1.PublishMode(large)}} }), "tasks[0].status.ports[0].mode"},
		{"restarts", running(func(s *v1.TaskStatus) { s.Alone = &v1.AloneRestarts{Times: make([]time.Time, 1001)} }), "tasks[0].status.alone.times"},
		{"task", report(large, v1.TaskStatus{}), "tasks[0].id"},
		{"twice", `{"tasks":[{"id":"a","status":{"state":"running"}},{"id":"a","status":{"state":"failed"}}]}`, "is that of tasks[0] already"},
	} {
		got := f.do("POST", "/v1/nodes/w1/status", c.body)
		if got.code != http.StatusBadRequest || !strings.Contains(got.body, c.want) || len(got.body) > 4096 {
			t.Errorf("%s: %d %.300s, want %q", c.name, got.code, got.body, c.want)
		}
	}
	if f.snapshot().Revision() != before {
		t.Error("something was written")
	}
	long := running(func(s *v1.TaskStatus) {
		s.Message, s.Err = large, "first\nsecond\x1b[2J\u202e"
		s.Alone = &v1.AloneRestarts{Count: 1, Last: large, Times: make([]time.Time, 1000)}
	})
	if got := f.do("POST", "/v1/nodes/w1/status", long); got.code != http.StatusOK {
		t.Fatalf("texts for people: %d %s", got.code, got.body)
	}
	task, _ := store.Get(f.snapshot(), v1.Tasks, "a")
	if st := task.Status; len(st.Message) > 5000 || len(st.Alone.Last) > 5000 || st.Err != "first\nsecond\ufffd[2J\ufffd" {
		t.Errorf("message of %d, last of %d, err %q", len(st.Message), len(st.Alone.Last), st.Err)
	}
}

// TestDescriptionIsBounded: what a node says of itself is refused by the name of its field, but for what it is called.
func TestDescriptionIsBounded(t *testing.T) {
	f := serve(t)
	f.commit(nodeOp("w1", 1))
	session := func(change func(*v1.NodeDescription)) answer {
		d := v1.NodeDescription{Hostname: "host"}
		change(&d)
		body, _ := json.Marshal(v1.SessionLine{Description: &d})
		return f.do("POST", "/v1/nodes/w1/session", string(body)+"\n")
	}
	large := strings.Repeat("x", 20<<10)
	for _, c := range []struct {
		want   string
		change func(*v1.NodeDescription)
	}{
		{"larger than", func(d *v1.NodeDescription) { d.Hostname = strings.Repeat("x", 250_000) }},
		{"larger than", func(d *v1.NodeDescription) {
			d.Engine.Labels = make(map[string]string)
			for i := range 2000 {
				d.Engine.Labels[fmt.Sprintf("some-label-%d", i)] = "value"
			}
		}},
		{"description.hostname", func(d *v1.NodeDescription) { d.Hostname = strings.Repeat("x", 254) }},
		{"description.addr", func(d *v1.NodeDescription) { d.Addr = "host.example" }},
		{"description.dataAddr", func(d *v1.NodeDescription) { d.DataAddr = large }},
		{"description.platform.os", func(d *v1.NodeDescription) { d.Platform.OS = large }},
		{"description.platform.architecture", func(d *v1.NodeDescription) { d.Platform.Architecture = "\u202e" }},
		{"description.engine.version", func(d *v1.NodeDescription) { d.Engine.Version = "1\n2" }},
		{"description.engine.runtime", func(d *v1.NodeDescription) { d.Engine.Runtime = large }},
		{"description.engine.labels", func(d *v1.NodeDescription) { d.Engine.Labels = map[string]string{"a": large} }},
		{"description.engine.labels", func(d *v1.NodeDescription) { d.Engine.Labels = map[string]string{"\x1b": "a"} }},
		{"description.tls.issuer", func(d *v1.NodeDescription) { d.TLS = &v1.NodeTLS{Issuer: large} }},
		{"description.tls.roots", func(d *v1.NodeDescription) { d.TLS = &v1.NodeTLS{Roots: make([]string, 9)} }},
		{"description.tls.roots[0]", func(d *v1.NodeDescription) { d.TLS = &v1.NodeTLS{Roots: []string{large}} }},
		{"description.resources.generic[0].kind", func(d *v1.NodeDescription) { d.Resources.Generic = []v1.GenericResource{{Kind: large}} }},
		{"description.resources.generic", func(d *v1.NodeDescription) { d.Resources.Generic = make([]v1.GenericResource, 257) }},
	} {
		if got := session(c.change); got.code != http.StatusBadRequest || !strings.Contains(got.body, c.want) {
			t.Errorf("%d %.300s, want %q", got.code, got.body, c.want)
		}
	}
	if n, _ := store.Get(f.snapshot(), v1.Nodes, "w1"); n.Status != nil {
		t.Errorf("something was written: %+v", n.Status)
	}
	session(func(d *v1.NodeDescription) { d.Hostname = "web\x1b]0;x\x07\nDown \u202eadmin" })
	if n, _ := store.Get(f.snapshot(), v1.Nodes, "w1"); n.Status == nil || n.Status.Description.Hostname != "web--0-x--Down--admin" {
		t.Errorf("stored: %+v", n.Status)
	}
}

// TestLaterDescriptionIsBounded: the session that sends it ends, and says why.
func TestLaterDescriptionIsBounded(t *testing.T) {
	f := serve(t)
	f.commit(nodeOp("w1", 1))
	line := func(hostname string) string {
		body, _ := json.Marshal(v1.SessionLine{Description: &v1.NodeDescription{Hostname: hostname}})
		return string(body) + "\n"
	}
	got := f.do("POST", "/v1/nodes/w1/session", line("host")+line(strings.Repeat("x", 254)))
	if n, _ := store.Get(f.snapshot(), v1.Nodes, "w1"); n.Status.Description.Hostname != "host" {
		t.Errorf("stored: %+v, answered %d %s", n.Status, got.code, got.body)
	}
}

// manyTasks are tasks of the node.
func manyTasks(f *fixture, n int) []string {
	f.Helper()
	ids := make([]string, n)
	var ops []store.Op
	for i := range ids {
		ids[i] = v1.TaskID("s", "", uint64(i))
		ops = append(ops, taskOp(ids[i], "s", "w1", "r1", uint64(i+1)))
	}
	if _, err := store.CommitAll(f.ctx, f.store, store.Commit{Ops: ops}); err != nil {
		f.Fatal(err)
	}
	return ids
}

// reportOf is a report of the tasks, each with a message of so many bytes.
func reportOf(ids []string, state v1.TaskState, message int, seed byte) string {
	r := v1.StatusReport{}
	for i, id := range ids {
		r.Tasks = append(r.Tasks, v1.TaskReport{ID: id, Status: v1.TaskStatus{State: state, Message: strings.Repeat(string(rune('0'+seed)), message),
			Container: &v1.ContainerStatus{ID: id, PID: uint32(i + 1)}, Address: "10.0.0.1"}})
	}
	body, _ := json.Marshal(r)
	return string(body)
}

// TestOneNodeCannotFillTheStore: what a node has written over and over is bounded, whichever way it does that; what tasks of its come
// to on their way is not held up, and other nodes are not.
func TestOneNodeCannotFillTheStore(t *testing.T) {
	began, ahead := time.Now(), new(atomic.Int64)
	c := form(t, func(o *apiserver.Options) {
		o.Clock = func() time.Time { return began.Add(time.Duration(ahead.Load())) }
	})
	ids := manyTasks(c.fixture, 10_000)
	c.commit(taskOp("other", "s", "w2", "r1", 1))
	worker, other := c.node("w1", ca.RoleWorker), c.node("w2", ca.RoleWorker)
	for _, state := range []v1.TaskState{v1.TaskPreparing, v1.TaskStarting, v1.TaskRunning} { // ten thousand start at once
		worker.expect(http.StatusOK, "POST", "/v1/nodes/w1/status", reportOf(ids, state, 60, 0))
	}
	worker.expect(http.StatusOK, "POST", "/v1/nodes/w1/status", reportOf(ids[:2000], v1.TaskRunning, 150, 1)) // two thousand say something else
	written, refused := 0, 0
	for i := range 60 {
		got := worker.must("POST", "/v1/nodes/w1/status", reportOf(ids[:10], v1.TaskRunning, 4000, byte(i+2)))
		switch got.code {
		case http.StatusOK:
			written += 40_000
		case http.StatusTooManyRequests:
			if refused++; got.header.Get("Retry-After") == "" {
				t.Errorf("no Retry-After: %v", got.header)
			}
		default:
			t.Fatalf("%d %s", got.code, got.body)
		}
	}
	if written > 1<<20 || refused == 0 {
		t.Errorf("%d bytes were written at once, %d requests refused", written, refused)
	}
	session := `{"description":{"hostname":"w1"}}` + "\n"
	openings := 0
	for range 40 {
		if worker.must("POST", "/v1/nodes/w1/session", session).code == http.StatusOK {
			openings++
		}
	}
	if openings == 40 {
		t.Error("sessions may be opened without end")
	}
	other.expect(http.StatusOK, "POST", "/v1/nodes/w2/status", reportOf([]string{"other"}, v1.TaskRunning, 4000, 0))
	ahead.Store(int64(time.Second))
	worker.expect(http.StatusOK, "POST", "/v1/nodes/w1/status", reportOf(ids[:10], v1.TaskRunning, 4000, 70))
}

// TestKnownStatusCostsNothing: a node that says again what is known, as after a restart, is never held up by that.
func TestKnownStatusCostsNothing(t *testing.T) {
	f := serve(t, func(o *apiserver.Options) { o.Clock = func() time.Time { return time.Unix(1e9, 0) } })
	f.commit(nodeOp("w1", 1))
	ids := manyTasks(f, 200)
	for range 20 {
		if got := f.do("POST", "/v1/nodes/w1/status", reportOf(ids, v1.TaskRunning, 4000, 0)); got.code != http.StatusOK {
			t.Fatalf("%d %s", got.code, got.body)
		}
	}
}
