package apiserver

import (
	"context"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// callerKind is what kind of somebody makes a request.
type callerKind string

// The kinds of callers. The zero kind is nobody: who did not say who it is, or whose word does not count.
const (
	callerNobody callerKind = ""
	callerRoot   callerKind = "root" // root of this machine, over its socket
	callerNode   callerKind = "node"
	callerUser   callerKind = "user"
)

// caller is who makes a request.
type caller struct {
	kind callerKind
	// node is the ID of a callerNode, role what it may act as: the lesser of its certificate's role and its spec's.
	node string
	role v1.NodeRole
	// user is the name of a callerUser and userID its ID, rank what it may do.
	user, userID string
	rank         v1.UserRole
	// ends is when what the caller proved itself with does; zero for never. again says who it is in a newer snapshot, where that
	// can change.
	ends  time.Time
	again func(*store.Snapshot) *caller
	// refused says why somebody who said who it is counts as nobody.
	refused *v1.Problem
}

type callerKey struct{}

// withCaller is a context of a request of the caller's.
func withCaller(ctx context.Context, c *caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// callerOf is who makes the request of a context: nobody where none was set.
func callerOf(ctx context.Context) *caller {
	if c, ok := ctx.Value(callerKey{}).(*caller); ok {
		return c
	}
	return new(caller)
}

// manager tells whether the caller is a node that acts as a manager.
func (c *caller) manager() bool { return c.kind == callerNode && c.role == v1.RoleManager }
