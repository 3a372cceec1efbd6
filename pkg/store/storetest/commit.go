package storetest

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

func runCommit(t *testing.T, open Open) {
	for name, test := range map[string]func(*fixture){
		"Conditions":              testConditions,
		"AllOrNothing":            testAllOrNothing,
		"OneRevision":             testOneRevision,
		"DeleteTakesAllSections":  testDeleteTakesAllSections,
		"SectionOfNothing":        testSectionOfNothing,
		"RemoveSection":           testRemoveSection,
		"MetaStays":               testMetaStays,
		"SeveralOpsOnOneObject":   testSeveralOps,
		"NothingToDo":             testNothingToDo,
		"IDsAreOpaque":            testOpaqueIDs,
		"ValuesComeBackAsWritten": testValues,
		"LargeValue":              testLargeValue,
	} {
		t.Run(name, func(t *testing.T) { test(fix(t, open)) })
	}
}

// state makes an object, in one or two commits, and returns their revisions.
type state func(f *fixture, id string) (first, second int64)

func absent(*fixture, string) (first, second int64) { return 1, 2 }

func bare(f *fixture, id string) (first, second int64) {
	first = f.commit(desired(id, 1, store.Absent()))
	return first, f.commit(desired("other", 1, store.Always()))
}

func full(f *fixture, id string) (first, second int64) {
	first = f.commit(desired(id, 1, store.Absent()), status(id, "", store.Always()))
	return first, f.commit(status(id, "again", store.Exists()))
}

func stripped(f *fixture, id string) (first, second int64) {
	first = f.commit(desired(id, 1, store.Absent()), status(id, "", store.Always()))
	return first, f.commit(remove(id, v1.SectionStatus, store.Exists()))
}

// testConditions tries every condition on every section in every state that an object can be in.
func testConditions(f *fixture) {
	home, side := v1.SectionDesired, v1.SectionStatus
	always := func(c store.Condition) func(int64, int64) store.Condition {
		return func(int64, int64) store.Condition { return c }
	}
	exists, none, any, never := always(store.Exists()), always(store.Absent()), always(store.Always()), always(store.AtRevision(0))
	atFirst := func(first, _ int64) store.Condition { return store.AtRevision(first) }
	atSecond := func(_, second int64) store.Condition { return store.AtRevision(second) }
	before := func(first, _ int64) store.Condition { return store.AtRevision(first - 1) }
	for i, c := range []struct {
		made    state
		section v1.Section
		when    func(first, second int64) store.Condition
		holds   bool
	}{
		{absent, home, exists, false}, {absent, side, exists, false}, {absent, home, none, true}, {absent, side, none, true},
		{absent, home, any, true}, {absent, side, any, true}, {absent, home, never, false}, {absent, side, never, false},
		{absent, home, atFirst, false}, {absent, side, atSecond, false},
		{bare, home, exists, true}, {bare, side, exists, true}, {bare, home, none, false}, {bare, side, none, false},
		{bare, home, any, true}, {bare, side, any, true}, {bare, home, never, false}, {bare, side, never, true},
		{bare, home, atFirst, true}, {bare, home, before, false}, {bare, home, atSecond, false}, {bare, side, atFirst, false},
		{full, home, atFirst, true}, {full, home, atSecond, false}, {full, side, atSecond, true}, {full, side, atFirst, false},
		{full, side, never, false}, {full, side, none, false}, {full, side, exists, true}, {full, home, never, false},
		{stripped, side, never, true}, {stripped, side, atSecond, false}, {stripped, side, atFirst, false},
		{stripped, side, exists, true}, {stripped, home, atFirst, true}, {stripped, home, none, false},
	} {
		id := fmt.Sprint("task", i)
		op := status(id, "tried", c.when(c.made(f, id)))
		if c.section == home {
			op = desired(id, 9, op.If)
		}
		if s := f.now(); s.Check(&op) != c.holds {
			f.Errorf("case %d: Check says %v", i, !c.holds)
		}
		if !c.holds {
			f.fails(store.ErrConflict, desired("beside", 1, store.Always()), op)
		} else if _, err := f.Commit(f.ctx, store.Commit{Ops: []store.Op{op}}); err != nil {
			f.Errorf("case %d: %v", i, err)
		}
	}
	if _, ok := f.now().Lookup(v1.KindTask, "beside"); ok {
		f.Error("a commit that conflicted wrote something")
	}
}

func testAllOrNothing(f *fixture) {
	f.commit(desired("a", 1, store.Absent()), status("a", "first", store.Always()))
	f.fails(store.ErrConflict,
		desired("b", 1, store.Absent()), status("a", "second", store.Exists()),
		remove("a", v1.SectionDesired, store.Exists()), desired("a", 1, store.Absent()))
	s := f.now()
	if _, ok := s.Lookup(v1.KindTask, "b"); ok || f.task(s, "a").Status.Message != "first" {
		f.Error("a commit that conflicted left something behind")
	}
}

func testOneRevision(f *fixture) {
	first := f.commit(newTasks(10)...)
	second := f.commit(status("task00003", "", store.Exists()))
	if second <= first {
		f.Errorf("revision %d after %d", second, first)
	}
	s := f.at(second)
	for task := range store.All(s, v1.Tasks) {
		want := v1.Revisions{v1.SectionDesired: first}
		if task.Meta.ID == "task00003" {
			want[v1.SectionStatus] = second
		}
		if task.Meta.Revisions != want {
			f.Errorf("task %s has revisions %v, want %v", task.Meta.ID, task.Meta.Revisions, want)
		}
	}
}

func testDeleteTakesAllSections(f *fixture) {
	f.commit(named(desired("a", 1, store.Absent()), "old"), status("a", "old", store.Always()), desired("ab", 1, store.Absent()))
	gone := f.at(f.commit(remove("a", v1.SectionDesired, store.Exists())))
	if _, ok := gone.Lookup(v1.KindTask, "a"); ok {
		f.Error("a deleted object is still there")
	}
	if _, ok := gone.Lookup(v1.KindTask, "ab"); !ok {
		f.Error("another object went with it, whose ID begins the same")
	}
	revision := f.commit(desired("a", 2, store.Absent()))
	task := f.task(f.at(revision), "a")
	if task.Status != nil || task.Meta.Name != "" || task.Meta.Revisions != (v1.Revisions{v1.SectionDesired: revision}) {
		f.Errorf("an object that was made again remembers the one before: %+v", task)
	}
}

func testSectionOfNothing(f *fixture) {
	f.fails(store.ErrConflict, status("a", "", store.Exists()))
	f.commit(status("a", "", store.Always()))
	f.commit(status("a", "", store.Absent()))
	f.commit(remove("a", v1.SectionStatus, store.Always()), remove("a", v1.SectionDesired, store.Always()))
	if _, ok := f.now().Lookup(v1.KindTask, "a"); ok {
		f.Error("a section made an object")
	}
	if task := f.task(f.at(f.commit(desired("a", 1, store.Absent()))), "a"); task.Status != nil {
		f.Error("a section that was written before its object is there now")
	}
}

func testRemoveSection(f *fixture) {
	f.commit(desired("a", 1, store.Absent()), status("a", "", store.Always()))
	task := f.task(f.at(f.commit(remove("a", v1.SectionStatus, store.Exists()))), "a")
	if task.Status != nil || task.Meta.Revisions[v1.SectionStatus] != 0 {
		f.Errorf("the section is still there: %+v", task)
	}
	f.fails(store.ErrConflict, status("a", "", store.AtRevision(task.Meta.Revisions[v1.SectionDesired])))
	f.commit(status("a", "back", store.AtRevision(0)))
}

func testMetaStays(f *fixture) {
	f.commit(named(desired("a", 1, store.Absent()), "name"))
	task := f.task(f.at(f.commit(desired("a", 2, store.Exists()))), "a")
	if task.Meta.Name != "name" || task.Meta.ID != "a" || task.Desired.Slot != 2 {
		f.Errorf("a write without Meta changed it: %+v", task.Meta)
	}
	other := status("a", "", store.Exists())
	other.Meta = &v1.Meta{Name: "other"}
	if task = f.task(f.at(f.commit(other)), "a"); task.Meta.Name != "name" {
		f.Errorf("a write of another section changed the Meta: %+v", task.Meta)
	}
	wrong := named(desired("a", 3, store.Exists()), "new")
	wrong.Meta.ID, wrong.Meta.Revisions = "b", v1.Revisions{7, 7, 7}
	revision := f.commit(wrong)
	if task = f.task(f.at(revision), "a"); task.Meta.Name != "new" || task.Meta.ID != "a" || task.Meta.Revisions[v1.SectionDesired] != revision {
		f.Errorf("Meta is %+v", task.Meta)
	}
}

// testSeveralOps does several things to one object in one commit: they happen in order.
func testSeveralOps(f *fixture) {
	task := f.task(f.at(f.commit(desired("a", 1, store.Absent()), desired("a", 2, store.Always()), status("a", "1", store.Always()),
		status("a", "2", store.Always()))), "a")
	if task.Desired.Slot != 2 || task.Status.Message != "2" {
		f.Errorf("the last write did not win: %+v %+v", task.Desired, task.Status)
	}
	revision := f.commit(remove("a", v1.SectionDesired, store.Exists()), named(desired("a", 3, store.Always()), "again"))
	task = f.task(f.at(revision), "a")
	if task.Status != nil || task.Meta.Name != "again" || task.Desired.Slot != 3 {
		f.Errorf("deleted and made again: %+v", task)
	}
	f.commit(remove("a", v1.SectionDesired, store.Exists()), status("a", "", store.Always()))
	f.commit(status("b", "", store.Always()), desired("b", 1, store.Always()))
	f.commit(desired("c", 1, store.Absent()), remove("c", v1.SectionDesired, store.Always()))
	s := f.now()
	if _, ok := s.Lookup(v1.KindTask, "a"); ok {
		f.Error("a section after the deletion kept the object")
	}
	if f.task(s, "b").Status != nil {
		f.Error("a section before the object's creation stayed")
	}
	if _, ok := s.Lookup(v1.KindTask, "c"); ok {
		f.Error("created and deleted, and there")
	}
}

func testNothingToDo(f *fixture) {
	before := f.commit(desired("a", 1, store.Absent()))
	for _, ops := range [][]store.Op{nil, {remove("b", v1.SectionDesired, store.Always())}, {remove("a", v1.SectionStatus, store.Exists())}} {
		f.at(f.commit(ops...))
	}
	after := f.commit(status("a", "", store.Exists()))
	for b, err := range f.Watch(f.ctx, before) {
		if err != nil || b.Revision != after || len(b.Changes) != 1 {
			f.Errorf("watch: %v %+v", err, b)
		}
		break
	}
}

func testOpaqueIDs(f *fixture) {
	ids := []string{"a", "a/b", "a/", "/a", "a%2Fb", "a%252Fb", "a%", "a/desired", "a/b/status", "..", "a b", "ä", "Service/web"}
	var ops []store.Op
	for i, id := range ids {
		ops = append(ops, desired(id, uint64(i), store.Absent()), status(id, id, store.Always()))
	}
	s := f.at(f.commit(ops...))
	for i, id := range ids {
		if task := f.task(s, id); task.Desired.Slot != uint64(i) || task.Status.Message != id {
			f.Errorf("%q holds another's: %+v %+v", id, task.Desired, task.Status)
		}
	}
	for i, id := range ids {
		s = f.at(f.commit(remove(id, v1.SectionDesired, store.Exists())))
		if n := s.Count(v1.KindTask); n != len(ids)-1-i {
			f.Errorf("after the deletion of %q there are %d", id, n)
		}
	}
}

func testValues(f *fixture) {
	at := time.Date(2026, 2, 3, 4, 5, 6, 789, time.UTC)
	code := 137
	meta := v1.Meta{Name: "näme\n\"<>&\u2028", Labels: map[string]string{"a": "", "": "b", "é": "日本"}, CreatedAt: at,
		UpdatedAt: at, Generation: 1<<63 + 1, Deleting: at}
	want := &v1.Task{
		Meta: meta,
		Desired: &v1.TaskDesired{Service: "s", ServiceName: "n", Slot: 1<<64 - 1, Attempt: 1, Revision: "r", State: v1.TaskReady,
			StartAfter: at, Restarts: &v1.Restarts{Failures: 3, Times: []time.Time{at}}, Pending: "why <not>",
			Placement: &v1.TaskPlacement{Node: "node", At: at, CPUs: 1500000000, Memory: 1 << 40, HostPorts: []string{"tcp/80"}}},
		Status: &v1.TaskStatus{State: v1.TaskFailed, At: at, Err: "\x00\x7f", Address: "100.64.0.1",
			Container: &v1.ContainerStatus{ID: "c", PID: 1<<32 - 1, ExitCode: &code, OOMKilled: true}},
	}
	f.commit(store.Op{Kind: v1.KindTask, ID: "a", Section: v1.SectionDesired, Value: want.Desired, Meta: &meta, If: store.Absent()},
		store.Op{Kind: v1.KindTask, ID: "a", Section: v1.SectionStatus, Value: want.Status, If: store.Always()})
	got := *f.task(f.now(), "a")
	got.Meta.Revisions, got.Meta.ID = v1.Revisions{}, ""
	if diff := cmp.Diff(want, &got); diff != "" {
		f.Errorf("written and read (-want +got):\n%s", diff)
	}
}

func testLargeValue(f *fixture) {
	data := bytes.Repeat([]byte{0, 255, 'x'}, (v1.MaxConfigSize-1)/3)
	f.commit(store.Op{Kind: v1.KindConfig, ID: "a", Section: v1.SectionSpec, Value: &v1.ConfigSpec{Data: data},
		Meta: &v1.Meta{Name: "large"}, If: store.Absent()})
	c, ok := store.Get(f.now(), v1.Configs, "a")
	if !ok || !bytes.Equal(c.Spec.Data, data) {
		f.Error("a large config did not come back")
	}
}
