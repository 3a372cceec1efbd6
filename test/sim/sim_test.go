package sim

import (
	"flag"
	"testing"
	"time"

	"github.com/swarmd/swarmd/pkg/controllers"
)

var (
	seed  = flag.Uint64("seed", 0, "the one seed to replay, with all that happens; 0 for many")
	seeds = flag.Uint64("seeds", 300, "how many seeds to run, from 1")
)

// replay runs a seed again with its last lines written down.
func replay(t *testing.T, o Options, lines int) {
	t.Helper()
	var trace []string
	o.Trace = func(line string) {
		if trace = append(trace, line); len(trace) > 2*lines {
			trace = append(trace[:0], trace[lines:]...)
		}
	}
	_, _ = Run(o) // the error is known
	for _, line := range trace[max(0, len(trace)-lines):] {
		t.Log(line)
	}
}

func TestSim(t *testing.T) {
	pipelines := controllers.Pipelines()
	if *seed != 0 {
		stats, err := Run(Options{Seed: *seed, Pipelines: pipelines, Trace: func(line string) { t.Log(line) }})
		t.Logf("%+v", stats)
		if err != nil {
			t.Errorf("seed %d: %v", *seed, err)
		}
		return
	}
	var sum Stats
	var longest time.Duration
	for s := uint64(1); s <= *seeds; s++ {
		stats, err := Run(Options{Seed: s, Pipelines: pipelines})
		if err != nil {
			replay(t, Options{Seed: s, Pipelines: pipelines}, 60)
			t.Fatalf("seed %d: %v\nreplay it: go test ./test/sim -seed %d", s, err, s)
		}
		sum.Events += stats.Events
		sum.Commits += stats.Commits
		sum.Conflicts += stats.Conflicts
		sum.Fenced += stats.Fenced
		sum.Starts += stats.Starts
		sum.Leads += stats.Leads
		sum.Lost += stats.Lost
		sum.Moves += stats.Moves
		sum.Rollbacks += stats.Rollbacks
		sum.Attached += stats.Attached
		sum.Waited += stats.Waited
		sum.Joins += stats.Joins
		sum.Balanced += stats.Balanced
		sum.Runs += stats.Runs
		sum.Ordered += stats.Ordered
		longest = max(longest, stats.Settled)
	}
	t.Logf("%d seeds: %d events, %d commits, %d conflicts, %d fenced, %d containers started, %d leaders, %d nodes lost, %d moves, %d rollbacks, "+
		"%d tasks on networks, %d that waited for an address, %d nodes joined, %d moves to balance, %d scheduled runs, %d first tasks of dependents; settled within %v",
		*seeds, sum.Events, sum.Commits, sum.Conflicts, sum.Fenced, sum.Starts, sum.Leads, sum.Lost, sum.Moves, sum.Rollbacks, sum.Attached, sum.Waited,
		sum.Joins, sum.Balanced, sum.Runs, sum.Ordered, longest)
}
