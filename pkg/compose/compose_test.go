package compose

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write what is wanted anew")

// world is what compose files are read in: files and variables of its own.
type world struct {
	files   map[string]string
	env     map[string]string
	lenient bool
	raw     bool
}

func (w world) options() Options {
	return Options{Stack: "shop", Dir: "/srv", Salt: "salt", Lenient: w.lenient, Raw: w.raw,
		Env: func(name string) (string, bool) { v, ok := w.env[name]; return v, ok },
		Read: func(path string, limit int64) ([]byte, error) {
			data, ok := w.files[path]
			if !ok {
				return nil, fmt.Errorf("open %s: %w", path, fs.ErrNotExist)
			}
			if int64(len(data)) >= limit {
				return nil, errors.New("too large")
			}
			return []byte(data), nil
		}}
}

// load reads texts as compose files a.yml, b.yml and so on.
func (w world) load(texts ...string) (*Project, error) {
	var files []Source
	for i, text := range texts {
		files = append(files, Source{string(rune('a'+i)) + ".yml", []byte(text)})
	}
	return Load(files, w.options())
}

// golden compares what is got with a file.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got; go test -update writes it anew):\n%s", path, diff)
	}
}

// asYAML is a value in YAML.
func asYAML(t *testing.T, s any) []byte {
	t.Helper()
	data, err := yaml.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// public are compose files as public projects have them.
const public = "../../test/e2e/testdata/stacks"

// TestPublic translates the compose files of public projects, with nothing but files of their own.
func TestPublic(t *testing.T) {
	folders, err := os.ReadDir(public)
	if err != nil {
		t.Fatal(err)
	}
	if len(folders) < 5 {
		t.Fatalf("found %d projects", len(folders))
	}
	for _, f := range folders {
		t.Run(f.Name(), func(t *testing.T) {
			dir := filepath.Join(public, f.Name())
			data, err := os.ReadFile(filepath.Join(dir, "compose.yml"))
			if err != nil {
				t.Fatal(err)
			}
			o := world{env: map[string]string{"MYSQL_PASSWORD": "an example"}}.options()
			o.Dir = "/srv/" + f.Name()
			o.Read = func(path string, _ int64) ([]byte, error) {
				below, err := filepath.Rel(o.Dir, path)
				if err != nil || !filepath.IsLocal(below) {
					t.Errorf("reads %s", path)
				}
				return os.ReadFile(filepath.Join(dir, below))
			}
			p, err := Load([]Source{{"compose.yml", data}}, o)
			if err != nil {
				t.Fatal(err)
			}
			s, err := p.convert()
			if err != nil {
				t.Fatal(err)
			}
			if len(p.Warnings) > 0 {
				t.Errorf("warnings: %s", strings.Join(p.Warnings, "\n"))
			}
			golden(t, f.Name()+".yaml", asYAML(t, s))
		})
	}
}
