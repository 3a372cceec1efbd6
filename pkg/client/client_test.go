package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

func TestNew(t *testing.T) {
	for _, c := range []struct{ host, want string }{
		{"", ""}, {"unix:///run/x.sock", ""}, {"http://127.0.0.1:80", ""}, {"http://[::1]:80", ""}, {"http://localhost:1", ""},
		{"unix://run/x.sock", "want unix:///"}, {"unix://", "want unix:///"}, {"http://127.0.0.1", "loopback"}, {"http://10.0.0.1:80", "loopback"},
		{"tcp://127.0.0.1:2375", "want unix:///"}, {"/run/x.sock", "want unix:///"}, {"%zz", "want unix:///"},
	} {
		_, err := New(c.host)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("host %q: %v, want %q", c.host, err, c.want)
		}
	}
}

func TestNoDaemon(t *testing.T) {
	host := "unix://" + filepath.Join(t.TempDir(), "none.sock")
	c, err := New(host)
	if err != nil {
		t.Fatal(err)
	}
	want := "Cannot connect to the swarmd daemon at " + host + ". Is the swarmd daemon running?"
	_, err = List(t.Context(), c, v1.Services, nil)
	var refused *ConnectError
	if err == nil || err.Error() != want || !errors.As(err, &refused) {
		t.Errorf("%v, want %s", err, want)
	}
	for _, err := range Watch(t.Context(), c, v1.Services, nil, -1) { // a watch that never began does not try for long
		if err == nil || err.Error() != want {
			t.Errorf("watch: %v", err)
		}
	}
	s := c.Store()
	if _, err := s.Sync(t.Context()); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("store: %v, want ErrUnavailable", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Snapshot(t.Context(), 0); !errors.Is(err, store.ErrClosed) {
		t.Errorf("closed store: %v", err)
	}
}

// TestConnectErrorOfPermission: the error says what to do.
func TestConnectErrorOfPermission(t *testing.T) {
	err := &ConnectError{"unix:///x", fmt.Errorf("dial: %w", fs.ErrPermission)}
	if !strings.Contains(err.Error(), "permission denied") || !strings.Contains(err.Error(), "root") {
		t.Error(err)
	}
}

// quiet is where servers write of connections that tests break.
var quiet = log.New(io.Discard, "", 0)

// serve is a client of a handler.
func serve(t *testing.T, h http.HandlerFunc) *Client {
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	c, err := New(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestProblems(t *testing.T) {
	for _, c := range []struct {
		kind, body, want string
		code             int
	}{
		{"application/problem+json", `{"title":"Conflict","status":1,"detail":"update out of sequence"}`, "update out of sequence", 409},
		{"application/problem+json; charset=utf-8", `{"title":"Bad","detail":"x","errors":[{"field":"spec.a","message":"is missing"}]}`, "spec.a: is missing", 400},
		{"application/problem+json", `{broken`, "{broken", 500},
		{"text/html", strings.Repeat("<p>", 5000), strings.Repeat("<p>", 333) + "<", 502},
		{"text/plain", "", "Service Unavailable", 503},
	} {
		client := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", c.kind)
			w.WriteHeader(c.code)
			fmt.Fprint(w, c.body)
		})
		err := client.Do(t.Context(), "GET", "/v1/info", nil, nil)
		if Status(err) != c.code || err.Error() != c.want {
			t.Errorf("%d %v, want %d %s", Status(err), err, c.code, c.want)
		}
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/version" {
			w.Header().Set("Content-Length", "100") // and then ends
		}
		fmt.Fprint(w, "not JSON")
	})
	if _, err := c.Info(t.Context()); err == nil || !strings.Contains(err.Error(), "read the answer") {
		t.Errorf("%v", err)
	}
	if _, err := c.Version(t.Context()); err == nil || !strings.Contains(err.Error(), "read the answer") {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancel(why)
	if _, err := c.Info(ctx); !errors.Is(err, why) {
		t.Errorf("%v, want the context's cause", err)
	}
}

// TestWatchResumesWhereItWas breaks the connection in the middle of a revision; the server repeats that revision.
func TestWatchResumesWhereItWas(t *testing.T) {
	var connections atomic.Int32
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		line := func(typ string, revision int, name string) {
			fmt.Fprintf(w, `{"type":%q,"revision":%d,"object":{"metadata":{"name":%q}}}`+"\n", typ, revision, name)
		}
		switch after := r.URL.Query().Get("after"); connections.Add(1) {
		case 1: // breaks off among what there is
			line("put", 5, "a")
		case 2:
			if after != "" {
				t.Errorf("after %q, want to begin again", after)
			}
			line("put", 5, "a")
			line("bookmark", 5, "")
			line("put", 7, "b")
			line("put", 7, "c")
		case 3:
			if after != "6" {
				t.Errorf("after %q, want 6", after)
			}
			line("put", 7, "b")
			line("put", 7, "c")
			line("delete", 7, "d")
		case 4:
			if after != "6" {
				t.Errorf("after %q, want 6", after)
			}
			line("put", 7, "b")
			line("put", 7, "c")
			line("delete", 7, "d")
			line("bookmark", 9, "")
		default:
			if after != "9" {
				t.Errorf("after %q, want 9", after)
			}
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusGone)
			fmt.Fprint(w, `{"title":"Gone"}`)
		}
	})
	var got []string
	for e, err := range Watch(t.Context(), c, v1.Services, nil, -1) {
		if err != nil {
			if Status(err) != http.StatusGone {
				t.Error(err)
			}
			break
		}
		got = append(got, e.Type+" "+e.Object.Meta.Name)
	}
	if want := "put a, put a, put b, put c, delete d"; strings.Join(got, ", ") != want {
		t.Errorf("%s, want %s", strings.Join(got, ", "), want)
	}
}

// TestBackoffEnds: a watch does not try for ever, and a time without trouble is forgotten.
func TestBackoffEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackoff()
		n := 0
		for b.wait(t.Context()) {
			n++
		}
		if n < 20 || n > 100 {
			t.Errorf("%d tries in a minute", n)
		}
		b.reset()
		if !b.wait(t.Context()) {
			t.Error("a new trouble is given no time")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if b.wait(ctx) {
			t.Error("goes on though its context ended")
		}
	})
}

// TestWhatIsSent: an update sends what the user writes, and its condition.
func TestWhatIsSent(t *testing.T) {
	var sent map[string]any
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		sent = map[string]any{"method": r.Method, "path": r.URL.EscapedPath()}
		json.NewDecoder(r.Body).Decode(&sent)
		fmt.Fprint(w, `{"metadata":{"id":"x"},"warnings":["careful"]}`)
	})
	obj := &v1.Service{Meta: v1.Meta{ID: "a/b", Name: "web", Generation: 4, Revisions: v1.Revisions{7, 8, 9}}, Spec: &v1.ServiceSpec{},
		Desired: &v1.ServiceDesired{}}
	got, warnings, err := Update(t.Context(), c, v1.Services, obj)
	if err != nil || got.Meta.ID != "x" || len(warnings) != 1 {
		t.Errorf("%v %v %v", got, warnings, err)
	}
	text, _ := json.Marshal(sent)
	for _, want := range []string{`"method":"PUT"`, `"path":"/v1/services/a%2Fb"`, `"apiVersion":"swarm/v1"`, `"kind":"Service"`, `"revisions":{"spec":7}`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s lacks %s", text, want)
		}
	}
	for _, not := range []string{"desired", "generation", "createdAt"} {
		if strings.Contains(string(text), not) {
			t.Errorf("%s has %s", text, not)
		}
	}
}
