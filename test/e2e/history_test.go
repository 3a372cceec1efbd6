package e2e

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// attempt is one write of a register, which is a config's label: blind, or only where the register still is what was read; or a read
// that is known to be fresh.
type attempt struct {
	register string
	kind     attemptKind
	// expected is what a conditional write read before, value what is written.
	expected, value string
}

type attemptKind string

const (
	writeAlways attemptKind = "write"
	writeIf     attemptKind = "write if"
	readNow     attemptKind = "read"
)

// outcome is what came of an attempt.
type outcome struct {
	state outcomeState
	value string // of a read
}

type outcomeState string

const (
	acknowledged outcomeState = "done"
	conflicted   outcomeState = "conflict"
	unknown      outcomeState = "unknown" // it may have happened, or happen yet
)

// registers is what a register may do: one value at a time, every write at one moment between its call and its answer.
var registers = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byRegister := make(map[string][]porcupine.Operation)
		for _, o := range history {
			name := o.Input.(attempt).register
			byRegister[name] = append(byRegister[name], o)
		}
		var parts [][]porcupine.Operation
		for _, part := range byRegister {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		value, in, out := state.(string), input.(attempt), output.(outcome)
		switch {
		case in.kind == readNow:
			return out.value == value, value
		case in.kind == writeAlways:
			return out.state != conflicted, in.value
		case out.state == conflicted:
			return value != in.expected, value
		case value == in.expected:
			return true, in.value
		}
		return out.state == unknown, value
	},
	DescribeOperation: func(input, output any) string {
		in, out := input.(attempt), output.(outcome)
		return fmt.Sprintf("%s %s→%s: %s%s", in.kind, in.expected, in.value, out.state, out.value)
	},
}

// history is what clients saw happen to registers.
type history struct {
	began time.Time
	mu    sync.Mutex
	all   []porcupine.Operation
}

func newHistory() *history { return &history{began: time.Now()} }

func (h *history) now() int64 { return int64(time.Since(h.began)) }

// note adds an attempt that was made between a time and now. One whose outcome is unknown goes on for ever.
func (h *history) note(client int, in attempt, call int64, out outcome) {
	back := h.now()
	if out.state == unknown {
		back = math.MaxInt64
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out, Return: back})
}

// counts are how many writes there were, by outcome.
func (h *history) counts() map[outcomeState]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	counts := make(map[outcomeState]int)
	for _, o := range h.all {
		if o.Input.(attempt).kind != readNow {
			counts[o.Output.(outcome).state]++
		}
	}
	return counts
}

// check holds the history to the model. Where it does not fit, a drawing of it is left in the folder.
func (h *history) check(folder string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	result, info := porcupine.CheckOperationsVerbose(registers, h.all, 2*time.Minute)
	if result == porcupine.Ok {
		return nil
	}
	file := filepath.Join(folder, "history.html")
	err := os.MkdirAll(folder, 0o755)
	if err == nil {
		err = porcupine.VisualizePath(registers, info, file)
	}
	return fmt.Errorf("the history of %d writes is %v for a register: see %s (%w)", len(h.all), result, file, err)
}

// TestHistoryBites gives the model histories that no register could have, and some that one could.
func TestHistoryBites(t *testing.T) {
	write := func(value string) attempt { return attempt{"r", writeAlways, "", value} }
	cond := func(expected, value string) attempt { return attempt{"r", writeIf, expected, value} }
	read := attempt{register: "r", kind: readNow}
	done, lost := outcome{state: acknowledged}, outcome{state: unknown}
	type step struct {
		in        attempt
		out       outcome
		call, end int64
	}
	for name, c := range map[string]struct {
		ok    bool
		steps []step
	}{
		"one after the other":         {true, []step{{write("a"), done, 0, 1}, {cond("a", "b"), done, 2, 3}, {read, outcome{value: "b"}, 4, 5}}},
		"a lost write":                {false, []step{{write("a"), done, 0, 1}, {write("b"), done, 2, 3}, {read, outcome{value: "a"}, 4, 5}}},
		"two took the same":           {false, []step{{write("a"), done, 0, 1}, {cond("a", "b"), done, 2, 4}, {cond("a", "c"), done, 2, 4}}},
		"a conflict with nobody":      {false, []step{{write("a"), done, 0, 1}, {cond("a", "b"), outcome{state: conflicted}, 2, 4}}},
		"a conflict with another":     {true, []step{{write("a"), done, 0, 1}, {cond("a", "b"), outcome{state: conflicted}, 2, 4}, {cond("a", "c"), done, 2, 4}}},
		"unknown, it happened":        {true, []step{{write("a"), lost, 0, math.MaxInt64}, {read, outcome{value: "a"}, 4, 5}}},
		"unknown, it did not":         {true, []step{{write("a"), lost, 0, math.MaxInt64}, {read, outcome{value: ""}, 4, 5}}},
		"unknown, it came much later": {true, []step{{write("a"), lost, 0, math.MaxInt64}, {write("b"), done, 1, 2}, {read, outcome{value: "a"}, 4, 5}}},
		"a value from nowhere":        {false, []step{{write("a"), lost, 0, math.MaxInt64}, {read, outcome{value: "x"}, 4, 5}}},
		"at once, in either order":    {true, []step{{write("a"), done, 0, 5}, {write("b"), done, 0, 5}, {read, outcome{value: "a"}, 6, 7}}},
	} {
		h := newHistory()
		for i, s := range c.steps {
			h.all = append(h.all, porcupine.Operation{ClientId: i, Input: s.in, Call: s.call, Output: s.out, Return: s.end})
		}
		if err := h.check(t.TempDir()); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
