package v1

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// MaxGenericResources is how many generic resources a node may have: its kinds of which there is a number, and its named ones.
const MaxGenericResources = 256

// ParseGenericResources reads what a node has, as Docker's daemons are told: KIND=VALUE for each one that has a name, such as GPU=UUID1,
// or KIND=NUMBER for as many as there are. A kind is either named or counted. What comes out is sorted.
func ParseGenericResources(texts []string) ([]GenericResource, error) {
	var all []GenericResource
	counted := make(map[string]bool)
	for _, text := range texts {
		kind, value, ok := strings.Cut(text, "=")
		switch {
		case !ok || kind == "" || value == "" || strings.ContainsAny(text, " ,\t\n\x00") || strings.Contains(value, "="):
			return nil, fmt.Errorf("%q is no generic resource: want one such as GPU=UUID1, or SSD=3", text)
		case len(kind) > maxGenericWord || len(value) > maxGenericWord:
			return nil, fmt.Errorf("%q is too long: want at most %d characters on each side", cut(text), maxGenericWord)
		}
		g := GenericResource{Kind: kind, Value: value}
		n, err := strconv.ParseInt(value, 10, 64)
		if err == nil {
			if g = (GenericResource{Kind: kind, Count: n}); n < 0 || n > maxGenericCount {
				return nil, fmt.Errorf("%q is out of range: want 0 to %d", text, int64(maxGenericCount))
			}
		}
		if named, seen := counted[kind]; seen && (named || err == nil) {
			return nil, fmt.Errorf("%q: %s is there already: want either a number of it once, or the names of all of it", text, kind)
		}
		counted[kind] = err == nil
		if !slices.Contains(all, g) {
			all = append(all, g)
		}
	}
	if len(all) > MaxGenericResources {
		return nil, fmt.Errorf("%d generic resources are too many: want at most %d", len(all), MaxGenericResources)
	}
	slices.SortFunc(all, compareGeneric)
	return all, nil
}

const (
	maxGenericWord  = 128
	maxGenericCount = 1 << 40
)

func compareGeneric(a, b GenericResource) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Value, b.Value))
}

// Generic is what tasks hold of generic resources: how many of a kind, or of a named one, by the resource without its number.
type Generic map[GenericResource]int64

// Add counts resources in, or, by -1, out.
func (g Generic) Add(held []GenericResource, by int64) {
	for _, r := range held {
		of, n := GenericResource{Kind: r.Kind, Value: r.Value}, max(r.Count, 1)
		if r.Value != "" {
			n = 1
		}
		if g[of] += by * n; g[of] == 0 {
			delete(g, of)
		}
	}
}

// Take picks what is to be set aside for reserved ones of what a node has, lowest names first; ok is false where there is not enough. What it
// returns is for TaskPlacement.Generic.
func (g Generic) Take(have, reserved []GenericResource) (taken []GenericResource, ok bool) {
	for _, want := range reserved {
		left := want.Count
		for _, r := range have {
			switch {
			case r.Kind != want.Kind || left == 0:
			case r.Value == "":
				if r.Count-g[GenericResource{Kind: r.Kind}] < left {
					return nil, false
				}
				taken, left = append(taken, GenericResource{Kind: r.Kind, Count: left}), 0
			case g[GenericResource{Kind: r.Kind, Value: r.Value}] == 0:
				taken = append(taken, GenericResource{Kind: r.Kind, Value: r.Value})
				left--
			}
		}
		if left > 0 {
			return nil, false
		}
	}
	return taken, true
}

// Within tells whether a node that has these resources has all of it.
func (g Generic) Within(have []GenericResource) bool {
	for held, n := range g {
		at := slices.IndexFunc(have, func(r GenericResource) bool { return r.Kind == held.Kind && r.Value == held.Value })
		if at < 0 || held.Value == "" && n > have[at].Count || held.Value != "" && n > 1 {
			return false
		}
	}
	return true
}

// GenericEnv are the variables that tell a task what it was given, as in Docker: DOCKER_RESOURCE_GPU=UUID1,UUID2, or a number.
func GenericEnv(given []GenericResource) []string {
	values := make(map[string][]string)
	var kinds []string
	for _, r := range given {
		value := r.Value
		if value == "" {
			value = strconv.FormatInt(r.Count, 10)
		}
		if values[r.Kind] == nil {
			kinds = append(kinds, r.Kind)
		}
		values[r.Kind] = append(values[r.Kind], value)
	}
	env := make([]string, len(kinds))
	for i, kind := range kinds {
		env[i] = "DOCKER_RESOURCE_" + strings.ToUpper(kind) + "=" + strings.Join(values[kind], ",")
	}
	return env
}
