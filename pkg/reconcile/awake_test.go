package reconcile

import (
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// TestAwake stops a process by taking its clock forward between two ticks, and by the time of day alone.
func TestAwake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ahead := time.Duration(0)
		a := newAwake(func() time.Time { return time.Now().Add(ahead) })
		go a.Run(t.Context())
		time.Sleep(time.Minute)
		synctest.Wait()
		if since := a.Since(); !since.IsZero() {
			t.Fatalf("awake since %s without a stall", since)
		}
		ahead = stoodStill
		woke := a.Since()
		if want := time.Now().Add(ahead); !woke.Equal(want) {
			t.Errorf("awake since %s, want %s: whoever asks first learns of the stall", woke, want)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if since := a.Since(); !since.Equal(woke) {
			t.Errorf("awake since %s, want %s still", since, woke)
		}
		ahead += awakeTick // late, as on a busy machine
		if since := a.Since(); !since.Equal(woke) {
			t.Errorf("a tick that was late counts as a stall")
		}
	})
	if since := (*Awake)(nil).Since(); !since.IsZero() {
		t.Errorf("no Awake is awake since %s", since)
	}
}

// missing takes every key's service for silent: it makes a task where the process was awake for long enough.
type missing struct{}

func (missing) Name() string { return "missing" }

func (missing) Keys(*store.Snapshot, store.Change) []string { return nil }

func (missing) Decide(_ time.Time, _ *store.Snapshot, key string) Plan {
	return Plan{Awake: 3 * time.Second, Ops: []store.Op{{Kind: v1.KindTask, ID: key, Section: v1.SectionDesired, Value: &v1.TaskDesired{}}}}
}

// TestWhatFollowsFromSilenceWaits holds a plan back until the process was awake for as long as it asks for.
func TestWhatFollowsFromSilenceWaits(t *testing.T) {
	e := New(store.NewMemory(), []Rule{missing{}}, Options{})
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		name  string
		awake time.Time
		again time.Time // zero where it is done
	}{
		{"no stall", time.Time{}, time.Time{}},
		{"just now", now, now.Add(3 * time.Second)},
		{"not for long enough", now.Add(-2 * time.Second), now.Add(time.Second)},
		{"long enough", now.Add(-3 * time.Second), time.Time{}},
	} {
		b := newBatch(e, now, test.awake, store.NewSnapshot())
		b.decide("n1")
		if done := len(b.ops) == 1; done != test.again.IsZero() || !b.again["n1"].Equal(test.again) {
			t.Errorf("%s: %d operations, and again at %s, want %s", test.name, len(b.ops), b.again["n1"], test.again)
		}
	}
}
