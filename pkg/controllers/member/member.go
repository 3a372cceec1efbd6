// Package member decides what is to become of the managers' etcd members, so that they are what the list of nodes says: the
// managers, and nobody else.
//
// It is no rule, for what it decides about is in no snapshot: the leader asks etcd for its members, asks Decide, does what that
// says, and begins again. Everything here is pure. The package never adds a member: a new manager asks for its place itself,
// when it can start; and it never does anything that would leave too few members to decide.
package member

import (
	"github.com/swarmd/swarmd/pkg/store"
)

// Member is one member of etcd, as the leader sees it.
type Member struct {
	// Name is the node's ID; empty for one that has not started yet. ID is etcd's, in hexadecimal.
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
// There is at most one Remove of a voter, or TransferLead, and it is the last but for Waits.
func Decide(members []Member, s *store.Snapshot) []Action {
	return nil
}

// Statuses are the operations that make the Member objects say what the members are. There are none where they do already.
func Statuses(members []Member, s *store.Snapshot) []store.Op {
	return nil
}
