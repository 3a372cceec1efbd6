package agent

import (
	"strings"
	"testing"
)

// TestNamed: what a sentence mentions by an ID has its name, and paths and what nobody knows stay as they are.
func TestNamed(t *testing.T) {
	known, unknown := strings.Repeat("a1", 12)+"b", strings.Repeat("c2", 12)+"d"
	names := map[string]string{known: "back"}
	for text, want := range map[string]string{
		"network " + known + ": it is not there":        "network back: it is not there",
		"in task " + known + " of network " + unknown:   "in task back of network " + unknown,
		"open /run/router/" + known + ": no such file":  "open /run/router/" + known + ": no such file",
		"attachment " + known + "x: no":                 "attachment " + known + "x: no",
		"router of network " + known + ": no such file": "router of network back: no such file",
	} {
		if got := named(text, func(id string) string { return names[id] }); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
