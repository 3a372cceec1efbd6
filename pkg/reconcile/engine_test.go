package reconcile_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/store"
)

// maker is a rule that gives a service as many tasks as it has replicas, and remembers what it was shown.
type maker struct {
	name string
	seen func(s *store.Snapshot, key string)
}

func (m maker) Name() string { return m.name }

func (m maker) Keys(_ *store.Snapshot, c store.Change) []string {
	if c.Kind == v1.KindService {
		return []string{c.ID}
	}
	return nil
}

func (m maker) Decide(now time.Time, s *store.Snapshot, key string) (p reconcile.Plan) {
	if m.seen != nil {
		m.seen(s, key)
	}
	o, ok := store.Get(s, v1.Services, key)
	if !ok {
		return p
	}
	for slot := range *o.Spec.Replicas {
		id := v1.TaskID(key, strconv.Itoa(int(slot)+1), 1)
		if _, ok := store.Get(s, v1.Tasks, id); !ok {
			p.Ops = append(p.Ops, store.Op{Kind: v1.KindTask, ID: id, Section: v1.SectionDesired, If: store.Absent(),
				Meta: &v1.Meta{CreatedAt: now}, Value: &v1.TaskDesired{Service: key, Slot: slot + 1, Attempt: 1, State: v1.TaskRunning}})
		}
	}
	return p
}

// placer is a rule that puts every task of a service on one node.
type placer struct{ node string }

func (p placer) Name() string                                { return "placer" }
func (p placer) Keys(*store.Snapshot, store.Change) []string { return nil }

func (p placer) Decide(now time.Time, s *store.Snapshot, key string) (plan reconcile.Plan) {
	for t := range s.Unplaced(key) {
		d := *t.Desired
		d.Placement = &v1.TaskPlacement{Node: p.node}
		plan.Ops = append(plan.Ops, reconcile.SetTask(now, t, &d))
	}
	return plan
}

// remover is a rule that removes the tasks of slots above one.
type remover struct{}

func (remover) Name() string                                { return "remover" }
func (remover) Keys(*store.Snapshot, store.Change) []string { return nil }

func (remover) Decide(_ time.Time, s *store.Snapshot, key string) (p reconcile.Plan) {
	for t := range s.TasksOfService(key) {
		if t.Desired.Slot > 1 {
			p.Ops = append(p.Ops, store.Op{Kind: v1.KindTask, ID: t.Meta.ID, Section: v1.SectionDesired, If: store.Exists()})
		}
	}
	return p
}

func serviceOp(id string, replicas uint64) store.Op {
	return store.Op{Kind: v1.KindService, ID: id, Section: v1.SectionSpec, If: store.Always(), Meta: &v1.Meta{Name: id},
		Value: &v1.ServiceSpec{Replicas: &replicas}}
}

func with(t *testing.T, ops ...store.Op) *store.Snapshot {
	t.Helper()
	s, _, err := store.NewSnapshot().With(7, ops)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestStepMergesSections(t *testing.T) {
	s := with(t, serviceOp("web", 2))
	e := reconcile.New(store.NewMemory(), []reconcile.Rule{maker{name: "maker"}, placer{"n1"}}, reconcile.Options{})
	ops, _ := e.Step(now, s, []string{"web"})
	if len(ops) != 2 {
		t.Fatalf("got %d operations, want one for each task", len(ops))
	}
	for _, op := range ops {
		if op.If != store.Absent() || op.Value.(*v1.TaskDesired).Placement == nil || !op.Meta.CreatedAt.Equal(now) {
			t.Errorf("got %+v, want a creation with its placement and the meta of the first rule", op)
		}
	}
}

func TestStepDropsWhatIsMadeAndRemoved(t *testing.T) {
	s := with(t, serviceOp("web", 3))
	e := reconcile.New(store.NewMemory(), []reconcile.Rule{maker{name: "maker"}, placer{"n1"}, remover{}}, reconcile.Options{})
	ops, _ := e.Step(now, s, []string{"web"})
	if len(ops) != 1 || ops[0].Value.(*v1.TaskDesired).Slot != 1 {
		t.Errorf("got %+v, want the task of slot 1 alone", ops)
	}
}

func TestStepKeepsConditionOfRemoval(t *testing.T) {
	made := store.Op{Kind: v1.KindTask, ID: "t2", Section: v1.SectionDesired, Value: &v1.TaskDesired{Service: "web", Slot: 2}}
	s := with(t, serviceOp("web", 0), made)
	e := reconcile.New(store.NewMemory(), []reconcile.Rule{placer{"n1"}, remover{}}, reconcile.Options{})
	ops, _ := e.Step(now, s, []string{"web"})
	if len(ops) != 1 || ops[0].Value != nil || ops[0].If != store.AtRevision(7) {
		t.Errorf("got %+v, want one removal on the condition of the first rule", ops)
	}
}

func TestStepShowsEachKeyTheOnesBefore(t *testing.T) {
	s := with(t, serviceOp("a", 3), serviceOp("b", 1))
	var tasks []int
	e := reconcile.New(store.NewMemory(), []reconcile.Rule{maker{name: "maker", seen: func(s *store.Snapshot, _ string) {
		tasks = append(tasks, s.Count(v1.KindTask))
	}}}, reconcile.Options{})
	e.Step(now, s, []string{"a", "b", "a"})
	if diff := cmp.Diff([]int{0, 3, 4}, tasks); diff != "" {
		t.Errorf("tasks seen: %s", diff)
	}
}

func TestStepIsBounded(t *testing.T) {
	s := with(t, serviceOp("a", 5), serviceOp("b", 5), serviceOp("c", 5))
	e := reconcile.New(store.NewMemory(), []reconcile.Rule{maker{name: "maker"}}, reconcile.Options{MaxOps: 6})
	ops, again := e.Step(now, s, []string{"a", "b", "c"})
	if diff := cmp.Diff(map[string]time.Time{"c": now}, again); len(ops) != 10 || diff != "" {
		t.Errorf("got %d operations, want those of a and b; again: %s", len(ops), diff)
	}
}

type waker struct{ at time.Time }

func (waker) Name() string                                { return "waker" }
func (waker) Keys(*store.Snapshot, store.Change) []string { return nil }
func (w waker) Decide(time.Time, *store.Snapshot, string) reconcile.Plan {
	return reconcile.Plan{Again: w.at}
}

func TestStepTakesEarliestWake(t *testing.T) {
	soon, late := now.Add(time.Second), now.Add(time.Hour)
	e := reconcile.New(store.NewMemory(), []reconcile.Rule{waker{late}, waker{}, waker{soon}, waker{late}}, reconcile.Options{})
	_, again := e.Step(now, store.NewSnapshot(), []string{"web"})
	if diff := cmp.Diff(map[string]time.Time{"web": soon}, again); diff != "" {
		t.Error(diff)
	}
}

func TestAllKeysKnowsOrphans(t *testing.T) {
	s := with(t, serviceOp("web", 0),
		store.Op{Kind: v1.KindTask, ID: "t", Section: v1.SectionDesired, Value: &v1.TaskDesired{Service: "gone"}},
		store.Op{Kind: v1.KindServiceRevision, ID: "r", Section: v1.SectionSpec, Value: &v1.ServiceRevisionSpec{Service: "lost"}})
	if got := strings.Join(reconcile.AllKeys(s), " "); got != "gone lost web" {
		t.Errorf("got %q, want gone lost web", got)
	}
}

func TestCommitCutsWhatIsMany(t *testing.T) {
	s := store.NewMemory()
	e := reconcile.New(s, []reconcile.Rule{maker{name: "maker"}}, reconcile.Options{})
	if _, err := s.Commit(t.Context(), store.Commit{Ops: []store.Op{serviceOp("web", 5000)}}); err != nil {
		t.Fatal(err)
	}
	before, _ := s.Snapshot(t.Context(), 0)
	ops, _ := e.Step(now, before, []string{"web"})
	revision, err := e.Commit(t.Context(), ops, nil)
	if err != nil {
		t.Fatal(err)
	}
	after, _ := s.Snapshot(t.Context(), 0)
	if after.Count(v1.KindTask) != 5000 || revision != after.Revision() {
		t.Errorf("got %d tasks at revision %d, and was told %d", after.Count(v1.KindTask), after.Revision(), revision)
	}
}
