package v1

import "time"

// PresenceStatus is a node's session with a manager. It is written by that manager under a lease, and gone with it: a node is
// there exactly while its Presence, which has the node's ID, is.
type PresenceStatus struct {
	// Manager is the ID of the node whose API server holds the session.
	Manager string `json:"manager,omitempty"`
	// Session is random, so that two sessions of one node can be told apart.
	Session string `json:"session"`
	// Since is when the session began.
	Since time.Time `json:"since,omitzero"`
}

// MemberStatus is a manager as a member of the managers' etcd. It is written by the leader from what etcd says, and has the
// node's ID.
type MemberStatus struct {
	// MemberID is etcd's, in hexadecimal.
	MemberID string `json:"memberID"`
	// Addr is host:port of the manager.
	Addr string `json:"addr"`
	// Voter is false for a learner, that is still catching up.
	Voter  bool `json:"voter,omitempty"`
	Leader bool `json:"leader,omitempty"`
	// Reachable tells whether the leader hears of it.
	Reachable bool `json:"reachable,omitempty"`
}
