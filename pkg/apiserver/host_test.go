package apiserver_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/apiserver"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/pkg/store"
)

// daemon is a Host whose swarm is a store in memory.
type daemon struct {
	server *apiserver.Server
	store  *store.Memory
	inside bool
	loaded int64
}

func (d *daemon) Info(context.Context) (v1.Info, error) {
	info := v1.Info{Name: "host1", Swarm: v1.SwarmInfo{LocalNodeState: v1.LocalNodeInactive}}
	if d.inside {
		info.Swarm.LocalNodeState, info.Swarm.ControlAvailable, info.Swarm.NodeID = v1.LocalNodeActive, true, "node1"
	}
	return info, nil
}

func (d *daemon) Version(context.Context) (v1.VersionInfo, error) {
	return v1.VersionInfo{Version: "1.2.3"}, nil
}

func (d *daemon) Init(ctx context.Context, r v1.InitRequest) (string, error) {
	if d.inside {
		return "", &v1.Problem{Title: "Service Unavailable", Status: http.StatusServiceUnavailable, Detail: "This node is already part of a swarm."}
	}
	_, err := d.store.Commit(ctx, store.Commit{Ops: []store.Op{
		{Kind: v1.KindCluster, ID: v1.ClusterName, Value: &v1.ClusterSpec{}, Meta: &v1.Meta{Name: v1.ClusterName}, If: store.Absent()},
		{Kind: v1.KindNode, ID: "node1", Value: &v1.NodeSpec{Role: v1.RoleManager, Availability: r.Availability, Index: 1}, If: store.Absent()}}})
	d.inside = err == nil
	d.server.Attach(d.store, apiserver.Backing{})
	return "node1", err
}

func (d *daemon) Leave(_ context.Context, force bool) error {
	if !force {
		return &v1.Problem{Title: "Service Unavailable", Status: http.StatusServiceUnavailable, Detail: "use --force"}
	}
	d.server.Detach()
	d.inside = false
	return nil
}

func (d *daemon) Join(context.Context, v1.JoinRequest) (v1.JoinResult, error) {
	return v1.JoinResult{}, errors.New("not in this test")
}

func (d *daemon) Unlock(context.Context, string) error { return errors.New("not in this test") }

func (d *daemon) Restore(context.Context, v1.InitRequest, io.Reader) (string, error) {
	return "", errors.New("not in this test")
}

func (d *daemon) Images(context.Context) ([]v1.Image, error) { return nil, nil }

func (d *daemon) LoadImages(_ context.Context, archive io.Reader) ([]v1.Image, error) {
	n, err := io.Copy(io.Discard, archive)
	d.loaded = n
	if n < 10 && err == nil {
		return nil, errors.New("not an archive")
	}
	return []v1.Image{{Name: "hello", Size: n, Loaded: true}}, err
}

func serveHost(t *testing.T) (*fixture, *daemon) {
	d := new(daemon)
	f := serve(t, func(o *apiserver.Options) { o.Host, o.Store = d, nil })
	d.server, d.store = f.server, f.store
	return f, d
}

func TestHost(t *testing.T) {
	f, d := serveHost(t)
	for _, path := range []string{"/v1/services", "/v1/services?watch=true", "/v1/events", "/v1/tasks/a/logs?stdout=1", "/v1/revision", "/v1/snapshot", "/readyz"} {
		got := f.do("GET", path, "")
		if got.code != http.StatusServiceUnavailable || !strings.Contains(got.body, `This node is not a swarm manager. Use \"swarmctl swarm init\"`) {
			t.Errorf("%s before init: %d %s", path, got.code, got.body)
		}
	}
	if got := f.do("GET", "/healthz", ""); got.code != http.StatusOK {
		t.Errorf("healthz: %d", got.code)
	}
	info, err := f.client.Info(f.ctx)
	if err != nil || info.Swarm.LocalNodeState != v1.LocalNodeInactive || info.Name != "host1" {
		t.Errorf("info: %+v, %v", info, err)
	}
	if version, err := f.client.Version(f.ctx); err != nil || version.Version != "1.2.3" {
		t.Errorf("version: %+v, %v", version, err)
	}
	if got := f.do("POST", "/v1/swarm/init", `{"advertiseAdr":"x"}`); got.code != http.StatusBadRequest || !strings.Contains(got.body, "advertiseAdr") {
		t.Errorf("init: %d %s", got.code, got.body)
	}
	id, err := f.client.Init(f.ctx, v1.InitRequest{Availability: v1.AvailabilityPause})
	if err != nil || id != "node1" {
		t.Fatalf("init: %q, %v", id, err)
	}
	_, err = f.client.Init(f.ctx, v1.InitRequest{})
	f.refused(err, http.StatusServiceUnavailable, "already part of a swarm")
	if n, err := client.Get(f.ctx, f.client, v1.Nodes, "node1"); err != nil || n.Spec.Availability != v1.AvailabilityPause {
		t.Errorf("node: %+v, %v", n, err)
	}
	f.refused(client.Delete(f.ctx, f.client, v1.Nodes, "node1"), http.StatusBadRequest, "is a cluster manager and is a member of the raft cluster")
	info, err = f.client.Info(f.ctx)
	if err != nil || info.Swarm.Nodes != 1 || info.Swarm.Cluster == nil || info.Swarm.Cluster.GatewayPool != v1.DefaultGatewayPool {
		t.Errorf("info: %+v, %v", info, err)
	}
	f.refused(f.client.Leave(f.ctx, false), http.StatusServiceUnavailable, "--force")
	if err := f.client.Leave(f.ctx, true); err != nil || d.inside {
		t.Errorf("leave: %v", err)
	}
	if got := f.do("GET", "/v1/services", ""); got.code != http.StatusServiceUnavailable {
		t.Errorf("after leaving: %d %s", got.code, got.body)
	}
}

func TestImages(t *testing.T) {
	f, d := serveHost(t)
	if images, err := f.client.Images(f.ctx); err != nil || len(images) != 0 {
		t.Errorf("images: %v, %v", images, err)
	}
	const size = 50 << 20 // far beyond the limit of other bodies
	images, err := f.client.LoadImages(f.ctx, io.LimitReader(endless{}, size))
	if err != nil || len(images) != 1 || images[0].Size != size || d.loaded != size {
		t.Errorf("load: %v, %v", images, err)
	}
	_, err = f.client.LoadImages(f.ctx, strings.NewReader("x"))
	f.refused(err, http.StatusInternalServerError, "not an archive")
}

func TestOpenAPI(t *testing.T) {
	f, _ := serveHost(t)
	got := f.do("GET", "/openapi.json", "")
	var doc struct {
		OpenAPI    string
		Paths      map[string]map[string]struct{ OperationID string }
		Components struct {
			Schemas map[string]struct{ Properties map[string]any }
		}
	}
	if err := json.Unmarshal([]byte(got.body), &doc); err != nil || doc.OpenAPI != "3.1.0" {
		t.Fatalf("%d %v %q", got.code, err, doc.OpenAPI)
	}
	for _, m := range regexp.MustCompile(`"\$ref": "([^"]*)"`).FindAllStringSubmatch(got.body, -1) {
		name, ok := strings.CutPrefix(m[1], "#/components/schemas/")
		if _, known := doc.Components.Schemas[name]; !ok || !known {
			t.Errorf("reference to %s, which is not there", m[1])
		}
	}
	seen := make(map[string]bool)
	for path, methods := range doc.Paths {
		for method, operation := range methods {
			if operation.OperationID == "" || seen[operation.OperationID] {
				t.Errorf("%s %s: operation %q is not unique", method, path, operation.OperationID)
			}
			seen[operation.OperationID] = true
			// What the document says is there is there, and nothing happens for a parameter that it does not name.
			probe := strings.NewReplacer("{ref}", "x", "{stream}", "y").Replace(path) + "?nope=1"
			if a := f.do(strings.ToUpper(method), probe, ""); a.code != http.StatusBadRequest || !strings.Contains(a.body, "nope") {
				t.Errorf("%s %s: %d %s", method, probe, a.code, a.body)
			}
		}
	}
	for _, want := range []string{"Service", "ServiceSpec", "TaskSpec", "Task", "Node", "Problem", "Info", "Assignment", "TaskLogRecord"} {
		if len(doc.Components.Schemas[want].Properties) == 0 {
			t.Errorf("no schema of %s", want)
		}
	}
	for _, want := range []string{"apiVersion", "kind", "metadata", "spec"} {
		if doc.Components.Schemas["Service"].Properties[want] == nil {
			t.Errorf("a service's schema has no %s", want)
		}
	}
}

func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	f := serve(t, func(o *apiserver.Options) { o.Registry = registry })
	service := f.create(web("web"))
	f.commit(nodeOp("node1", 1), taskOp("a", service.Meta.ID, "node1", "r", 1), taskOp("b", service.Meta.ID, "", "r", 2))
	a := f.connect("node1")
	a.until(func() bool { return len(a.tasks) == 1 })
	if _, err := f.client.Node("node1").Report(f.ctx, v1.StatusReport{Tasks: []v1.TaskReport{{ID: "a", Status: v1.TaskStatus{State: v1.TaskRunning}}}}); err != nil {
		t.Fatal(err)
	}
	next, _, _ := f.lines("/v1/services?watch=true")
	next()
	want := []string{
		`swarm_tasks{state="running"} 1`, `swarm_tasks{state="pending"} 1`, `swarm_nodes{state="ready"} 1`, `swarm_services 1`,
		`apiserver_sessions 1`, `apiserver_watches 1`, `apiserver_status_writes_total 3`,
		`apiserver_request_duration_seconds_count{code="201",resource="services",verb="POST"} 1`,
	}
	for missing := want; len(missing) > 0; { // the counts follow the store's watch
		got := f.do("GET", "/metrics", "").body
		missing = nil
		for _, line := range want {
			if !strings.Contains(got, line+"\n") {
				missing = append(missing, line)
			}
		}
		if f.ctx.Err() != nil {
			t.Fatalf("not shown: %s\n%s", missing, got)
		}
	}
}

func TestServiceStatuses(t *testing.T) {
	f := serve(t)
	one, two := web("one"), web("two")
	one.Spec.Replicas = new(uint64)
	*one.Spec.Replicas = 3
	one, two = f.create(one), f.create(two)
	f.commit(taskOp("a", one.Meta.ID, "node1", "r", 1), taskOp("b", one.Meta.ID, "node1", "r", 2))
	f.commit(store.Op{Kind: v1.KindTask, ID: "a", Section: v1.SectionStatus, Value: &v1.TaskStatus{State: v1.TaskRunning}, If: store.Exists()})
	all, err := f.client.ServiceStatuses(f.ctx)
	if err != nil || len(all) != 2 || all[one.Meta.ID] != (v1.ServiceStatus{RunningTasks: 1, DesiredTasks: 3}) || all[two.Meta.ID].DesiredTasks != 1 {
		t.Errorf("%+v, %v", all, err)
	}
	some, err := f.client.ServiceStatuses(f.ctx, one.Meta.ID, "none")
	if err != nil || len(some) != 1 {
		t.Errorf("%+v, %v", some, err)
	}
}

// TestPanicIsAnswered lets a Host panic: the client is told, and the server lives.
func TestPanicIsAnswered(t *testing.T) {
	f := serve(t, func(o *apiserver.Options) { o.Host = (*daemon)(nil) })
	if got := f.do("GET", "/v1/info", ""); got.code != http.StatusInternalServerError || !strings.Contains(got.body, "an internal error") {
		t.Errorf("%d %s", got.code, got.body)
	}
	if got := f.do("GET", "/v1/services", ""); got.code != http.StatusOK {
		t.Errorf("afterwards: %d", got.code)
	}
}
