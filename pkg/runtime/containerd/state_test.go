package containerd

import (
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/swarmd/swarmd/pkg/runtime"
)

// TestEndedUnseen: nobody knows when a container ended whose shim went with it, as when the machine loses its power.
func TestEndedUnseen(t *testing.T) {
	r := &Runtime{paths: paths{root: t.TempDir(), name: "swarmd-test"}}
	if err := os.MkdirAll(r.paths.in("marks"), 0o700); err != nil {
		t.Fatal(err)
	}
	started := time.Now().Add(-time.Hour).UTC()
	if err := r.paths.writeMark("t1", mark{Started: started}); err != nil {
		t.Fatal(err)
	}
	kept, err := json.Marshal(meta{Owner: r.paths.name})
	if err != nil {
		t.Fatal(err)
	}
	record := containers.Container{ID: "t1", Extensions: map[string]typeurl.Any{extension: &anypb.Any{TypeUrl: extension, Value: kept}}}
	s, ok := r.state(record, nil)
	if !ok || s.Status != runtime.Ended || s.ExitCode != lostCode || !s.Started.Equal(started) || !s.Ended.IsZero() {
		t.Errorf("it is %+v", s)
	}
}
