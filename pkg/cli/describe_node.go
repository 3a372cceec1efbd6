package cli

import (
	"context"
	"fmt"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

// describeNode prints what node inspect --pretty prints, and what the swarm knows of the node beside it.
func (a *app) describeNode(ctx context.Context, c *client.Client, n *v1.Node) error {
	r, err := newRoster(ctx, c, true)
	if err != nil {
		return err
	}
	d := r.convert(n)
	d.Description.TLSInfo = nil // told in words below
	if err := a.writePretty(nodePretty, []string{n.Meta.ID}, func(string) (any, error) { return d, nil }); err != nil {
		return err
	}
	a.printf("Role:			%s\n", roleText(n, r))
	a.printf("Presence:		%s\n", presenceText(n, a.Now()))
	if n.Status != nil && n.Status.Description.TLS != nil {
		expires := n.Status.Description.TLS.Expires
		a.printf("Certificate:\n Status:		%s\n Issuer:		%s\n", r.tlsStatus(n), n.Status.Description.TLS.Issuer)
		if !expires.IsZero() {
			a.printf(" Expires:		%s (%s)\n", until(a.Now(), expires), expires.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// roleText is what a node is to be, and how far it is where that is not so yet.
func roleText(n *v1.Node, r *roster) string {
	role := string(n.Spec.Role)
	if len(r.members) == 0 {
		return role
	}
	m := r.members[n.Meta.ID]
	switch {
	case n.Spec.Role == v1.RoleManager && m == nil:
		return role + " (not yet a member of the managers' etcd)"
	case n.Spec.Role == v1.RoleManager && m.Status != nil && !m.Status.Voter:
		return role + " (catching up; it does not vote yet)"
	case n.Spec.Role == v1.RoleWorker && m != nil:
		return role + " (still a member of the managers' etcd)"
	}
	return role
}

// presenceText is whether the managers hear of a node.
func presenceText(n *v1.Node, now time.Time) string {
	switch {
	case n.Status == nil || n.Status.State == "":
		return "never seen"
	case n.Desired != nil && !n.Desired.Down.IsZero():
		return fmt.Sprintf("down since %s (%s)", ago(now, n.Desired.Down), n.Desired.Down.UTC().Format(time.RFC3339))
	case n.Status.State != v1.NodeReady:
		return string(n.Status.State)
	}
	return "there"
}
