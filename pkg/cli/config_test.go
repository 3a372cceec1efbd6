package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// appIn is an app whose file of contexts is in a directory of its own.
func appIn(t *testing.T) (*app, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sub", "config.yaml")
	a := &app{Options: withDefaults(Options{In: strings.NewReader(""), Out: io.Discard, Err: io.Discard, Getenv: func(name string) string {
		return map[string]string{ConfigEnv: path}[name]
	}})}
	return a, path
}

func TestConfigRoundTrip(t *testing.T) {
	a, path := appIn(t)
	x := &swarmContext{Name: "prod", User: "alice", Hosts: []string{"10.0.0.1:2377", "[fe80::1]:2377"}, Managers: []string{"10.0.0.2:2377"},
		Learnt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Answered: "10.0.0.2:2377", Roots: "roots\n", Token: "t"}
	if err := a.keepContext(x, true); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v: want mode 0600", info.Mode(), err)
	}
	c, err := a.readConfig()
	if err != nil || c.Current != "prod" || len(c.Contexts) != 1 {
		t.Fatalf("%+v, %v", c, err)
	}
	if got := strings.Join(c.find("prod").all(), " "); got != "10.0.0.2:2377 10.0.0.1:2377 [fe80::1]:2377" {
		t.Errorf("asked in the order %s", got)
	}
}

// TestConfigRefused: what is no file of contexts is refused, without telling what is inside.
func TestConfigRefused(t *testing.T) {
	const good = "- name: a\n  hosts: ['h:1']\n  roots: r\n"
	for name, c := range map[string]struct{ text, want string }{
		"no yaml":         {"hunter2: [", "is no file of contexts"},
		"another's":       {"apiVersion: v1\nclusters: [hunter2]\n", "is no file of contexts"},
		"a slip":          {"contexts:\n- name: a\n  hosst: ['h:1']\n", "is no file of contexts"},
		"twice":           {"contexts:\n" + good + good, `two contexts called "a"`},
		"empty":           {"contexts: [null]", "contexts[0] is empty"},
		"no host":         {"contexts:\n- name: a\n  roots: r\n", `has 0 hosts`},
		"a bad host":      {"contexts:\n- name: a\n  roots: r\n  hosts: [h]\n", `"h" is no host`},
		"no roots":        {"contexts:\n- name: a\n  hosts: ['h:1']\n", "has no roots"},
		"the local one":   {"contexts:\n- name: default\n  hosts: ['h:1']\n  roots: r\n", "this machine's daemon"},
		"a path for name": {"contexts:\n- name: ../a\n  hosts: ['h:1']\n  roots: r\n", "is no name of a context"},
		"half a pair":     {"contexts:\n- name: a\n  hosts: ['h:1']\n  roots: r\n  key: hunter2\n", "certificate and key belong together"},
	} {
		_, err := parseConfig("file", []byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestConfigForOthers(t *testing.T) {
	a, path := appIn(t)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	for mode, bad := range map[os.FileMode]bool{0o600: false, 0o400: false, 0o640: true, 0o602: true, 0o644: true} {
		if err := os.WriteFile(path, []byte("contexts: []\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := a.readConfig(); (err != nil) != bad {
			t.Errorf("mode %04o: %v", mode, err)
		}
		// Nor is it written: a change would hide that others could read it.
		if err := a.changeConfig(func(*config) error { return nil }); (err != nil) != bad {
			t.Errorf("mode %04o: change: %v", mode, err)
		}
		os.Remove(path)
	}
}

// TestConfigTogether: of many who change the file at the same time nobody's change is lost.
func TestConfigTogether(t *testing.T) {
	a, path := appIn(t)
	const writers = 20
	var group sync.WaitGroup
	for i := range writers {
		group.Go(func() {
			err := a.changeConfig(func(c *config) error {
				c.put(&swarmContext{Name: fmt.Sprintf("c%d", i), Hosts: []string{"h:1"}, Roots: "r"})
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	c, err := a.readConfig()
	if err != nil || len(c.Contexts) != writers {
		t.Errorf("%d contexts, %v: want %d", len(c.Contexts), err, writers)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	broken := errors.New("broken")
	half := func(f *os.File) error {
		if _, err := f.WriteString("half"); err != nil {
			return err
		}
		return broken
	}
	if err := writeFileFrom(path, false, half); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Fatalf("a broken write left %v", left)
	}
	if err := writeFile(path, []byte("one"), false); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(path, []byte("two"), false); err == nil || !strings.Contains(err.Error(), "exists already") {
		t.Fatal(err)
	}
	if err := writeFileFrom(path, true, half); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "one" {
		t.Fatalf("%q, %v", data, err)
	}
	if err := writeFile(path, []byte("three"), true); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if data, _ := os.ReadFile(path); err != nil || string(data) != "three" || info.Mode().Perm() != 0o600 {
		t.Fatalf("%q %v %v", data, info.Mode(), err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte("current: a\ncontexts:\n- name: a\n  hosts: ['h:1']\n  roots: r\n  token: t\n"))
	f.Add([]byte("contexts: [{name: a, hosts: [], roots: x}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseConfig("f", data)
		if err != nil {
			return
		}
		for _, x := range c.Contexts {
			text, err := x.yaml()
			if err != nil {
				t.Fatal(err)
			}
			again, err := parseConfig("f", text)
			if err != nil || len(again.Contexts) != 1 || again.Contexts[0].Name != x.Name || again.Contexts[0].Token != x.Token {
				t.Errorf("%q comes back as %q: %v", data, text, err)
			}
		}
	})
}
