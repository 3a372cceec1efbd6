// Command scale measures a swarm of hollow nodes: how long it takes from the apply of services until all their tasks run.
//
// Process one is the real thing: the store on an embedded etcd with fsync, the real API server on a unix socket, the real
// rules. Process two, the same binary, runs the real agents of all nodes over real connections; only their container
// runtime is the fake. Process three is a client that reads single objects, short lists and watches meanwhile. The last
// line of the output is one JSON object.
//
// It keeps everything in a temporary directory, which it removes, and ends by itself after a time limit.
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
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	nodes, tasks, services int
	churn                  int
	startDelay             time.Duration
	limit                  time.Duration
	dir                    string
	memory                 bool
	verbose                bool
	cpuProfile, memProfile string

	// role is what a process that this one starts is to be; socket is where to find the API server.
	role, socket string
}

func main() {
	var o options
	flag.IntVar(&o.nodes, "nodes", 1000, "number of hollow nodes")
	flag.IntVar(&o.tasks, "tasks", 100_000, "number of tasks in all")
	flag.IntVar(&o.services, "services", 1, "number of services that the tasks are of")
	flag.IntVar(&o.churn, "churn", 0, "instead, have so many nodes join and leave, and so many services come and go, and see that memory and goroutines stay level")
	flag.DurationVar(&o.startDelay, "start-delay", 0, "how long a hollow container takes to start")
	flag.DurationVar(&o.limit, "limit", 10*time.Minute, "time after which to give up")
	flag.StringVar(&o.dir, "dir", "", "where to make the temporary directory; default $TMPDIR or /tmp")
	flag.BoolVar(&o.memory, "memory", false, "keep the state in memory instead of etcd")
	flag.BoolVar(&o.verbose, "v", false, "log what the parts of the swarm log")
	flag.StringVar(&o.cpuProfile, "cpuprofile", "", "write CPU profiles of the run: `file` of process one, file.nodes of process two")
	flag.StringVar(&o.memProfile, "memprofile", "", "write memory profiles at the end: `file` of process one, file.nodes of process two")
	flag.StringVar(&o.role, "role", "", "internal: what this process is")
	flag.StringVar(&o.socket, "socket", "", "internal: where the API server listens")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

// run is what a process does, by its role.
func run(o options) error {
	if o.churn < 0 || o.nodes < 1 || o.tasks < 1 || o.services < 1 || o.services > o.tasks {
		return errors.New("want at least one node, one service, and a task for each service")
	}
	if err := raiseFileLimit(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), o.limit)
	defer cancel()
	log := slog.New(slog.DiscardHandler)
	if o.verbose {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	switch o.role {
	case "nodes":
		return hollow(untilStdinEnds(ctx), o, log)
	case "probe":
		return probe(untilStdinEnds(ctx), o)
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	if o.churn > 0 {
		return churn(ctx, o, log)
	}
	r, err := bench(ctx, o, log)
	if ctx.Err() != nil && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return err // figures of a run that failed would be taken for figures
	}
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	fmt.Println(string(line))
	return nil
}

// result is the last line.
type result struct {
	Nodes              int     `json:"nodes"`
	Tasks              int     `json:"tasks"`
	CreatedToRunning   float64 `json:"created_to_running_s"`
	TasksPerSecond     float64 `json:"tasks_per_s"`
	EtcdKeysWritten    int64   `json:"etcd_keys_written"`
	RSS                float64 `json:"rss_mb"`
	GetP99             float64 `json:"api_get_p99_ms"`
	WatchLagP99        float64 `json:"watch_lag_p99_ms"`
	WritesByRules      float64 `json:"task_writes_by_rules"`
	WritesByAgents     float64 `json:"task_writes_by_agents"`
	Commits            int64   `json:"commits"`
	GetP50             float64 `json:"api_get_p50_ms"`
	WatchLagP50        float64 `json:"watch_lag_p50_ms"`
	NodesRSS           float64 `json:"nodes_rss_mb"`
	CPUSeconds         float64 `json:"cpu_s"`
	NodesCPUSeconds    float64 `json:"nodes_cpu_s"`
	RegisteredAfter    float64 `json:"nodes_registered_s"`
	AllPlacedAfter     float64 `json:"all_placed_s"`
	GoroutinesPerAgent float64 `json:"goroutines_per_node"`
}

// raiseFileLimit lets the process open as many files as it may: each node has two connections.
func raiseFileLimit() error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	l.Cur = l.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	return nil
}

// untilStdinEnds is a context that ends with the process that started this one, or when that one says so.
func untilStdinEnds(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		var buf [64]byte
		for {
			if _, err := os.Stdin.Read(buf[:]); err != nil {
				return
			}
		}
	}()
	return ctx
}
