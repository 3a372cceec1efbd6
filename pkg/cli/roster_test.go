package cli

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/ca"
)

func member(m v1.MemberStatus) *v1.Member { return &v1.Member{Status: &m} }

func TestRosterManagers(t *testing.T) {
	node := func(id string, role v1.NodeRole) *v1.Node {
		return &v1.Node{Meta: v1.Meta{ID: id}, Spec: &v1.NodeSpec{Role: role}, Status: &v1.NodeStatus{State: v1.NodeReady, Addr: "10.0.0.1"}}
	}
	r := &roster{members: map[string]*v1.Member{
		"lead":  member(v1.MemberStatus{Addr: "10.0.0.1:2377", Voter: true, Leader: true, Reachable: true}),
		"other": member(v1.MemberStatus{Addr: "10.0.0.2:2399", Voter: true, Reachable: true}),
		"away":  member(v1.MemberStatus{Addr: "10.0.0.3:2377", Voter: true}),
		"young": member(v1.MemberStatus{Addr: "10.0.0.4:2377", Reachable: true}),
	}}
	for id, want := range map[string]*dockerManagerStatus{
		"lead":   {true, "reachable", "10.0.0.1:2377"},
		"other":  {false, "reachable", "10.0.0.2:2399"},
		"away":   {false, "unreachable", "10.0.0.3:2377"},
		"young":  {false, "unknown", "10.0.0.4:2377"},
		"coming": nil,
	} {
		if d := cmp.Diff(want, r.convert(node(id, v1.RoleManager)).ManagerStatus); d != "" {
			t.Errorf("%s: -want +got\n%s", id, d)
		}
	}
	if row := newNodeRow(node("lead", v1.RoleManager), r, ""); row.ManagerStatus != "Leader" || row.TLSStatus != "Unknown" {
		t.Errorf("%+v", row)
	}
	// On an etcd of somebody's own there are no members, and one manager alone must be the leader.
	alone := &roster{managers: 1}
	if s := alone.convert(node("x", v1.RoleManager)).ManagerStatus; s == nil || !s.Leader || s.Reachability != "reachable" {
		t.Errorf("alone: %+v", s)
	}
	if s := (&roster{managers: 2}).convert(node("x", v1.RoleManager)).ManagerStatus; s == nil || s.Leader {
		t.Errorf("one of two: %+v", s)
	}
	if s := alone.convert(node("x", v1.RoleWorker)).ManagerStatus; s != nil {
		t.Errorf("a worker: %+v", s)
	}
}

func newRoot(t *testing.T) []byte {
	t.Helper()
	root, _, err := ca.NewRoot(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func TestTLSStatus(t *testing.T) {
	before, after := newRoot(t), newRoot(t)
	old, next := ca.Digest(before), ca.Digest(after)
	rotating := &roster{ca: &v1.CAInfo{TrustRoot: before, NextRoot: after, Issuer: next}}
	settled := &roster{ca: &v1.CAInfo{TrustRoot: after, Issuer: next}}
	for _, c := range []struct {
		name   string
		roster *roster
		have   *v1.NodeTLS
		want   string
	}{
		{"nothing told", settled, nil, tlsUnknown},
		{"no CA", &roster{}, &v1.NodeTLS{Issuer: next}, tlsUnknown},
		{"the old one", rotating, &v1.NodeTLS{Issuer: old, Roots: []string{old}}, tlsNeeds},
		{"moved, both trusted", rotating, &v1.NodeTLS{Issuer: next, Roots: []string{next, old}}, tlsNeeds},
		{"done", settled, &v1.NodeTLS{Issuer: next, Roots: []string{next}}, tlsReady},
		{"still trusts the old one", settled, &v1.NodeTLS{Issuer: next, Roots: []string{next, old}}, tlsNeeds},
	} {
		n := &v1.Node{Status: &v1.NodeStatus{Description: v1.NodeDescription{TLS: c.have}}}
		if got := c.roster.tlsStatus(n); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	info := rotating.tlsInfo(&v1.NodeTLS{Issuer: old, Roots: []string{next, old}})
	if info == nil || info.TrustRoot != string(after)+string(before) || len(info.CertIssuerSubject) == 0 || len(info.CertIssuerPublicKey) == 0 {
		t.Errorf("%+v", info)
	}
	if info := settled.tlsInfo(&v1.NodeTLS{Issuer: old, Roots: []string{old}}); info != nil {
		t.Errorf("of a root that nobody knows any more: %+v", info)
	}
}

func TestJudgeRotation(t *testing.T) {
	before, after := newRoot(t), newRoot(t)
	old, next := ca.Digest(before), ca.Digest(after)
	now := time.Now()
	node := func(name string, down bool, issuer string, roots ...string) *v1.Node {
		n := &v1.Node{Meta: v1.Meta{Name: name}, Spec: &v1.NodeSpec{}, Status: &v1.NodeStatus{State: v1.NodeReady,
			Description: v1.NodeDescription{TLS: &v1.NodeTLS{Issuer: issuer, Roots: roots}}}}
		if down {
			n.Desired = &v1.NodeDesired{Down: now.Add(-time.Hour)}
		}
		return n
	}
	rotating, settled := &v1.CAInfo{TrustRoot: before, NextRoot: after}, &v1.CAInfo{TrustRoot: after}
	for _, c := range []struct {
		name  string
		info  *v1.CAInfo
		nodes []*v1.Node
		want  rotation
	}{
		{"begun", rotating, []*v1.Node{node("a", false, old, old), node("b", false, next, next, old)}, rotation{digest: next, certs: 1, total: 2}},
		{"held up", rotating, []*v1.Node{node("a", true, old, old), node("b", true, next, next, old)},
			rotation{digest: next, certs: 1, total: 2, away: []string{"a (down since About an hour ago)"}}},
		{"settling", settled, []*v1.Node{node("a", false, next, next, old), node("b", false, next, next)}, rotation{digest: next, certs: 2, roots: 1, total: 2}},
		{"a straggler", settled, []*v1.Node{node("a", true, next, next, old)},
			rotation{digest: next, certs: 1, total: 1, away: []string{"a (down since About an hour ago)"}, done: true}},
		{"done", settled, []*v1.Node{node("a", false, next, next)}, rotation{digest: next, certs: 1, roots: 1, total: 1, done: true}},
	} {
		if d := cmp.Diff(c.want, judgeRotation(c.info, c.nodes, now), cmp.AllowUnexported(rotation{})); d != "" {
			t.Errorf("%s: -want +got\n%s", c.name, d)
		}
	}
}

func TestDrainWhy(t *testing.T) {
	task := func(node string, slot, attempt uint64, state v1.TaskState, pending string) *v1.Task {
		d := &v1.TaskDesired{Service: "s", ServiceName: "web", Slot: slot, State: state, Pending: pending}
		d.Attempt = attempt
		if node != "" {
			d.Placement = &v1.TaskPlacement{Node: node}
		}
		return &v1.Task{Desired: d}
	}
	d := &drain{node: &v1.Node{Meta: v1.Meta{ID: "here"}}, coming: []*v1.Task{
		task("", 2, 5, v1.TaskRunning, "no suitable node (insufficient resources on 1 node)"),
		task("there", 3, 5, v1.TaskRunning, ""),
		task("there", 3, 4, v1.TaskRunning, "an older one"),
	}}
	for want, task := range map[string]*v1.Task{
		"waits for its turn": task("here", 1, 1, v1.TaskRunning, ""),
		"its replacement has no place: no suitable node (insufficient resources on 1 node)": task("here", 2, 1, v1.TaskRunning, ""),
		"its replacement is assigned": task("here", 3, 1, v1.TaskRunning, ""),
		"stopping":                    task("here", 4, 1, v1.TaskShutdown, ""),
	} {
		if got := d.why(task); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
