package cli

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// TestOfEachNode: many nodes are asked at a time, and no more than so many; what came of each is in its place.
func TestOfEachNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int32
		began := time.Now()
		nodes := make([]*v1.Node, 3*volumesAtOnce)
		errs := ofEach(nodes, func(i int) error {
			defer now.Add(-1)
			if n := now.Add(1); n > most.Load() {
				most.Store(n)
			}
			time.Sleep(time.Second)
			if i%2 == 0 {
				return nil
			}
			return fmt.Errorf("%d", i)
		})
		if took := time.Since(began); took != 3*time.Second || most.Load() > volumesAtOnce {
			t.Errorf("%d nodes took %s, %d at a time", len(nodes), took, most.Load())
		}
		for i, err := range errs {
			if i%2 == 0 && err != nil || i%2 == 1 && (err == nil || err.Error() != fmt.Sprint(i)) {
				t.Errorf("node %d: %v", i, err)
			}
		}
		if errors.Join(ofEach(nil, nil)...) != nil {
			t.Error("nobody was asked, and somebody answered")
		}
	})
}
