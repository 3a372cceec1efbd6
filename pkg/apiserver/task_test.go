package apiserver

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// plainTask is what tasks are like as a rule.
func plainTask() *v1.Task {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)
	return &v1.Task{
		Meta: v1.Meta{ID: "abc", CreatedAt: at, UpdatedAt: at, Revisions: v1.Revisions{0, 7, 9}},
		Desired: &v1.TaskDesired{Service: "s", ServiceName: "web", Slot: 3, Attempt: 1, Revision: "r", State: v1.TaskRunning,
			Networks:  []v1.NetworkAddress{{Network: "n1", Addresses: []string{"10.0.1.5/24", "fd00::5/64"}}, {Network: "n2", Addresses: []string{}}},
			Placement: &v1.TaskPlacement{Node: "n", At: at, CPUs: 500_000_000, Memory: 1 << 20}},
		Status: &v1.TaskStatus{State: v1.TaskRunning},
	}
}

// asMarshalled tells whether appendTask writes what json.Marshal does.
func asMarshalled(t *testing.T, what string, task *v1.Task) {
	t.Helper()
	bare := *task
	bare.Status = nil
	bare.Meta.Revisions[v1.SectionStatus] = 0
	want, err := json.Marshal(&bare)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	got, err := appendTask(nil, task)
	if err != nil || string(got) != string(want) {
		t.Errorf("%s:\n got %s\nwant %s (%v)", what, got, want, err)
	}
}

// TestAppendTask gives every field there is, also those that come later, a value, and no value: what is written by hand is
// what json.Marshal writes.
func TestAppendTask(t *testing.T) {
	if _, ok := appendPlainTask(nil, plainTask()); !ok {
		t.Error("a plain task is not written by hand")
	}
	asMarshalled(t, "plain", plainTask())
	asMarshalled(t, "empty", &v1.Task{Desired: &v1.TaskDesired{}})
	asMarshalled(t, "without desired", &v1.Task{})
	for _, part := range []struct {
		name string
		of   func(*v1.Task) reflect.Value
	}{
		{"meta", func(t *v1.Task) reflect.Value { return reflect.ValueOf(&t.Meta).Elem() }},
		{"desired", func(t *v1.Task) reflect.Value { return reflect.ValueOf(t.Desired).Elem() }},
		{"placement", func(t *v1.Task) reflect.Value { return reflect.ValueOf(t.Desired.Placement).Elem() }},
	} {
		for i := range part.of(plainTask()).NumField() {
			name := part.name + "." + part.of(plainTask()).Type().Field(i).Name
			full, empty := plainTask(), plainTask()
			for _, v := range values(part.of(full).Field(i).Type()) {
				part.of(full).Field(i).Set(v)
				asMarshalled(t, name, full)
			}
			part.of(empty).Field(i).SetZero()
			asMarshalled(t, name+" empty", empty)
		}
	}
}

// values are some of a type that its JSON has trouble with.
func values(t reflect.Type) []reflect.Value {
	var all []reflect.Value
	add := func(vs ...any) {
		for _, v := range vs {
			all = append(all, reflect.ValueOf(v).Convert(t))
		}
	}
	switch {
	case t == reflect.TypeFor[time.Time]():
		add(time.Now(), time.Unix(1, 0).UTC(), time.Unix(5, 5).In(time.FixedZone("x", 3600)))
	case t == reflect.TypeFor[v1.TaskState]():
		add(v1.TaskNew, v1.TaskShutdown, v1.TaskState(5))
	case t == reflect.TypeFor[v1.Revisions]():
		add(v1.Revisions{1, 2, 3}, v1.Revisions{0, 0, 3}, v1.Revisions{4})
	case t.Kind() == reflect.String:
		add("x", `a"b\c`, "<&>", "\u00e4\u2028", "\x00", "\xff", "\x7f")
	case t.Kind() == reflect.Uint64 || t.Kind() == reflect.Uint32:
		add(1, 1<<31)
	case t.Kind() == reflect.Int64:
		add(1, -1, 1_234_567_891, 1<<53)
	case t.Kind() == reflect.Bool:
		add(true)
	case t.Kind() == reflect.Pointer:
		all = append(all, reflect.New(t.Elem()))
	case t.Kind() == reflect.Slice:
		all = append(all, reflect.MakeSlice(t, 1, 1), reflect.MakeSlice(t, 0, 0))
	case t.Kind() == reflect.Map:
		m := reflect.MakeMap(t)
		m.SetMapIndex(reflect.Zero(t.Key()), reflect.Zero(t.Elem()))
		all = append(all, m)
	default:
		panic("TestAppendTask: give it values of " + t.String())
	}
	return all
}

func BenchmarkAppendTask(b *testing.B) {
	task := plainTask()
	buf := make([]byte, 0, 4096)
	for b.Loop() {
		buf, _ = appendTask(buf[:0], task)
	}
}

func BenchmarkMarshalTask(b *testing.B) {
	task := plainTask()
	for b.Loop() {
		json.Marshal(task)
	}
}
