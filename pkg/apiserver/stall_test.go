package apiserver_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/apiserver"
	"github.com/swarmd/swarmd/pkg/store"
)

// stalled is a store that has lost its quorum: commits wait for ever.
type stalled struct{ *store.Memory }

func (stalled) Commit(ctx context.Context, _ store.Commit) (int64, error) {
	<-ctx.Done()
	return 0, context.Cause(ctx)
}

// TestStalledStore: whoever writes to a store that hangs is told so after a while, and reading goes on.
func TestStalledStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := stalled{store.NewMemory()}
		if _, err := st.Memory.Commit(t.Context(), store.Commit{Ops: []store.Op{nodeOp("node1", 1), taskOp("a", "s", "node1", "r", 1)}}); err != nil {
			t.Fatal(err)
		}
		server := apiserver.New(apiserver.Options{Store: st})
		codes := make(chan int)
		for _, c := range [][2]string{
			{"/v1/services", head + `{"task":{"container":{"image":"nginx"}}}}`}, {"/v1/services", head + `{"task":{"container":{"image":"redis"}}}}`},
			{"/v1/nodes/node1/status", `{"tasks":[{"id":"a","status":{"state":"running"}}]}`},
		} {
			go func() {
				rec := httptest.NewRecorder()
				server.Handler().ServeHTTP(rec, httptest.NewRequest("POST", c[0], strings.NewReader(c[1])))
				codes <- rec.Code
			}()
		}
		synctest.Wait()
		rec := httptest.NewRecorder()
		server.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/v1/tasks", nil))
		if rec.Code != http.StatusOK || !strings.Contains(rec.Body.String(), v1.TaskRunning.String()) {
			t.Errorf("reading: %d %s", rec.Code, rec.Body)
		}
		for range 3 {
			if code := <-codes; code != http.StatusGatewayTimeout {
				t.Errorf("%d, want 504", code)
			}
		}
		server.Close()
		st.Close()
	})
}
