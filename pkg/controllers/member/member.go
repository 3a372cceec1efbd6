// Package member decides what is to become of the managers' etcd members, so that they are what the list of nodes says: the
// managers, and nobody else.
//
// It is no rule, for what it decides about is in no snapshot: the leader asks etcd for its members, asks Decide, does what that
// says, and begins again. Everything here is pure. The package never adds a member: a new manager asks for its place itself,
// when it can start; and it never does anything that would leave too few members to decide.
package member

import (
	"cmp"
	"fmt"
	"slices"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// Member is one member of etcd, as the leader sees it.
type Member struct {
	// Name is the node's ID; empty where that is not known. ID is etcd's, in hexadecimal.
	Name, ID string
	// Addr is host:port of the manager.
	Addr string
	// Voter is false for a learner.
	Voter bool
	// Leader tells whether it leads: one does, and it is the one that asks.
	Leader bool
	// Reachable tells whether the leader hears of it.
	Reachable bool
}

// Verb is what to do about a member.
type Verb string

// The verbs.
const (
	// Promote makes a learner a voter. It may be too early: then again later.
	Promote Verb = "promote"
	// Remove takes a member out.
	Remove Verb = "remove"
	// TransferLead makes a voter the leader. What follows is for that one to decide.
	TransferLead Verb = "transfer lead"
	// Wait is to do nothing about a member that should not stay as it is, for now.
	Wait Verb = "wait"
)

// Action is something to do about a member, and why.
type Action struct {
	Verb Verb
	// Name is that of the member: a node's ID.
	Name string
	// Reason is for the log.
	Reason string
}

// Decide says what is to be done about the members now, in order. Whoever does it stops at the first action that fails but
// for a Promote, and asks again with the members as they are then: at once where something was done, else a while later.
// There is at most one Remove of a voter, or TransferLead, and it comes last but for Waits. Of members without a name nothing
// is known, and nothing is said.
//
// The snapshot has to be at least as new as the members: read them, then Sync, then the snapshot of that revision. On an older
// one, a manager that has just been made or promoted would be taken for none, and removed.
func Decide(members []Member, s *store.Snapshot) []Action {
	members = slices.DeleteFunc(slices.Clone(members), func(m Member) bool { return m.Name == "" && !m.Voter })
	slices.SortFunc(members, func(a, b Member) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	var actions []Action
	var surplus []Member // voters that are to go
	for _, m := range members {
		reason := why(s, m)
		switch {
		case m.Name == "" || reason == "" && m.Voter:
		case reason != "" && m.Voter:
			surplus = append(surplus, m)
		case reason != "":
			actions = append(actions, Action{Remove, m.Name, reason})
		case m.Reachable:
			actions = append(actions, Action{Promote, m.Name, "the node is a manager"})
		default:
			actions = append(actions, Action{Wait, m.Name, "it cannot be reached, and stays a learner"})
		}
	}
	return append(actions, shrink(members, surplus, s)...)
}

// why tells why a member is to go, and "" where it is to stay.
func why(s *store.Snapshot, m Member) string {
	n, ok := store.Get(s, v1.Nodes, m.Name)
	switch {
	case !ok || !n.Meta.Deleting.IsZero():
		return "the node was removed"
	case n.Spec.Role != v1.RoleManager:
		return "the node is no longer a manager"
	}
	return ""
}

// shrink removes one of the voters that are to go: first those that cannot be reached, for without them more may fail, and
// the leader last, when another has taken the lead.
func shrink(members, surplus []Member, s *store.Snapshot) (actions []Action) {
	slices.SortStableFunc(surplus, func(a, b Member) int {
		return cmp.Or(compareBool(a.Leader, b.Leader), compareBool(a.Reachable, b.Reachable))
	})
	for _, m := range surplus {
		if without := quorumWithout(members, m); without != "" {
			actions = append(actions, Action{Wait, m.Name, without})
			continue
		}
		if !m.Leader {
			return []Action{{Remove, m.Name, why(s, m)}}
		}
		heir := slices.IndexFunc(members, func(o Member) bool { return o.Voter && !o.Leader && o.Reachable && why(s, o) == "" })
		if heir < 0 {
			actions = append(actions, Action{Wait, m.Name, "it leads, and no other manager can take the lead"})
			continue
		}
		return []Action{{TransferLead, members[heir].Name, "for the leader is to go: " + why(s, m)}}
	}
	return actions
}

// quorumWithout tells why the voters could not decide without one of them, and "" where they could.
func quorumWithout(members []Member, gone Member) string {
	voters, reachable := 0, 0
	for _, m := range members {
		if !m.Voter || m.ID == gone.ID {
			continue
		}
		voters++
		if m.Reachable || m.Leader {
			reachable++
		}
	}
	switch needed := voters/2 + 1; {
	case voters == 0:
		return "it is the last voter"
	case reachable < needed:
		return fmt.Sprintf("without it, %d of %d voters could be reached, and %d are needed", reachable, voters, needed)
	}
	return ""
}

// compareBool puts false before true.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
