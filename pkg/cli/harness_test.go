package cli_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/swarmd/swarmd/pkg/agent"
	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/apiserver"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/pkg/controllers"
	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/runtime"
	"github.com/swarmd/swarmd/pkg/store"
)

// swarm is everything below swarmctl in one process: API server, rules, agents, with containers that are pretended.
type swarm struct {
	t       testing.TB
	socket  string
	server  *apiserver.Server
	store   *store.Memory
	client  *client.Client
	workers sync.WaitGroup
	ctx     context.Context

	mu      sync.Mutex
	id      string // of the first node; "" while there is no swarm
	runtime *runtime.Fake
}

// newSwarm serves a daemon that is in no swarm yet.
func newSwarm(t testing.TB) *swarm {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &swarm{t: t, store: store.NewMemory(), ctx: ctx}
	s.runtime = newRuntime()
	log := slog.New(slog.DiscardHandler)
	s.server = apiserver.New(apiserver.Options{Host: s, Resolver: s.runtime, Log: log,
		Limits: apiserver.Limits{DownAfter: 50 * time.Millisecond}})
	dir, err := os.MkdirTemp("", "cli") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	s.socket = filepath.Join(dir, "s")
	listener, err := net.Listen("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	server := apiserver.NewHTTPServer(s.server.Handler(), log)
	s.workers.Go(func() { server.Serve(listener) })
	if s.client, err = client.New(s.host()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		s.server.Close()
		s.client.Close()
		server.Close()
		s.workers.Wait()
		s.store.Close()
		os.RemoveAll(dir)
	})
	return s
}

func (s *swarm) host() string { return "unix://" + s.socket }

// newRuntime is a runtime whose containers do what their image is called: crash ends with status 1, once with 0, noisy
// writes lines, and missing cannot be pulled.
func newRuntime() *runtime.Fake {
	return runtime.NewFake(runtime.FakeOptions{
		Process: func(c runtime.Container) runtime.FakeProcess {
			switch image, _, _ := strings.Cut(c.Spec.Image, ":"); image {
			case "crash":
				return runtime.FakeProcess{RunFor: 5 * time.Millisecond, ExitCode: 1}
			case "once":
				return runtime.FakeProcess{RunFor: 5 * time.Millisecond}
			case "noisy":
				at := time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)
				return runtime.FakeProcess{Output: []v1.LogRecord{
					{Time: at, Stream: "stdout", Line: []byte("hello out")},
					{Time: at.Add(time.Second), Stream: "stderr", Line: []byte("hello err")},
					{Time: at.Add(2 * time.Second), Stream: "stdout", Line: []byte("par"), Partial: true},
					{Time: at.Add(2 * time.Second), Stream: "stdout", Line: []byte("tial")},
				}}
			}
			return runtime.FakeProcess{}
		},
		Fail: func(op runtime.FakeOp, id string) error {
			if op == runtime.FakePull && strings.HasPrefix(id, "missing") {
				return fmt.Errorf("%w: pull access denied for missing, repository does not exist", runtime.ErrInvalid)
			}
			return nil
		},
		Images: []runtime.Image{{Name: "docker.io/library/hello:1", Digest: "sha256:" + strings.Repeat("ab", 32), Size: 4_200_000}},
	})
}

// start makes the swarm, with n nodes.
func (s *swarm) start(n int) {
	s.t.Helper()
	if _, err := s.Init(s.ctx, v1.InitRequest{}); err != nil {
		s.t.Fatal(err)
	}
	for i := 2; i <= n; i++ {
		s.join(fmt.Sprintf("worker%d", i-1), v1.RoleWorker)
	}
}

// join adds a node and runs its agent.
func (s *swarm) join(hostname string, role v1.NodeRole) string {
	s.t.Helper()
	id := v1.HashID(hostname)
	_, _, err := client.Create(s.ctx, s.client, v1.Nodes, &v1.Node{Meta: v1.Meta{ID: id},
		Spec: &v1.NodeSpec{Role: role, Availability: v1.AvailabilityActive}})
	if err != nil {
		s.t.Fatal(err)
	}
	engine := s.runtime
	if hostname != "manager1" {
		engine = newRuntime()
	}
	a := agent.New(agent.Options{NodeID: id, Runtime: engine, Manager: s.client.Node(id), Log: slog.New(slog.DiscardHandler),
		Describe: func() v1.NodeDescription {
			return v1.NodeDescription{Hostname: hostname, Platform: v1.Platform{Architecture: "x86_64", OS: "linux"},
				Resources: v1.NodeResources{CPUs: 4e9, Memory: 8 << 30}, Engine: v1.Engine{Version: "1.2.3"}}
		}})
	s.workers.Go(func() { a.Run(s.ctx) })
	return id
}

// Init implements apiserver.Host.
func (s *swarm) Init(ctx context.Context, r v1.InitRequest) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.id != "" {
		return "", &v1.Problem{Title: "Service Unavailable", Status: 503,
			Detail: `This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.`}
	}
	cluster := &v1.Cluster{Meta: v1.Meta{Name: v1.ClusterName}, Spec: r.Spec}
	v1.Default(cluster)
	if _, err := s.store.Commit(ctx, store.Commit{Ops: []store.Op{{Kind: v1.KindCluster, ID: v1.ClusterName, Value: cluster.Spec,
		Meta: &v1.Meta{Name: v1.ClusterName, Generation: 1}, If: store.Absent()}}}); err != nil {
		return "", err
	}
	s.server.Attach(s.store)
	engine := reconcile.New(s.store, controllers.Rules(), reconcile.Options{})
	s.workers.Go(func() {
		lead, err := s.store.Campaign(s.ctx, "manager1")
		if err == nil {
			engine.Run(s.ctx, lead)
		}
	})
	s.id = s.join("manager1", v1.RoleManager)
	return s.id, nil
}

// Leave implements apiserver.Host.
func (s *swarm) Leave(_ context.Context, force bool) error {
	if !force {
		return &v1.Problem{Title: "Service Unavailable", Status: 503, Detail: "You are attempting to leave the swarm on a node that is " +
			"participating as a manager. Use `--force` to ignore this message."}
	}
	return nil
}

// Info implements apiserver.Host.
func (s *swarm) Info(context.Context) (v1.Info, error) {
	info := v1.Info{ID: s.id, Name: "manager1", ServerVersion: "1.2.3", OSType: "linux", NCPU: 4, MemTotal: 8 << 30}
	info.Swarm.LocalNodeState = v1.LocalNodeInactive
	if s.id != "" {
		info.Swarm.LocalNodeState, info.Swarm.NodeID, info.Swarm.ControlAvailable = v1.LocalNodeActive, s.id, true
	}
	return info, nil
}

// Version implements apiserver.Host.
func (s *swarm) Version(context.Context) (v1.VersionInfo, error) {
	return v1.VersionInfo{Version: "1.2.3", APIVersion: v1.APIVersion, GoVersion: "go1.26", Os: "linux", Arch: "amd64"}, nil
}

// Images implements apiserver.Host.
func (s *swarm) Images(ctx context.Context) ([]v1.Image, error) {
	images, err := s.runtime.Images(ctx)
	return apiImages(images), err
}

// LoadImages implements apiserver.Host.
func (s *swarm) LoadImages(ctx context.Context, archive io.Reader) ([]v1.Image, error) {
	images, err := s.runtime.Load(ctx, archive)
	if errors.Is(err, runtime.ErrInvalid) {
		return nil, &v1.Problem{Title: "Bad Request", Status: 400, Detail: err.Error()}
	}
	return apiImages(images), err
}

func apiImages(images []runtime.Image) []v1.Image {
	all := make([]v1.Image, len(images))
	for i, image := range images {
		all[i] = v1.Image(image)
	}
	return all
}
