package compose

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

func nothing(string) (string, bool) { return "", false }

// TestParseEnv reads files as .env.
func TestParseEnv(t *testing.T) {
	lookup := func(name string) (string, bool) { return "outer", name == "OUTER" }
	for file, want := range map[string]string{
		"A=1\n# comment\nB = 2 # more\n": "A=1 B=2",
		"export A='$OUTER'\n":            "A=$OUTER",
		"A=\"$OUTER ${B:-none}\"\n":      "A=outer none",
		"A=1\nB=$A$A\n":                  "A=1 B=11",
		"A=\"two\nlines\"\nB=x\n":        "A=two\nlines B=x",
		"A: 1\n":                         "A=1",
		"\uFEFFA=1\r\nB=2\r\n":           "A=1 B=2",
		"":                               "",
	} {
		vars, err := ParseEnv("x", []byte(file), lookup)
		if err != nil {
			t.Errorf("%q: %v", file, err)
		}
		var all []string
		for _, name := range slices.Sorted(maps.Keys(vars)) {
			all = append(all, name+"="+vars[name])
		}
		if got := strings.Join(all, " "); got != want {
			t.Errorf("%q: got %q, want %q", file, got, want)
		}
	}
	for _, file := range []string{"A\x00=1", "A=\"open\n", "A B=1\n"} {
		if vars, err := ParseEnv("x.env", []byte(file), nothing); err == nil || !strings.Contains(err.Error(), "x.env") {
			t.Errorf("%q: got %v, %v, want an error of x.env", file, vars, err)
		}
	}
}

// TestGrowth: variables that multiply each other are refused before they do.
func TestGrowth(t *testing.T) {
	for name, shape := range map[string]string{"plain": "A%d=%s\n", "quoted": "A%d=\"%s\"\n", "exported": "export A%d=%s\n", "lines": "A%d=\"\nB=1\n%s\"\n"} {
		b := "A0=aaaaaaaaaa\n"
		for i := 1; i < 30; i++ {
			b += fmt.Sprintf(shape, i, strings.Repeat(fmt.Sprintf("${A%d}", i-1), 10))
		}
		if _, err := ParseEnv("x", []byte(b), nothing); err == nil || !strings.Contains(err.Error(), "too large") {
			t.Errorf("%s: %v", name, err)
		}
	}
	long := "A=1\n"
	for i := range 1000 {
		long += fmt.Sprintf("B%d=$A/$A/$A\n", i)
	}
	if _, err := ParseEnv("x", []byte(long), nothing); err != nil {
		t.Errorf("a thousand variables that refer to one: %v", err)
	}
}

// TestParseRaw reads files as Docker's --env-file.
func TestParseRaw(t *testing.T) {
	vars, err := parseRaw("x", []byte("A=\"$B\"\n#C=1\n\nD\nE\n  F=1 # 2\r\n"), func(name string) (string, bool) { return "d", name == "D" })
	if want := map[string]string{"A": `"$B"`, "D": "d", "F": "1 # 2"}; err != nil || !maps.Equal(vars, want) {
		t.Errorf("got %v, %v, want %v", vars, err, want)
	}
	for _, file := range []string{"=1\n", "A B=1\n"} {
		if _, err := parseRaw("x", []byte("\n"+file), nothing); err == nil || !strings.Contains(err.Error(), "x:2: ") {
			t.Errorf("%q: %v", file, err)
		}
	}
}

// FuzzLoad: no file makes the translation fall over, and what it makes is well formed or refused.
func FuzzLoad(f *testing.F) {
	for _, seed := range []string{"services: {web: {image: nginx}}\n", one("ports: ['1-3:4-6/udp']", "volumes: ['a:/b:ro']", "env_file: x"), "a: &a [*a]\n", "{}\n---\n{}\n",
		one("extends: {service: web}"), one("environment: {A: '${B:-${C}}'}"), "services: {a: !reset null}\n", "x: [[[[", "services: {<<: {a: {image: b}}}\n",
		one("deploy: {replicas: 1, resources: {limits: {cpus: '0.1'}}}"), "secrets: {s: {environment: A}}\n" + one("secrets: [s]")} {
		f.Add(seed, "A=$B\n")
	}
	f.Fuzz(func(t *testing.T, file, env string) {
		w := world{files: map[string]string{"/srv/x": env}, env: map[string]string{"A": "a"}, lenient: len(file)%2 == 0}
		p, err := w.load(file)
		if err != nil {
			return
		}
		s, err := p.Stack()
		if err != nil {
			return
		}
		if len(s.Services) == 0 {
			t.Errorf("a stack without services")
		}
		if _, err := p.YAML(); err != nil {
			t.Error(err)
		}
	})
}
