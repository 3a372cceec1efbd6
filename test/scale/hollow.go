package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	goruntime "runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/swarmd/swarmd/pkg/agent"
	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/pkg/runtime"
)

// hollowResult is what process two says at its end.
type hollowResult struct {
	CPU        float64 `json:"cpu"`
	Goroutines float64 `json:"goroutines"` // for each node
}

// hollow is process two: the agents of all nodes, each with connections of its own and a container runtime in memory.
func hollow(ctx context.Context, o options, log *slog.Logger) error {
	stopProfile, err := startProfile(suffixed(o.cpuProfile, ".nodes"))
	if err != nil {
		return err
	}
	defer stopProfile()
	delay := func(op runtime.FakeOp, _ string) time.Duration {
		if op == runtime.FakeStart {
			return o.startDelay
		}
		return 0
	}
	var agents sync.WaitGroup
	for i := range o.nodes {
		c, err := client.New("unix://" + o.socket)
		if err != nil {
			return err
		}
		defer c.Close()
		a := agent.New(agent.Options{
			NodeID: nodeID(i), Runtime: runtime.NewFake(runtime.FakeOptions{Delay: delay}), Manager: c.Node(nodeID(i)), Log: log,
			Describe: func() v1.NodeDescription {
				return v1.NodeDescription{Hostname: nodeID(i), Platform: v1.Platform{OS: "linux", Architecture: "amd64"},
					Resources: v1.NodeResources{CPUs: 32_000_000_000, Memory: 128 << 30}, Engine: v1.Engine{Version: "hollow"}}
			},
		})
		agents.Go(func() {
			if err := a.Run(ctx); err != nil {
				log.Error("agent", "node.id", nodeID(i), "err", err)
			}
		})
	}
	var r hollowResult
	debug.SetGCPercent(400) // memory is cheap here; what this process takes of the processor the manager lacks
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		r = hollowResult{CPU: cpuSeconds(), Goroutines: float64(goruntime.NumGoroutine()) / float64(o.nodes)}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	agents.Wait()
	if err := writeMemProfile(suffixed(o.memProfile, ".nodes")); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}
