// Package client talks to a swarmd API server: the resources with their types, the daemon's own doors, the agent's side of
// a session, and the same Store that the server has, over HTTP.
//
// It owns connections, retries of reading, and the translation of problem documents into errors. It never decides, never
// keeps state but the snapshot of a Store that was asked for, and never repeats a write on its own: a write whose answer
// was lost may have happened.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// DefaultHost is where a daemon listens unless it is told otherwise.
const DefaultHost = "unix:///run/swarmd/swarmd.sock"

// maxAnswer bounds what is read of an answer that is one JSON value, in bytes.
const maxAnswer = 256 << 20

// Client is a connection to a daemon's API. It is safe for use by many goroutines; make one and keep it.
type Client struct {
	host string
	base url.URL
	http *http.Client
}

// ConnectError says that the daemon could not be reached. Nothing was done.
type ConnectError struct {
	Host string
	Err  error
}

// Error implements error in Docker's words.
func (e *ConnectError) Error() string {
	if errors.Is(e.Err, fs.ErrPermission) {
		return fmt.Sprintf("permission denied while trying to connect to the swarmd daemon socket at %s: run this as root (sudo)", e.Host)
	}
	return fmt.Sprintf("Cannot connect to the swarmd daemon at %s. Is the swarmd daemon running?", e.Host)
}

// Unwrap is the cause.
func (e *ConnectError) Unwrap() error { return e.Err }

// New is a client of the daemon at the host: unix:///path, or http://host:port on loopback. It does not connect yet.
// An empty host is DefaultHost.
func New(host string) (*Client, error) {
	if host == "" {
		host = DefaultHost
	}
	u, err := url.Parse(host)
	if err != nil {
		return nil, fmt.Errorf("client: host %q: %w: want unix:///path/to/swarmd.sock", host, err)
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	network, address := "tcp", u.Host
	switch {
	case u.Scheme == "unix" && u.Host == "" && u.Path != "":
		network, address = "unix", u.Path
		u = &url.URL{Scheme: "http", Host: "swarmd"}
	case u.Scheme == "http" && loopback(u.Hostname()) && u.Port() != "":
		u = &url.URL{Scheme: "http", Host: u.Host}
	case u.Scheme == "http":
		return nil, fmt.Errorf("client: host %q: plain http is for loopback addresses with a port only: want unix:///path/to/swarmd.sock", host)
	default:
		return nil, fmt.Errorf("client: host %q: want unix:///path/to/swarmd.sock", host)
	}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, address)
		},
		MaxIdleConnsPerHost:   64,
		IdleConnTimeout:       90 * time.Second,
		DisableCompression:    true,
		ExpectContinueTimeout: time.Second,
	}
	return &Client{host: host, base: *u, http: &http.Client{Transport: transport}}, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Host is what New was given.
func (c *Client) Host() string { return c.host }

// Close closes idle connections. Calls that are under way go on.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Do makes one request. The path may have a query; in, unless nil, is sent as JSON; out, unless nil, is filled from the JSON
// answer. What the server refuses is a *v1.Problem, a server that is not there a *ConnectError.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("client: %s %s: %w", method, path, err)
		}
		body = bytes.NewReader(data)
	}
	resp, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer drain(resp.Body)
	if out == nil || resp.StatusCode == http.StatusNoContent {
		return nil
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return fmt.Errorf("client: %s %s: read the answer: %w", method, path, err)
	case len(data) > maxAnswer:
		return fmt.Errorf("client: %s %s: the answer is larger than %d bytes", method, path, maxAnswer)
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("client: %s %s: read the answer: %w", method, path, err)
	}
	return nil
}

// send makes a request and returns the answer, whose body the caller closes, unless it is a refusal.
func (c *Client) send(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	at, err := c.base.Parse(path)
	if err != nil {
		return nil, fmt.Errorf("client: path %q: %w", path, err)
	}
	req, err := http.NewRequestWithContext(ctx, method, at.String(), body)
	if err != nil {
		return nil, fmt.Errorf("client: %s %s: %w", method, path, err)
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if resp.StatusCode >= 400 {
		defer drain(resp.Body)
		return nil, problem(resp)
	}
	return resp, nil
}

func (c *Client) unreachable(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return &ConnectError{c.host, err}
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // the URL has a host that the user never gave
	}
	return fmt.Errorf("client: connection to the swarmd daemon at %s was lost: %w", c.host, err)
}

// problem reads a refusal; one that is no problem document is made into one.
func problem(resp *http.Response) *v1.Problem {
	data, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	p := new(v1.Problem)
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if kind == "application/problem+json" && json.Unmarshal(data, p) == nil && p.Title != "" {
		p.Status = resp.StatusCode
		return p
	}
	detail := strings.TrimSpace(string(data[:min(len(data), 1000)]))
	return &v1.Problem{Title: http.StatusText(resp.StatusCode), Status: resp.StatusCode, Detail: detail}
}

// drain reads what little may be left, so that the connection can be used again, and closes.
func drain(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, 4096)
	body.Close()
}

// Status is the HTTP status of an error that is, or wraps, a *v1.Problem; 0 of any other.
func Status(err error) int {
	if p, ok := errors.AsType[*v1.Problem](err); ok {
		return p.Status
	}
	return 0
}
