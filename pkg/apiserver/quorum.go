package apiserver

import (
	"context"
	"fmt"
	"net/http"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// Voter is a member of the managers' etcd that takes part in decisions.
type Voter struct {
	// Node is the node's ID.
	Node string
	// Reachable tells whether it answers this manager now.
	Reachable bool
}

// demotable refuses to make a manager a worker where the swarm could not decide anything afterwards. Of two that decide this at two
// servers at the same time, one decides again: see specWrites.
func (b *backend) demotable(ctx context.Context, s *store.Snapshot, n *v1.Node) error {
	if b.backing.Members == nil { // whose members they are looks after them
		return demotable(s, nil, n.Meta.ID)
	}
	voters, err := b.backing.Members.Voters(ctx)
	if err != nil {
		return err
	}
	return demotable(s, voters, n.Meta.ID)
}

// demotable says, partly in Docker's words, why a manager cannot become a worker. What counts is what will be: the voters that are
// managers by their spec are those that stay, when all who were demoted before have gone, and most of them have to be there.
func demotable(s *store.Snapshot, voters []Voter, id string) error {
	managers := 0
	for other := range store.All(s, v1.Nodes) {
		if other.Meta.ID != id && stays(other) {
			managers++
		}
	}
	if managers == 0 {
		return problemf(http.StatusBadRequest, "attempting to demote the last manager of the swarm")
	}
	votes, left, reachable := false, 0, 0
	for _, v := range voters {
		if v.Node == id {
			votes = true
			continue
		}
		if n, ok := store.Get(s, v1.Nodes, v.Node); !ok || !stays(n) {
			continue
		}
		left++
		if v.Reachable {
			reachable++
		}
	}
	switch need := left/2 + 1; {
	case !votes: // decisions do not need it
		return nil
	case left == 0:
		return wouldLose(id, "no other manager has a vote yet. Wait until one has, or promote another node")
	case reachable < need:
		return wouldLose(id, fmt.Sprintf("of the %d managers that would be left, %d can be reached, and %d are needed", left, reachable, need))
	}
	return nil
}

func wouldLose(id, why string) error {
	return problemf(http.StatusBadRequest, "can't demote node %s: it would lose quorum: can't remove member from the raft: "+
		"this would result in a loss of quorum (%s)", id, why)
}

// stays tells whether a node is wanted as a manager.
func stays(n *v1.Node) bool { return n.Spec.Role == v1.RoleManager && n.Meta.Deleting.IsZero() }
