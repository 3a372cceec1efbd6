package cli

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/pkg/client"
)

// roster is what is told of nodes apart from the nodes: which are members of the managers' etcd, and what certificates
// are to be of.
type roster struct {
	// members are by node ID. There are none where the swarm's state is in an etcd of somebody's own.
	members map[string]*v1.Member
	// managers are how many nodes are to be managers.
	managers int
	// ca is nil where it was not asked for, or where there is none.
	ca *v1.CAInfo
}

func newRoster(ctx context.Context, c *client.Client, withCA bool) (*roster, error) {
	members, err := client.List(ctx, c, v1.Members, nil)
	if err != nil {
		return nil, daemonError(err)
	}
	r := &roster{members: make(map[string]*v1.Member)}
	for _, m := range members {
		r.members[m.Meta.ID] = m
	}
	if len(members) == 0 {
		managers, err := client.List(ctx, c, v1.Nodes, v1.Filter{"role": {string(v1.RoleManager)}})
		if err != nil {
			return nil, daemonError(err)
		}
		r.managers = len(managers)
	}
	if !withCA {
		return r, nil
	}
	info, err := c.CA(ctx)
	switch {
	case client.Status(err) == http.StatusNotFound:
	case err != nil:
		return nil, daemonError(err)
	default:
		r.ca = &info
	}
	return r, nil
}

// convert is a node as docker inspect prints it, with what the roster knows of it.
func (r *roster) convert(n *v1.Node) *dockerNode {
	d := convertNode(n)
	switch m := r.members[n.Meta.ID]; {
	case len(r.members) == 0:
		if d.ManagerStatus != nil {
			d.ManagerStatus.Leader = r.managers == 1 // nobody else can be
		}
	case m == nil || m.Status == nil:
		d.ManagerStatus = nil
	default:
		d.ManagerStatus = &dockerManagerStatus{Leader: m.Status.Leader, Reachability: reachability(m.Status), Addr: m.Status.Addr}
	}
	if n.Status != nil {
		d.Description.TLSInfo = r.tlsInfo(n.Status.Description.TLS)
	}
	return d
}

// reachability is a member's in Docker's words. One that is still catching up is no manager to count on.
func reachability(m *v1.MemberStatus) string {
	switch {
	case !m.Reachable:
		return "unreachable"
	case !m.Voter:
		return "unknown"
	}
	return "reachable"
}

// The states of a node's certificate, Docker's.
const (
	tlsUnknown = "Unknown"
	tlsReady   = "Ready"
	tlsNeeds   = "Needs Rotation"
)

// tlsStatus tells whether a node's certificate is of the newest root, and that root the only one it trusts.
func (r *roster) tlsStatus(n *v1.Node) string {
	if r.ca == nil || n.Status == nil || n.Status.Description.TLS == nil {
		return tlsUnknown
	}
	have := n.Status.Description.TLS
	if have.Issuer != r.ca.Issuer || len(have.Roots) != 1 || have.Roots[0] != r.ca.Issuer {
		return tlsNeeds
	}
	return tlsReady
}

// tlsInfo finds the certificates that a node's digests mean; nil where none is known.
func (r *roster) tlsInfo(have *v1.NodeTLS) *dockerTLSInfo {
	if r.ca == nil || have == nil {
		return nil
	}
	known := make(map[string][]byte)
	for _, root := range [][]byte{r.ca.TrustRoot, r.ca.NextRoot} {
		if len(root) > 0 {
			known[ca.Digest(root)] = root
		}
	}
	info := &dockerTLSInfo{}
	var roots []string
	for _, digest := range have.Roots {
		if root := known[digest]; root != nil {
			roots = append(roots, strings.TrimSpace(string(root))+"\n")
		}
	}
	info.TrustRoot = strings.Join(roots, "")
	if block, _ := pem.Decode(known[have.Issuer]); block != nil {
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
			info.CertIssuerSubject, info.CertIssuerPublicKey = cert.RawSubject, cert.RawSubjectPublicKeyInfo
		}
	}
	if info.TrustRoot == "" && info.CertIssuerSubject == nil {
		return nil
	}
	return info
}
