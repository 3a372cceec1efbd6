package apiserver_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/apiserver"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/pkg/store"
)

// quick makes streams say more often that they are alive.
func quick(o *apiserver.Options) { o.Limits.Keepalive = 10 * time.Millisecond }

// lines opens a stream and yields its lines one by one. The stream ends with the test, or when the returned function is
// called.
func (f *fixture) lines(path string, header ...string) (next func() string, resp *http.Response, end func()) {
	f.Helper()
	ctx, cancel := context.WithCancel(f.ctx)
	req, err := http.NewRequestWithContext(ctx, "GET", "http://swarmd"+path, nil)
	if err != nil {
		f.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err = f.http.Do(req)
	if err != nil {
		f.Fatal(err)
	}
	end = func() {
		cancel()
		resp.Body.Close()
	}
	f.Cleanup(end)
	scanner := bufio.NewScanner(resp.Body)
	return func() string {
		f.Helper()
		if !scanner.Scan() {
			f.Fatalf("%s ended: %v", path, scanner.Err())
		}
		return scanner.Text()
	}, resp, end
}

// event is a line of a watch.
type event struct {
	Type     string
	Revision int64
	Object   struct {
		Kind     string
		Metadata v1.Meta
		Title    string
	}
}

func readEvent(t *testing.T, line string) event {
	t.Helper()
	var e event
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return e
}

func TestWatch(t *testing.T) {
	f := serve(t, quick)
	made := f.create(web("one"))
	next, resp, _ := f.lines("/v1/services?watch=true&filter=label=keep")
	if got := resp.Header.Get("Content-Type"); got != "application/x-ndjson" {
		t.Errorf("content type %s", got)
	}
	skip := func() event { // bookmarks
		for {
			if e := readEvent(t, next()); e.Type != "bookmark" {
				return e
			}
		}
	}
	if e := readEvent(t, next()); e.Type != "bookmark" || e.Revision != f.snapshot().Revision() {
		t.Errorf("an empty beginning: %+v", e)
	}
	made.Meta.Labels = map[string]string{"keep": ""}
	made, _, err := client.Update(f.ctx, f.client, v1.Services, made)
	if err != nil {
		t.Fatal(err)
	}
	if e := skip(); e.Type != "put" || e.Object.Metadata.ID != made.Meta.ID || e.Object.Kind != "Service" || e.Revision != made.Meta.Revisions[v1.SectionSpec] {
		t.Errorf("came into sight: %+v", e)
	}
	made.Meta.Labels = nil
	if _, _, err = client.Update(f.ctx, f.client, v1.Services, made); err != nil {
		t.Fatal(err)
	}
	if e := skip(); e.Type != "delete" || e.Object.Metadata.ID != made.Meta.ID {
		t.Errorf("went out of sight: %+v", e)
	}
	other := web("two")
	other.Meta.Labels = map[string]string{"keep": ""}
	other = f.create(other)
	if e := skip(); e.Type != "put" || e.Object.Metadata.Name != "two" {
		t.Errorf("created: %+v", e)
	}
	f.commit(store.Op{Kind: v1.KindService, ID: other.Meta.ID, If: store.Exists()})
	if e := skip(); e.Type != "delete" || e.Object.Metadata.Name != "two" {
		t.Errorf("removed: %+v", e)
	}
	last := f.snapshot().Revision()
	for e := readEvent(t, next()); e.Type != "bookmark" || e.Revision != last; e = readEvent(t, next()) {
		if e.Revision > last {
			t.Fatalf("%+v", e)
		}
	}
}

func TestWatchResumes(t *testing.T) {
	f := serve(t)
	f.create(web("one"))
	after := f.snapshot().Revision()
	f.create(web("two"))
	next, _, _ := f.lines(fmt.Sprintf("/v1/services?watch=true&after=%d", after))
	if e := readEvent(t, next()); e.Type != "put" || e.Object.Metadata.Name != "two" {
		t.Errorf("%+v, want two alone", e)
	}
	for _, gone := range []string{"0", "123456789"} { // before the beginning; of another swarm
		if got := f.do("GET", "/v1/services?watch=true&after="+gone, ""); got.code != http.StatusGone {
			t.Errorf("after %s: %d %s", gone, got.code, got.body)
		}
	}
	if got := f.do("GET", "/v1/watch?after=0", ""); got.code != http.StatusGone || !strings.Contains(got.body, store.ProblemType+"compacted") {
		t.Errorf("raw: %d %s", got.code, got.body)
	}
}

func TestWatchServerSentEvents(t *testing.T) {
	f := serve(t)
	f.create(web("one"))
	next, resp, _ := f.lines("/v1/services?watch=true", "Accept", "text/event-stream")
	if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("content type %s", got)
	}
	if got := next(); got != "event: put" {
		t.Errorf("%q", got)
	}
	if e := readEvent(t, strings.TrimPrefix(next(), "data: ")); e.Object.Metadata.Name != "one" {
		t.Errorf("%+v", e)
	}
	revision := f.snapshot().Revision()
	for _, want := range []string{"", "event: bookmark", fmt.Sprintf(`data: {"type":"bookmark","revision":%d}`, revision), "", fmt.Sprintf("id: %d", revision), ""} {
		if got := next(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	f.create(web("two"))
	next, _, _ = f.lines("/v1/services?watch=true", "Accept", "text/event-stream", "Last-Event-ID", fmt.Sprint(revision))
	next()
	if e := readEvent(t, strings.TrimPrefix(next(), "data: ")); e.Object.Metadata.Name != "two" {
		t.Errorf("after Last-Event-ID: %+v", e)
	}
}

// TestClientWatch loses its connection again and again, and sees each change once.
func TestClientWatch(t *testing.T) {
	f := serve(t, quick)
	f.create(web("web0"))
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	var seen []string
	for e, err := range client.Watch(ctx, f.client, v1.Services, nil, -1) {
		if errors.Is(err, context.Canceled) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, e.Type+" "+e.Object.Meta.Name)
		switch n := len(seen); {
		case n == 10:
			cancel()
		case n%3 == 0: // what needs the store ends, and is there again
			f.server.Detach()
			f.server.Attach(f.store, apiserver.Backing{})
			fallthrough
		default:
			f.create(web(fmt.Sprintf("web%d", n)))
		}
	}
	for i, got := range seen {
		if want := fmt.Sprintf("put web%d", i); got != want {
			t.Errorf("event %d is %q, want %q", i, got, want)
		}
	}
}

func TestTooManyWatches(t *testing.T) {
	f := serve(t, func(o *apiserver.Options) { o.Limits.Watches = 1 })
	next, _, end := f.lines("/v1/services?watch=true")
	next()
	if got := f.do("GET", "/v1/nodes?watch=true", ""); got.code != http.StatusTooManyRequests || got.header.Get("Retry-After") == "" {
		t.Errorf("%d %s", got.code, got.body)
	}
	if got := f.do("GET", "/v1/nodes", ""); got.code != http.StatusOK {
		t.Errorf("a list: %d %s", got.code, got.body)
	}
	end()
	for got := f.do("GET", "/v1/nodes?watch=true&after=0", ""); got.code != http.StatusGone; got = f.do("GET", "/v1/nodes?watch=true&after=0", "") {
		if got.code != http.StatusTooManyRequests {
			t.Fatalf("%d %s", got.code, got.body)
		}
	}
}

func TestEvents(t *testing.T) {
	f := serve(t, quick)
	after := f.snapshot().Revision()
	made := f.create(web("web"))
	*made.Spec.Replicas = 4
	if _, _, err := client.Update(f.ctx, f.client, v1.Services, made); err != nil {
		t.Fatal(err)
	}
	f.commit(nodeOp("node1", 1))
	f.commit(store.Op{Kind: v1.KindNode, ID: "node1", Section: v1.SectionStatus, If: store.Exists(),
		Value: &v1.NodeStatus{State: v1.NodeReady, Description: v1.NodeDescription{Hostname: "host1"}}})
	if err := client.Delete(f.ctx, f.client, v1.Services, "web"); err != nil {
		t.Fatal(err)
	}
	f.commit(store.Op{Kind: v1.KindService, ID: made.Meta.ID, If: store.Exists()}) // no event: it was removed before
	f.create(web("last"))
	for _, c := range []struct {
		filter v1.Filter
		want   []string
	}{
		{nil, []string{"service create web", "service update web replicas 1 4", "node create node1", "node update host1 state unknown ready",
			"service remove web", "service create last"}},
		{v1.Filter{"service": {"web"}}, []string{"service create web", "service update web replicas 1 4", "service remove web"}},
		{v1.Filter{"type": {"node"}, "event": {"update"}}, []string{"node update host1 state unknown ready"}},
	} {
		ctx, cancel := context.WithCancel(f.ctx)
		var got []string
		for e, err := range f.client.Events(ctx, c.filter, after) {
			if err != nil {
				break
			}
			name := e.Attributes["name"]
			if name == "" {
				name = e.ID
			}
			text := e.Type + " " + e.Action + " " + name
			for _, what := range []string{"replicas", "state"} {
				if old, ok := e.Attributes[what+".old"]; ok {
					text += " " + what + " " + old + " " + e.Attributes[what+".new"]
				}
			}
			if e.Time.IsZero() || e.Revision <= after {
				t.Errorf("event %+v", e)
			}
			if got = append(got, text); len(got) == len(c.want) {
				cancel()
			}
		}
		cancel()
		if strings.Join(got, "; ") != strings.Join(c.want, "; ") {
			t.Errorf("%v:\n got %s\nwant %s", c.filter, strings.Join(got, "; "), strings.Join(c.want, "; "))
		}
	}
	if got := f.do("GET", "/v1/events?filter=colour=red", ""); got.code != http.StatusBadRequest {
		t.Errorf("%d %s", got.code, got.body)
	}
}
