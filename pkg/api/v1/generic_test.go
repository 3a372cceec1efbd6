package v1

import (
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParseGenericResources(t *testing.T) {
	got, err := ParseGenericResources([]string{"SSD=3", "GPU=b", "GPU=a", "GPU=b", "NONE=0"})
	want := []GenericResource{{Kind: "GPU", Value: "a"}, {Kind: "GPU", Value: "b"}, {Kind: "NONE"}, {Kind: "SSD", Count: 3}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v (%v), want %v", got, err, want)
	}
	for text, want := range map[string]string{
		"GPU": "want one such as GPU=UUID1", "=a": "want one such as", "GPU=": "want one such as", "GPU=a=b": "want one such as", "G U=a": "want one such as",
		"SSD=-1": "out of range", "SSD=3 SSD=4": "SSD is there already", "SSD=3 SSD=a": "SSD is there already", "SSD=a SSD=3": "SSD is there already",
		"GPU=" + strings.Repeat("x", 129): "too long",
	} {
		list := strings.Fields(text)
		if strings.HasPrefix(text, "G U") {
			list = []string{text}
		}
		if _, err := ParseGenericResources(list); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

func TestGenericEnv(t *testing.T) {
	got := GenericEnv([]GenericResource{{Kind: "nvidia-gpu", Value: "u1"}, {Kind: "nvidia-gpu", Value: "u2"}, {Kind: "ssd", Count: 2}})
	if want := []string{"DOCKER_RESOURCE_NVIDIA-GPU=u1,u2", "DOCKER_RESOURCE_SSD=2"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestGenericTake takes and gives back at random: nobody is given what another has, and what is free can be taken.
func TestGenericTake(t *testing.T) {
	have := []GenericResource{{Kind: "gpu", Value: "a"}, {Kind: "gpu", Value: "b"}, {Kind: "gpu", Value: "c"}, {Kind: "ssd", Count: 4}}
	rapid.Check(t, func(t *rapid.T) {
		held, tasks, left := make(Generic), [][]GenericResource{}, map[string]int64{"gpu": 3, "ssd": 4}
		for range 30 {
			if len(tasks) > 0 && rapid.Bool().Draw(t, "give back") {
				i := rapid.IntRange(0, len(tasks)-1).Draw(t, "which")
				held.Add(tasks[i], -1)
				for _, r := range tasks[i] {
					left[r.Kind] += max(r.Count, 1)
				}
				tasks = append(tasks[:i], tasks[i+1:]...)
				continue
			}
			want := []GenericResource{{Kind: rapid.SampledFrom([]string{"gpu", "ssd", "fpga"}).Draw(t, "kind"), Count: rapid.Int64Range(1, 4).Draw(t, "count")}}
			taken, ok := held.Take(have, want)
			if fits := want[0].Count <= left[want[0].Kind]; ok != fits {
				t.Fatalf("%v of %v with %v held: got %v", want, have, held, ok)
			}
			if !ok {
				continue
			}
			held.Add(taken, 1)
			left[want[0].Kind] -= want[0].Count
			if tasks = append(tasks, taken); !held.Within(have) {
				t.Fatalf("%v is held of %v", held, have)
			}
		}
		for _, task := range tasks {
			held.Add(task, -1)
		}
		if len(held) > 0 {
			t.Fatalf("%v is held by nobody", held)
		}
	})
}
