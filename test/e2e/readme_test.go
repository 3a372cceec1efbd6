package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/swarmd/swarmd/test/e2e/lab"
)

// TestReadme runs every command of the README, in order, on a host of the lab. "make test" is the one exception: it is what
// runs this test.
func TestReadme(t *testing.T) {
	l := lab.New(t, "manager1")
	h := l.Hosts[0]
	repository, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, command := range commands(t, filepath.Join(repository, "README.md")) {
		if command == "make test" {
			continue
		}
		cmd := h.Command("bash", "-e", "-o", "pipefail", "-c", command)
		cmd.Dir = repository
		cmd.Env = append(os.Environ(), "SWARMD_ROOT="+h.Root, "SWARM_HOST=unix://"+h.Socket())
		out, err := cmd.CombinedOutput()
		if err != nil {
			log, _ := os.ReadFile(filepath.Join(h.Root, "swarmd.log"))
			t.Fatalf("%s: %v\n%s\nswarmd:\n%s", command, err, out, log)
		}
		if want := expected[command]; !strings.Contains(string(out), want) {
			t.Errorf("%s: printed\n%s\nwant %q in it", command, out, want)
		}
		ran++
	}
	if ran < 9 {
		t.Errorf("only %d commands were found in the README", ran)
	}
	if left := h.Leftovers(); len(left) > 0 {
		t.Errorf("make down left:\n%s", strings.Join(left, "\n"))
	}
	if _, err := os.Stat(h.Root); err == nil {
		t.Errorf("make down left %s", h.Root)
	}
}

// expected is what some commands must print, beyond ending well.
var expected = map[string]string{
	"make up":                            "curl localhost:8080",
	"curl localhost:8080":                "Hello from hello.",
	"bin/swarmctl service ls":            "3/3",
	"bin/swarmctl service ps hello":      "hello.3",
	"bin/swarmctl service logs hello":    "listens on port 8080",
	"bin/swarmctl service scale hello=5": "5",
	"bin/swarmctl service rm hello":      "hello",
	"make down":                          "is gone",
}

// commands are the lines of a document's sh blocks.
func commands(t *testing.T, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	inside := false
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		switch {
		case line == "```sh":
			inside = true
		case strings.HasPrefix(line, "```"):
			inside = false
		case inside && line != "":
			found = append(found, line)
		}
	}
	if inside {
		t.Fatal(fmt.Errorf("%s: a block is not closed", path))
	}
	return found
}
