package store_test

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

const benchService = 1000 // tasks each

func benchDesired(i int) *v1.TaskDesired {
	return &v1.TaskDesired{Service: fmt.Sprintf("service%018d", i/benchService), ServiceName: "bench", Slot: uint64(i), Attempt: 1,
		Revision: fmt.Sprintf("revision%017d", i/benchService), State: v1.TaskRunning,
		Placement: &v1.TaskPlacement{Node: fmt.Sprintf("node%021d", i%5000), At: time.Unix(1e9, 0), CPUs: 1, Memory: 1}}
}

var benchIDs = sync.OnceValue(func() []string {
	ids := make([]string, 1_000_000)
	for i := range ids {
		ids[i] = v1.TaskID("service", fmt.Sprint(i), 1)
	}
	slices.Sort(ids)
	return ids
})

// million is a snapshot of 1,000,000 placed and running tasks, and how many bytes of heap each takes.
var million = sync.OnceValues(func() (*store.Snapshot, int) {
	const n = 1_000_000
	var before, after runtime.MemStats
	ids := benchIDs()
	runtime.GC()
	runtime.ReadMemStats(&before)
	b := store.NewBuilder()
	for i := range n {
		id := strings.Clone(ids[i])
		err := b.Add(store.Op{Kind: v1.KindTask, ID: id, Section: v1.SectionDesired, Value: benchDesired(i)}, 2)
		if err == nil {
			err = b.Add(store.Op{Kind: v1.KindTask, ID: id, Section: v1.SectionStatus, Value: &v1.TaskStatus{State: v1.TaskRunning}}, 3)
		}
		if err != nil {
			panic(err)
		}
	}
	s, err := b.Snapshot(3)
	if err != nil {
		panic(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	return s, int(after.HeapAlloc-before.HeapAlloc) / n
})

// BenchmarkWith makes the next snapshot: its cost must not depend on how many objects there are.
func BenchmarkWith(b *testing.B) {
	small := store.NewSnapshot()
	for i := range 1000 {
		var err error
		if small, _, err = small.With(2, []store.Op{{Kind: v1.KindTask, ID: benchIDs()[i], Section: v1.SectionDesired, Value: benchDesired(i)}}); err != nil {
			b.Fatal(err)
		}
	}
	for _, size := range []int{1000, 1_000_000} {
		for _, ops := range []int{1, 500} {
			for _, section := range []v1.Section{v1.SectionStatus, v1.SectionDesired} {
				b.Run(fmt.Sprintf("objects=%d/ops=%d/%s", size, ops, section), func(b *testing.B) {
					s := small
					if size > 1000 {
						s, _ = million()
					}
					benchWith(b, s, size, ops, section)
				})
			}
		}
	}
}

func benchWith(b *testing.B, s *store.Snapshot, size, n int, section v1.Section) {
	ops := make([]store.Op, n)
	at := 0
	b.ReportAllocs()
	before := cpuTime(b)
	for b.Loop() {
		for i := range ops {
			at = (at + 7919) % size
			ops[i] = store.Op{Kind: v1.KindTask, ID: benchIDs()[at], Section: section, Value: &v1.TaskStatus{State: v1.TaskRunning}}
			if section == v1.SectionDesired {
				ops[i].Value = benchDesired(at)
			}
		}
		var err error
		if s, _, err = s.With(s.Revision()+1, ops); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N*n), "cpu-ns/change")
}

// cpuTime is what the process has used of its processors, in nanoseconds: what a busy machine does not blur.
func cpuTime(b *testing.B) int64 {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return used.Utime.Nano() + used.Stime.Nano()
}

// BenchmarkMemory tells what a task takes; its time means nothing.
func BenchmarkMemory(b *testing.B) {
	s, bytes := million()
	for b.Loop() {
		if s.Count(v1.KindTask) != 1_000_000 {
			b.Fatal("not a million")
		}
	}
	b.ReportMetric(float64(bytes), "B/task")
}
