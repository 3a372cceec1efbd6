package service

import (
	"math"
	"math/rand/v2"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// TestGroup sorts tasks whose slots are numbered as rules do it, and as nobody does.
func TestGroup(t *testing.T) {
	for name, number := range map[string]func(i int) uint64{
		"dense":  func(i int) uint64 { return uint64(i/3 + 1) },
		"gaps":   func(i int) uint64 { return uint64(i/3) * 5 },
		"sparse": func(i int) uint64 { return math.MaxUint64 - uint64(i/3)*1e15 },
		"one":    func(int) uint64 { return 7 },
	} {
		t.Run(name, func(t *testing.T) {
			var tasks []*v1.Task
			for i := range 300 {
				tasks = append(tasks, &v1.Task{Desired: &v1.TaskDesired{Slot: number(i), Attempt: uint64(i%3) + 1 + uint64(i/300)}})
			}
			rand.Shuffle(len(tasks), func(i, j int) { tasks[i], tasks[j] = tasks[j], tasks[i] })
			count, before := 0, uint64(0)
			for i, s := range group(tasks) {
				if i > 0 && s.number <= before {
					t.Fatalf("slot %d comes after slot %d", s.number, before)
				}
				before = s.number
				for j, task := range s.tasks {
					count++
					if task.Desired.Slot != s.number || j > 0 && task.Desired.Attempt < s.tasks[j-1].Desired.Attempt {
						t.Fatalf("slot %d has at %d a task of slot %d, attempt %d", s.number, j, task.Desired.Slot, task.Desired.Attempt)
					}
				}
			}
			if count != len(tasks) {
				t.Errorf("%d tasks of %d are in a slot", count, len(tasks))
			}
		})
	}
	if got := group(nil); len(got) != 0 {
		t.Errorf("no tasks make %d slots", len(got))
	}
}
