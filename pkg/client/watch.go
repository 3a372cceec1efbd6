package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// The types of a WatchEvent.
const (
	EventPut    = "put"    // the object was made or changed
	EventDelete = "delete" // the object was removed, or the filter no longer lets it through

	eventBookmark = "bookmark" // everything up to the revision was sent; never shown to callers
	eventError    = "error"    // the stream ends; the object is a problem
)

// silence is how long a stream may say nothing, not even that it is alive, before it is taken for dead. The server speaks
// every few seconds.
const silence = 20 * time.Second

// patience is for how long in a row a watch tries to connect again before it gives up.
const patience = time.Minute

// WatchEvent tells that an object is now like this, or is gone.
type WatchEvent[S, D, T any] struct {
	// Type is EventPut or EventDelete.
	Type string
	// Object is as it is now, or as it last was.
	Object *v1.Resource[S, D, T]
	// Revision is the store's.
	Revision int64
}

// Watch yields what happens to the objects of a kind that the filter lets through, after the revision; -1 begins with a put
// of each that there is. It connects again by itself and goes on where it was, and ends with an error that it cannot mend:
// ctx's, a refusal (410 where the revision is gone: begin again with -1), or a server that stays away for a minute.
func Watch[S, D, T any](ctx context.Context, c *Client, k v1.KindOf[S, D, T], f v1.Filter, after int64) iter.Seq2[WatchEvent[S, D, T], error] {
	query := url.Values{"filter": f.Strings(), "watch": {"true"}}
	return func(yield func(WatchEvent[S, D, T], error) bool) {
		for line, err := range c.follow(ctx, "/v1/"+k.Plural(), query, after) {
			if err != nil {
				yield(WatchEvent[S, D, T]{}, err)
				return
			}
			obj := new(v1.Resource[S, D, T])
			if err := json.Unmarshal(line.Object, obj); err != nil {
				yield(WatchEvent[S, D, T]{}, fmt.Errorf("client: watch %s: %w", k.Plural(), err))
				return
			}
			if !yield(WatchEvent[S, D, T]{line.Type, obj, line.Revision}, nil) {
				return
			}
		}
	}
}

// watchLine is one line of a watch.
type watchLine struct {
	Type     string          `json:"type"`
	Revision int64           `json:"revision"`
	Object   json.RawMessage `json:"object"`
}

// follow yields the lines of a watch over as many connections as it takes, all but bookmarks, and none twice.
func (c *Client) follow(ctx context.Context, path string, query url.Values, after int64) iter.Seq2[watchLine, error] {
	return func(yield func(watchLine, error) bool) {
		at := position{after: after}
		retry := newBackoff()
		for connected := false; ; {
			if at.after >= 0 {
				query.Set("after", strconv.FormatInt(at.after, 10))
			}
			err := errStopped
			skip := at.seen
			for line, lineErr := range c.lines(ctx, path+"?"+query.Encode()) {
				if lineErr != nil {
					err = lineErr
					break
				}
				connected = true
				retry.reset()
				if skip > 0 && line.Type != eventBookmark && line.Revision == at.after+1 {
					skip--
					continue
				}
				skip = 0
				at.pass(line)
				if line.Type != eventBookmark && !yield(line, nil) {
					return
				}
			}
			if !connected || !mendable(ctx, err) || !retry.wait(ctx) {
				if ctx.Err() != nil {
					err = context.Cause(ctx)
				}
				yield(watchLine{}, err)
				return
			}
		}
	}
}

// position is how far a watch has come: all lines up to a revision, and some of those of the next. The lines of a revision
// come in the same order on every connection.
type position struct {
	after int64 // -1 until what there was at the beginning has all been sent
	seen  int   // lines of revision after+1
}

func (p *position) pass(line watchLine) {
	switch {
	case line.Type == eventBookmark:
		*p = position{after: line.Revision}
	case p.after < 0: // among the objects that there are; a lost connection begins again
	case line.Revision == p.after+1:
		p.seen++
	default:
		*p = position{line.Revision - 1, 1}
	}
}

// errStopped says that the server ended a stream that has no end.
var errStopped = errors.New("client: the server ended the stream")

func mendable(ctx context.Context, err error) bool {
	status := Status(err)
	return ctx.Err() == nil && (status == 0 || status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests)
}

// lines yields the lines of one watch connection.
func (c *Client) lines(ctx context.Context, path string) iter.Seq2[watchLine, error] {
	return func(yield func(watchLine, error) bool) {
		for line, err := range stream[watchLine](ctx, c, request{method: http.MethodGet, path: path}) {
			if err == nil && line.Type == eventError {
				p := new(v1.Problem)
				if err = json.Unmarshal(line.Object, p); err == nil {
					err = p
				}
			}
			if !yield(line, err) || err != nil {
				return
			}
		}
	}
}

// stream makes a request and yields the JSON values of its answer. A connection that is silent for too long is an error;
// blank lines are how the server shows that it is alive.
func stream[V any](ctx context.Context, c *Client, r request) iter.Seq2[V, error] {
	return func(yield func(V, error) bool) {
		var none V
		inner, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		resp, h, err := c.send(inner, r)
		if err != nil {
			yield(none, err)
			return
		}
		defer resp.Body.Close()
		alive := newPulse(resp.Body, silence, func() { cancel(silentError(h, silence)) })
		defer alive.stop()
		for decoder := json.NewDecoder(alive); ; {
			var v V
			switch err := decoder.Decode(&v); {
			case err == io.EOF:
				return
			case err != nil:
				yield(none, c.broken(ctx, inner, h, err))
				return
			case !yield(v, nil):
				return
			}
		}
	}
}

// backoff waits longer each time, up to a limit of all.
type backoff struct {
	next  time.Duration
	since time.Time
}

func newBackoff() *backoff { return &backoff{next: 50 * time.Millisecond} }

func (b *backoff) reset() { *b = *newBackoff() }

// wait tells whether to try again, after a while.
func (b *backoff) wait(ctx context.Context) bool {
	if b.since.IsZero() {
		b.since = time.Now()
	}
	if time.Since(b.since) > patience {
		return false
	}
	timer := time.NewTimer(b.next)
	defer timer.Stop()
	b.next = min(2*b.next, 2*time.Second)
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
