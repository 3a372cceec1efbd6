package compose

import (
	"os"
	"strings"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// full is testdata/full.yml with the files that it names.
var full = world{
	env: map[string]string{"SET": "set", "KEY": "a key", "TAKEN": "taken"},
	files: map[string]string{
		"/srv/web.env":    "# a comment\nFROM=file\nQUOTED=\"$SET and ${PLAIN}\"\nexport EXPORTED='as $it'\n",
		"/srv/raw.env":    "RAW=\"as $it is\"\nTAKEN\nNONE\n",
		"/srv/web.labels": "a=file\nfrom=file\n",
		"/srv/token.txt":  "a token",
		"/srv/main.conf":  "main",
	},
}

func fullText(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("testdata/full.yml")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestFull translates a file that has every key that is honoured.
func TestFull(t *testing.T) {
	text := fullText(t)
	p, err := full.load(text)
	if err != nil {
		t.Fatal(err)
	}
	written := make(map[string]bool)
	patterns(p.model, "", written)
	for _, k := range keys {
		// compose-go takes version out, and extends as soon as it is done.
		if k.fate == honoured && !written[k.path] && k.path != "version" && !strings.HasPrefix(k.path, "services.*.extends") {
			t.Errorf("testdata/full.yml has no %s", k.path)
		}
	}
	s, err := p.convert((*converter).named)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "full.yaml", asYAML(t, s))
}

// patterns are the keys of a model, as keys has them.
func patterns(value any, pattern string, found map[string]bool) {
	found[pattern] = true
	switch v := value.(type) {
	case map[string]any:
		for name, e := range v {
			if named(pattern) {
				name = "*"
			}
			patterns(e, join(pattern, name), found)
		}
	case []any:
		for _, e := range v {
			patterns(e, pattern+"[]", found)
		}
	}
}

// TestConfig: what stack config prints means the same again, and has no secret in it.
func TestConfig(t *testing.T) {
	p, err := full.load(fullText(t))
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.convert()
	if err != nil {
		t.Fatal(err)
	}
	text, err := p.YAML()
	if err != nil {
		t.Fatal(err)
	}
	printed := string(text)
	for _, secret := range []string{"a key", "a token"} {
		if strings.Contains(printed, secret) {
			t.Errorf("the secret %q is in\n%s", secret, printed)
		}
	}
	again, err := full.load(printed)
	if err != nil {
		t.Fatalf("%v\n%s", err, printed)
	}
	s2, err := again.convert()
	if err != nil {
		t.Fatal(err)
	}
	if one, two := asYAML(t, s), asYAML(t, s2); string(one) != string(two) {
		t.Errorf("first\n%s\nthen\n%s", one, two)
	}
}

// TestRaw leaves variables as they are.
func TestRaw(t *testing.T) {
	w := full
	w.raw = true
	p, err := w.load(fullText(t))
	if err != nil {
		t.Fatal(err)
	}
	if text, err := p.YAML(); err != nil || !strings.Contains(string(text), "${SET}-${UNSET:-default}") {
		t.Errorf("a variable was filled in: %v\n%s", err, text)
	}
	if _, err := p.Stack(); err == nil {
		t.Error("objects were made of what is not filled in")
	}
}

// TestVersions: another content is another object, with another name; the same has the same. A name that the file says stays.
func TestVersions(t *testing.T) {
	file := one("secrets: [s]", "configs: [c]") + "secrets: {s: {file: ./s}, exact: {name: exact, file: ./s}}\nconfigs: {c: {file: ./c}}\n"
	names := func(w world) (secret, config string) {
		t.Helper()
		s, err := w.load(file)
		if err != nil {
			t.Fatal(err)
		}
		stack, err := s.convert()
		if err != nil {
			t.Fatal(err)
		}
		c := stack.Services[0].Spec.Task.Container
		for _, o := range stack.Secrets {
			if o.Meta.Labels[LabelKey] == "exact" && o.Meta.Name != "exact" {
				t.Errorf("a secret with a name is called %s", o.Meta.Name)
			}
		}
		return c.Secrets[0].Source, c.Configs[0].Source
	}
	w := world{files: map[string]string{"/srv/s": "one", "/srv/c": "one"}}
	secret, config := names(w)
	if again, more := names(w); again != secret || more != config {
		t.Errorf("the same content is %s and %s, then %s and %s", secret, config, again, more)
	}
	w.files = map[string]string{"/srv/s": "two", "/srv/c": "two"}
	if other, more := names(w); other == secret || more == config {
		t.Errorf("another content is %s and %s, too", other, more)
	}
	for _, name := range []string{secret, config} {
		if err := v1.ValidateName(v1.KindSecret, name); err != nil || !strings.HasPrefix(name, "shop_") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLongNames: the part of the name that tells the version is always there.
func TestLongNames(t *testing.T) {
	long := strings.Repeat("n", 200)
	a, b := versioned(long, version(digest(long, []byte("a")))), versioned(long, version(digest(long, []byte("b"))))
	if a == b || v1.ValidateName(v1.KindConfig, a) != nil {
		t.Errorf("%s and %s", a, b)
	}
	if c := versioned(long+"x", version(digest(long+"x", []byte("a")))); c == a {
		t.Errorf("two configs whose names begin alike are both %s", c)
	}
}

// TestSalt: two swarms, and two stacks, call one secret differently.
func TestSalt(t *testing.T) {
	sum := func(salt, name string) string {
		data, err := slowDigest(salt, name, []byte("password"))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	if one := sum("a", "x_s"); one == sum("b", "x_s") || one == sum("a", "y_s") || one != sum("a", "x_s") {
		t.Error("the names of secrets do not depend on swarm, stack and key alone")
	}
}
