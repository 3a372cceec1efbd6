package client

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// maxAnswer bounds what is read of an answer that is one JSON value, in bytes.
const maxAnswer = 256 << 20

// request is what is asked of whichever host.
type request struct {
	method, path string // the path may have a query
	// body makes what is sent, for each try anew; nil where it cannot be made again. No body at all is a nil body.
	body func() io.Reader
	kind string // the body's content type; JSON where it is empty
	// hosts are those to ask, in this order; nil for all of the client's.
	hosts []*host
	// again tells that the request may be made twice, as those that only read.
	again bool
	// patience is how long one host may take to begin its answer; 0 for as long as ctx lasts.
	patience time.Duration
}

// harmless tells whether the request may be made twice.
func (r *request) harmless() bool {
	return r.again || r.method == http.MethodGet || r.method == http.MethodHead
}

// jsonRequest is a request whose body, unless in is nil, is JSON.
func jsonRequest(method, path string, in any) (request, error) {
	r := request{method: method, path: path}
	if in == nil {
		return r, nil
	}
	data, err := json.Marshal(in)
	if err != nil {
		return r, fmt.Errorf("client: %s %s: %w", method, path, err)
	}
	r.body = func() io.Reader { return bytes.NewReader(data) }
	return r, nil
}

// Do makes one request. The path may have a query; in, unless nil, is sent as JSON; out, unless nil, is filled from the JSON
// answer. What the server refuses is a *v1.Problem, a server that is not there a *ConnectError.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	r, err := jsonRequest(method, path, in)
	if err != nil {
		return err
	}
	for try := 1; ; try++ {
		resp, h, err := c.send(ctx, r)
		if err != nil {
			return err
		}
		cut, err := fill(ctx, resp, out)
		if err == nil {
			return nil
		}
		if cut {
			c.leave(h, true)
		}
		if cut && r.harmless() && ctx.Err() == nil && try < len(c.order()) {
			continue
		}
		return fmt.Errorf("client: %s %s: read the answer: %w", method, path, err)
	}
}

// fill reads an answer, and tells whether it was cut off.
func fill(ctx context.Context, resp *http.Response, out any) (cut bool, err error) {
	defer drain(resp.Body)
	if out == nil || resp.StatusCode == http.StatusNoContent {
		return false, nil
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil && ctx.Err() != nil:
		return false, context.Cause(ctx)
	case err != nil:
		return true, err
	case len(data) > maxAnswer:
		return false, fmt.Errorf("it is larger than %d bytes", maxAnswer)
	}
	return false, json.Unmarshal(data, out)
}

// send makes a request and returns the answer, whose body the caller closes, and who gave it, unless it is a refusal. It asks
// one host after the other as Dial says.
func (c *Client) send(ctx context.Context, r request) (*http.Response, *host, error) {
	hosts := r.hosts
	if hosts == nil {
		hosts = c.order()
	}
	var failed []attempt
	for _, h := range hosts {
		resp, a := c.try(ctx, h, &r)
		if a.err == nil {
			if len(failed) > 0 {
				c.use(h)
			}
			return resp, h, nil
		}
		if errors.Is(a.err, errSpent) {
			break
		}
		failed = append(failed, a)
		if !a.other || ctx.Err() != nil {
			break
		}
	}
	return nil, nil, mostTelling(failed)
}

// try makes a request to one host.
func (c *Client) try(ctx context.Context, h *host, r *request) (*http.Response, attempt) {
	var sent, reused atomic.Bool
	inner, cancel := context.WithCancelCause(ctx)
	traced := httptrace.WithClientTrace(inner, &httptrace.ClientTrace{
		GotConn:      func(i httptrace.GotConnInfo) { reused.Store(i.Reused) },
		WroteHeaders: func() { sent.Store(true) },
	})
	req, err := c.request(traced, h, r)
	if err != nil {
		cancel(nil)
		return nil, attempt{err: err}
	}
	if req.Body != nil { // HTTP/1.1 waits until nobody reads it, however long that blocks
		context.AfterFunc(inner, func() { _ = req.Body.Close() })
	}
	if r.patience > 0 {
		slow := time.AfterFunc(r.patience, func() { cancel(silentError(h, r.patience)) })
		defer slow.Stop()
	}
	client := h.client()
	resp, err := client.Do(req)
	if err != nil {
		err = cmp.Or(context.Cause(inner), err)
		cancel(nil)
		if !reused.Load() {
			err = h.explain(ctx, err)
		}
		return nil, c.lost(ctx, h, r, err, sent.Load())
	}
	resp.Body = &answerBody{resp.Body, func() {
		cancel(nil)
		h.release(client)
	}}
	if resp.StatusCode < 300 {
		return resp, attempt{}
	}
	defer drain(resp.Body)
	p := problem(resp)
	if p.Status != http.StatusServiceUnavailable {
		return nil, attempt{err: p}
	}
	// It cannot do anything now: for the next request there may be somebody better, and for this one if it did nothing.
	c.leave(h, false)
	return nil, attempt{p, r.harmless() || p.Type == v1.ProblemNotManager}
}

// request builds it for one host.
func (c *Client) request(ctx context.Context, h *host, r *request) (*http.Request, error) {
	at, err := h.base.Parse(r.path)
	if err != nil {
		return nil, fmt.Errorf("client: path %q: %w", r.path, err)
	}
	var body io.Reader
	if r.body != nil {
		if body = r.body(); body == nil {
			return nil, errSpent
		}
	}
	req, err := http.NewRequestWithContext(ctx, r.method, at.String(), body)
	if err != nil {
		return nil, fmt.Errorf("client: %s %s: %w", r.method, r.path, err)
	}
	req.Header.Set("Accept", "application/json")
	switch {
	case r.kind != "":
		req.Header.Set("Content-Type", r.kind)
	case body != nil:
		req.Header.Set("Content-Type", "application/json")
	}
	if c.options.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.options.Token)
	}
	return req, nil
}
