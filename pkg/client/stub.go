package client

import (
	"context"
	"crypto/tls"
	"errors"
	"io"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

var errSoon = errors.New("client: on its way")

// Options say where a swarm's managers are, and who calls.
type Options struct {
	// Hosts are host:port of managers, reached over TLS, or unix:///path of a daemon's socket.
	Hosts []string
	// TLS is used for all hosts but sockets.
	TLS *tls.Config
	// Token is sent as bearer, where there is one.
	Token string
}

// Dial is a client that goes on to the next host when one cannot be reached or is no manager.
func Dial(o Options) (*Client, error) { return New(o.Hosts[0]) }

// SetHosts replaces the hosts.
func (c *Client) SetHosts(hosts []string) {}

// Refresh has new connections made from now on, with the identity as it is now.
func (c *Client) Refresh() {}

// FetchRoots asks addr for the swarm's roots and returns the one with the digest.
func FetchRoots(ctx context.Context, addr, digest string) (rootsPEM []byte, err error) {
	return nil, errSoon
}

// Admit asks a manager to let this machine into the swarm.
func Admit(ctx context.Context, addr string, rootsPEM []byte, r v1.AdmissionRequest) (v1.Admission, error) {
	return v1.Admission{}, errSoon
}

// Certificate asks for the node's next certificate.
func (n *NodeClient) Certificate(ctx context.Context, r v1.CertificateRequest) (v1.Certificate, error) {
	return v1.Certificate{}, errSoon
}

// Membership asks for the node's place among the members of etcd.
func (n *NodeClient) Membership(ctx context.Context, r v1.MembershipRequest) (v1.Membership, error) {
	return v1.Membership{}, errSoon
}

// Leave tells that the node leaves on purpose.
func (n *NodeClient) Leave(ctx context.Context) error { return errSoon }

// Join makes the daemon's machine a node of a swarm.
func (c *Client) Join(ctx context.Context, r v1.JoinRequest) (v1.JoinResult, error) {
	return v1.JoinResult{}, errSoon
}

// Unlock brings the unlock key.
func (c *Client) Unlock(ctx context.Context, key string) error { return errSoon }

// UnlockKey is the swarm's; empty where it does not lock itself.
func (c *Client) UnlockKey(ctx context.Context) (string, error) { return "", errSoon }

// RotateUnlockKey makes another unlock key.
func (c *Client) RotateUnlockKey(ctx context.Context) (string, error) { return "", errSoon }

// JoinTokens are the tokens for both roles.
func (c *Client) JoinTokens(ctx context.Context) (v1.JoinTokens, error) {
	return v1.JoinTokens{}, errSoon
}

// RotateJoinToken makes another token for the role, and returns both.
func (c *Client) RotateJoinToken(ctx context.Context, role v1.NodeRole) (v1.JoinTokens, error) {
	return v1.JoinTokens{}, errSoon
}

// CA tells of the swarm's roots.
func (c *Client) CA(ctx context.Context) (v1.CAInfo, error) { return v1.CAInfo{}, errSoon }

// RotateCA begins to move the swarm to another root. The rotation goes on after the answer.
func (c *Client) RotateCA(ctx context.Context, r v1.RotateCARequest) (v1.CAInfo, error) {
	return v1.CAInfo{}, errSoon
}

// Backup writes a backup of the swarm.
func (c *Client) Backup(ctx context.Context, w io.Writer) error { return errSoon }

// Restore makes the daemon the first manager of the swarm that the archive is a backup of.
func (c *Client) Restore(ctx context.Context, r v1.InitRequest, archive io.Reader) (nodeID string, err error) {
	return "", errSoon
}

// UserCertificate signs a certificate for the user.
func (c *Client) UserCertificate(ctx context.Context, ref string, csr []byte) (v1.Certificate, error) {
	return v1.Certificate{}, errSoon
}

// RemoveUserToken ends a token of a user.
func (c *Client) RemoveUserToken(ctx context.Context, ref, id string) error { return errSoon }
