package apiserver

import (
	"context"
	"io"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/ca"
)

// Backing is what a manager's daemon lends the server beside the store. The zero Backing is that of a server alone, on somebody's
// own etcd: the doors that need more say so.
type Backing struct {
	// Node is the ID of this manager's node.
	Node string
	// Identity is this manager's certificate. Its cluster is the one whose certificates are accepted at the Door.
	Identity *ca.Identity
	// Members are the managers' etcd, where it is this daemon's own.
	Members Membership
}

// Membership is this manager's member of the managers' etcd.
type Membership interface {
	// AddMember makes a node a member, named by its ID, that learns before it votes, and says what it takes to start it. Repeating
	// it gives the same.
	AddMember(ctx context.Context, name, url string) (v1.Membership, error)
	// Voters are the members that decide, this one among them.
	Voters(ctx context.Context) ([]Voter, error)
	// Backup writes the whole state as one archive, which holds secrets.
	Backup(ctx context.Context, w io.Writer) error
}
