package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/swarmd/swarmd/pkg/agent"
	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/apiserver"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/pkg/controllers"
	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/store/etcd"
)

// EtcdOptions say which etcd of one's own a part works on.
type EtcdOptions struct {
	Endpoints []string
	// KeyFile holds the keys that values are sealed with; all parts of one swarm need the same.
	KeyFile string
}

func (o EtcdOptions) start(ctx context.Context, log *slog.Logger, m *storeMetrics) (*etcd.Store, error) {
	if len(o.Endpoints) == 0 {
		return nil, errors.New("--etcd-endpoints is needed: this part of swarmd works on an etcd of your own; swarmd has one built in")
	}
	s, err := etcd.Start(ctx, etcd.Config{Endpoints: o.Endpoints, KeyFile: o.KeyFile, Log: log, OnCommit: m.commit})
	if err != nil {
		return nil, fmt.Errorf("open the swarm's store at %v: %w", o.Endpoints, err)
	}
	return s, nil
}

// APIServerOptions say what an API server of its own is to be.
type APIServerOptions struct {
	Etcd   EtcdOptions
	Socket string
	Log    *slog.Logger
}

// RunAPIServer serves the API of a swarm whose state is in an etcd of its own, until ctx ends.
func RunAPIServer(ctx context.Context, o APIServerOptions) error {
	d := &Daemon{log: o.Log, registry: newRegistry(), failed: make(chan error, 4)}
	s, err := o.Etcd.start(ctx, o.Log, newStoreMetrics(d.registry))
	if err != nil {
		return err
	}
	defer s.Close()
	if err := found(ctx, s, &v1.ClusterSpec{}, nil); err != nil {
		return err
	}
	if d.machine, err = thisMachine(); err != nil {
		return err
	}
	d.server = apiserver.New(apiserver.Options{Store: s, Host: apiHost{d.machine}, Registry: d.registry, Log: o.Log})
	l, err := listen(o.Socket)
	if err != nil {
		return err
	}
	server := d.answer(l, d.server.Handler())
	o.Log.Info("the API server is ready", "socket", o.Socket)
	err = d.wait(ctx, s)
	d.server.Close()
	shutdown(server)
	return err
}

// wait is until ctx ends, or something fails.
func (d *Daemon) wait(ctx context.Context, s *etcd.Store) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-d.failed:
		return err
	case <-s.Done():
		return fmt.Errorf("the swarm's store ended: %w", s.Err())
	}
}

// ControllerOptions say what a controller manager of its own is to be.
type ControllerOptions struct {
	Etcd EtcdOptions
	// Name tells this candidate for the lead from others.
	Name string
	// MetricsAddr is host:port for /metrics and /healthz; empty for none.
	MetricsAddr string
	Log         *slog.Logger
}

// RunControllers runs the rules whenever this process is the leader, until ctx ends.
func RunControllers(ctx context.Context, o ControllerOptions) error {
	d := &Daemon{log: o.Log, registry: newRegistry(), failed: make(chan error, 4)}
	s, err := o.Etcd.start(ctx, o.Log, newStoreMetrics(d.registry))
	if err != nil {
		return err
	}
	defer s.Close()
	if o.MetricsAddr != "" {
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", promhttp.HandlerFor(d.registry, promhttp.HandlerOpts{}))
		mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
		shut, err := d.serveMetrics(o.MetricsAddr, mux)
		if err != nil {
			return err
		}
		defer shut()
	}
	engine := reconcile.New(s, controllers.Rules(), reconcile.Options{Logger: d.log, Registry: d.registry})
	live, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.lead(live, s, engine, o.Name)
	}()
	err = d.wait(ctx, s)
	cancel()
	<-done
	return err
}

// AgentOptions say what an agent of its own is to be.
type AgentOptions struct {
	// Host is the API server's socket, such as unix:///run/swarmd/swarmd.sock.
	Host string
	// Node are the options that an agent shares with the daemon: Root, RuntimeDir, ContainerdAddress, InsecureRegistries, Log.
	Node Options
}

// RunAgent works for the swarm whose API server is at the host, until ctx ends. It joins at its first start.
func RunAgent(ctx context.Context, o AgentOptions) error {
	if err := o.Node.complete(); err != nil {
		return err
	}
	lock, err := acquireSoon(ctx, o.Node.Root)
	if err != nil {
		return err
	}
	defer lock.release()
	d := &Daemon{o: o.Node, log: o.Node.Log, failed: make(chan error, 4)}
	defer d.close()
	if err := d.open(ctx); err != nil {
		return err
	}
	c, err := client.New(o.Host)
	if err != nil {
		return err
	}
	id, err := d.join(ctx, c)
	if err != nil {
		return err
	}
	return agent.New(agent.Options{
		NodeID:   id.NodeID,
		Dir:      filepath.Join(o.Node.Root, "agent"),
		Runtime:  d.runtime,
		Network:  d.network,
		Manager:  c.Node(id.NodeID),
		Describe: func() v1.NodeDescription { return d.machine.describe(d.engine, id.Addr) },
		Log:      d.log,
	}).Run(ctx)
}

// join makes the node known to the swarm. Doing it again changes nothing.
func (d *Daemon) join(ctx context.Context, c *client.Client) (*identity, error) {
	id, err := loadIdentity(d.o.Root)
	if err != nil {
		return nil, err
	}
	if id == nil {
		id = &identity{NodeID: v1.NewID(), Role: v1.RoleWorker}
		if err := id.save(d.o.Root); err != nil {
			return nil, err
		}
	}
	for {
		_, _, err := client.Create(ctx, c, v1.Nodes, &v1.Node{
			Meta: v1.Meta{ID: id.NodeID},
			Spec: &v1.NodeSpec{Role: id.Role, Availability: v1.AvailabilityActive},
		})
		var problem *v1.Problem
		var away *client.ConnectError
		switch {
		case err == nil, errors.As(err, &problem) && problem.Status == http.StatusConflict:
			return id, nil
		case !errors.As(err, &away):
			return nil, fmt.Errorf("join the swarm: %w", err)
		}
		d.log.Warn("cannot reach the API server; trying again", "err", err)
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(time.Second):
		}
	}
}
