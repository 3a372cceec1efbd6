package apiserver_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/apiserver"
)

const head = `{"apiVersion":"swarm/v1","kind":"Service","metadata":{"name":"web"},"spec":`

// TestBadInput gives the server what no client should: each is a problem document that says what is wrong, and nothing is
// written.
func TestBadInput(t *testing.T) {
	f := serve(t)
	f.create(web("taken"))
	before := f.snapshot().Revision()
	labels := strings.Builder{}
	for i := range 100_000 {
		fmt.Fprintf(&labels, `"l%d":"",`, i)
	}
	million := `{"apiVersion":"swarm/v1","kind":"Service","metadata":{"name":"web","labels":{` + labels.String() + `"z":""}},"spec":{"task":{"container":{"image":"nginx"}}}}`
	for _, c := range []struct {
		name, method, path, body string
		code                     int
		want                     string
	}{
		{"nothing", "POST", "/v1/services", "", 400, ""},
		{"no JSON", "POST", "/v1/services", "service: web", 400, ""},
		{"YAML bomb", "POST", "/v1/services", "a: &a [x,x]\nb: &b [*a,*a]", 400, ""},
		{"null", "POST", "/v1/services", "null", 400, ""},
		{"list", "POST", "/v1/services", "[]", 400, "a list"},
		{"cut off", "POST", "/v1/services", head + `{"task":`, 400, ""},
		{"trailing", "POST", "/v1/services", head + `{"task":{"container":{"image":"nginx"}}}} {}`, 400, ""},
		{"unknown field", "POST", "/v1/services", head + `{"task":{"container":{"imagee":"nginx"}}}}`, 400, "spec.task.container.imagee"},
		{"wrong type", "POST", "/v1/services", head + `{"replicas":"many","task":{"container":{"image":"nginx"}}}}`, 400, "spec.replicas"},
		{"negative", "POST", "/v1/services", head + `{"replicas":-1,"task":{"container":{"image":"nginx"}}}}`, 400, "spec.replicas"},
		{"twice", "POST", "/v1/services", head + `{"replicas":1,"replicas":2,"task":{"container":{"image":"nginx"}}}}`, 400, "twice"},
		{"no image", "POST", "/v1/services", head + `{"task":{"container":{}}}}`, 400, "spec.task.container.image"},
		{"NUL", "POST", "/v1/services", head + `{"task":{"container":{"image":"nginx","user":"a\u0000b"}}}}`, 400, "NUL"},
		{"bare NUL", "POST", "/v1/services", "\x00" + head, 400, ""},
		{"invalid UTF-8", "POST", "/v1/services", head + "{\"task\":{\"container\":{\"image\":\"\xff\"}}}}", 400, "UTF-8"},
		{"deep", "POST", "/v1/services", strings.Repeat(`{"a":`, 100_000), 400, ""},
		{"no name", "POST", "/v1/services", strings.Replace(head, `"web"`, `"no name"`, 1) + `{"task":{"container":{"image":"nginx"}}}}`, 400, "metadata.name"},
		{"many labels", "POST", "/v1/services", million, 400, "labels"},
		{"another kind", "POST", "/v1/services", strings.Replace(head, "Service", "Secret", 1) + `{"data":"YQ=="}}`, 400, "want Service at /v1/services"},
		{"version", "POST", "/v1/services", strings.Replace(head, "swarm/v1", "v1", 1) + `{}}`, 400, "apiVersion"},
		{"not yet", "POST", "/v1/services", head + `{"task":{"container":{"image":"nginx"},"logDriver":{"name":"syslog"}}}}`, 400, "not supported yet"},
		{"status given", "POST", "/v1/services", head + `{"task":{"container":{"image":"nginx"}}},"status":{}}`, 400, "status"},
		{"too large", "POST", "/v1/services", head + `"` + strings.Repeat("a", v1.MaxManifestSize) + `"}`, 413, fmt.Sprint(v1.MaxManifestSize)},
		{"task", "POST", "/v1/tasks", "{}", 405, "only GET"},
		{"cluster", "DELETE", "/v1/clusters/default", "", 405, ""},
		{"claims", "GET", "/v1/claims", "", 404, ""},
		{"method", "PATCH", "/v1/services/taken", "{}", 405, "PATCH"},
		{"unknown path", "GET", "/v1/pods", "", 404, "/openapi.json"},
		{"singular", "GET", "/v1/service", "", 404, "did you mean /v1/services"},
		{"unknown parameter", "GET", "/v1/services?filtre=name=a", "", 400, "want filter"},
		{"bad query", "GET", "/v1/services?%zz", "", 400, "query"},
		{"limit", "GET", "/v1/services?limit=0", "", 400, "limit"},
		{"limit much", "GET", "/v1/services?limit=1000000", "", 400, "5000"},
		{"limit word", "GET", "/v1/services?limit=all", "", 400, "limit"},
		{"continue", "GET", "/v1/services?continue=%21", "", 400, "continue"},
		{"after without watch", "GET", "/v1/services?after=3", "", 400, "watch=true"},
		{"after", "GET", "/v1/services?watch=true&after=x", "", 400, "after"},
		{"watch", "GET", "/v1/services?watch=perhaps", "", 400, "true or false"},
		{"dry run", "POST", "/v1/services?dryRun=perhaps", head + `{"task":{"container":{"image":"nginx"}}}}`, 400, "true or false"},
		{"resolve", "POST", "/v1/services?resolveImage=perhaps", head + `{"task":{"container":{"image":"nginx"}}}}`, 400, "always, changed, never"},
		{"not there", "GET", "/v1/services/none", "", 404, "service none not found"},
		{"no logs", "GET", "/v1/services/taken/logs", "", 400, "you must choose at least one stream"},
		{"since", "GET", "/v1/services/taken/logs?stdout=1&since=yesterday", "", 400, "since"},
		{"tail", "GET", "/v1/services/taken/logs?stdout=1&tail=some", "", 400, "tail"},
		{"status of no node", "POST", "/v1/nodes/none/status", `{"tasks":[]}`, 404, "node none not found"},
		{"no report", "POST", "/v1/nodes/none/status", `{"task":[]}`, 400, "unknown field"},
		{"no state", "POST", "/v1/nodes/none/status", `{"tasks":[{"id":"a","status":{"state":"happy"}}]}`, 400, "not a task state"},
		{"session of no node", "POST", "/v1/nodes/none/session", `{"description":{}}` + "\n", 404, "node none not found"},
		{"session that ends", "POST", "/v1/nodes/none/session", `{"description":{}}`, 400, "the body ended before"},
		{"session of nothing", "POST", "/v1/nodes/none/session", "\n", 400, ""},
		{"session without a description", "POST", "/v1/nodes/none/session", "{}\n", 400, "has to describe the node"},
		{"endless line", "POST", "/v1/nodes/none/session", strings.Repeat(" ", 1<<20), 413, ""},
		{"no description", "POST", "/v1/nodes/none/session", `[]`, 400, ""},
		{"no stream", "POST", "/v1/nodes/none/streams/x", "", 404, "nobody waits"},
		{"raw commit", "POST", "/v1/commit", `{"ops":[{"kind":"Pod","id":"a","section":"spec"}]}`, 400, "no such kind"},
		{"raw section", "POST", "/v1/commit", `{"ops":[{"kind":"Secret","id":"a","section":"status","value":{}}]}`, 400, "no section"},
		{"raw ID", "POST", "/v1/commit", `{"ops":[{"kind":"Secret","id":"","section":"spec","value":{}}]}`, 400, "ID"},
		{"raw watch", "GET", "/v1/watch", "", 400, "after"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := f.do(c.method, c.path, c.body)
			if got.code != c.code {
				t.Fatalf("%d %s, want %d", got.code, got.body, c.code)
			}
			var p v1.Problem
			if got.header.Get("Content-Type") != "application/problem+json" || json.Unmarshal([]byte(got.body), &p) != nil ||
				p.Status != c.code || p.Title == "" || p.Detail == "" {
				t.Errorf("not a problem document: %v %s", got.header, got.body)
			}
			if !strings.Contains(got.body, c.want) {
				t.Errorf("%s does not say %q", got.body, c.want)
			}
			if len(got.body) > 64<<10 {
				t.Errorf("an answer of %d bytes", len(got.body))
			}
		})
	}
	if f.snapshot().Revision() != before {
		t.Error("bad input was written")
	}
}

// TestHugeBody sends more than is taken, without saying how much it will be.
func TestHugeBody(t *testing.T) {
	f := serve(t)
	for _, announced := range []bool{true, false} {
		body := io.LimitReader(endless{}, 100<<20)
		req, err := http.NewRequestWithContext(f.ctx, "POST", "http://swarmd/v1/services", body)
		if err != nil {
			t.Fatal(err)
		}
		if announced {
			req.ContentLength = 100 << 20
		}
		resp, err := f.http.Do(req)
		if err != nil {
			t.Logf("announced %v: the server hung up on what it does not want: %v", announced, err)
			continue
		}
		data, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(string(data), "2097152") {
			t.Errorf("announced %v: %d %s", announced, resp.StatusCode, data)
		}
	}
	if got := f.do("GET", "/v1/services", ""); got.code != http.StatusOK {
		t.Errorf("afterwards: %d %s", got.code, got.body)
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = ' '
	}
	return len(b), nil
}

// TestSlowBody sends a body that never ends: the server gives up on it.
func TestSlowBody(t *testing.T) {
	f := serve(t, func(o *apiserver.Options) { o.Limits.BodyTimeout = 50 * time.Millisecond })
	conn, err := net.Dial("unix", f.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "POST /v1/services HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusRequestTimeout {
		t.Errorf("%s, want 408", resp.Status)
	}
}

// TestEncodedBody sends a body that would have to be unpacked.
func TestEncodedBody(t *testing.T) {
	f := serve(t)
	if got := f.do("POST", "/v1/services", "x", "Content-Encoding", "gzip"); got.code != http.StatusUnsupportedMediaType {
		t.Errorf("%d %s", got.code, got.body)
	}
}

// TestHugeHeader sends more headers than are taken.
func TestHugeHeader(t *testing.T) {
	f := serve(t)
	if got := f.do("GET", "/v1/services", "", "X-Large", strings.Repeat("a", 100<<10)); got.code != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%d %s", got.code, got.body)
	}
}
