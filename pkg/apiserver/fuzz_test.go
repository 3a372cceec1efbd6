package apiserver_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/swarmd/swarmd/pkg/apiserver"
	"github.com/swarmd/swarmd/pkg/store"
)

// FuzzBodies gives the doors that take bodies any body: the answer is never an internal error.
func FuzzBodies(f *testing.F) {
	for _, body := range []string{
		head + `{"task":{"container":{"image":"nginx"}}}}`, `{"tasks":[{"id":"a","status":{"state":"running"}}]}`,
		`{"ops":[{"kind":"Task","id":"a","section":"desired","value":{"state":"running"},"if":"always"},{"kind":"Node","id":"n","section":"spec","value":{}}]}`,
		`{"ops":[{"kind":"Secret","id":"a","section":"spec","value":null,"meta":{"revisions":{"spec":3}},"if":"revision","revision":-1}],"fence":{"key":"k"}}`,
		`{"apiVersion":"swarm/v1","kind":"Node","metadata":{"id":"a"},"spec":{"index":1}}`, `{"hostname":"h"}`, "null", "[", "\x00",
	} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		st := store.NewMemory()
		defer st.Close()
		server := apiserver.New(apiserver.Options{Store: st})
		defer server.Close()
		for _, path := range []string{
			"POST /v1/services", "PUT /v1/services/web", "POST /v1/nodes", "POST /v1/secrets", "POST /v1/commit", "POST /v1/nodes/a/status",
			"GET /v1/services", "GET /v1/tasks", "GET /v1/snapshot", "GET /v1/services:status", "GET /metrics",
		} {
			method, target, _ := strings.Cut(path, " ")
			rec := httptest.NewRecorder()
			server.Handler().ServeHTTP(rec, httptest.NewRequest(method, target, strings.NewReader(body)))
			if rec.Code >= 500 {
				t.Errorf("%s with %q: %d %s", path, body, rec.Code, rec.Body)
			}
		}
	})
}
