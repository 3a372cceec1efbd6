package apiserver

import (
	"context"
	"fmt"
	"strings"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// TestDemotable: managers are in capitals, workers not; of the voters, those with an exclamation mark cannot be reached.
func TestDemotable(t *testing.T) {
	const last, lose = "last manager", "it would lose quorum"
	for _, test := range []struct{ name, nodes, voters, demote, want string }{
		{"one of three", "ABC", "a b c", "c", ""},
		{"the last one", "Ab", "a", "a", last},
		{"the last one, of two that vote", "Ab", "a b", "a", last},
		{"one of two", "AB", "a b", "b", ""},
		{"a dead one", "ABC", "a b c!", "c", ""},
		{"a living one beside a dead one", "ABC", "a b c!", "b", lose},
		{"the first of five with a dead one", "ABCDE", "a! b c d e", "b", ""},
		{"the second", "AbCDE", "a! b c d e", "c", ""},
		{"the third", "AbcDE", "a! b c d e", "d", lose},
		{"the third, when the first has gone", "AbcDE", "a! c d e", "d", lose},
		{"the dead one instead", "AbcDE", "a! b c d e", "a", ""},
		{"a voter, the other manager a learner", "AB", "b", "b", lose},
		{"the first of two voters beside a learner", "ABC", "b c", "b", ""},
		{"the second of them", "AbC", "b c", "c", lose},
		{"a learner", "ABC", "b c", "a", ""},
		{"a learner where too few are there", "ABC", "b c!", "a", ""},
		{"a voter whose node is gone does not count", "AB", "a b x", "b", ""},
		{"members of somebody's own", "AB", "", "b", ""},
	} {
		var ops []store.Op
		for _, r := range test.nodes {
			role, id := v1.RoleWorker, string(r)
			if r < 'a' {
				role, id = v1.RoleManager, strings.ToLower(id)
			}
			ops = append(ops, store.Op{Kind: v1.KindNode, ID: id, Value: &v1.NodeSpec{Role: role}, Meta: &v1.Meta{ID: id}, If: store.Absent()})
		}
		s, _, err := store.NewSnapshot().With(1, ops)
		if err != nil {
			t.Fatal(err)
		}
		var voters []Voter
		for word := range strings.FieldsSeq(test.voters) {
			id, dead := strings.CutSuffix(word, "!")
			voters = append(voters, Voter{id, !dead})
		}
		err = demotable(s, voters, test.demote)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
}

// TestProblemOfRead: who only reads is not told that what was asked may have happened, but why there is no answer.
func TestProblemOfRead(t *testing.T) {
	for _, err := range []error{fmt.Errorf("%w: no manager leads", store.ErrUnavailable), fmt.Errorf("ask: %w", context.DeadlineExceeded)} {
		p := problemOfRead(err)
		if strings.Contains(p.Detail, "may or may not") || !strings.Contains(p.Detail, "Make sure more than half of the managers are online") {
			t.Errorf("%v: %s", err, p.Detail)
		}
		if p := problemOf(err); !strings.Contains(p.Detail, "may or may not") {
			t.Errorf("%v, of a write: %s", err, p.Detail)
		}
	}
}
