package client

import (
	"context"
	"crypto/tls"
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

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// ConnectError says that no connection could be made. Nothing was done.
type ConnectError struct {
	Host string
	Err  error
}

// Error implements error, in Docker's words where nobody is there.
func (e *ConnectError) Error() string {
	if errors.Is(e.Err, fs.ErrPermission) {
		return fmt.Sprintf("permission denied while trying to connect to the swarmd daemon socket at %s: run this as root (sudo)", e.Host)
	}
	if why := refusal(e.Err); why != "" {
		return fmt.Sprintf("cannot connect to the swarm manager at %s: %s", e.Host, why)
	}
	return fmt.Sprintf("Cannot connect to the swarmd daemon at %s. Is the swarmd daemon running?", e.place())
}

// place is the host, with the reason where there may be several: of a socket there is none worth telling.
func (e *ConnectError) place() string {
	if _, several := e.Err.(*awayError); several { // each has its own
		return e.Host
	}
	if op, ok := errors.AsType[*net.OpError](e.Err); ok && op.Op == "dial" && op.Net == "tcp" && op.Err != nil {
		return fmt.Sprintf("%s (%s)", e.Host, strings.TrimPrefix(op.Err.Error(), "connect: "))
	}
	return e.Host
}

// Unwrap is the cause.
func (e *ConnectError) Unwrap() error { return e.Err }

// alert is how crypto/tls tells of the other side's.
const alert = "remote error: tls: "

// refusal says what a server that is there, or this side of the connection, had against the other; "" where nobody is there.
func refusal(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" || err == nil {
		return ""
	}
	text := err.Error()
	_, said, remote := strings.Cut(text, alert)
	switch {
	case errors.As(err, new(tls.RecordHeaderError)), errors.Is(err, http.ErrSchemeMismatch):
		return "it does not speak TLS"
	case remote && strings.HasPrefix(said, "expired certificate"):
		return "it says that the certificate of this side has expired or is not valid yet: are the clocks of both machines right?"
	case remote && strings.HasPrefix(said, "unknown certificate authority"):
		return "it does not trust the root of this side's certificate, which is of another swarm or was replaced"
	case remote && strings.HasPrefix(said, "protocol version not supported"):
		return "it does not speak TLS 1.3"
	case remote:
		return "it refuses the certificate of this side: " + said
	}
	return text
}

// Status is the HTTP status of an error that is, or wraps, a *v1.Problem; 0 of any other.
func Status(err error) int {
	if p, ok := errors.AsType[*v1.Problem](err); ok {
		return p.Status
	}
	return 0
}

// errSpent says that a body cannot be sent again: some of it went to a host that failed.
var errSpent = errors.New("client: the body was sent already")

// attempt is how a request failed at one host.
type attempt struct {
	err error
	// other tells that another host may be asked.
	other bool
}

// mostTelling is the error that says most of why no host did what was asked.
func mostTelling(failed []attempt) error {
	if last := failed[len(failed)-1]; !last.other {
		return last.err
	}
	var names []string
	var errs []error
	for _, a := range failed {
		away, ok := errors.AsType[*ConnectError](a.err)
		if !ok || refusal(away.Err) != "" {
			return a.err
		}
		names, errs = append(names, away.place()), append(errs, away.Err)
	}
	if len(failed) == 1 {
		return failed[0].err
	}
	return &ConnectError{strings.Join(names, ", "), &awayError{errs}}
}

// awayError is why none of several hosts could be reached.
type awayError struct{ errs []error }

// Error implements error.
func (e *awayError) Error() string { return errors.Join(e.errs...).Error() }

// Unwrap is what happened at each.
func (e *awayError) Unwrap() []error { return e.errs }

// lost is what becomes of a request that got no answer.
func (c *Client) lost(ctx context.Context, h *host, r *request, err error, sent bool) attempt {
	if cause := context.Cause(ctx); cause != nil {
		return attempt{err: cause}
	}
	c.leave(h, true)
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // the URL has a host that the user never gave
	}
	// A server that refuses a certificate tells so after the request was sent, and never looks at that.
	if _, guessed := err.(*objectionError); !sent || !guessed && strings.Contains(err.Error(), alert) {
		return attempt{&ConnectError{h.name, err}, true}
	}
	return attempt{brokenError(h, err), r.harmless()}
}

// broken is the error of an answer that was cut off, within inner: by whoever asked, whose context is ctx, or because the host
// is lost.
func (c *Client) broken(ctx, inner context.Context, h *host, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	c.leave(h, true)
	if cause := context.Cause(inner); cause != nil {
		return cause
	}
	return brokenError(h, err)
}

func brokenError(h *host, err error) error {
	if strings.Contains(err.Error(), alert) {
		err = fmt.Errorf("%s (%w)", refusal(err), err)
	}
	return fmt.Errorf("client: connection to the swarmd daemon at %s was lost: %w", h.name, err)
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
