package dnsplugin

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestTableClones: whatever is done to a table, each of its clones holds what it did when it was made, also while others read it.
func TestTableClones(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	table, model := new(Table[int]), map[string]int{}
	var reading sync.WaitGroup
	for step := range 100 {
		for range 20 {
			key := fmt.Sprint(random.IntN(1000))
			if random.IntN(3) == 0 {
				table.Delete(key)
				delete(model, key)
			} else {
				table.Set(key, step)
				model[key] = step
			}
		}
		clone, want := table.Clone(), maps.Clone(model)
		reading.Go(func() {
			if diff := cmp.Diff(want, maps.Collect(clone.All())); diff != "" {
				t.Errorf("clone %d (-want +got):\n%s", step, diff)
			}
			for key, v := range want {
				if got, ok := clone.Get(key); !ok || got != v {
					t.Errorf("clone %d: %s is %d, %t, want %d", step, key, got, ok, v)
				}
			}
		})
	}
	reading.Wait()
	var none *Table[int]
	if _, ok := none.Get("a"); ok || len(maps.Collect(none.All())) > 0 {
		t.Error("a nil table has something")
	}
}
