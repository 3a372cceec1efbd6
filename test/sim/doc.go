// Package sim runs a whole swarm in one goroutine from a seed: the store in memory, the real engines and the real rules on
// two managers that take the lead from each other, and machines whose agents, containers, connections and clocks fail.
//
// The seed fixes everything: in which order messages arrive, how stale what a manager sees is, what crashes when, when a lease
// ends, what the user does. After every commit and every container that starts, the invariants are checked (invariant.go,
// drain.go). When the faults stop, the swarm has to become what the user wants within a bounded time of its own (settle.go),
// and then a node is drained that works, which nobody may notice.
//
//	go test ./test/sim -seed 7            replays one seed
//	go test ./test/sim -seeds 10000       runs seeds 1 to 10000
//
// It owns a model of what stands between the rules: node agents, sessions and the presence that is kept for them, status
// reports. It never waits, never reads the clock of this machine, and has no rules of its own.
//
// Reading order: world.go (time and the store), manager.go (processes and leads), run.go (a pipeline at work), session.go
// (messages), server.go (what API servers write), machine.go (agents and containers), user.go, jobs.go, fault.go, invariant.go,
// drain.go, balance.go, settle.go.
package sim
