// Command programming measures how long the nodes of a swarm take to follow what changes: from when a task becomes ready, or ceases to be, as the
// store has it stamped, until the routes, virtual addresses and names of another node lead there or not. It is what
// swarm_network_programming_duration_seconds says of daemons.
//
// It runs the real store (an embedded etcd with fsync), API server and rules, and a real agent with a real network, in a network namespace of its
// own, for each node. Only the containers are said to run: to start real ones takes longer than all of it. Each service gets a task more, or
// loses one, at the pace that is asked for. The last line of the output is one JSON object. As root:
//
//	programming -nodes 3 -services 50 -pace 500ms -for 30s
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"sync"
	"syscall"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/test/bench/host"
)

type options struct {
	nodes, services, tasks int
	pace, length           time.Duration
	verbose                bool
	profile                string
}

func main() {
	var o options
	flag.IntVar(&o.nodes, "nodes", 3, "number of nodes")
	flag.IntVar(&o.services, "services", 50, "number of services, all on one network")
	flag.IntVar(&o.tasks, "tasks", 3, "tasks of each service; one more, every other time")
	flag.DurationVar(&o.pace, "pace", 500*time.Millisecond, "time between two changes of one service")
	flag.DurationVar(&o.length, "for", 30*time.Second, "how long to go on")
	flag.BoolVar(&o.verbose, "v", false, "log what the parts of the swarm log")
	flag.StringVar(&o.profile, "cpuprofile", "", "write a CPU profile of the changes to a `file`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "programming:", err)
		os.Exit(1)
	}
}

// result is the last line. Times are in milliseconds.
type result struct {
	Nodes    int     `json:"nodes"`
	Services int     `json:"services"`
	Changes  int     `json:"changes"`
	Followed int     `json:"followed"` // by all nodes but the task's own; a task that was stopped before it ran is none
	P50      float64 `json:"p50_ms"`
	P90      float64 `json:"p90_ms"`
	P99      float64 `json:"p99_ms"`
	Slowest  float64 `json:"slowest_ms"`
	ApplyP50 float64 `json:"apply_p50_ms"` // from when a node was told
	ApplyP99 float64 `json:"apply_p99_ms"`
	Cores    float64 `json:"cores"` // that this process used, in the middle
}

func run(ctx context.Context, o options) (err error) {
	if o.nodes < 2 || o.services < 1 || o.tasks < 1 || o.pace <= 0 || o.length <= 0 {
		return errors.New("want two nodes, a service, a task, and the time for a change; see -help")
	}
	log := slog.New(slog.DiscardHandler)
	if o.verbose {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	dir, err := os.MkdirTemp("", "programming-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	m, err := startManager(ctx, dir, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.stop()) }()
	c, err := client.New(m.address)
	if err != nil {
		return err
	}
	defer c.Close()
	var seen times
	for i := range o.nodes {
		n, err := startNode(ctx, c, i+1, m.address, filepath.Join(dir, fmt.Sprint("node", i+1)), &seen, log)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, n.stop()) }()
	}
	r, err := measure(ctx, o, c, &seen)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// times are what the nodes measured.
type times struct {
	mu           sync.Mutex
	whole, apply []time.Duration
}

func (t *times) take() (whole, apply []time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	whole, apply = t.whole, t.apply
	t.whole, t.apply = nil, nil
	return whole, apply
}

// measure makes the services and changes them.
func measure(ctx context.Context, o options, c *client.Client, seen *times) (*result, error) {
	if _, _, err := client.Create(ctx, c, v1.Networks, &v1.Network{Meta: v1.Meta{Name: "back"}, Spec: &v1.NetworkSpec{Driver: "overlay"}}); err != nil {
		return nil, err
	}
	for i := range o.services {
		if _, _, err := client.Create(ctx, c, v1.Services, service(i, o.tasks)); err != nil {
			return nil, err
		}
	}
	if err := settled(ctx, c, o.services*o.tasks); err != nil {
		return nil, err
	}
	if o.profile != "" {
		f, err := os.Create(o.profile)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return nil, err
		}
		defer pprof.StopCPUProfile()
	}
	seen.take()
	r := &result{Nodes: o.nodes, Services: o.services}
	began, used := time.Now(), host.ProcessorTime()
	var err error
	if r.Changes, err = change(ctx, o, c); err != nil {
		return nil, err
	}
	r.Cores = (host.ProcessorTime() - used).Seconds() / time.Since(began).Seconds()
	select {
	case <-time.After(2 * time.Second): // for what is under way
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	whole, apply := seen.take()
	if r.Followed = len(whole); r.Followed == 0 || len(apply) == 0 {
		return nil, fmt.Errorf("none of %d changes was followed", r.Changes)
	}
	at := func(all []time.Duration, share float64) float64 {
		return float64(all[min(int(share*float64(len(all))), len(all)-1)].Microseconds()) / 1000
	}
	slices.Sort(whole)
	slices.Sort(apply)
	r.P50, r.P90, r.P99, r.Slowest = at(whole, .5), at(whole, .9), at(whole, .99), at(whole, 1)
	r.ApplyP50, r.ApplyP99 = at(apply, .5), at(apply, .99)
	return r, nil
}

func name(i int) string { return fmt.Sprintf("service%d", i) }

// service is one with so many tasks.
func service(i, tasks int) *v1.Service {
	replicas, grace := uint64(tasks), v1.Duration(time.Millisecond)
	return &v1.Service{Meta: v1.Meta{Name: name(i)}, Spec: &v1.ServiceSpec{Replicas: &replicas, Task: v1.TaskSpec{
		Container: v1.ContainerSpec{Image: "hello:1", StopGracePeriod: &grace}, Networks: []v1.NetworkAttachment{{Target: "back"}}}}}
}

// settled waits until so many tasks run.
func settled(ctx context.Context, c *client.Client, want int) error {
	for {
		n := 0
		all, err := client.List(ctx, c, v1.Tasks, nil)
		if err != nil {
			return err
		}
		for _, t := range all {
			if v1.Observed(t) == v1.TaskRunning {
				n++
			}
		}
		if n == want {
			return nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%d of %d tasks run: %w", n, want, ctx.Err())
		}
	}
}

// change changes one service after the other, so that each changes once in a pace, and returns how many changes there were.
func change(ctx context.Context, o options, c *client.Client) (n int, err error) {
	tick := time.NewTicker(o.pace / time.Duration(o.services))
	defer tick.Stop()
	var writing sync.WaitGroup
	var mu sync.Mutex
	places := make(chan struct{}, 16)
	for end := time.Now().Add(o.length); time.Now().Before(end); n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return n, ctx.Err()
		}
		tasks := o.tasks + 1 - n/o.services%2
		places <- struct{}{}
		i := n % o.services
		writing.Go(func() {
			_, _, e := client.Update(ctx, c, v1.Services, service(i, tasks))
			<-places
			mu.Lock()
			defer mu.Unlock()
			err = errors.Join(err, e)
		})
	}
	writing.Wait()
	return n, err
}
