package cli_test

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/swarmd/swarmd/pkg/agent"
	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/apiserver"
	"github.com/swarmd/swarmd/pkg/ca"
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

	mu       sync.Mutex
	id       string // of the first node; "" while there is no swarm
	door     string // host:port of the API over TLS
	lock     string // the key that unlocks the daemon; "" while it is not locked
	identity *ca.Identity
	asked    asked
	runtime  *runtime.Fake
}

// newSwarm serves a daemon that is in no swarm yet.
func newSwarm(t testing.TB) *swarm {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &swarm{t: t, store: store.NewMemory(), ctx: ctx}
	s.runtime = newRuntime()
	log := slog.New(slog.DiscardHandler)
	s.server = apiserver.New(apiserver.Options{Host: s, Resolver: s.runtime, Log: log,
		AuditFile: filepath.Join(t.TempDir(), "audit.log")})
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

// newRuntime is a runtime whose containers do what their image is called: crash ends with status 1, once with 0, brief so after 3 s, noisy
// writes lines, deaf stops only when it is killed, and missing cannot be pulled. The
// registry private.example wants a password that begins with right.
func newRuntime() *runtime.Fake {
	return runtime.NewFake(runtime.FakeOptions{
		Process: func(c runtime.Container) runtime.FakeProcess {
			switch image, _, _ := strings.Cut(c.Spec.Image, ":"); image {
			case "crash":
				return runtime.FakeProcess{RunFor: 5 * time.Millisecond, ExitCode: 1}
			case "deaf":
				return runtime.FakeProcess{Deaf: true}
			case "brief":
				return runtime.FakeProcess{RunFor: 3 * time.Second}
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
		Denied: func(ref string, l v1.RegistryLogin) bool {
			return strings.HasPrefix(ref, "private.example/") && !strings.HasPrefix(l.Password, "right")
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
	var cert atomic.Pointer[v1.NodeTLS] // as the managers want it
	cert.Store(&v1.NodeTLS{Issuer: s.identity.Issuer(), Roots: s.identity.RootDigests(), Expires: time.Now().Add(60 * 24 * time.Hour)})
	a := agent.New(agent.Options{NodeID: id, Runtime: engine, Manager: s.client.Node(id), Log: slog.New(slog.DiscardHandler),
		Told: func(news v1.SwarmNews) {
			if news.Issuer != "" {
				cert.Store(&v1.NodeTLS{Issuer: news.Issuer, Roots: digests(news.Roots), Expires: time.Now().Add(60 * 24 * time.Hour)})
			}
		},
		Describe: func() v1.NodeDescription {
			return v1.NodeDescription{Hostname: hostname, Platform: v1.Platform{Architecture: "x86_64", OS: "linux"}, TLS: cert.Load(),
				Resources: v1.NodeResources{CPUs: 4e9, Memory: 8 << 30}, Engine: v1.Engine{Version: "1.2.3"}}
		}})
	s.workers.Go(func() { a.Run(s.ctx) })
	return id
}

// digests are those of all certificates in the PEM.
func digests(roots []byte) []string {
	var all []string
	for block, rest := pem.Decode(roots); block != nil; block, rest = pem.Decode(rest) {
		all = append(all, ca.Digest(pem.EncodeToMemory(block)))
	}
	return all
}

// Init implements apiserver.Host.
func (s *swarm) Init(ctx context.Context, r v1.InitRequest) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.id != "" {
		return "", &v1.Problem{Title: "Service Unavailable", Status: 503,
			Detail: `This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.`}
	}
	s.asked.init = r
	cluster := &v1.Cluster{Meta: v1.Meta{Name: v1.ClusterName}, Spec: r.Spec}
	v1.Default(cluster)
	cluster.Spec.AutoLock = r.AutoLock
	root, key, err := ca.NewRoot(time.Now())
	if err != nil {
		return "", err
	}
	authority := &v1.AuthoritySpec{ClusterID: v1.HashID("cluster"), CA: v1.CertificateAuthority{Cert: root, Key: key},
		JoinSecrets: v1.JoinSecrets{Worker: ca.NewSecret(), Manager: ca.NewSecret()}}
	if r.AutoLock {
		authority.UnlockKey = ca.NewUnlockKey()
	}
	id := v1.HashID("manager1")
	address, err := s.openDoor(ctx, id, authority)
	if err != nil {
		return "", err
	}
	if _, err := s.store.Commit(ctx, store.Commit{Ops: []store.Op{
		{Kind: v1.KindCluster, ID: v1.ClusterName, Value: cluster.Spec, Meta: &v1.Meta{Name: v1.ClusterName, Generation: 1}, If: store.Absent()},
		{Kind: v1.KindAuthority, ID: v1.AuthorityName, Value: authority, Meta: &v1.Meta{Generation: 1}, If: store.Absent()},
		memberOp(id, address, true, true),
	}}); err != nil {
		return "", err
	}
	s.server.Attach(s.store, apiserver.Backing{Node: id, Identity: s.identity, Members: members{}})
	s.workers.Go(func() {
		lead, err := s.store.Campaign(s.ctx, "manager1")
		if err == nil {
			controllers.Run(s.ctx, s.store, lead, reconcile.Options{})
		}
	})
	s.id = s.join("manager1", v1.RoleManager)
	return s.id, nil
}

// openDoor serves the swarm over TLS on loopback, as a manager does, and returns where.
func (s *swarm) openDoor(ctx context.Context, id string, a *v1.AuthoritySpec) (string, error) {
	signer, err := ca.NewSigner(a.CA.Cert, a.CA.Key, nil, time.Now)
	if err != nil {
		return "", err
	}
	key, err := ca.NewKey()
	if err != nil {
		return "", err
	}
	csr, err := ca.NewRequest(key)
	if err != nil {
		return "", err
	}
	chain, err := signer.Sign(ctx, csr, ca.Subject{ID: id, Role: ca.RoleManager, Cluster: a.ClusterID}, 24*time.Hour)
	if err != nil {
		return "", err
	}
	if s.identity, err = ca.NewIdentity(chain, key, a.CA.Cert); err != nil {
		return "", err
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", s.identity.ServerTLS())
	if err != nil {
		return "", err
	}
	server := apiserver.NewHTTPServer(s.server.Door(), slog.New(slog.DiscardHandler))
	s.workers.Go(func() { server.Serve(listener) })
	context.AfterFunc(s.ctx, func() { server.Close() })
	s.door = listener.Addr().String()
	return s.door, nil
}

// memberOp writes what the leader says of a manager.
func memberOp(id, address string, leader, reachable bool) store.Op {
	return store.Op{Kind: v1.KindMember, ID: id, Section: v1.SectionStatus, Meta: &v1.Meta{}, If: store.Absent(),
		Value: &v1.MemberStatus{MemberID: id[:8], Addr: address, Voter: true, Leader: leader, Reachable: reachable}}
}

// members are the managers' etcd as far as there is one here.
type members struct{ apiserver.Membership }

// Voters implements apiserver.Membership.
func (members) Voters(context.Context) ([]apiserver.Voter, error) { return nil, nil }

// Backup implements apiserver.Membership.
func (members) Backup(_ context.Context, w io.Writer) error {
	_, err := io.WriteString(w, "all of it")
	return err
}

// asked is what the daemon was asked for, for tests to look at.
type asked struct {
	init, restore v1.InitRequest
	join          v1.JoinRequest
	key, archive  string
}

// Join implements apiserver.Joiner. The token says which role, as a real one's secret does.
func (s *swarm) Join(_ context.Context, r v1.JoinRequest) (v1.JoinResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked.join = r
	switch {
	case s.id != "":
		return v1.JoinResult{}, &v1.Problem{Title: "Service Unavailable", Status: 503,
			Detail: `This node is already part of a swarm. Use "swarmctl swarm leave" to leave this swarm and join another one.`}
	case r.Token == "manager":
		return v1.JoinResult{NodeID: v1.HashID("joined"), Role: v1.RoleManager}, nil
	case r.Token == "worker":
		return v1.JoinResult{NodeID: v1.HashID("joined"), Role: v1.RoleWorker}, nil
	}
	return v1.JoinResult{}, &v1.Problem{Title: "Bad Request", Status: 400, Detail: "invalid join token"}
}

// Unlock implements apiserver.Joiner.
func (s *swarm) Unlock(_ context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked.key = key; key != s.lock {
		return &v1.Problem{Title: "Unauthorized", Status: 401, Detail: "invalid key"}
	}
	s.lock = ""
	return nil
}

// Restore implements apiserver.Joiner.
func (s *swarm) Restore(_ context.Context, r v1.InitRequest, archive io.Reader) (string, error) {
	data, err := io.ReadAll(archive)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked.restore, s.asked.archive = r, string(data)
	return v1.HashID("manager1"), err
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
	s.mu.Lock()
	defer s.mu.Unlock()
	info := v1.Info{ID: s.id, Name: "manager1", ServerVersion: "1.2.3", OSType: "linux", NCPU: 4, MemTotal: 8 << 30}
	info.Swarm.LocalNodeState = v1.LocalNodeInactive
	switch {
	case s.lock != "":
		info.Swarm.LocalNodeState = v1.LocalNodeLocked
	case s.id != "":
		info.Swarm.LocalNodeState, info.Swarm.NodeID, info.Swarm.ControlAvailable, info.Swarm.NodeAddr = v1.LocalNodeActive, s.id, true, "127.0.0.1"
		info.Swarm.RemoteManagers = []v1.Peer{{NodeID: s.id, Addr: s.door}}
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
