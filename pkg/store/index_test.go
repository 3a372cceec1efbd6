package store_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

var (
	fewServices = []string{"s", "s\x01", "sa", "t"}
	fewNodes    = []string{"", "n", "n1", "o"}
	fewNames    = []string{"", "web", "web2", "db"}
)

// TestIndexes does random operations, several at once, and compares what the indexes say with what the objects say. Old
// snapshots never change, also where several are made from one.
func TestIndexes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := []*store.Snapshot{store.NewSnapshot()}
		shown := []string{show(t, all[0])}
		for i := range rapid.IntRange(1, 25).Draw(t, "commits") {
			base := all[len(all)-1]
			if rapid.IntRange(0, 9).Draw(t, "branch") == 0 {
				base = rapid.SampledFrom(all).Draw(t, "base")
			}
			next, changes := grow(t, base, int64(i+2))
			checkChanges(t, base, next, changes)
			if diff := cmp.Diff(fromScratch(next), fromIndexes(next)); diff != "" {
				t.Fatalf("-objects +indexes:\n%s", diff)
			}
			all, shown = append(all, next), append(shown, show(t, next))
		}
		for i, s := range all {
			if show(t, s) != shown[i] {
				t.Fatalf("snapshot %d changed", i)
			}
		}
	})
}

func grow(t *rapid.T, base *store.Snapshot, revision int64) (*store.Snapshot, []store.Change) {
	ops := make([]store.Op, rapid.IntRange(1, 6).Draw(t, "ops"))
	for i := range ops {
		ops[i] = drawOp(t)
	}
	next, changes, err := base.With(revision, ops)
	if err != nil {
		t.Fatal(err)
	}
	return next, changes
}

func drawOp(t *rapid.T) store.Op {
	op := store.Op{ID: rapid.SampledFrom([]string{"1", "2", "3", "4", "5", "6"}).Draw(t, "id")}
	gone := rapid.IntRange(0, 4).Draw(t, "gone") == 0
	switch rapid.IntRange(0, 4).Draw(t, "what") {
	case 0:
		op.Kind = rapid.SampledFrom([]v1.Kind{v1.KindService, v1.KindNetwork, v1.KindSecret, v1.KindNode, v1.KindCluster}).Draw(t, "kind")
		if !gone {
			d, _ := v1.Describe(op.Kind)
			op.Value, _ = d.DecodeSection(op.Section, []byte(`{}`))
			op.Meta = &v1.Meta{Name: rapid.SampledFrom(fewNames).Draw(t, "name")}
			if rapid.IntRange(0, 3).Draw(t, "deleting") == 0 {
				op.Meta.Deleting = time.Unix(1, 0)
			}
		}
	case 1:
		op.Kind = v1.KindServiceRevision
		if !gone {
			op.Value = &v1.ServiceRevisionSpec{Service: rapid.SampledFrom(fewServices).Draw(t, "service")}
		}
	case 2:
		op.Kind, op.Section = v1.KindTask, v1.SectionStatus
		if !gone {
			op.Value = &v1.TaskStatus{State: drawState(t)}
		}
	default:
		op.Kind, op.Section = v1.KindTask, v1.SectionDesired
		if !gone {
			op.Value = drawDesired(t)
		}
	}
	return op
}

func drawState(t *rapid.T) v1.TaskState {
	return rapid.SampledFrom([]v1.TaskState{v1.TaskNew, v1.TaskRunning, v1.TaskComplete, v1.TaskShutdown, v1.TaskFailed, v1.TaskRemove}).Draw(t, "state")
}

func drawDesired(t *rapid.T) *v1.TaskDesired {
	d := &v1.TaskDesired{Service: rapid.SampledFrom(fewServices).Draw(t, "service"), State: drawState(t)}
	if node := rapid.SampledFrom(fewNodes).Draw(t, "node"); node != "" || rapid.Bool().Draw(t, "placed nowhere") {
		d.Placement = &v1.TaskPlacement{Node: node, CPUs: v1.CPUs(rapid.IntRange(0, 2).Draw(t, "cpus")), Memory: 3,
			HostPorts: rapid.SliceOfN(rapid.SampledFrom([]string{"tcp/80", "udp/53"}), 0, 2).Draw(t, "ports")}
		if rapid.Bool().Draw(t, "generic") {
			d.Placement.Generic = []v1.GenericResource{{Kind: "gpu", Value: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "value")}, {Kind: "ssd", Count: 2}}
		}
	}
	return d
}

// indexes is everything that the indexes say, or should.
type indexes struct {
	Names                                 map[string]string
	ByService, ByNode, Unplaced, Revision map[string][]string
	Loads                                 map[string]store.Load
	Counts                                map[string]store.TaskCounts
	Waiting                               []string
}

func newIndexes() indexes {
	return indexes{map[string]string{}, map[string][]string{}, map[string][]string{}, map[string][]string{}, map[string][]string{},
		map[string]store.Load{}, map[string]store.TaskCounts{}, nil}
}

// fromScratch looks at the objects alone.
func fromScratch(s *store.Snapshot) indexes {
	x := newIndexes()
	for _, d := range v1.Kinds {
		for o := range s.Objects(d.Kind()) {
			m := o.GetMeta()
			if d.Kind() == v1.KindNode || d.Kind() == v1.KindTask || m.Name == "" || !m.Deleting.IsZero() {
				continue
			}
			key := string(d.Kind()) + " " + m.Name
			if have, ok := x.Names[key]; !ok || m.ID < have {
				x.Names[key] = m.ID
			}
		}
	}
	for r := range store.All(s, v1.ServiceRevisions) {
		x.Revision[r.Spec.Service] = append(x.Revision[r.Spec.Service], show(nil, r))
	}
	for task := range store.All(s, v1.Tasks) {
		x.addTask(task)
	}
	x.Waiting = slices.Sorted(maps.Keys(x.Unplaced))
	return x
}

func (x *indexes) addTask(task *v1.Task) {
	service, node, it := task.Desired.Service, v1.TaskNode(task), show(nil, task)
	x.ByService[service] = append(x.ByService[service], it)
	observed, wanted := v1.Observed(task), task.Desired.State <= v1.TaskComplete
	if node != "" {
		x.ByNode[node] = append(x.ByNode[node], it)
	} else if wanted {
		x.Unplaced[service] = append(x.Unplaced[service], it)
	}
	c := x.Counts[service]
	c.Total++
	if observed == v1.TaskComplete {
		c.Complete++
	}
	if wanted && observed == v1.TaskRunning {
		c.Running++
	}
	if wanted && observed <= v1.TaskRunning {
		c.Live++
	}
	x.Counts[service] = c
	if node == "" || observed > v1.TaskRunning {
		return
	}
	l := x.Loads[node]
	l.Tasks++
	l.CPUs += task.Desired.Placement.CPUs
	l.Memory += task.Desired.Placement.Memory
	for _, port := range task.Desired.Placement.HostPorts {
		if l.HostPorts == nil {
			l.HostPorts = make(map[string]int)
		}
		l.HostPorts[port]++
	}
	for _, g := range task.Desired.Placement.Generic {
		if l.Generic == nil {
			l.Generic = make(v1.Generic)
		}
		l.Generic[v1.GenericResource{Kind: g.Kind, Value: g.Value}] += max(g.Count, 1)
	}
	x.Loads[node] = l
}

// fromIndexes asks the snapshot.
func fromIndexes(s *store.Snapshot) indexes {
	x := newIndexes()
	for _, d := range v1.Kinds {
		for _, name := range fewNames {
			if id, ok := s.ByName(d.Kind(), name); ok {
				x.Names[string(d.Kind())+" "+name] = id
			}
		}
	}
	for _, service := range fewServices {
		for task := range s.TasksOfService(service) {
			x.ByService[service] = append(x.ByService[service], show(nil, task))
		}
		for task := range s.Unplaced(service) {
			x.Unplaced[service] = append(x.Unplaced[service], show(nil, task))
		}
		for r := range s.RevisionsOfService(service) {
			x.Revision[service] = append(x.Revision[service], show(nil, r))
		}
		if c := s.CountsOf(service); c != (store.TaskCounts{}) {
			x.Counts[service] = c
		}
	}
	for _, node := range fewNodes {
		for task := range s.TasksOfNode(node) {
			x.ByNode[node] = append(x.ByNode[node], show(nil, task))
		}
		if l := s.LoadOf(node); l.Tasks != 0 {
			x.Loads[node] = l
		}
	}
	x.Waiting = slices.Collect(s.ServicesWithUnplaced())
	return x
}

// checkChanges holds the changes to what they lead from and to.
func checkChanges(t *rapid.T, base, next *store.Snapshot, changes []store.Change) {
	told := make(map[string]bool)
	for _, c := range changes {
		was, _ := base.Lookup(c.Kind, c.ID)
		is, _ := next.Lookup(c.Kind, c.ID)
		if c.Old != was || c.New != is || was == is || told[string(c.Kind)+c.ID] {
			t.Fatalf("change of %s %s does not lead from the one snapshot to the other", c.Kind, c.ID)
		}
		told[string(c.Kind)+c.ID] = true
	}
	for _, d := range v1.Kinds {
		for _, s := range []*store.Snapshot{base, next} {
			for o := range s.Objects(d.Kind()) {
				id := o.GetMeta().ID
				was, _ := base.Lookup(d.Kind(), id)
				is, _ := next.Lookup(d.Kind(), id)
				if was != is && !told[string(d.Kind())+id] {
					t.Fatalf("%s %s changed, and no change tells", d.Kind(), id)
				}
			}
		}
	}
}

func show(t *rapid.T, v any) string {
	if s, ok := v.(*store.Snapshot); ok {
		var b strings.Builder
		for _, d := range v1.Kinds {
			for o := range s.Objects(d.Kind()) {
				b.WriteString(show(t, o))
			}
		}
		return b.String() + fmt.Sprintf("%+v", fromIndexes(s))
	}
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(data)
}

func TestResolve(t *testing.T) {
	meta := func(name string) *v1.Meta { return &v1.Meta{Name: name} }
	leaving := &v1.Meta{Name: "gone", Deleting: time.Unix(1, 0)}
	host := func(name string) *v1.NodeStatus {
		return &v1.NodeStatus{Description: v1.NodeDescription{Hostname: name}}
	}
	s, _, err := store.NewSnapshot().With(2, []store.Op{
		{Kind: v1.KindService, ID: "abc1", Value: &v1.ServiceSpec{}, Meta: meta("web")},
		{Kind: v1.KindService, ID: "abd2", Value: &v1.ServiceSpec{}, Meta: meta("abc")},
		{Kind: v1.KindService, ID: "xyz", Value: &v1.ServiceSpec{}, Meta: leaving},
		{Kind: v1.KindNode, ID: "n1", Value: &v1.NodeSpec{}}, {Kind: v1.KindNode, ID: "n1", Section: v1.SectionStatus, Value: host("alpha")},
		{Kind: v1.KindNode, ID: "n2", Value: &v1.NodeSpec{}}, {Kind: v1.KindNode, ID: "n2", Section: v1.SectionStatus, Value: host("beta")},
		{Kind: v1.KindNode, ID: "n3", Value: &v1.NodeSpec{}}, {Kind: v1.KindNode, ID: "n3", Section: v1.SectionStatus, Value: host("beta")},
		{Kind: v1.KindNode, ID: "n4", Value: &v1.NodeSpec{}, Meta: leaving}, {Kind: v1.KindNode, ID: "n4", Section: v1.SectionStatus, Value: host("alpha")},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		kind      v1.Kind
		ref, want string
	}{
		{v1.KindService, "abc1", "abc1"}, {v1.KindService, "web", "abc1"},
		{v1.KindService, "abc", "abd2"}, // a name is before the beginning of an ID
		{v1.KindService, "abd", "abd2"}, {v1.KindService, "ab", "service ab is ambiguous (2 matches found)"},
		{v1.KindService, "xyz", "service xyz not found"}, {v1.KindService, "gone", "service gone not found"},
		{v1.KindService, "", "service  not found"}, {"Pod", "x", "pod x not found"},
		{v1.KindNode, "alpha", "n1"}, {v1.KindNode, "beta", "node beta is ambiguous (2 matches found)"}, {v1.KindNode, "n2", "n2"},
		{v1.KindNode, "n", "node n is ambiguous (2 matches found)"},
	} {
		got := ""
		if o, err := s.Resolve(c.kind, c.ref); err != nil {
			got = err.Error()
		} else {
			got = o.GetMeta().ID
		}
		if got != c.want {
			t.Errorf("%s %q: %s, want %s", c.kind, c.ref, got, c.want)
		}
	}
}
