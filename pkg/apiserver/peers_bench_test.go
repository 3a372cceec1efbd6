package apiserver_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// BenchmarkPeers reports that a task of one node runs, or has ended, until another node is told: with 50 services of three tasks
// on one network, and a change every 10 ms, as when each service changes twice a second.
func BenchmarkPeers(b *testing.B) {
	f := serve(b)
	f.commit(append(networkOps("n0", "name0", 4096), nodeOp("node0", 1), nodeOp("node1", 2), nodeOp("node2", 3))...)
	for i := range 50 {
		ops := []store.Op{serviceOp(fmt.Sprint("s", i), fmt.Sprint("s", i), onNetworks("n0"))}
		for n := range 3 {
			ops = append(ops, peerTaskOp(fmt.Sprintf("t%d.%d", i, n), fmt.Sprint("s", i), fmt.Sprint("node", n), "n0"))
		}
		f.commit(ops...)
	}
	a, reporter := f.connect("node0"), f.client.Node("node1")
	next := time.NewTicker(10 * time.Millisecond)
	defer next.Stop()
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		id := fmt.Sprint("extra", i)
		f.commit(peerTaskOp(id, "s0", "node1", "n0"))
		a.until(func() bool { return a.peers[id] != nil })
		<-next.C
		began := time.Now()
		if _, err := reporter.Report(f.ctx, v1.StatusReport{Tasks: []v1.TaskReport{{ID: id, Status: v1.TaskStatus{State: v1.TaskRunning}}}}); err != nil {
			b.Fatal(err)
		}
		a.until(func() bool { return a.peers[id].(v1.PeerTask).Ready })
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}

// BenchmarkFirstPeers opens a session of a node that is told of 10,000 tasks.
func BenchmarkFirstPeers(b *testing.B) {
	f := serve(b)
	f.commit(append(networkOps("n0", "name0", 4096), nodeOp("node1", 1), nodeOp("node2", 2), serviceOp("s0", "s0", onNetworks("n0")))...)
	var ops []store.Op
	for i := range 10_000 {
		op := peerTaskOp(fmt.Sprintf("task%021d", i), "s0", fmt.Sprint("node", 1+min(i, 1)), "n0")
		op.Value.(*v1.TaskDesired).Networks[0].Addresses[0] = fmt.Sprintf("10.0.%d.%d/16", i/250, i%250)
		if ops = append(ops, op); len(ops) == store.MaxOps {
			f.commit(ops...)
			ops = nil
		}
	}
	for b.Loop() {
		f.connect("node1").stop()
	}
}
