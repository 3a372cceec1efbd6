package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/swarmd/swarmd/pkg/agent"
	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/apiserver"
	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/pkg/runtime"
	"github.com/swarmd/swarmd/pkg/store"
)

// gate is a manager's port on loopback: real TLS, with a CA as "swarm init" makes it.
type gate struct {
	http  *http.Server
	addr  string
	token string
	log   *slog.Logger
	done  sync.WaitGroup

	mu   sync.Mutex
	left []*client.Client // of nodes that left
}

// managerID is the node ID of the one manager.
const managerID = "manager"

// openGate writes the CA to the store, and serves the manager's door over TLS.
func openGate(ctx context.Context, m *manager, log *slog.Logger, fail context.CancelCauseFunc) (*gate, error) {
	spec := &v1.AuthoritySpec{ClusterID: v1.NewID(), JoinSecrets: v1.JoinSecrets{Worker: ca.NewSecret(), Manager: ca.NewSecret()}}
	now := time.Now()
	var err error
	if spec.CA.Cert, spec.CA.Key, err = ca.NewRoot(now); err != nil {
		return nil, err
	}
	cluster := &v1.Cluster{Meta: v1.Meta{Name: v1.ClusterName}, Spec: &v1.ClusterSpec{}}
	v1.Default(cluster)
	meta := func() *v1.Meta { return &v1.Meta{CreatedAt: now, UpdatedAt: now, Generation: 1} }
	named := meta()
	named.Name = v1.ClusterName
	revision, err := m.store.Commit(ctx, store.Commit{Ops: []store.Op{
		{Kind: v1.KindCluster, ID: v1.ClusterName, Value: cluster.Spec, Meta: named, If: store.Absent()},
		{Kind: v1.KindAuthority, ID: v1.AuthorityName, Value: spec, Meta: meta(), If: store.Absent()},
		{Kind: v1.KindAuthority, ID: v1.AuthorityName, Section: v1.SectionDesired, Value: &v1.AuthorityDesired{Cert: spec.CA.Cert, Key: spec.CA.Key}, If: store.Always()},
	}})
	if err != nil {
		return nil, err
	}
	// Who joins is told of the roots from what this manager has read, which is behind what it wrote.
	if _, err := m.store.Snapshot(ctx, revision); err != nil {
		return nil, err
	}
	identity, err := certify(ctx, spec)
	if err != nil {
		return nil, err
	}
	m.server.Attach(m.store, apiserver.Backing{Node: managerID, Identity: identity})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	g := &gate{addr: listener.Addr().String(), log: log, token: ca.Token{Digest: ca.Digest(spec.CA.Cert), Secret: spec.JoinSecrets.Worker}.String()}
	g.http = apiserver.NewHTTPServer(m.server.Door(), log)
	g.http.TLSConfig = identity.ServerTLS()
	g.done.Go(func() {
		if err := g.http.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
			fail(fmt.Errorf("gate: %w", err))
		}
	})
	return g, nil
}

// certify makes the manager's own certificate.
func certify(ctx context.Context, a *v1.AuthoritySpec) (*ca.Identity, error) {
	signer, err := ca.NewSigner(a.CA.Cert, a.CA.Key, nil, time.Now)
	if err != nil {
		return nil, err
	}
	key, csr, err := request()
	if err != nil {
		return nil, err
	}
	chain, err := signer.Sign(ctx, csr, ca.Subject{ID: managerID, Role: ca.RoleManager, Cluster: a.ClusterID}, v1.DefaultNodeCertExpiry)
	if err != nil {
		return nil, err
	}
	return ca.NewIdentity(chain, key, a.CA.Cert)
}

func request() (key, csr []byte, err error) {
	if key, err = ca.NewKey(); err != nil {
		return nil, nil, err
	}
	csr, err = ca.NewRequest(key)
	return key, csr, err
}

func (g *gate) close() error {
	err := g.http.Close()
	g.done.Wait()
	return err
}

// guest is a hollow node: a real certificate, a real agent, real connections, and containers in memory.
type guest struct {
	id     string
	gate   *gate
	client *client.Client
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// join goes through the doors that a daemon goes through.
func (g *gate) join(ctx context.Context, hostname string) (*guest, error) {
	token, err := ca.ParseToken(g.token)
	if err != nil {
		return nil, err
	}
	roots, err := client.FetchRoots(ctx, g.addr, token.Digest)
	if err != nil {
		return nil, fmt.Errorf("fetch the roots: %w", err)
	}
	key, csr, err := request()
	if err != nil {
		return nil, err
	}
	admission, err := client.Admit(ctx, g.addr, roots, v1.AdmissionRequest{Token: g.token, CSR: csr})
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	identity, err := ca.NewIdentity(admission.Chain, key, admission.Roots)
	if err != nil {
		return nil, err
	}
	n := &guest{id: admission.NodeID, gate: g}
	if n.client, err = client.Dial(client.Options{Hosts: []string{g.addr}, TLS: identity.ClientTLS()}); err != nil {
		return nil, err
	}
	a := agent.New(agent.Options{
		NodeID: n.id, Runtime: runtime.NewFake(runtime.FakeOptions{}), Manager: n.client.Node(n.id), Log: g.log,
		Describe: func() v1.NodeDescription {
			return v1.NodeDescription{Hostname: hostname, Platform: v1.Platform{OS: "linux", Architecture: "amd64"},
				Resources: v1.NodeResources{CPUs: 32_000_000_000, Memory: 128 << 30}, Engine: v1.Engine{Version: "hollow"}}
		},
	})
	ctx, n.cancel = context.WithCancel(ctx)
	n.done.Go(func() {
		if err := a.Run(ctx); err != nil {
			g.log.Error("agent", "node.id", n.id, "err", err)
		}
	})
	return n, nil
}

// leave tells the swarm that the node goes for good, and ends its agent.
func (n *guest) leave(ctx context.Context) error {
	if err := n.client.Node(n.id).Leave(ctx); err != nil {
		return err
	}
	n.stop()
	return nil
}

// stop ends the agent as a daemon that stops does. It may be called twice.
func (n *guest) stop() {
	n.cancel()
	n.done.Wait()
	n.gate.mu.Lock()
	n.gate.left = append(n.gate.left, n.client)
	n.gate.mu.Unlock()
}

// sweep closes the connections of nodes that left. A daemon's end does that; here a connection is idle only some time after its session
// has ended, and would stay for as long as idle ones do.
func (g *gate) sweep() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.left {
		c.Close()
	}
	g.left = nil
}
