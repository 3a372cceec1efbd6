package v1

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// filler sets every field of a value to something that is not zero, each to something else.
type filler struct{ n int }

func (f *filler) fill(v reflect.Value) {
	f.n++
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(time.Date(2026, 1, 2, 3, 4, 5, f.n*1001, time.UTC)))
		return
	case TaskState:
		v.Set(reflect.ValueOf([]TaskState{TaskPending, TaskRunning, TaskFailed}[f.n%3]))
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(v.Elem())
	case reflect.Struct:
		for _, field := range v.Fields() {
			f.fill(field)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		f.fill(v.Index(0))
		f.fill(v.Index(1))
	case reflect.Array:
		for i := range v.Len() {
			f.fill(v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 2 {
			k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			f.fill(k)
			f.fill(e)
			v.SetMapIndex(k, e)
		}
	case reflect.String:
		v.SetString(fmt.Sprintf("s%d <&> \"\\ \t é\u2028", f.n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Float64:
		v.SetFloat(0.25 + float64(f.n))
	default:
		if v.CanInt() {
			v.SetInt(int64(f.n%100 + 1))
		} else {
			v.SetUint(uint64(f.n%100 + 1))
		}
	}
}

// TestRoundTrip writes and reads an object of every kind with every field set, by encoding/json and by DecodeStrict.
func TestRoundTrip(t *testing.T) {
	for _, d := range Kinds {
		t.Run(string(d.Kind()), func(t *testing.T) {
			obj := d.New()
			fillObject(new(filler), d, obj)
			data, err := json.Marshal(obj)
			if err != nil {
				t.Fatal(err)
			}
			plain, strict := d.New(), d.New()
			if err := json.Unmarshal(data, plain); err != nil {
				t.Fatal(err)
			}
			if err := DecodeStrict(data, strict); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(obj, plain); diff != "" {
				t.Errorf("by encoding/json:\n%s", diff)
			}
			if diff := cmp.Diff(obj, strict); diff != "" {
				t.Errorf("by DecodeStrict:\n%s", diff)
			}
			for s := range sections {
				if !d.Has(s) {
					continue
				}
				part, err := json.Marshal(d.Section(obj, s))
				if err != nil {
					t.Fatal(err)
				}
				value, err := d.DecodeSection(s, part)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(d.Section(obj, s), value); diff != "" {
					t.Errorf("section %s:\n%s", s, diff)
				}
			}
		})
	}
}

func fillObject(f *filler, d Descriptor, obj Object) {
	f.fill(reflect.ValueOf(obj.GetMeta()).Elem())
	for s, name := range []string{"Spec", "Desired", "Status"} {
		if d.Has(Section(s)) {
			f.fill(reflect.ValueOf(obj).Elem().FieldByName(name))
		}
	}
}

// fullManifests are manifests as the API gives them, of every kind that people write, with every field set.
func fullManifests(t testing.TB) map[Kind][]byte {
	t.Helper()
	all := make(map[Kind][]byte)
	for _, k := range manifestKinds {
		d, _ := Describe(k)
		obj := d.New()
		fillObject(new(filler), d, obj)
		data, err := json.Marshal(ManifestOf(obj))
		if err != nil {
			t.Fatal(err)
		}
		all[k] = data
	}
	return all
}

// TestWhatGetGivesCanBeApplied reads back what the API gave, of which only the user's part is kept, and conditions.
func TestWhatGetGivesCanBeApplied(t *testing.T) {
	for kind, data := range fullManifests(t) {
		m, err := DecodeManifest(data)
		if err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		d, _ := Describe(kind)
		full := d.New()
		fillObject(new(filler), d, full)
		meta, want := m.Object.GetMeta(), full.GetMeta()
		if !meta.CreatedAt.IsZero() || !meta.UpdatedAt.IsZero() || !meta.Deleting.IsZero() {
			t.Errorf("%s: keeps the swarm's times", kind)
		}
		if meta.ID != want.ID || meta.Generation != want.Generation || meta.Revisions != (Revisions{SectionSpec: want.Revisions[SectionSpec]}) {
			t.Errorf("%s: conditions are %+v", kind, meta)
		}
		if d.Section(m.Object, SectionDesired) != nil || d.Section(m.Object, SectionStatus) != nil {
			t.Errorf("%s: keeps what others wrote", kind)
		}
		if diff := cmp.Diff(d.Section(full, SectionSpec), d.Section(m.Object, SectionSpec)); diff != "" {
			t.Errorf("%s: spec\n%s", kind, diff)
		}
	}
}

// TestDecodeStrictReadsWhatPlainReads holds the decoder to encoding/json on what both take.
func TestDecodeStrictReadsWhatPlainReads(t *testing.T) {
	type deep struct {
		A *[]map[string]*int8 `json:"a"`
		B []byte
		C float64 `json:"c,omitempty"`
		D any
		E [][]string
	}
	for _, in := range []string{
		`{"a":[{"x":1,"y":null},{}],"B":"aGk=","c":1.5e3,"D":{"z":[1]},"E":[[],["a\n"],null]}`,
		" {\n\t\"a\" : null , \"E\" : [ ] }\n",
		`{}`,
	} {
		var plain, strict deep
		if err := json.Unmarshal([]byte(in), &plain); err != nil {
			t.Fatal(err)
		}
		if err := DecodeStrict([]byte(in), &strict); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(plain, strict); diff != "" {
			t.Errorf("%s:\n%s", in, diff)
		}
	}
	if err := DecodeStrict([]byte(`{"a":[{"x":1},{"x":300,"x":2}]}`), new(deep)); err == nil || err.Error() !=
		"a[1][\"x\"]: want a whole number from -128 to 127, found 300\na[1][\"x\"]: is given twice" {
		t.Errorf("paths: %v", err)
	}
}

func TestTooManyEntries(t *testing.T) {
	var b strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&b, `,"l%d":""`, i)
	}
	_, err := DecodeManifest([]byte(`{"apiVersion":"swarm/v1","kind":"Service","metadata":{"labels":{` + b.String()[1:] + `}}}`))
	if err == nil || err.Error() != "metadata.labels: has more than 10000 entries" {
		t.Errorf("labels: %v", err)
	}
	list := strings.Repeat(`,"A=b"`, 100_000)
	_, err = DecodeManifest([]byte(`{"apiVersion":"swarm/v1","kind":"Service","spec":{"task":{"container":{"env":[` + list[1:] + `]}}}}`))
	if err == nil || err.Error() != "spec.task.container.env: has more than 10000 entries" {
		t.Errorf("env: %v", err)
	}
}
