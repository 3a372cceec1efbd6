package compose

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/schema"
	"github.com/compose-spec/compose-go/v2/types"
)

// stop tells whether what is below a path needs no entry: it is refused with the path, or the user's own.
func stop(path string) bool {
	k, ok := byPath[path]
	return ok && (k.fate != honoured || k.open)
}

// fields are the keys of a type of compose-go, with what is below them, unless it is to stop there.
func fields(t reflect.Type, path string, stop func(string) bool) []string {
	if stop(path) {
		return nil
	}
	switch t.Kind() {
	case reflect.Pointer:
		return fields(t.Elem(), path, stop)
	case reflect.Slice, reflect.Array:
		return fields(t.Elem(), path+"[]", stop)
	case reflect.Map:
		if leaf(t.Elem()) {
			return nil
		}
		return append([]string{path + ".*"}, fields(t.Elem(), path+".*", stop)...)
	case reflect.Struct:
		var all []string
		for f := range t.Fields() {
			tag, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			switch {
			case tag == "-" || strings.HasPrefix(tag, "#") || !f.IsExported() || f.Type == reflect.TypeFor[types.Extensions]():
			case tag == "" && strings.Contains(options, "inline"):
				all = append(all, fields(f.Type, path, stop)...)
			default:
				if tag == "" {
					tag = strings.ToLower(f.Name)
				}
				all = append(all, join(path, tag))
				all = append(all, fields(f.Type, join(path, tag), stop)...)
			}
		}
		return all
	}
	return nil
}

func leaf(t reflect.Type) bool {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	return t.Kind() != reflect.Struct && t.Kind() != reflect.Map
}

// ours are fields of compose-go's types that are no keys of a file.
var ours = []string{
	"environment", "disabledservices", "disabledjobs", "profiles", "composefiles", "workingdir", // of types.Project
	"services.*.name",             // the key itself
	"services.*.ulimits.*.single", // a number in the place of soft and hard
}

// TestEveryField walks every field of compose-go's types: each is a key that is honoured or refused, so that a new version of compose-go
// brings none that is ignored.
func TestEveryField(t *testing.T) {
	all := fields(reflect.TypeFor[types.Project](), "", stop)
	if len(all) < 150 {
		t.Fatalf("found %d fields only: %v", len(all), all)
	}
	for _, path := range all {
		if _, ok := byPath[path]; !ok && !slices.Contains(ours, path) {
			t.Errorf("%s is neither honoured nor refused: say which in keys, and convert it", path)
		}
	}
}

// TestEveryAttribute does the same with the schema, which has keys that compose-go's types have no field for.
func TestEveryAttribute(t *testing.T) {
	found := make(map[string]bool)
	for _, p := range schema.AttributePaths() {
		path := strings.ReplaceAll(string(p), ".[]", "[]")
		found[path] = true
		if strings.Contains(path, ".external.") { // compose-go makes a name of it
			continue
		}
		known := false
		for above := path; above != ""; above = above[:max(strings.LastIndexByte(above, '.'), 0)] {
			if _, ok := byPath[above]; ok && (above == path || stop(above)) {
				known = true
				break
			}
			// a list's own path, where keys has its entries
			if bare, cut := strings.CutSuffix(above, "[]"); cut && stop(bare) {
				known = true
				break
			}
		}
		if !known {
			t.Errorf("%s is neither honoured nor refused: say which in keys, and convert it", path)
		}
	}
	// What keys says of what there is not would hide that something is written wrong.
	for _, path := range fields(reflect.TypeFor[types.Project](), "", func(string) bool { return false }) {
		found[path] = true
	}
	for _, k := range keys {
		if !found[k.path] {
			t.Errorf("%s is no key of the compose specification", k.path)
		}
	}
}

// TestKeys holds the list itself to its rules.
func TestKeys(t *testing.T) {
	seen := make(map[string]bool)
	for _, k := range keys {
		if seen[k.path] {
			t.Errorf("%s is there twice", k.path)
		}
		seen[k.path] = true
		if k.fate != honoured && k.note == "" {
			t.Errorf("%s is refused without a word on what to do", k.path)
		}
		if k.fate != honoured && k.open {
			t.Errorf("%s is refused and open", k.path)
		}
		for above := k.path; strings.ContainsRune(above, '.'); {
			above = above[:strings.LastIndexByte(above, '.')]
			if stop(above) {
				t.Errorf("%s is below %s, which is refused or open", k.path, above)
			}
		}
	}
}

// table is keys as docs/stacks.md has them.
func table() string {
	var b strings.Builder
	for _, section := range []struct{ title, prefix string }{
		{"A service", "services.*."}, {"Networks", "networks.*."}, {"Volumes", "volumes.*."}, {"Secrets", "secrets.*."}, {"Configs", "configs.*."}, {"At the top", ""},
	} {
		fmt.Fprintf(&b, "\n### %s\n\n| key | | |\n|---|---|---|\n", section.title)
		for _, k := range keys {
			name, below := strings.CutPrefix(k.path, section.prefix)
			if !below || section.prefix == "" && strings.ContainsRune(k.path, '.') {
				continue
			}
			mark := "✓"
			if k.fate != honoured {
				mark = "✗"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, mark, strings.ReplaceAll(k.note, "|", `\|`))
		}
	}
	return b.String()
}

// TestDocumented holds docs/stacks.md to what the code does.
func TestDocumented(t *testing.T) {
	const path, begin, end = "../../docs/stacks.md", "<!-- keys: written by go test ./pkg/compose -update -->\n", "\n<!-- end of keys -->"
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(data), begin)
	got, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no table of keys between %q and %q", path, begin, end)
	}
	if got == table() {
		return
	}
	if !*update {
		t.Fatalf("%s: the table of keys is not what the code does: go test ./pkg/compose -update writes it", path)
	}
	if err := os.WriteFile(path, []byte(before+begin+table()+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
