package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/swarmd/swarmd/pkg/apiserver"
	"github.com/swarmd/swarmd/pkg/store"
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
	// AuditFile is where changes are noted, and by whom; nowhere where it is empty.
	AuditFile string
	Log       *slog.Logger
}

// RunAPIServer serves the API of a swarm whose state is in an etcd of its own, until ctx ends.
func RunAPIServer(ctx context.Context, o APIServerOptions) error {
	d := &Daemon{log: o.Log, registry: newRegistry(), failed: make(chan error, 4), parts: newParts()}
	s, err := o.Etcd.start(ctx, o.Log, newStoreMetrics(d.registry))
	if err != nil {
		return err
	}
	defer s.Close()
	if err := foundCluster(ctx, s); err != nil {
		return err
	}
	if d.machine, err = thisMachine(nil); err != nil {
		return err
	}
	d.server = apiserver.New(apiserver.Options{Store: s, Host: apiHost{d.machine}, Registry: d.registry, Log: o.Log, AuditFile: o.AuditFile})
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

// foundCluster writes the settings that a swarm begins with, unless there are some.
func foundCluster(ctx context.Context, s store.Store) error {
	_, err := s.Commit(ctx, store.Commit{Ops: []store.Op{clusterOp(nil, time.Now().UTC())}})
	if errors.Is(err, store.ErrConflict) {
		return nil
	}
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
	d := &Daemon{log: o.Log, registry: newRegistry(), failed: make(chan error, 4), parts: newParts()}
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
	live, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		leadWhile(live, s, d, o.Name, d.registry, func(ctx context.Context, _ store.Lead) error {
			<-ctx.Done() // the members are those of an etcd that somebody else looks after
			return context.Cause(ctx)
		})
	}()
	err = d.wait(ctx, s)
	cancel()
	<-done
	return err
}
