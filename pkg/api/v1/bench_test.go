package v1

import (
	"encoding/json"
	"testing"
	"time"
)

// hotTask is a task as a million of them look.
func hotTask() *Task {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678_901_234, time.UTC)
	return &Task{
		Meta: Meta{ID: HashID("t"), CreatedAt: at, UpdatedAt: at},
		Desired: &TaskDesired{
			Service: HashID("s"), ServiceName: "hello", Slot: 12345, Attempt: 1, Revision: HashID("r"), State: TaskRunning,
			Networks:  []NetworkAddress{{Network: HashID("a"), Addresses: []string{"10.0.1.5/24"}}},
			Placement: &TaskPlacement{Node: HashID("n"), At: at, CPUs: 5e8, Memory: 64 << 20},
		},
		Status: &TaskStatus{State: TaskRunning, At: at, Message: "started",
			Container: &ContainerStatus{ID: HashID("t"), PID: 12345}, Address: "100.64.1.23"},
	}
}

func BenchmarkTaskSections(b *testing.B) {
	task := hotTask()
	for s, value := range map[Section]any{SectionDesired: task.Desired, SectionStatus: task.Status} {
		data, err := json.Marshal(value)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(s.String()+"/encode", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := json.Marshal(value); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(s.String()+"/decode", func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if _, err := Tasks.DecodeSection(s, data); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(s.String()+"/decode-plain", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var into any = new(plainDesired)
				if s == SectionStatus {
					into = new(plainStatus)
				}
				if err := json.Unmarshal(data, into); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecodeManifest(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeManifest([]byte(helloManifest)); err != nil {
			b.Fatal(err)
		}
	}
}
