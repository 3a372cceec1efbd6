package etcd_test

import (
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
	"github.com/swarmd/swarmd/pkg/store/etcd"
)

// benchDir is on a real disk where $BENCH_DIR says so: fsync of a file system in memory costs nothing.
func benchDir(b *testing.B) string {
	dir, err := os.MkdirTemp(os.Getenv("BENCH_DIR"), "swarm")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func benchStart(b *testing.B, dir string) *etcd.Store {
	s, err := etcd.Start(b.Context(), etcd.Config{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

func benchTask(i int, at time.Time) (string, *v1.TaskDesired, *v1.TaskStatus) {
	service := fmt.Sprintf("service%018d", i/1000)
	return v1.TaskID(service, strconv.Itoa(i), 1), &v1.TaskDesired{
			Service: service, ServiceName: "bench", Slot: uint64(i), Attempt: 1, Revision: "revision" + service[8:], State: v1.TaskRunning,
			Placement: &v1.TaskPlacement{Node: fmt.Sprintf("node%021d", i%1000), At: at, CPUs: 100_000_000, Memory: 64 << 20},
		}, &v1.TaskStatus{State: v1.TaskRunning, At: at, Message: "started", Address: "100.64.1.2",
			Container: &v1.ContainerStatus{ID: strings.Repeat("c", 64), PID: 4242}}
}

func benchOps(b *testing.B, n int, section v1.Section) []store.Op {
	at := time.Now().UTC()
	ops := make([]store.Op, n)
	for i := range ops {
		id, desired, status := benchTask(i, at)
		ops[i] = store.Op{Kind: v1.KindTask, ID: id, Section: section, Value: desired, Meta: &v1.Meta{CreatedAt: at, UpdatedAt: at}, If: store.Absent()}
		if section == v1.SectionStatus {
			ops[i] = store.Op{Kind: v1.KindTask, ID: id, Section: section, Value: status, If: store.Exists()}
		}
	}
	return ops
}

// BenchmarkKeys writes sections of tasks through the whole path, in commits of 500: sealed, on disk, and back in the
// snapshot.
func BenchmarkKeys(b *testing.B) {
	for _, section := range []v1.Section{v1.SectionDesired, v1.SectionStatus} {
		b.Run(section.String(), func(b *testing.B) {
			s := benchStart(b, benchDir(b))
			defer s.Close()
			if section == v1.SectionStatus {
				if _, err := store.CommitAll(b.Context(), s, store.Commit{Ops: benchOps(b, b.N, v1.SectionDesired)}); err != nil {
					b.Fatal(err)
				}
			}
			ops := benchOps(b, b.N, section)
			b.ReportAllocs()
			b.ResetTimer()
			revision, err := store.CommitAll(b.Context(), s, store.Commit{Ops: ops})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := s.Snapshot(b.Context(), revision); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "keys/s")
			b.ReportMetric(float64(rss(b))/(1<<20), "rss-MB")
		})
	}
}

// BenchmarkCommits commits one operation at a time, from several goroutines.
func BenchmarkCommits(b *testing.B) {
	for _, writers := range []int{1, 32} {
		b.Run(strconv.Itoa(writers), func(b *testing.B) {
			s := benchStart(b, benchDir(b))
			defer s.Close()
			ops := benchOps(b, b.N, v1.SectionDesired)
			next := make(chan int, b.N)
			for i := range b.N {
				next <- i
			}
			close(next)
			b.ResetTimer()
			done := make(chan error)
			for range writers {
				go func() {
					for i := range next {
						if _, err := s.Commit(b.Context(), store.Commit{Ops: ops[i : i+1]}); err != nil {
							done <- err
							return
						}
					}
					done <- nil
				}()
			}
			for range writers {
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
		})
	}
}

// BenchmarkStart restarts with 100,000 running tasks, 200,000 keys.
func BenchmarkStart(b *testing.B) {
	dir := benchDir(b)
	s := benchStart(b, dir)
	for _, section := range []v1.Section{v1.SectionDesired, v1.SectionStatus} {
		if _, err := store.CommitAll(b.Context(), s, store.Commit{Ops: benchOps(b, 100_000, section)}); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s := benchStart(b, dir)
		b.StopTimer()
		if snapshot, err := s.Snapshot(b.Context(), 0); err != nil || snapshot.Count(v1.KindTask) != 100_000 {
			b.Fatal(err)
		}
		b.ReportMetric(float64(rss(b))/(1<<20), "rss-MB")
		s.Close()
		b.StartTimer()
	}
}

// BenchmarkIdle tells what an empty member takes; its time means nothing.
func BenchmarkIdle(b *testing.B) {
	s := benchStart(b, benchDir(b))
	defer s.Close()
	for b.Loop() {
		if _, err := s.Sync(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(rss(b))/(1<<20), "rss-MB")
}

func rss(b *testing.B) int {
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(data))[1])
	if err != nil {
		b.Fatal(err)
	}
	return pages * os.Getpagesize()
}
