package v1

import (
	"fmt"
	"slices"
	"strings"
)

// Filter narrows a list: the values of one key are alternatives, but for labels, of which all have to be there, and every key has to hold. The keys are Docker's and
// differ by kind (see FilterKeys).
type Filter map[string][]string

// Add is f (nil for none yet) with one more alternative for a key.
func (f Filter) Add(key, value string) Filter {
	if f == nil {
		f = make(Filter)
	}
	f[key] = append(f[key], value)
	return f
}

// ParseFilters reads filters as they are written on a command line, each key=value.
func ParseFilters(filters []string) (Filter, error) {
	var f Filter
	for _, text := range filters {
		key, value, ok := strings.Cut(text, "=")
		key, value = strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(value)
		if !ok || key == "" {
			return nil, fmt.Errorf("invalid filter %q: want key=value", text)
		}
		f = f.Add(key, value)
	}
	return f, nil
}

// Strings is the filter as key=value, in a fixed order.
func (f Filter) Strings() []string {
	var all []string
	for key, values := range f {
		for _, value := range values {
			all = append(all, key+"="+value)
		}
	}
	slices.Sort(all)
	return all
}

var filterKeys = map[Kind][]string{
	KindService:         {"id", "label", "mode", "name"},
	KindServiceRevision: {"id", "service"},
	KindTask:            {"desired-state", "id", "label", "name", "node", "service", "state", "up-to-date"},
	KindNode:            {"id", "label", "membership", "name", "node.label", "role"},
	KindNetwork:         {"dangling", "driver", "id", "label", "name", "scope", "type"},
	KindSecret:          {"id", "label", "name", "names"},
	KindConfig:          {"id", "label", "name", "names"},
	KindVolume:          {"driver", "id", "label", "name"},
	KindRegistry:        {"id", "label", "name"},
	KindCluster:         {"id", "name"},
	KindAttachment:      {"id", "label", "name", "network", "node"},
	KindEvent:           {"config", "event", "label", "network", "node", "registry", "scope", "secret", "service", "task", "type", "volume"},
}

// FilterKeys lists the keys that a filter on a kind may have, in alphabetical order.
func FilterKeys(k Kind) []string { return slices.Clone(filterKeys[k]) }

// Check tells what is wrong with the filter's keys for a kind: an unknown key, in Docker's words and with those allowed.
func (f Filter) Check(k Kind) error {
	allowed := filterKeys[k]
	for key := range f {
		if !slices.Contains(allowed, key) {
			return fmt.Errorf("invalid filter '%s': %s filters are %s", key, strings.ToLower(string(k)), strings.Join(allowed, ", "))
		}
	}
	return nil
}
