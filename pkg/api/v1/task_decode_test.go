package v1

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The sections without their own reader: what encoding/json makes of them.
type (
	plainDesired TaskDesired
	plainStatus  TaskStatus
)

// TestTaskSectionsReadAsPlain fills in random subsets of the fields of both sections, nested ones too, and reads them both
// ways. It finds its fields by reflection: one that is added is tried as well.
func TestTaskSectionsReadAsPlain(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		f := &filler{n: random.IntN(100)}
		var desired TaskDesired
		var status TaskStatus
		sparse(f, random, reflect.ValueOf(&desired).Elem())
		sparse(f, random, reflect.ValueOf(&status).Elem())
		compareSection[TaskDesired, plainDesired](t, encode(t, &desired))
		compareSection[TaskStatus, plainStatus](t, encode(t, &status))
	}
}

// sparse fills in each field of a struct with an even chance.
func sparse(f *filler, random *rand.Rand, v reflect.Value) {
	for _, field := range v.Fields() {
		switch {
		case random.IntN(2) == 0:
		case field.Kind() == reflect.Pointer && field.Type().Elem().Kind() == reflect.Struct:
			field.Set(reflect.New(field.Type().Elem()))
			sparse(f, random, field.Elem())
		case field.Kind() == reflect.String && random.IntN(4) > 0:
			field.SetString("plain text")
		default:
			f.fill(field)
		}
	}
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// compareSection reads data as both types, of which P is S without its reader.
func compareSection[S, P any](t *testing.T, data []byte) {
	t.Helper()
	var got S
	var want P
	gotErr, wantErr := json.Unmarshal(data, &got), json.Unmarshal(data, &want)
	if (gotErr == nil) != (wantErr == nil) {
		t.Fatalf("%s: %v; encoding/json: %v", data, gotErr, wantErr)
	}
	if gotErr != nil {
		return
	}
	if w := reflect.ValueOf(want).Convert(reflect.TypeFor[S]()).Interface(); !reflect.DeepEqual(any(got), w) {
		t.Fatalf("%s was read differently:\n%s", data, cmp.Diff(w, any(got)))
	}
}

// TestTaskSectionsTakeTheShortWay makes sure that tasks as they usually are do not fall back to encoding/json.
func TestTaskSectionsTakeTheShortWay(t *testing.T) {
	task := hotTask()
	r := lean{data: encode(t, task.Desired)}
	if r.desired(new(TaskDesired)); !r.done() {
		t.Errorf("desired stops at %s", r.data[r.at:])
	}
	task.Desired.Networks = append(task.Desired.Networks, NetworkAddress{"back", []string{"10.0.2.5/24", "fd00::5/64"}}, NetworkAddress{"none", []string{}})
	r = lean{data: encode(t, task.Desired)}
	if r.desired(new(TaskDesired)); !r.done() {
		t.Errorf("desired on several networks stops at %s", r.data[r.at:])
	}
	task.Desired.Networks = nil
	r = lean{data: encode(t, task.Desired)}
	if r.desired(new(TaskDesired)); !r.done() {
		t.Errorf("desired on no network stops at %s", r.data[r.at:])
	}
	r = lean{data: encode(t, task.Status)}
	if r.status(new(TaskStatus)); !r.done() {
		t.Errorf("status stops at %s", r.data[r.at:])
	}
}

// TestTaskSectionsAlone reads sections that json.Unmarshal has not checked before, every way they may be cut off.
func TestTaskSectionsAlone(t *testing.T) {
	task := hotTask()
	for _, data := range [][]byte{encode(t, task.Desired), encode(t, task.Status)} {
		for n := range data {
			if new(TaskDesired).UnmarshalJSON(data[:n]) == nil || new(TaskStatus).UnmarshalJSON(data[:n]) == nil {
				t.Fatalf("%s was read", data[:n])
			}
		}
	}
}

// FuzzTaskSections holds the readers to encoding/json.
func FuzzTaskSections(f *testing.F) {
	task := hotTask()
	for _, v := range []any{task.Desired, task.Status} {
		data, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, s := range []string{
		`{"slot":01}`, `{"slot":1e2}`, `{"state":"ready","state":"running"}`, `{"State":"ready"}`, `{"placement":null}`, `null`, ` {}`,
		`{"placement":{"node":"a"},"placement":{"memory":5}}`, `{"at":"2026-01-02T03:04:05+25:00"}`, `{"container":{"pid":4294967296}}`,
		`{"pending":"\u003cb\ud800"}`, `{"placement":{"cpus":1e3,"memory":-1}}`, `{"placement":{"cpus":}}`, `{"container":{"exitCode":-1}}`,
		`{"networks":[]}`, `{"networks":null}`, `{"networks":[{"network":"a","addresses":null},{"network":"b","addresses":[]}]}`,
		`{"networks":[{"network":"a","addresses":["x","y"]},]}`, `{"networks":[{"network":"a","addresses":["x""y"]}]}`, `{"networks":[{"addresses":[`,
		`{"networks":[{"network":"a","addresses":["x"]}],"networks":[{"addresses":[]}]}`, `{"networks":[{}{}]}`, `{"networks":[,{}]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		compareSection[TaskDesired, plainDesired](t, data)
		compareSection[TaskStatus, plainStatus](t, data)
		_ = new(TaskDesired).UnmarshalJSON(data) // what is not JSON must not panic
		_ = new(TaskStatus).UnmarshalJSON(data)
	})
}
