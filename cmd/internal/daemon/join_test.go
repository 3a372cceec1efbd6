package daemon

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/apiserver"
	"github.com/swarmd/swarmd/pkg/ca"
)

// TestJoinNotReady: a manager that is not ready yet is asked again; what is said in the end is about that manager, not about this node.
func TestJoinNotReady(t *testing.T) {
	for _, test := range []struct {
		detail, want string
		again        bool
	}{
		{apiserver.NotReadyYet, "is not ready yet", true},
		{"Swarm is encrypted and needs to be unlocked", "which says: Swarm is encrypted", false},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var asked atomic.Int32
		manager := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintf(w, `{"type":%q,"title":"Service Unavailable","status":503,"detail":%q}`, v1.ProblemNotManager, test.detail)
			if asked.Add(1) == 3 {
				cancel()
			}
		}))
		manager.StartTLS()
		defer manager.Close()
		addr := manager.Listener.Addr().String()
		ctx, stop := context.WithTimeout(ctx, enterWithin)
		defer stop()
		_, err := admit(ctx, v1.JoinRequest{RemoteAddrs: []string{addr}}, ca.Token{Digest: "x"}, "")
		if test.again != (asked.Load() > 1) {
			t.Errorf("%s: asked %d times", test.detail, asked.Load())
		}
		if !test.again && (err == nil || !strings.Contains(err.Error(), addr) || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%v, want %q", err, test.want)
		}
		if err := refusedAs(addr, &v1.Problem{Detail: test.detail}); !strings.Contains(err.Error(), addr) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v, want %q", err, test.want)
		}
	}
}
