package controllers_test

import (
	"fmt"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/controllers"
	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/store"
)

// epoch is when tests begin.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// cluster is a snapshot with nodes and services, all new.
func cluster(tb testing.TB, nodes, services, replicas int) *store.Snapshot {
	tb.Helper()
	var ops []store.Op
	for i := range nodes {
		id := fmt.Sprintf("node%05d", i)
		ops = append(ops,
			store.Op{Kind: v1.KindNode, ID: id, Section: v1.SectionSpec, Meta: &v1.Meta{ID: id},
				Value: &v1.NodeSpec{Role: v1.RoleWorker, Availability: v1.AvailabilityActive, Index: uint32(i + 1)}},
			store.Op{Kind: v1.KindNode, ID: id, Section: v1.SectionStatus, Value: &v1.NodeStatus{State: v1.NodeReady,
				Description: v1.NodeDescription{Hostname: id, Platform: v1.Platform{Architecture: "amd64", OS: "linux"},
					Resources: v1.NodeResources{CPUs: 1000e9, Memory: 1 << 40}}}})
	}
	for i := range services {
		id := fmt.Sprintf("service%05d", i)
		o := &v1.Service{Spec: &v1.ServiceSpec{Task: v1.TaskSpec{Container: v1.ContainerSpec{Image: "hello:1"}}}}
		count := uint64(replicas)
		o.Spec.Replicas = &count
		v1.Default(o)
		ops = append(ops, store.Op{Kind: v1.KindService, ID: id, Section: v1.SectionSpec, Value: o.Spec,
			Meta: &v1.Meta{ID: id, Name: id, Generation: 1, CreatedAt: epoch}})
	}
	return apply(tb, store.NewSnapshot(), ops)
}

func apply(tb testing.TB, s *store.Snapshot, ops []store.Op) *store.Snapshot {
	tb.Helper()
	next, _, err := s.With(s.Revision()+1, ops)
	if err != nil {
		tb.Fatal(err)
	}
	return next
}

func TestCreatedAndPlacedInOneWrite(t *testing.T) {
	s := cluster(t, 3, 1, 6)
	e := reconcile.New(store.NewMemory(), controllers.Rules(), reconcile.Options{})
	ops, again := e.Step(epoch, s, []string{"service00000"})
	if len(ops) != 7 || len(again) != 0 {
		t.Errorf("got %d operations and %d wakes, want 6 tasks and a revision, and no wake", len(ops), len(again))
	}
	after := apply(t, s, ops)
	for task := range after.TasksOfService("service00000") {
		if v1.TaskNode(task) == "" || task.Desired.State != v1.TaskRunning {
			t.Errorf("task %s: %+v, want it placed and to run", task.Meta.ID, task.Desired)
		}
	}
	if ops, _ := e.Step(epoch, after, []string{"service00000"}); len(ops) != 0 {
		t.Errorf("deciding again gives %d operations, want none: %+v", len(ops), ops)
	}
}

func BenchmarkScaleUp(b *testing.B) {
	s := cluster(b, 1000, 1, 100_000)
	e := reconcile.New(store.NewMemory(), controllers.Rules(), reconcile.Options{})
	for b.Loop() {
		e.Step(epoch, s, []string{"service00000"})
	}
}

func BenchmarkOneFailure(b *testing.B) {
	e := reconcile.New(store.NewMemory(), controllers.Rules(), reconcile.Options{})
	s := cluster(b, 1000, 1, 100_000)
	ops, _ := e.Step(epoch, s, []string{"service00000"})
	s = apply(b, s, ops)
	for task := range s.TasksOfService("service00000") {
		s = apply(b, s, []store.Op{{Kind: v1.KindTask, ID: task.Meta.ID, Section: v1.SectionStatus,
			Value: &v1.TaskStatus{State: v1.TaskFailed}}})
		break
	}
	for b.Loop() {
		if ops, _ := e.Step(epoch, s, []string{"service00000"}); len(ops) != 2 {
			b.Fatal(len(ops))
		}
	}
}

func BenchmarkManyServices(b *testing.B) {
	e := reconcile.New(store.NewMemory(), controllers.Rules(), reconcile.Options{MaxOps: 1 << 30})
	s := cluster(b, 1000, 10_000, 10)
	keys := reconcile.AllKeys(s)
	for b.Loop() {
		e.Step(epoch, s, keys)
	}
}

// TestSpreadsEvenly fills many nodes at once: each has as many tasks as any other, but for one.
func TestSpreadsEvenly(t *testing.T) {
	s := cluster(t, 100, 3, 1234)
	e := reconcile.New(store.NewMemory(), controllers.Rules(), reconcile.Options{MaxOps: 1 << 30})
	ops, _ := e.Step(epoch, s, reconcile.AllKeys(s))
	after := apply(t, s, ops)
	for _, key := range reconcile.AllKeys(s) {
		counts := make(map[string]int)
		for task := range after.TasksOfService(key) {
			counts[v1.TaskNode(task)]++
		}
		if counts[""] > 0 || len(counts) != 100 {
			t.Fatalf("%s is on %d nodes, with %d tasks on none", key, len(counts), counts[""])
		}
		for node, n := range counts {
			if n != 12 && n != 13 {
				t.Errorf("%s has %d tasks on %s, want 12 or 13", key, n, node)
			}
		}
	}
	for n := range store.All(after, v1.Nodes) {
		if tasks := after.LoadOf(n.Meta.ID).Tasks; tasks != 37 && tasks != 38 {
			t.Errorf("%s has %d tasks in all, want 37 or 38", n.Meta.ID, tasks)
		}
	}
}
