package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/swarmd/swarmd/pkg/ca"
)

// How long things may take that are short unless something is wrong.
const (
	dialTimeout      = 5 * time.Second
	handshakeTimeout = 5 * time.Second
	// pingAfter is after how much silence of an HTTP/2 connection it is asked whether it is still there, and pingTimeout how
	// long that may take.
	pingAfter   = 5 * time.Second
	pingTimeout = 5 * time.Second
	// explainTimeout is how long it may take to find out what a server has against this side.
	explainTimeout = time.Second
)

// defaultPort is where managers listen unless they are told otherwise.
const defaultPort = "2377"

// host is one place to send requests to.
type host struct {
	name             string // as it was given
	base             url.URL
	network, address string
	tls              *tls.Config // nil for HTTP in the clear

	mu   sync.Mutex
	http *http.Client
}

const wantHost = "want unix:///path/to/swarmd.sock, or host:port of a manager"

// newHost reads what a user, or a manager's object, calls a host.
func newHost(name string, config *tls.Config) (*host, error) {
	if name == "" {
		name = DefaultHost
	}
	text := name
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("client: host %q: %w: %s", name, err, wantHost)
	}
	h := &host{name: name, network: "tcp"}
	switch bare := u.Path == "" && u.User == nil && u.RawQuery == "" && u.Fragment == ""; {
	case u.Scheme == "unix" && u.Host == "" && u.Path != "":
		h.network, h.address = "unix", u.Path
		h.base = url.URL{Scheme: "http", Host: "swarmd"}
	case u.Scheme == "http" && bare && loopback(u.Hostname()) && u.Port() != "":
		h.address = u.Host
		h.base = url.URL{Scheme: "http", Host: u.Host}
	case u.Scheme == "http":
		return nil, fmt.Errorf("client: host %q: plain http is for loopback addresses with a port only: %s", name, wantHost)
	case u.Scheme == "https" && bare && u.Hostname() != "":
		if config == nil {
			return nil, fmt.Errorf("client: host %q: this takes the swarm's root certificate, and there is none: want unix:///path/to/swarmd.sock", name)
		}
		port := u.Port()
		if port == "" {
			port = defaultPort
		}
		h.address, h.tls = net.JoinHostPort(u.Hostname(), port), config
		h.base = url.URL{Scheme: "https", Host: h.address}
	default:
		return nil, fmt.Errorf("client: host %q: %s", name, wantHost)
	}
	h.http = h.newHTTP()
	return h, nil
}

// socket tells whether the host is a socket of this machine.
func (h *host) socket() bool { return h.network == "unix" }

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (h *host) newHTTP() *http.Client {
	dialer := &net.Dialer{Timeout: dialTimeout}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, h.network, h.address)
		},
		TLSHandshakeTimeout:   handshakeTimeout,
		MaxIdleConnsPerHost:   64,
		IdleConnTimeout:       90 * time.Second,
		DisableCompression:    true,
		ExpectContinueTimeout: time.Second,
	}
	if h.tls != nil {
		transport.TLSClientConfig = h.tls.Clone()
		transport.ForceAttemptHTTP2 = true
		transport.HTTP2 = &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout, WriteByteTimeout: pingAfter + pingTimeout}
	}
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // no server of ours does it
	}
}

// client is what makes requests now.
func (h *host) client() *http.Client {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.http
}

// release closes what a request leaves behind of a client that makes no others any more.
func (h *host) release(c *http.Client) {
	if c != h.client() {
		c.CloseIdleConnections()
	}
}

// refresh leaves the connections that there are to the requests that use them.
func (h *host) refresh() {
	next := h.newHTTP()
	h.mu.Lock()
	was := h.http
	h.http = next
	h.mu.Unlock()
	was.CloseIdleConnections()
}

// objectionError is what a server has against this side's certificate, as found out by another connection.
type objectionError struct{ error }

// Unwrap is what was found out.
func (e *objectionError) Unwrap() error { return e.error }

// explain finds out why a new connection was lost before anything came over it. A server that refuses a certificate says so when
// this side takes the connection for made, and what it says is often lost: then it is asked once more, for that alone.
func (h *host) explain(ctx context.Context, err error) error {
	op, ok := errors.AsType[*net.OpError](err)
	if h.tls == nil || ctx.Err() != nil || ok && op.Op == "dial" || strings.Contains(err.Error(), alert) || errors.As(err, new(*ca.TimeError)) {
		return err
	}
	config := h.tls.Clone()
	config.NextProtos = []string{"h2"} // with which the server speaks first
	ctx, cancel := context.WithTimeout(ctx, explainTimeout)
	defer cancel()
	conn, dialErr := (&tls.Dialer{Config: config}).DialContext(ctx, h.network, h.address)
	if dialErr != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok && conn.SetReadDeadline(deadline) != nil {
		return err
	}
	if _, readErr := conn.Read(make([]byte, 1)); readErr != nil && strings.Contains(readErr.Error(), alert) {
		return &objectionError{readErr}
	}
	return err
}
