package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// Init makes the daemon the first manager of a new swarm, and returns its node's ID.
func (c *Client) Init(ctx context.Context, r v1.InitRequest) (nodeID string, err error) {
	var result v1.InitResult
	err = c.Do(ctx, http.MethodPost, "/v1/swarm/init", r, &result)
	return result.NodeID, err
}

// Join makes the daemon's machine a node of a swarm.
func (c *Client) Join(ctx context.Context, r v1.JoinRequest) (v1.JoinResult, error) {
	var result v1.JoinResult
	err := c.Do(ctx, http.MethodPost, "/v1/swarm/join", r, &result)
	return result, err
}

// Leave takes the daemon's node out of the swarm. The last manager goes only by force, and the swarm with it.
func (c *Client) Leave(ctx context.Context, force bool) error {
	return c.Do(ctx, http.MethodPost, "/v1/swarm/leave?force="+strconv.FormatBool(force), nil, nil)
}

// Unlock brings the unlock key to a daemon that is locked.
func (c *Client) Unlock(ctx context.Context, key string) error {
	return c.Do(ctx, http.MethodPost, "/v1/swarm/unlock", v1.UnlockRequest{UnlockKey: key}, nil)
}

// UnlockKey is the swarm's; empty where it does not lock itself.
func (c *Client) UnlockKey(ctx context.Context) (string, error) {
	var key v1.UnlockKey
	err := c.Do(ctx, http.MethodGet, "/v1/swarm/unlock-key", nil, &key)
	return key.UnlockKey, err
}

// RotateUnlockKey makes another unlock key, and returns it.
func (c *Client) RotateUnlockKey(ctx context.Context) (string, error) {
	var key v1.UnlockKey
	err := c.Do(ctx, http.MethodPost, "/v1/swarm/unlock-key/rotate", nil, &key)
	return key.UnlockKey, err
}

// JoinTokens are the tokens for both roles.
func (c *Client) JoinTokens(ctx context.Context) (v1.JoinTokens, error) {
	var tokens v1.JoinTokens
	err := c.Do(ctx, http.MethodGet, "/v1/swarm/join-tokens", nil, &tokens)
	return tokens, err
}

// RotateJoinToken makes another token for the role, and returns both. The one before lets nobody in any more.
func (c *Client) RotateJoinToken(ctx context.Context, role v1.NodeRole) (v1.JoinTokens, error) {
	var tokens v1.JoinTokens
	err := c.Do(ctx, http.MethodPost, "/v1/swarm/join-tokens/rotate?role="+url.QueryEscape(string(role)), nil, &tokens)
	return tokens, err
}

// CA tells of the swarm's roots, and how far a rotation is.
func (c *Client) CA(ctx context.Context) (v1.CAInfo, error) {
	var info v1.CAInfo
	err := c.Do(ctx, http.MethodGet, "/v1/swarm/ca", nil, &info)
	return info, err
}

// RotateCA begins to move the swarm to another root, and returns how far that is. It goes on after the answer.
func (c *Client) RotateCA(ctx context.Context, r v1.RotateCARequest) (v1.CAInfo, error) {
	var info v1.CAInfo
	err := c.Do(ctx, http.MethodPost, "/v1/swarm/ca/rotate", r, &info)
	return info, err
}

// Backup writes an archive of the swarm's whole state, which holds its secrets, as it is read. What was written before an error
// is of no use.
func (c *Client) Backup(ctx context.Context, w io.Writer) error {
	resp, h, err := c.send(ctx, request{method: http.MethodGet, path: "/v1/swarm/backup"})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	from := &lossReader{from: resp.Body}
	if _, err := io.Copy(w, from); err != nil {
		if from.lost {
			return c.broken(ctx, ctx, h, err)
		}
		return fmt.Errorf("client: write the backup: %w", err)
	}
	return nil
}

// lossReader remembers that reading failed, as opposed to writing what was read.
type lossReader struct {
	from io.Reader
	lost bool
}

// Read implements io.Reader.
func (r *lossReader) Read(p []byte) (int, error) {
	n, err := r.from.Read(p)
	r.lost = err != nil && err != io.EOF
	return n, err
}

// Restore makes the daemon, which is in no swarm, the first manager of the swarm that the archive is a backup of, and returns its
// node's ID. Of the request the addresses and the availability count; the rest is in the archive.
func (c *Client) Restore(ctx context.Context, r v1.InitRequest, archive io.Reader) (nodeID string, err error) {
	query := url.Values{}
	for name, value := range map[string]string{
		"listenAddr": r.ListenAddr, "advertiseAddr": r.AdvertiseAddr, "dataPathAddr": r.DataPathAddr, "availability": string(r.Availability),
	} {
		if value != "" {
			query.Set(name, value)
		}
	}
	resp, _, err := c.send(ctx, request{
		method: http.MethodPost, path: "/v1/swarm/restore?" + query.Encode(), body: once(archive), kind: typeTar,
	})
	if err != nil {
		return "", err
	}
	var result v1.InitResult
	if _, err := fill(ctx, resp, &result); err != nil {
		return "", fmt.Errorf("client: restore: read the answer: %w", err)
	}
	return result.NodeID, nil
}

// CreateUserToken makes a token for the user that ref means. It is told this once.
func (c *Client) CreateUserToken(ctx context.Context, ref string, r v1.UserTokenRequest) (v1.NewUserToken, error) {
	var token v1.NewUserToken
	err := c.Do(ctx, http.MethodPost, one(v1.Users, ref)+"/tokens", r, &token)
	return token, err
}

// RemoveUserToken ends a token of the user that ref means.
func (c *Client) RemoveUserToken(ctx context.Context, ref, id string) error {
	return c.Do(ctx, http.MethodDelete, one(v1.Users, ref)+"/tokens/"+url.PathEscape(id), nil, nil)
}

// UserCertificate signs a certificate for the user that ref means, of the key of the request, which is in PEM.
func (c *Client) UserCertificate(ctx context.Context, ref string, csr []byte) (v1.Certificate, error) {
	var cert v1.Certificate
	err := c.Do(ctx, http.MethodPost, one(v1.Users, ref)+"/certificate", v1.CertificateRequest{CSR: csr}, &cert)
	return cert, err
}

// Audit returns the newest records of the audit log of the manager that answers, at most limit and none from before since, which
// may be zero.
func (c *Client) Audit(ctx context.Context, since time.Time, limit int) (v1.AuditLog, error) {
	query := url.Values{"limit": {strconv.Itoa(limit)}}
	if !since.IsZero() {
		query.Set("since", since.UTC().Format(time.RFC3339Nano))
	}
	var log v1.AuditLog
	err := c.Do(ctx, http.MethodGet, "/v1/audit?"+query.Encode(), nil, &log)
	return log, err
}
