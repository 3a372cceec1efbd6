package reconciletest

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/swarmd/swarmd/pkg/reconcile"
)

// states are the steps of a scenario that print what is so, and not what was done.
var states = []string{"tasks", "nodes", "update", "cron", "services", "networks", "addresses", "ports", "revisions"}

// outOfDate is how many slots a rollout began with. It depends on which pipeline decides first, of which a new leader begins with the
// first again: one that knows already that a node is down counts one slot less.
var outOfDate = regexp.MustCompile(`[0-9]+ out of date`)

// RunSuccessions runs every scenario that the pattern matches again and again, each time with a leader that dies at another of its
// commits, before it is made or after: whoever leads next knows what is in the store alone, and all has to become as it would have.
func RunSuccessions(t *testing.T, pattern string, pipelines []reconcile.Pipeline) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenario matches %s (%v)", pattern, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			want, commits := told(t, file, pipelines, nil)
			for at := 1; at <= commits; at++ {
				for _, early := range []bool{true, false} {
					got, _ := told(t, file, pipelines, func(n int) (before, after bool) { return n == at && early, n == at && !early })
					if diff := cmp.Diff(want, got); diff != "" {
						t.Errorf("the leader dies at commit %d of %d, before it: %v (-want +got):\n%s", at, commits, early, diff)
					}
				}
			}
		})
	}
}

// told is what a scenario prints of what is so, with how many commits the rules made.
func told(t *testing.T, file string, pipelines []reconcile.Pipeline, dies func(int) (bool, bool)) (text string, commits int) {
	t.Helper()
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	w := NewWorld(pipelines)
	w.dies = dies
	var out strings.Builder
	for _, f := range archive.Files {
		if f.Name == "objects" {
			if err := w.Load(string(f.Data)); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			continue
		}
		for line := range strings.Lines(string(f.Data)) {
			step, is := strings.CutPrefix(line, "> ")
			if !is {
				continue
			}
			printed, err := w.Do(step)
			if err != nil {
				t.Fatalf("%s: %v\nafter:\n%s", strings.TrimSpace(step), err, out.String())
			}
			if name, _, _ := strings.Cut(strings.TrimSpace(step), " "); slices.Contains(states, name) {
				fmt.Fprintf(&out, "%s%s", step, printed)
			}
		}
	}
	return outOfDate.ReplaceAllString(out.String(), "some out of date"), w.commits
}
