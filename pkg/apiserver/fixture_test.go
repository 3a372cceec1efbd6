package apiserver_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/apiserver"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/pkg/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what would otherwise wait for ever. No test passes by its running out.
const patience = time.Minute

// fixture is a server on a unix socket over a store in memory, and a client of it.
type fixture struct {
	testing.TB
	ctx    context.Context
	server *apiserver.Server
	store  *store.Memory
	client *client.Client
	http   *http.Client // speaks to the socket whatever the host
	socket string
}

// serve starts a server. Options may be changed before it begins.
func serve(t testing.TB, change ...func(*apiserver.Options)) *fixture {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	t.Cleanup(cancel)
	f := &fixture{TB: t, ctx: ctx, store: store.NewMemory()}
	o := apiserver.Options{Store: f.store, Log: slog.New(slog.DiscardHandler)}
	for _, c := range change {
		c(&o)
	}
	f.server = apiserver.New(o)
	dir, err := os.MkdirTemp("", "api") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	f.socket = filepath.Join(dir, "s")
	listener, err := net.Listen("unix", f.socket)
	if err != nil {
		t.Fatal(err)
	}
	server := apiserver.NewHTTPServer(f.server.Handler(), o.Log)
	served := make(chan struct{})
	go func() {
		defer close(served)
		server.Serve(listener)
	}()
	f.client, err = client.New("unix://" + f.socket)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", f.socket)
	}}
	f.http = &http.Client{Transport: transport}
	t.Cleanup(func() {
		f.server.Close()
		f.client.Close()
		transport.CloseIdleConnections()
		server.Close()
		<-served
		f.store.Close()
		os.RemoveAll(dir)
	})
	return f
}

// answer is what a raw request got.
type answer struct {
	code   int
	header http.Header
	body   string
}

// do makes a raw request.
func (f *fixture) do(method, path, body string, header ...string) answer {
	f.Helper()
	req, err := http.NewRequestWithContext(f.ctx, method, "http://swarmd"+path, strings.NewReader(body))
	if err != nil {
		f.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := f.http.Do(req)
	if err != nil {
		f.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		f.Fatalf("%s %s: %v", method, path, err)
	}
	return answer{resp.StatusCode, resp.Header, string(data)}
}

// web is a service that is in order.
func web(name string) *v1.Service {
	return &v1.Service{Meta: v1.Meta{Name: name}, Spec: &v1.ServiceSpec{
		Task: v1.TaskSpec{Container: v1.ContainerSpec{Image: "nginx:1.27"}},
	}}
}

// create creates a service that is in order.
func (f *fixture) create(s *v1.Service) *v1.Service {
	f.Helper()
	made, _, err := client.Create(f.ctx, f.client, v1.Services, s)
	if err != nil {
		f.Fatalf("create service %s: %v", s.Meta.Name, err)
	}
	return made
}

// commit commits what must succeed.
func (f *fixture) commit(ops ...store.Op) int64 {
	f.Helper()
	revision, err := f.store.Commit(f.ctx, store.Commit{Ops: ops})
	if err != nil {
		f.Fatalf("commit: %v", err)
	}
	return revision
}

// snapshot is the newest.
func (f *fixture) snapshot() *store.Snapshot {
	f.Helper()
	s, err := f.store.Snapshot(f.ctx, 0)
	if err != nil {
		f.Fatal(err)
	}
	return s
}

// until waits for the store to be as it should.
func (f *fixture) until(what string, ok func(*store.Snapshot) bool) *store.Snapshot {
	f.Helper()
	for s := f.snapshot(); ; {
		if ok(s) {
			return s
		}
		next, err := f.store.Snapshot(f.ctx, s.Revision()+1)
		if err != nil {
			f.Fatalf("wait until %s: %v", what, err)
		}
		s = next
	}
}

// taskOp places a task of a service on a node.
func taskOp(id, service, node, revision string, slot uint64) store.Op {
	d := &v1.TaskDesired{Service: service, ServiceName: "web", Slot: slot, Attempt: 1, Revision: revision, State: v1.TaskRunning}
	if node != "" {
		d.Placement = &v1.TaskPlacement{Node: node}
	}
	return store.Op{Kind: v1.KindTask, ID: id, Section: v1.SectionDesired, Value: d, If: store.Always()}
}

// nodeOp makes a node.
// addrOp says where a node is reached.
func addrOp(id, addr string) store.Op {
	return store.Op{Kind: v1.KindNode, ID: id, Section: v1.SectionStatus, If: store.Always(), Value: &v1.NodeStatus{State: v1.NodeReady, Addr: addr}}
}

func nodeOp(id string, index uint32) store.Op {
	return store.Op{Kind: v1.KindNode, ID: id, Value: &v1.NodeSpec{Role: v1.RoleWorker, Availability: v1.AvailabilityActive, Index: index},
		Meta: &v1.Meta{Generation: 1}, If: store.Absent()}
}
