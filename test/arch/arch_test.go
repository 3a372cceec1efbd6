package arch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/swarmd/swarmd/"

// listed is what go list tells of a package.
type listed struct {
	ImportPath   string
	Dir          string
	Name         string
	Doc          string
	GoFiles      []string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// path is the package's path below the module.
func (p listed) path() string { return strings.TrimPrefix(p.ImportPath, module) }

// packages asks go list for every package of the module.
func packages(t *testing.T) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e",
		"-json=ImportPath,Dir,Name,Doc,GoFiles,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = root(t)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		switch err := d.Decode(&p); {
		case errors.Is(err, io.EOF):
			if len(all) < 10 {
				t.Fatalf("go list found %d packages only", len(all))
			}
			return all
		case err != nil:
			t.Fatal(err)
		}
		if strings.HasPrefix(p.ImportPath, module) && p.Name != "" { // a folder without files that are built has no name
			all = append(all, p)
		}
	}
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// covers tells whether one of the patterns stands for the path.
func (patterns of) covers(path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		folder, below := strings.CutSuffix(p, "...")
		return p == path || below && (strings.HasPrefix(path+"/", folder))
	})
}

// roomOf finds the most exact room of a package.
func roomOf(path string) (room, bool) {
	best, found := room{}, false
	for _, r := range rooms {
		if (of{r.path}).covers(path) && len(r.path) >= len(best.path) {
			best, found = r, true
		}
	}
	return best, found
}

// importErrors are what is wrong with the imports of a package.
func importErrors(p listed) []string {
	r, known := roomOf(p.path())
	if !known {
		return []string{fmt.Sprintf("%s: is no room that is in the table: a new room is a decision, see rooms_test.go", p.path())}
	}
	var errs []string
	for _, imported := range p.Imports {
		path, ours := strings.CutPrefix(imported, module)
		if ours && !r.may.covers(path) && !strings.HasPrefix(path, p.path()+"/") {
			errs = append(errs, fmt.Sprintf("%s: may not import %s (it may import %s)", p.path(), path, strings.Join(r.may, ", ")))
		}
		for _, h := range homes {
			if strings.HasPrefix(imported+"/", h.foreign) && !h.rooms.covers(p.path()) {
				errs = append(errs, fmt.Sprintf("%s: may not import %s, which lives in %s", p.path(), imported, strings.Join(h.rooms, ", ")))
			}
		}
	}
	for _, imported := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
		for _, library := range refused {
			if strings.HasPrefix(imported, library) {
				errs = append(errs, fmt.Sprintf("%s: may not import %s", p.path(), imported))
			}
		}
	}
	return errs
}

func TestImports(t *testing.T) {
	for _, p := range packages(t) {
		for _, err := range importErrors(p) {
			t.Error(err)
		}
	}
}

// TestImportsOfEveryMain is the reason for the homes: what a binary does not need is not in it.
func TestImportsOfEveryMain(t *testing.T) {
	for main, never := range map[string][]string{
		"cmd/swarmctl":     {"go.etcd.io/", "github.com/containerd/containerd", "github.com/vishvananda/netlink", "k8s.io/client-go"},
		"cmd/swarm-logger": {"go.etcd.io/", "k8s.io/", "github.com/spf13/", "github.com/containerd/containerd"},
		"cmd/swarm-wire":   {"go.etcd.io/", "k8s.io/", "github.com/spf13/", "github.com/containerd/containerd", "github.com/vishvananda/"},
	} {
		cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-deps", "./"+main)
		cmd.Dir = root(t)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list -deps ./%s: %v", main, err)
		}
		for dep := range strings.Lines(string(out)) {
			for _, library := range never {
				if strings.HasPrefix(dep, library) {
					t.Errorf("%s: contains %s", main, strings.TrimSpace(dep))
				}
			}
		}
	}
}

func TestPackages(t *testing.T) {
	for _, p := range packages(t) {
		if p.Doc == "" && len(p.GoFiles) > 0 {
			t.Errorf("%s: has no package comment: say what it owns and what it never does", p.path())
		}
		if slices.Contains(vague, p.Name) || slices.Contains(vague, filepath.Base(p.path())) {
			t.Errorf("%s: its name does not say what is inside", p.path())
		}
	}
}

// TestTheRulesBite breaks each rule on imports, so that a table that allows everything does not pass for one that is kept.
func TestTheRulesBite(t *testing.T) {
	for _, test := range []struct {
		path, imports string
		ok            bool
	}{
		{"pkg/store", module + "pkg/api/v1", true},
		{"pkg/store", module + "pkg/store/inner", true},
		{"pkg/store", module + "pkg/store/storetest", true}, // below itself
		{"pkg/api/v1", module + "pkg/store", false},
		{"pkg/store", module + "pkg/reconcile", false},
		{"pkg/store/etcd", module + "pkg/client", false},
		{"pkg/controllers/service", module + "pkg/controllers/scheduler", false},
		{"pkg/controllers/service", module + "pkg/controllers", false},
		{"pkg/controllers", module + "pkg/controllers/scheduler", true},
		{"pkg/netplugin", module + "pkg/api/v1", false},
		{"pkg/agent", module + "pkg/runtime/containerd", false},
		{"pkg/cli", module + "pkg/apiserver", false},
		{"pkg/newcomer", "fmt", false},
		{"pkg/controllers/newcomer", "fmt", false},
		{"cmd/newcomer", module + "pkg/agent", true},
		{"cmd/swarmd", "go.etcd.io/etcd/server/v3/embed", false},
		{"pkg/store/etcd", "go.etcd.io/etcd/server/v3/embed", true},
		{"pkg/runtime", "github.com/containerd/containerd/v2/client", false},
		{"pkg/agent", "github.com/vishvananda/netlink", false},
		{"pkg/apiserver", "github.com/spf13/cobra", false},
		{"pkg/store", "k8s.io/client-go/util/workqueue", false},
		{"pkg/store", "github.com/stretchr/testify/require", false},
	} {
		errs := importErrors(listed{ImportPath: module + test.path, Imports: []string{test.imports}})
		if (len(errs) == 0) != test.ok {
			t.Errorf("%s imports %s: %q", test.path, test.imports, errs)
		}
	}
}
