package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

const plainService = "{apiVersion: swarm/v1, kind: Service, metadata: {name: a}, spec: {task: {container: {image: hello}}}}"

func TestSplit(t *testing.T) {
	type doc struct {
		Line int
		Text string
	}
	for _, c := range []struct {
		name, in string
		want     []doc
	}{
		{"one", "a: 1\n", []doc{{1, "a: 1"}}},
		{"two", "a: 1\n---\nb: 2\n", []doc{{1, "a: 1"}, {3 - 1, "b: 2"}}},
		{"empty ones", "---\n---\n# c\n--- # x\na: 1\n---\n", []doc{{4, "# x\na: 1"}}},
		{"on the marker's line", "--- a: 1\n--- {b: 2}\n", []doc{{1, "a: 1"}, {2, "{b: 2}"}}},
		{"end marker", "a: 1\n...\n%YAML 1.1\n---\nb: 2\n", []doc{{1, "a: 1"}, {2, "%YAML 1.1"}, {4, "b: 2"}}},
		{"not a marker", "a: |\n  ---\n  x\nb: ----\n", []doc{{1, "a: |\n  ---\n  x\nb: ----"}}},
		{"windows", "a: 1\r\n---\r\nb: 2\r\n", []doc{{1, "a: 1"}, {2, "b: 2"}}},
		{"byte order mark", "\ufeffa: 1", []doc{{1, "a: 1"}}},
		{"json", "{\"a\": 1}\n\n{\"b\": 2} {\"c\": 3}", []doc{{1, `{"a": 1}`}, {3, `{"b": 2}`}, {3, `{"c": 3}`}}},
		{"flow yaml", "{a: 1}\n---\n{b: 2}\n", []doc{{1, "{a: 1}"}, {2, "{b: 2}"}}},
		{"nothing", "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			parts, err := split([]byte(c.in))
			if err != nil {
				t.Fatal(err)
			}
			var got []doc
			for _, p := range parts {
				got = append(got, doc{p.line, strings.TrimSpace(string(p.data))})
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	}
}

// TestHugeManifests holds the reader to its limits: each is refused, by name.
func TestHugeManifests(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"a document":   {strings.Repeat("#", v1.MaxManifestSize) + "\na: 1", "bytes are too many"},
		"documents":    {strings.Repeat("---\na: 1\n", maxDocuments+1), "more than 10000 documents"},
		"aliases":      {"a: &a x\nb: [" + strings.Repeat("*a,", maxAliases+1) + "]", "aliases are too many"},
		"nesting":      {strings.Repeat("[", 20_000), "YAML: "},
		"JSON nesting": {strings.Repeat(`{"a":`, 5_000) + "1" + strings.Repeat("}", 5_000), "deep"},
		"labels": {"apiVersion: swarm/v1\nkind: Service\nmetadata:\n  name: a\n  labels:\n" +
			strings.Repeat("    k: v\n", 2), `"k"`},
		"NUL":       {"a: \x00", "YAML: control characters are not allowed"},
		"not UTF-8": {"a: \xff\xfe", "YAML: "},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseManifests("f.yaml", []byte(c.in))
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "f.yaml") {
				t.Errorf("error %.200v, want one of f.yaml with %q", err, c.want)
			}
		})
	}
}

// TestKeepForced follows one manifest through several readings of its service, as when others are faster.
func TestKeepForced(t *testing.T) {
	there := func(revision int64, force uint64) *v1.Service {
		return &v1.Service{Meta: v1.Meta{Revisions: v1.Revisions{v1.SectionSpec: revision}},
			Spec: &v1.ServiceSpec{Task: v1.TaskSpec{ForceUpdate: force}}}
	}
	says := strings.Replace(plainService, "task: {", "task: {forceUpdate: 5, ", 1)
	fromAPI := strings.Replace(plainService, "name: a", "name: a, revisions: {spec: 3}", 1)
	for _, c := range []struct {
		name, manifest string
		old            v1.Object
		keeps          bool
		force          uint64
		revision       int64
	}{
		{"nothing there", plainService, nil, false, 0, 0},
		{"there", plainService, there(7, 2), true, 2, 7},
		{"manifest says it", says, there(7, 2), false, 5, 0},
		{"manifest with a condition", fromAPI, there(7, 2), false, 2, 3},
		{"manifest with a condition, nothing there", fromAPI, nil, false, 0, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			docs, err := parseManifests("f.yaml", []byte(c.manifest))
			if err != nil {
				t.Fatal(err)
			}
			svc := docs[0].Object.(*v1.Service)
			for _, first := range []v1.Object{nil, there(1, 9)} {
				docs[0].keepForced(first) // leaves nothing behind
				keeps := docs[0].keepForced(c.old)
				if keeps != c.keeps || svc.Spec.Task.ForceUpdate != c.force || svc.Meta.Revisions[v1.SectionSpec] != c.revision {
					t.Errorf("keeps %t, forceUpdate %d, revision %d", keeps, svc.Spec.Task.ForceUpdate, svc.Meta.Revisions[v1.SectionSpec])
				}
			}
		})
	}
}

func TestReadFileLimit(t *testing.T) {
	a := &app{Options: withDefaults(Options{In: bytes.NewReader(make([]byte, maxFile+1))})}
	if _, err := a.readManifests([]string{"-"}, false); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("error %v, want one of the size", err)
	}
}

func FuzzManifests(f *testing.F) {
	for _, s := range []string{plainService, plainService + "\n---\n" + plainService, "a: &a [*a]", "{\"a\":1}{\"b\":2}", "--- a\n...\n", "\xff", "? a\n: b", "!!binary x", "<<: *a", "a: b: c", "- \t-"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		docs, err := parseManifests("f.yaml", data)
		for _, d := range docs {
			if d.Object == nil || d.Kind == "" {
				t.Errorf("%+v is no manifest", d)
			}
		}
		if err != nil && !strings.HasPrefix(err.Error(), "f.yaml") {
			t.Errorf("%v does not say where", err)
		}
	})
}
