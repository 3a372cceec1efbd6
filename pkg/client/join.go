package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/ca"
)

const (
	// joinTimeout is how long one manager may take to tell the roots.
	joinTimeout = 20 * time.Second
	// maxRoots bounds what it tells, in bytes.
	maxRoots = 64 << 10
	// maxSkew is how far this machine's clock may be from the manager's: certificates begin to be good that long before they
	// are made.
	maxSkew = time.Hour
)

// FetchRoots asks the manager at addr, host:port, for the swarm's roots, without knowing yet whether it is one, and returns the
// one that has the digest, in PEM: by a join token it is the right one. With an empty digest it is the one that the manager's own
// certificate is below, which somebody has to be asked about.
//
// Errors tell apart an address where nobody answers (a *ConnectError), one where something else than a manager does, roots that
// are not the right ones, and a clock that is more than an hour off.
func FetchRoots(ctx context.Context, addr, digest string) (rootsPEM []byte, err error) {
	config := &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true} // the digest is what is verified
	h, err := newHost(addr, config)
	if err != nil {
		return nil, err
	}
	if h.tls == nil {
		return nil, fmt.Errorf("client: host %q: want host:port of a manager", addr)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, joinTimeout, silentError(h, joinTimeout))
	defer cancel()
	defer h.refresh()
	resp, err := askRoots(ctx, h)
	if err != nil {
		return nil, err
	}
	defer drain(resp.Body)
	told, err := io.ReadAll(io.LimitReader(resp.Body, maxRoots+1))
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, brokenError(h, err)
	case resp.StatusCode == http.StatusServiceUnavailable: // a manager that starts, stops or is locked
		resp.Body = io.NopCloser(bytes.NewReader(told))
		return nil, problem(resp)
	case resp.StatusCode != http.StatusOK || len(told) > maxRoots:
		return nil, noManager(addr, fmt.Sprintf("it answers %s, and no root certificate", resp.Status))
	}
	root, err := choose(addr, told, digest, resp.TLS)
	if err != nil {
		return nil, err
	}
	if err := checkClock(addr, resp.Header.Get("Date")); err != nil {
		return nil, err
	}
	return root, nil
}

func askRoots(ctx context.Context, h *host) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.base.JoinPath("/v1/swarm/roots").String(), nil)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	resp, err := h.client().Do(req)
	if err == nil {
		return resp, nil
	}
	op, dial := errors.AsType[*net.OpError](err)
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case dial && op.Op == "dial":
		return nil, &ConnectError{h.name, fmt.Errorf("cannot reach a swarm manager: %w", err)}
	}
	return nil, noManager(h.name, refusal(err))
}

// noManager says that somebody answers who is no manager.
func noManager(addr, why string) error {
	return fmt.Errorf("%s is not the address of a swarm manager: %s (managers listen on port %s unless told otherwise)", addr, why, defaultPort)
}

// choose finds the root with the digest among those that were told.
func choose(addr string, told []byte, digest string, connection *tls.ConnectionState) ([]byte, error) {
	var answer v1.Certificate
	if json.Unmarshal(told, &answer) != nil || ca.Digest(answer.Roots) == "" {
		return nil, noManager(addr, "it answers without a root certificate")
	}
	for rest := answer.Roots; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		root := pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})
		if digest != "" && ca.Digest(root) == digest || digest == "" && ca.Below(connection.PeerCertificates, root) {
			return root, nil
		}
	}
	if digest == "" {
		return nil, fmt.Errorf("%s: its certificate is signed by none of the roots that it tells", addr)
	}
	return nil, fmt.Errorf("%s: remote CA does not match fingerprint. Expected: %s", addr, digest)
}

// checkClock refuses a clock with which certificates would not be good.
func checkClock(addr, date string) error {
	theirs, err := http.ParseTime(date)
	if err != nil {
		return nil // it does not tell: then certificates will
	}
	now := time.Now()
	if off := now.Sub(theirs); off < -maxSkew || off > maxSkew {
		return fmt.Errorf("the clocks of this machine and of the manager at %s are %s apart: this one says %s, the manager's %s; set the one that is wrong",
			addr, off.Abs().Round(time.Second), now.UTC().Format(time.RFC3339), theirs.UTC().Format(time.RFC3339))
	}
	return nil
}

// Admit asks the manager at addr to let this machine into the swarm. It must have a certificate below the roots. The node exists
// from then on; a request whose answer is lost may have made one too. What the manager refuses is a *v1.Problem.
func Admit(ctx context.Context, addr string, rootsPEM []byte, r v1.AdmissionRequest) (v1.Admission, error) {
	var admission v1.Admission
	config, err := ca.UserTLS(nil, nil, rootsPEM)
	if err != nil {
		return admission, err
	}
	c, err := Dial(Options{Hosts: []string{addr}, TLS: config})
	if err != nil {
		return admission, err
	}
	defer c.Close()
	err = c.Do(ctx, http.MethodPost, "/v1/nodes/join", r, &admission)
	return admission, err
}
