package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/pkg/store"
)

// bench is process one.
func bench(ctx context.Context, o options, log *slog.Logger) (r *result, err error) {
	dir, err := os.MkdirTemp(o.dir, "swarm-scale-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	o.socket = filepath.Join(dir, "s.sock")
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	m, err := startManager(ctx, o, filepath.Join(dir, "etcd"), log, fail)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.stop()) }()
	c, err := client.New("unix://" + o.socket)
	if err != nil {
		return nil, err
	}
	defer c.Close()

	r = &result{Nodes: o.nodes, Tasks: o.tasks}
	began := time.Now()
	nodes, err := startChild(ctx, o, "nodes")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, nodes.stop()) }()
	if err := register(ctx, o, c, m.store); err != nil {
		return nil, fmt.Errorf("registering nodes: %w", err)
	}
	r.RegisteredAfter = time.Since(began).Seconds()
	progress("%d nodes are ready after %.1f s", o.nodes, r.RegisteredAfter)
	prober, err := startChild(ctx, o, "probe")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, prober.stop()) }()
	if err := prober.await(ctx, "watching"); err != nil {
		return nil, err
	}
	return r, measure(ctx, o, m, c, r, nodes, prober)
}

// measure applies the services and takes the figures.
func measure(ctx context.Context, o options, m *manager, c *client.Client, r *result, nodes, prober *child) error {
	stopProfile, err := startProfile(o.cpuProfile)
	if err != nil {
		return err
	}
	before, cpu := m.store.counts(), cpuSeconds()
	began := time.Now()
	if err := apply(ctx, o, c); err != nil {
		return fmt.Errorf("applying services: %w", err)
	}
	progress("services applied after %.2f s", time.Since(began).Seconds())
	running := waitRunning(ctx, o, m.store, r, began)
	r.CreatedToRunning = time.Since(began).Seconds()
	r.CPUSeconds = cpuSeconds() - cpu
	stopProfile()
	// What the agents have still to say (there should be nothing) counts too.
	select {
	case <-time.After(2 * time.Second):
	case <-ctx.Done():
	}
	after := m.store.counts()
	r.TasksPerSecond = float64(running) / r.CreatedToRunning
	r.EtcdKeysWritten = after.ops - before.ops
	r.Commits = after.commits - before.commits
	r.WritesByRules = float64(after.byRules-before.byRules) / float64(o.tasks)
	r.WritesByAgents = float64(after.byAgents-before.byAgents) / float64(o.tasks)
	r.RSS = peakRSS(os.Getpid())
	r.NodesRSS = peakRSS(nodes.pid())
	if err := probed(ctx, m.store, prober, r); err != nil {
		return err
	}
	var told hollowResult
	if err := nodes.finish(ctx, &told); err != nil {
		return err
	}
	r.NodesCPUSeconds, r.GoroutinesPerAgent = told.CPU, told.Goroutines
	if err := writeMemProfile(o.memProfile); err != nil {
		return err
	}
	if running < o.tasks {
		return fmt.Errorf("only %d of %d tasks run: %w", running, o.tasks, context.Cause(ctx))
	}
	return nil
}

// nodeID is the ID of a hollow node.
func nodeID(i int) string { return fmt.Sprintf("hollow-%05d", i) }

// register makes the nodes and waits until all of them are ready.
func register(ctx context.Context, o options, c *client.Client, s store.Store) error {
	err := parallel(16, o.nodes, func(i int) error {
		_, _, err := client.Create(ctx, c, v1.Nodes, &v1.Node{Meta: v1.Meta{ID: nodeID(i)},
			Spec: &v1.NodeSpec{Role: v1.RoleWorker, Availability: v1.AvailabilityActive}})
		return err
	})
	if err != nil {
		return err
	}
	for {
		snapshot, err := s.Snapshot(ctx, 0)
		if err != nil {
			return err
		}
		ready := 0
		for n := range store.All(snapshot, v1.Nodes) {
			if n.Status != nil && n.Status.State == v1.NodeReady {
				ready++
			}
		}
		if ready == o.nodes {
			return nil
		}
		if _, err := s.Snapshot(ctx, snapshot.Revision()+1); err != nil {
			return fmt.Errorf("%d of %d nodes are ready: %w", ready, o.nodes, err)
		}
	}
}

// serviceName is the name of a service.
func serviceName(i int) string { return fmt.Sprintf("scale-%d", i) }

// apply creates the services, as a client would.
func apply(ctx context.Context, o options, c *client.Client) error {
	return parallel(8, o.services, func(i int) error {
		replicas := uint64(o.tasks / o.services)
		if i < o.tasks%o.services {
			replicas++
		}
		service := &v1.Service{Meta: v1.Meta{Name: serviceName(i), Labels: map[string]string{"bench": "scale"}},
			Spec: &v1.ServiceSpec{Replicas: &replicas}}
		service.Spec.Task.Container.Image = "hollow:1"
		service.Spec.Task.Container.Env = []string{"GREETING=hello", "TASK={{.Task.Name}}"}
		service.Spec.Task.Resources = &v1.Resources{Limits: &v1.ResourceLimits{Memory: 64 << 20}}
		_, _, err := client.Create(ctx, c, v1.Services, service)
		return err
	})
}

// waitRunning waits until all tasks run, or ctx ends, and is how many do.
func waitRunning(ctx context.Context, o options, s store.Store, r *result, began time.Time) int {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	shown := began
	for {
		running, total, placed := 0, 0, 0
		if snapshot, err := s.Snapshot(ctx, 0); err == nil {
			for service := range store.All(snapshot, v1.Services) {
				counts := snapshot.CountsOf(service.Meta.ID)
				running += counts.Running
				total += counts.Total
			}
			for n := range store.All(snapshot, v1.Nodes) {
				placed += snapshot.LoadOf(n.Meta.ID).Tasks
			}
		}
		if placed >= o.tasks && r.AllPlacedAfter == 0 {
			r.AllPlacedAfter = time.Since(began).Seconds()
		}
		if now := time.Now(); now.Sub(shown) >= time.Second || running >= o.tasks {
			shown = now
			progress("%5.1f s: %d tasks exist, %d are placed, %d run", now.Sub(began).Seconds(), total, placed, running)
		}
		if running >= o.tasks {
			return running
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return running
		}
	}
}

func progress(format string, args ...any) { fmt.Printf(format+"\n", args...) }

// parallel does n things, some at a time, until one fails.
func parallel(workers, n int, do func(i int) error) error {
	next := make(chan int)
	failed := make(chan error, workers)
	stop := make(chan struct{})
	for range workers {
		go func() {
			for i := range next {
				if err := do(i); err != nil {
					failed <- err
					return
				}
			}
			failed <- nil
		}()
	}
	go func() {
		defer close(next)
		for i := range n {
			select {
			case next <- i:
			case <-stop:
				return
			}
		}
	}()
	var first error
	for range workers {
		if err := <-failed; err != nil && first == nil {
			first = err
			close(stop)
		}
	}
	return first
}
