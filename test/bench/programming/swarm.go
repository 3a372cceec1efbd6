package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"github.com/swarmd/swarmd/pkg/agent"
	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/apiserver"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/pkg/controllers"
	"github.com/swarmd/swarmd/pkg/dnsplugin"
	"github.com/swarmd/swarmd/pkg/netplugin"
	"github.com/swarmd/swarmd/pkg/reconcile"
	engine "github.com/swarmd/swarmd/pkg/runtime"
	"github.com/swarmd/swarmd/pkg/store/etcd"
	"github.com/swarmd/swarmd/test/bench/host"
)

// manager is what a manager's process runs.
type manager struct {
	address string
	store   *etcd.Store
	server  *apiserver.Server
	http    *http.Server
	cancel  context.CancelFunc
	done    sync.WaitGroup
}

func startManager(ctx context.Context, dir string, log *slog.Logger) (*manager, error) {
	s, err := etcd.Start(ctx, etcd.Config{Dir: filepath.Join(dir, "etcd"), Log: log})
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "s.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	m := &manager{address: "unix://" + socket, store: s, server: apiserver.New(apiserver.Options{Log: log}), cancel: cancel}
	m.server.Attach(s, apiserver.Backing{})
	m.http = apiserver.NewHTTPServer(m.server.Handler(), log)
	m.done.Go(func() { _ = m.http.Serve(listener) }) // until it is closed
	m.done.Go(func() {
		lead, err := s.Campaign(ctx, "bench")
		if err == nil {
			err = controllers.Run(ctx, s, lead, reconcile.Options{Logger: log})
		}
		if ctx.Err() == nil {
			log.Error("rules ended", "err", err)
		}
	})
	return m, nil
}

func (m *manager) stop() error {
	m.cancel()
	m.server.Close()
	err := m.http.Close()
	m.done.Wait()
	return errors.Join(err, m.store.Close())
}

// node is an agent with a network of its own.
type node struct {
	network *netplugin.Linux
	dir     string // of the agent
	client  *client.Client
	cancel  context.CancelFunc
	done    chan error
}

func startNode(ctx context.Context, c *client.Client, number int, address, dir string, seen *times, log *slog.Logger) (*node, error) {
	id, underlay := fmt.Sprintf("node%d", number), netip.AddrFrom4([4]byte{192, 0, 2, byte(number)})
	if _, _, err := client.Create(ctx, c, v1.Nodes, &v1.Node{Meta: v1.Meta{ID: id},
		Spec: &v1.NodeSpec{Role: v1.RoleWorker, Availability: v1.AvailabilityActive}}); err != nil {
		return nil, err
	}
	n := &node{done: make(chan error, 1)}
	var err error
	if n.network, err = host.NewNetwork(underlay, 0, netplugin.Options{Dir: filepath.Join(dir, "network"), Log: log}); err != nil {
		return nil, err
	}
	if n.client, err = client.New(address); err != nil {
		return nil, errors.Join(err, n.network.Close())
	}
	n.dir = filepath.Join(dir, "agent")
	if err := agent.MountFiles(n.dir); err != nil {
		return nil, errors.Join(err, n.network.Close())
	}
	a := agent.New(agent.Options{NodeID: id, Dir: n.dir, Runtime: engine.NewFake(engine.FakeOptions{}), Manager: n.client.Node(id),
		Network: n.network, Names: dnsplugin.New(dnsplugin.Options{Log: log}), Underlay: underlay, Log: log,
		Describe: func() v1.NodeDescription {
			return v1.NodeDescription{Hostname: id, DataAddr: underlay.String(), Platform: v1.Platform{OS: "linux", Architecture: "amd64"},
				Resources: v1.NodeResources{CPUs: 32_000_000_000, Memory: 128 << 30}, Engine: v1.Engine{Version: "hollow"}}
		},
		Applied:    seen.add(&seen.apply),
		Programmed: seen.add(&seen.whole)})
	ctx, n.cancel = context.WithCancel(ctx)
	go func() { n.done <- a.Run(ctx) }()
	return n, nil
}

func (t *times) add(to *[]time.Duration) func(time.Duration) {
	return func(took time.Duration) {
		t.mu.Lock()
		defer t.mu.Unlock()
		*to = append(*to, took)
	}
}

func (n *node) stop() error {
	n.cancel()
	err := errors.Join(<-n.done, agent.UnmountFiles(n.dir), n.network.Teardown(context.Background()), n.network.Close())
	n.client.Close()
	return err
}
