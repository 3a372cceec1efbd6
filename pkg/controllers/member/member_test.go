package member_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/controllers/member"
	"github.com/swarmd/swarmd/pkg/store"
)

type failer interface {
	Helper()
	Fatal(...any)
}

// nodes is a snapshot with those nodes; the managers among them are in capitals.
func nodes(t failer, names string) *store.Snapshot {
	t.Helper()
	var ops []store.Op
	for _, r := range names {
		role, id := v1.RoleWorker, string(r)
		if r < 'a' {
			role, id = v1.RoleManager, string(r-'A'+'a')
		}
		ops = append(ops, store.Op{Kind: v1.KindNode, ID: id, Value: &v1.NodeSpec{Role: role}, Meta: &v1.Meta{ID: id}, If: store.Absent()})
	}
	return apply(t, store.NewSnapshot(), ops)
}

func apply(t failer, s *store.Snapshot, ops []store.Op) *store.Snapshot {
	t.Helper()
	next, _, err := s.With(s.Revision()+1, ops)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// members are written like "a* b c! ?d ?e!": the leader has a star, learners a question mark, and who cannot be reached an
// exclamation mark. "-" is a member that has not started.
func members(text ...string) (list []member.Member) {
	for i, word := range text {
		m := member.Member{ID: fmt.Sprint(i), Voter: true, Reachable: true}
		for _, r := range word {
			switch r {
			case '*':
				m.Leader = true
			case '?':
				m.Voter = false
			case '!':
				m.Reachable = false
			case '-':
			default:
				m.Name = string(r)
			}
		}
		list = append(list, m)
	}
	return list
}

func TestDecide(t *testing.T) {
	for _, test := range []struct {
		name    string
		nodes   string
		members []member.Member
		want    []string
	}{
		{"as it should be", "ABCd", members("a*", "b", "c"), nil},
		{"a manager that is no member yet", "AB", members("a*"), nil},
		{"a learner", "AB", members("a*", "?b"), []string{"promote b"}},
		{"a learner that is not there", "AB", members("a*", "?b!"), []string{"wait b"}},
		{"a learner that was demoted", "Ab", members("a*", "?b"), []string{"remove b"}},
		{"a learner whose node is gone", "A", members("a*", "?b!"), []string{"remove b"}},
		{"a learner that has not started", "AB", members("a*", "?-!"), nil},
		{"a voter that was demoted", "ABc", members("a*", "b", "c"), []string{"remove c"}},
		{"a voter whose node is gone", "AB", members("a*", "b", "c!"), []string{"remove c"}},
		{"one at a time, who is not there first", "Ab", members("a*", "b", "c!"), []string{"remove c"}},
		{"the second of two", "Ab", members("a*", "b"), []string{"remove b"}},
		{"one that is needed", "ABc", members("a*", "b!", "c"), []string{"wait c"}},
		{"one that is needed, of five", "ABCDe", members("a*", "b!", "c!", "d", "e"), []string{"wait e"}},
		{"the leader", "aBC", members("a*", "b", "c"), []string{"transfer lead b"}},
		{"the leader, to one that is there", "aBC", members("a*", "b!", "c", "d"), []string{"remove d"}},
		{"the leader, to one that stays", "abC", members("b*", "a!", "c"), []string{"remove a"}},
		{"the leader, not to one that is not there", "aBCDE", members("a*", "b!", "c", "d", "e"), []string{"transfer lead c"}},
		{"the leader, to nobody", "aB", members("a*", "b!"), []string{"wait a"}},
		{"the last one", "a", members("a*"), []string{"wait a"}},
		{"the last one, and its heir", "aB", members("a*", "?b"), []string{"promote b", "wait a"}},
		{"no node at all", "", members("a*", "b"), []string{"remove b"}},
		{"all at once", "ABCd", members("a*", "?b", "?c", "d", "?e"), []string{"promote b", "promote c", "remove e", "remove d"}},
	} {
		var got []string
		for _, a := range member.Decide(test.members, nodes(t, test.nodes)) {
			got = append(got, string(a.Verb)+" "+a.Name)
			if a.Reason == "" {
				t.Errorf("%s: %s %s has no reason", test.name, a.Verb, a.Name)
			}
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", test.name, diff)
		}
	}
}

// TestDeleting has a node that is being deleted: it is no manager any more.
func TestDeleting(t *testing.T) {
	s := nodes(t, "AB")
	b, _ := store.Get(s, v1.Nodes, "b")
	meta := b.Meta
	meta.Deleting = meta.CreatedAt.AddDate(2026, 0, 0)
	s = apply(t, s, []store.Op{{Kind: v1.KindNode, ID: "b", Value: b.Spec, Meta: &meta}})
	want := []member.Action{{Verb: member.Remove, Name: "b", Reason: "the node was removed"}}
	if diff := cmp.Diff(want, member.Decide(members("a*", "b"), s)); diff != "" {
		t.Error(diff)
	}
}

// etcd is a model of what etcd does with its members.
type etcd struct {
	t       *rapid.T
	members []member.Member
	calm    bool // nothing fails any more
}

func (e *etcd) find(name string) *member.Member {
	i := slices.IndexFunc(e.members, func(m member.Member) bool { return m.Name == name })
	if i < 0 {
		e.t.Fatalf("no member %s in %v", name, e.members)
	}
	return &e.members[i]
}

func (e *etcd) voters() (all, reachable int) {
	for _, m := range e.members {
		if m.Voter {
			all++
			if m.Reachable {
				reachable++
			}
		}
	}
	return all, reachable
}

// decisive tells whether the voters that can be reached are enough.
func (e *etcd) decisive() bool {
	all, reachable := e.voters()
	return reachable >= all/2+1
}

// do does what was decided until something fails, and holds it to what must never be.
func (e *etcd) do(actions []member.Action) (done int) {
	removals := 0
	for _, a := range actions {
		if a.Verb == member.Wait {
			continue
		}
		m := e.find(a.Name)
		if !e.calm && rapid.IntRange(0, 3).Draw(e.t, "fails") == 0 {
			if a.Verb == member.Promote {
				continue
			}
			return done
		}
		done++
		switch a.Verb {
		case member.Promote:
			if m.Voter || !m.Reachable {
				e.t.Fatalf("promotes %+v", *m)
			}
			m.Voter = true
		case member.TransferLead:
			if !m.Voter || !m.Reachable || m.Leader {
				e.t.Fatalf("transfers the lead to %+v", *m)
			}
			for i := range e.members {
				e.members[i].Leader = e.members[i].Name == a.Name
			}
			return done
		case member.Remove:
			if m.Leader {
				e.t.Fatalf("removes the leader of %v", e.members)
			}
			if m.Voter {
				removals++
			}
			id := m.ID
			e.members = slices.DeleteFunc(e.members, func(m member.Member) bool { return m.ID == id })
		}
		if all, _ := e.voters(); all == 0 || !e.decisive() || removals > 1 {
			e.t.Fatalf("after %v: %d voters removed, left are %v", a, removals, e.members)
		}
	}
	return done
}

// fail has members come and go, as long as the rest can decide.
func (e *etcd) fail() {
	for i := range e.members {
		m := &e.members[i]
		if m.Leader || rapid.IntRange(0, 2).Draw(e.t, "flips") > 0 {
			continue
		}
		m.Reachable = !m.Reachable
		if !e.decisive() {
			m.Reachable = !m.Reachable
		}
	}
}

// TestConverges begins with any members and any nodes, changes both, and lets actions fail. When no more fails, the members
// are the managers; where no manager is a member, one voter stays.
func TestConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := &etcd{t: t}
		for i, id := range "abcdefg" {
			if i > 0 && rapid.Bool().Draw(t, "absent") {
				continue
			}
			e.members = append(e.members, member.Member{Name: string(id), ID: fmt.Sprint(i), Leader: i == 0,
				Voter: i == 0 || rapid.Bool().Draw(t, "voter"), Reachable: true})
		}
		var names string
		for round := range 12 {
			e.fail()
			if round%4 == 0 {
				names = ""
				for _, id := range "abcdefg" {
					names += rapid.SampledFrom([]string{"", string(id), string(id - 'a' + 'A')}).Draw(t, "node")
				}
			}
			e.do(member.Decide(e.members, nodes(t, names)))
		}
		for i := range e.members {
			e.members[i].Reachable = true
		}
		e.calm = true
		s := nodes(t, names)
		for round := 0; e.do(member.Decide(e.members, s)) > 0; round++ {
			if round == 20 {
				t.Fatalf("there is still something to do about %v", e.members)
			}
		}
		e.check(s)
	})
}

// check tells whether the members are the managers.
func (e *etcd) check(s *store.Snapshot) {
	managers := 0
	for _, m := range e.members {
		if n, ok := store.Get(s, v1.Nodes, m.Name); ok && n.Spec.Role == v1.RoleManager {
			managers++
			if !m.Voter {
				e.t.Fatalf("%s is a manager, and a learner still: %v", m.Name, e.members)
			}
		}
	}
	if surplus := len(e.members) - managers; surplus > 0 && (managers > 0 || surplus > 1) {
		e.t.Fatalf("%d members are no managers, and %d are: %v", surplus, managers, e.members)
	}
}

func TestStatuses(t *testing.T) {
	list := members("a*", "b", "?c!", "?-")
	list[0].Addr = "10.0.0.1:2377"
	s := apply(t, nodes(t, "ABC"), member.Statuses(list, nodes(t, "ABC")))
	got := make(map[string]v1.MemberStatus)
	for m := range store.All(s, v1.Members) {
		got[m.Meta.ID] = *m.Status
	}
	want := map[string]v1.MemberStatus{
		"a": {MemberID: "0", Addr: "10.0.0.1:2377", Voter: true, Leader: true, Reachable: true},
		"b": {MemberID: "1", Voter: true, Reachable: true},
		"c": {MemberID: "2"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if ops := member.Statuses(list, s); len(ops) > 0 {
		t.Errorf("said again: %v", ops)
	}
	if ops := member.Statuses(nil, s); len(ops) > 0 {
		t.Errorf("etcd told of no members, and these go: %v", ops)
	}
	list[1].Reachable = false
	ops := member.Statuses(append(list[:2:2], list[3]), s)
	if len(ops) != 2 || ops[0].ID != "b" || ops[0].Value.(*v1.MemberStatus).Reachable || ops[1].ID != "c" || ops[1].Value != nil {
		t.Errorf("b is not there and c is gone, and the operations are %+v", ops)
	}
	for _, op := range ops {
		if !s.Check(&op) {
			t.Errorf("the condition of %+v does not hold", op)
		}
	}
}
