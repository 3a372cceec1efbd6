package controllers_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/controllers"
	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/store"
)

// running is a memory store that the engine runs on, with nodes.
func running(tb testing.TB, nodes int) (*store.Memory, *prometheus.Registry) {
	tb.Helper()
	s, registry := store.NewMemory(), prometheus.NewRegistry()
	for o := range store.All(cluster(tb, nodes, 0, 0), v1.Nodes) {
		commit(tb, s, store.Op{Kind: v1.KindNode, ID: o.Meta.ID, Section: v1.SectionSpec, Value: o.Spec, Meta: &o.Meta, If: store.Absent()},
			store.Op{Kind: v1.KindNode, ID: o.Meta.ID, Section: v1.SectionStatus, Value: o.Status, If: store.Always()})
	}
	lead, err := s.Campaign(tb.Context(), "me")
	if err != nil {
		tb.Fatal(err)
	}
	e := reconcile.New(s, controllers.Rules(), reconcile.Options{Registry: registry})
	ended := make(chan error, 1)
	go func() { ended <- e.Run(tb.Context(), lead) }()
	tb.Cleanup(func() {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			tb.Errorf("the engine ended by itself: %v", err)
		}
	})
	return s, registry
}

func commit(tb testing.TB, s *store.Memory, ops ...store.Op) {
	tb.Helper()
	if _, err := s.Commit(tb.Context(), store.Commit{Ops: ops}); err != nil {
		tb.Fatal(err)
	}
}

// create makes a service of which name and ID are the same.
func create(tb testing.TB, s *store.Memory, name string, replicas uint64) {
	tb.Helper()
	o := &v1.Service{Spec: &v1.ServiceSpec{Replicas: &replicas, Task: v1.TaskSpec{Container: v1.ContainerSpec{Image: "hello:1"}}}}
	v1.Default(o)
	commit(tb, s, store.Op{Kind: v1.KindService, ID: name, Section: v1.SectionSpec, Value: o.Spec, Meta: &v1.Meta{Name: name, Generation: 1},
		If: store.Absent()})
}

// placed waits until so many tasks of a service are placed.
func placed(tb testing.TB, s *store.Memory, service string, tasks int) {
	tb.Helper()
	now, err := s.Snapshot(tb.Context(), 0)
	if err != nil {
		tb.Fatal(err)
	}
	for now.CountsOf(service).Live < tasks {
		if now, err = s.Snapshot(tb.Context(), now.Revision()+1); err != nil {
			tb.Fatal(err)
		}
	}
	for t := range now.TasksOfService(service) {
		if v1.TaskNode(t) == "" {
			tb.Fatalf("task %s was written without a node", t.Meta.ID)
		}
	}
}

func TestRunCreatesAndPlaces(t *testing.T) {
	s, _ := running(t, 3)
	create(t, s, "web", 7)
	placed(t, s, "web", 7)
}

// TestRunReplacesTheTasksOfALostNode has all pipelines run over nodes whose presence is under leases: a lease ends, and what
// was there is elsewhere. Then the lead is lost, and taken again.
func TestRunReplacesTheTasksOfALostNode(t *testing.T) {
	s, registry := store.NewMemory(), prometheus.NewRegistry()
	leases := make(map[string]store.LeaseID)
	for o := range store.All(cluster(t, 2, 0, 0), v1.Nodes) {
		lease, err := s.Grant(t.Context(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		leases[o.Meta.ID] = lease
		commit(t, s, store.Op{Kind: v1.KindNode, ID: o.Meta.ID, Section: v1.SectionSpec, Value: o.Spec, Meta: &o.Meta, If: store.Absent()},
			store.Op{Kind: v1.KindNode, ID: o.Meta.ID, Section: v1.SectionStatus, Value: o.Status, If: store.Always()},
			store.Op{Kind: v1.KindPresence, ID: o.Meta.ID, Section: v1.SectionStatus, Value: &v1.PresenceStatus{Session: "1"},
				Meta: &v1.Meta{}, If: store.Absent(), Lease: lease})
	}
	create(t, s, "web", 4)
	for lost, id := range []string{"", "node00000"} {
		lead, err := s.Campaign(t.Context(), "me")
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- controllers.Run(t.Context(), s, lead, reconcile.Options{Registry: registry}) }()
		if id != "" {
			s.Expire(leases[id])
		}
		await(t, s, func(now *store.Snapshot) bool {
			on := make(map[string]int)
			for task := range now.TasksOfService("web") {
				if v1.Live(task) {
					on[v1.TaskNode(task)]++
				}
			}
			return on["node00000"] == 2-2*lost && on["node00001"] == 2+2*lost && len(on) == 2-lost
		})
		s.Depose()
		if err := <-ended; !errors.Is(err, store.ErrFenced) {
			t.Errorf("ended with %v, want ErrFenced", err)
		}
	}
}

// await waits until the store is as it should be.
func await(tb testing.TB, s *store.Memory, done func(*store.Snapshot) bool) {
	tb.Helper()
	now, err := s.Snapshot(tb.Context(), 0)
	for ; err == nil && !done(now); now, err = s.Snapshot(tb.Context(), now.Revision()+1) {
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// BenchmarkRunScaleUp is from a service of 100,000 to its last task with a node in the store.
func BenchmarkRunScaleUp(b *testing.B) {
	s, _ := running(b, 1000)
	for i := 0; b.Loop(); i++ {
		name := fmt.Sprint("web", i)
		create(b, s, name, 100_000)
		placed(b, s, name, 100_000)
	}
}

// BenchmarkRunSmall is from a service of three to its last task with a node in the store.
func BenchmarkRunSmall(b *testing.B) {
	s, _ := running(b, 10)
	for i := 0; b.Loop(); i++ {
		name := fmt.Sprint("web", i)
		create(b, s, name, 3)
		placed(b, s, name, 3)
	}
}

// BenchmarkRunReports is a thousand reports of failures in a service of 100,000; decisions are how often it was decided.
func BenchmarkRunReports(b *testing.B) {
	s, registry := running(b, 1000)
	create(b, s, "web", 100_000)
	placed(b, s, "web", 100_000)
	snapshot, err := s.Snapshot(b.Context(), 0)
	if err != nil {
		b.Fatal(err)
	}
	var tasks []*v1.Task
	for t := range snapshot.TasksOfService("web") {
		tasks = append(tasks, t)
	}
	before := decisions(b, registry)
	next := 0
	for b.Loop() {
		for range 1000 {
			t := tasks[next%len(tasks)]
			next++
			commit(b, s, store.Op{Kind: v1.KindTask, ID: t.Meta.ID, Section: v1.SectionStatus, Value: &v1.TaskStatus{State: v1.TaskFailed, At: time.Now()}})
			time.Sleep(time.Millisecond)
		}
	}
	b.ReportMetric(float64(decisions(b, registry)-before)/float64(b.N), "decisions/op")
}

func decisions(tb testing.TB, registry *prometheus.Registry) (n uint64) {
	tb.Helper()
	families, err := registry.Gather()
	if err != nil {
		tb.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "swarm_reconcile_duration_seconds" && m.GetLabel()[1].GetValue() == "service" {
				n = m.GetHistogram().GetSampleCount()
			}
		}
	}
	return n
}
