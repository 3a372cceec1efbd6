package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/swarmd/swarmd/test/e2e/lab"
)

const (
	// requestsPerSecond is how many are sent in all, whatever becomes of the earlier ones.
	requestsPerSecond = 200
	// mostUnanswered bounds those that wait for an answer.
	mostUnanswered = 4000
)

// requester sends requests from one place to another.
type requester struct {
	name string // such as "port on worker1, kept"
	url  string
	*http.Client
}

// requesters are two to a place: one makes a new connection for each request, the other keeps some.
func requesters(name, url string, from *lab.Namespace) []requester {
	fresh := from.HTTP()
	kept := &http.Client{Timeout: fresh.Timeout, Transport: &http.Transport{DialContext: from.DialContext, MaxIdleConnsPerHost: 16}}
	return []requester{{name + ", new", url, fresh}, {name + ", kept", url, kept}}
}

// requests are sent without end, evenly from all requesters, as many a second whatever becomes of them.
type requests struct {
	sent   atomic.Int64
	again  atomic.Int64 // sent by the client a second time, on another connection: see ask
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu     sync.Mutex
	failed []string
}

func sendRequests(from []requester) *requests {
	ctx, cancel := context.WithCancel(context.Background())
	r := &requests{cancel: cancel}
	r.done.Go(func() { r.send(ctx, from) })
	return r
}

func (r *requests) send(ctx context.Context, from []requester) {
	tick := time.NewTicker(time.Second / requestsPerSecond)
	defer tick.Stop()
	under := make(chan struct{}, mostUnanswered)
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		one := from[i%len(from)]
		select {
		case under <- struct{}{}:
		default:
			r.fail(one, time.Now(), errors.New("not sent: too many are unanswered"))
			continue
		}
		r.sent.Add(1)
		r.done.Go(func() {
			defer func() { <-under }()
			began := time.Now()
			if err := one.ask(&r.again); err != nil {
				r.fail(one, began, err)
			}
		})
	}
}

// fail notes how long the request was under way as well: what takes longer than the drain delay is broken off by a server that ends at once.
func (r *requests) fail(one requester, began time.Time, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = append(r.failed, fmt.Sprintf("%s %s, after %s: %v", began.UTC().Format("15:04:05.000"), one.name, time.Since(began).Round(time.Millisecond), err))
}

// ask counts what the client sent again by itself: where a kept connection that is idle ends at the moment that it is taken, HTTP has clients do
// so with a request that may be repeated (RFC 9110, 9.2.2), for nobody between the two can know whether the server will still read from it.
func (one requester) ask(again *atomic.Int64) error {
	connections := 0
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connections++ }})
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, one.url, http.NoBody)
	if err != nil {
		return err
	}
	answer, err := one.Do(request)
	if connections > 1 {
		again.Add(1)
	}
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<16))
	if err == nil && (answer.StatusCode != http.StatusOK || !strings.HasPrefix(string(body), "Hello from ")) {
		err = fmt.Errorf("%s: %q", answer.Status, body)
	}
	return err
}

// failures are those since the last call.
func (r *requests) failures() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	failed := slices.Clone(r.failed)
	r.failed = nil
	return failed
}

// stop ends it, and waits for the last answer.
func (r *requests) stop() {
	r.cancel()
	r.done.Wait()
}
