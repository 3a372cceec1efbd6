package apiserver

import (
	"net/http"
	"slices"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// rights say who may use a route beside root of this machine, who may use all of them. Every route has some: without any it
// would be open to root alone, and a test refuses it.
type rights uint16

// The rights. They add up.
const (
	rightsRoot        rights = 1 << iota // nobody else: the route is about this machine, or shows everything
	rightsAnyone                         // also who has no identity
	rightsSelf                           // the node that {ref} in the path names by its ID
	rightsSelfManager                    // that node while it is a manager
	rightsManager                        // every manager's node
	rightsView                           // users with the role view, and those above
	rightsOperate                        // users with the role operate, and those above
	rightsAdmin                          // users with the role admin
)

// rank is a user's role, and the rights of a route that let it in.
type rank struct {
	role v1.UserRole
	may  rights
}

// ranks are the users' roles, each of which may do what those before it may.
var ranks = []rank{{v1.UserView, rightsView}, {v1.UserOperate, rightsOperate}, {v1.UserAdmin, rightsAdmin}}

// allow tells whether the caller may use a route. ref is what the path says for {ref}, "" where it says nothing.
func (r rights) allow(c *caller, ref string) bool {
	switch {
	case c.kind == callerRoot, r&rightsAnyone != 0:
		return true
	case c.kind == callerNode:
		own := ref != "" && ref == c.node
		return own && r&rightsSelf != 0 || own && c.manager() && r&rightsSelfManager != 0 || c.manager() && r&rightsManager != 0
	case c.kind == callerUser:
		return slices.ContainsFunc(ranks, func(k rank) bool { return r&k.may != 0 && c.atLeast(k.role) })
	}
	return false
}

// atLeast tells whether the caller is a user that may do what the role may.
func (c *caller) atLeast(role v1.UserRole) bool {
	return c.kind == callerUser && rankOf(c.rank) >= rankOf(role)
}

// rankOf is a role's place among the ranks, and -1 for what is no role.
func rankOf(role v1.UserRole) int {
	for i, k := range ranks {
		if k.role == role {
			return i
		}
	}
	return -1
}

// String says, for people, who has the rights.
func (r rights) String() string {
	var who []string
	add := func(right rights, words string) {
		if r&right != 0 {
			who = append(who, words)
		}
	}
	add(rightsAnyone, "anyone")
	add(rightsSelf, "the node itself")
	add(rightsSelfManager, "the node itself while it is a manager")
	add(rightsManager, "managers")
	for i, k := range ranks {
		if r&k.may != 0 {
			who = append(who, "users with the role "+strings.Join(rolesFrom(i), " or "))
			break
		}
	}
	return strings.Join(append(who, "root on the machine itself, over the daemon's socket"), " and ")
}

func rolesFrom(rank int) []string {
	var roles []string
	for _, k := range ranks[rank:] {
		roles = append(roles, string(k.role))
	}
	return roles
}

// schemes are the ways in which a caller over TLS may say who it is, for the OpenAPI document. An empty one is none at all; a route
// without any is not for callers over TLS.
func (r rights) schemes() []map[string][]string {
	schemes := []map[string][]string{}
	if r&rightsAnyone != 0 {
		schemes = append(schemes, map[string][]string{})
	}
	if r&^(rightsAnyone|rightsRoot) != 0 {
		schemes = append(schemes, map[string][]string{"certificate": {}})
	}
	if r&(rightsView|rightsOperate|rightsAdmin) != 0 {
		schemes = append(schemes, map[string][]string{"token": {}})
	}
	return schemes
}

// refusal is the problem of a caller that may not do what it asks for.
func (c *caller) refusal(r rights) *v1.Problem {
	if c.refused != nil {
		return c.refused
	}
	switch c.kind {
	case callerNode:
		return problemf(http.StatusForbidden, "node %s is a %s, and may not do this: it is for %s", c.node, c.role, r)
	case callerUser:
		return problemf(http.StatusForbidden, "user %s has the role %s, and may not do this: it is for %s", c.user, c.rank, r)
	}
	return problemf(http.StatusUnauthorized, "this takes an identity: a certificate of this swarm, or a user's token as bearer")
}

// refuse answers a caller that may not do what it asks for. Who has no identity has to come again: nothing of what it sends is read.
func refuse(w http.ResponseWriter, c *caller, p *v1.Problem) {
	if c.kind == callerNobody {
		w.Header().Set("Connection", "close")
	}
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="swarm"`)
	}
	writeProblem(w, p)
}
