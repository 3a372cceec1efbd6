package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/store"
)

// laggard is a store that always shows the oldest snapshot that it may, and fails as it is told to.
type laggard struct {
	*store.Memory
	mu        sync.Mutex
	snapshots []*store.Snapshot
	committed int64 // the highest revision that the engine was told
	fail      func(c store.Commit) (err error, after bool)
	watches   []error       // what the first watches end with
	lag       time.Duration // of watches
}

func (l *laggard) Snapshot(ctx context.Context, atLeast int64) (*store.Snapshot, error) {
	newest, err := l.Memory.Snapshot(ctx, atLeast)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.snapshots = append(l.snapshots, newest)
	for _, s := range l.snapshots {
		if s.Revision() >= atLeast {
			return s, nil
		}
	}
	return newest, nil
}

func (l *laggard) Commit(ctx context.Context, c store.Commit) (int64, error) {
	var failure error
	after := false
	if l.fail != nil && c.Fence != nil {
		failure, after = l.fail(c)
	}
	if failure != nil && !after {
		return 0, failure
	}
	revision, err := l.Memory.Commit(ctx, c)
	if failure != nil {
		return 0, failure
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.Fence != nil {
		l.committed = max(l.committed, revision)
	}
	return revision, err
}

func (l *laggard) Watch(ctx context.Context, after int64) iter.Seq2[store.Batch, error] {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.watches) > 0 {
		err := l.watches[0]
		l.watches = l.watches[1:]
		return func(yield func(store.Batch, error) bool) { yield(store.Batch{}, err) }
	}
	return func(yield func(store.Batch, error) bool) {
		for b, err := range l.Memory.Watch(ctx, after) {
			time.Sleep(l.lag) // of the bubble's clock
			if !yield(b, err) {
				return
			}
		}
	}
}

// harness is an engine that runs in a bubble.
type harness struct {
	t      *testing.T
	store  *laggard
	lead   store.Lead
	ended  chan error
	cancel context.CancelFunc
}

func start(t *testing.T, l *laggard, rules []reconcile.Rule, o reconcile.Options) *harness {
	t.Helper()
	lead, err := l.Campaign(t.Context(), "me")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	h := &harness{t, l, lead, make(chan error, 1), cancel}
	e := reconcile.New(l, rules, o)
	go func() { h.ended <- e.Run(ctx, lead) }()
	return h
}

// stop ends the engine, which has to end for no other reason.
func (h *harness) stop() {
	h.t.Helper()
	h.cancel()
	if err := <-h.ended; !errors.Is(err, context.Canceled) {
		h.t.Errorf("the engine ended with %v, want context.Canceled", err)
	}
}

func (h *harness) put(ops ...store.Op) {
	h.t.Helper()
	if _, err := h.store.Commit(h.t.Context(), store.Commit{Ops: ops}); err != nil {
		h.t.Fatal(err)
	}
}

func (h *harness) tasks() int {
	s, err := h.store.Memory.Snapshot(h.t.Context(), 0)
	if err != nil {
		h.t.Fatal(err)
	}
	return s.Count(v1.KindTask)
}

// want waits for as long as the clock of the bubble is told, and then wants that many tasks.
func (h *harness) want(tasks int, within time.Duration) {
	h.t.Helper()
	time.Sleep(within) // of the bubble's clock
	synctest.Wait()
	if got := h.tasks(); got != tasks {
		h.t.Fatalf("after %v there are %d tasks, want %d", within, got, tasks)
	}
}

func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

func TestRunDecidesWhatIsThereAndWhatComes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := &laggard{Memory: store.NewMemory()}
		if _, err := l.Commit(t.Context(), store.Commit{Ops: []store.Op{serviceOp("early", 2)}}); err != nil {
			t.Fatal(err)
		}
		h := start(t, l, []reconcile.Rule{maker{name: "maker"}}, reconcile.Options{})
		h.want(2, 0)
		h.put(serviceOp("late", 3))
		h.want(5, 0) // at once: a small service does not wait
		h.stop()
	})
}

// TestRunNeverShowsAnOldSnapshot uses a store that shows the oldest snapshot it may.
func TestRunNeverShowsAnOldSnapshot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := &laggard{Memory: store.NewMemory()}
		before, _ := l.Snapshot(t.Context(), 0) // an old one, to be offered
		if _, err := l.Commit(t.Context(), store.Commit{Ops: []store.Op{serviceOp("web", 1)}}); err != nil {
			t.Fatal(err)
		}
		lead := before.Revision() + 1
		h := start(t, l, []reconcile.Rule{maker{name: "maker", seen: func(s *store.Snapshot, _ string) {
			l.mu.Lock()
			defer l.mu.Unlock()
			if s.Revision() < max(l.committed, lead) {
				t.Errorf("shown revision %d after a commit at %d and a lead taken at %d", s.Revision(), l.committed, lead)
			}
		}}}, reconcile.Options{})
		for i := range 20 {
			h.put(serviceOp("web", uint64(i+1)))
			h.want(i+1, time.Second)
		}
		h.stop()
	})
}

// TestRunShowsItsOwnCommits decides one service after the other while the watch has told of nothing yet.
func TestRunShowsItsOwnCommits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := &laggard{Memory: store.NewMemory(), lag: time.Hour}
		var ops []store.Op
		for i := range 10 {
			ops = append(ops, serviceOp(fmt.Sprint("web", i), 1))
		}
		if _, err := l.Commit(t.Context(), store.Commit{Ops: ops}); err != nil {
			t.Fatal(err)
		}
		shown := 0
		h := start(t, l, []reconcile.Rule{maker{name: "maker", seen: func(s *store.Snapshot, key string) {
			if got := s.Count(v1.KindTask); got != shown {
				t.Errorf("%s is shown %d tasks, and %d were committed", key, got, shown)
			}
			shown++
		}}}, reconcile.Options{MaxKeys: 1})
		h.want(10, time.Second)
		h.stop()
	})
}

func TestRunDecidesAgainAfterFailures(t *testing.T) {
	for name, failure := range map[string]error{"conflict": store.ErrConflict, "unavailable": store.ErrUnavailable,
		"too large": store.ErrTooLarge, "unknown": errors.New("disk on fire")} {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, written %t", name, after), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					failures := 0
					l := &laggard{Memory: store.NewMemory()}
					l.fail = func(store.Commit) (error, bool) {
						if failures++; failures > 5 {
							return nil, false
						}
						return failure, after
					}
					h := start(t, l, []reconcile.Rule{maker{name: "maker"}}, reconcile.Options{})
					h.put(serviceOp("web", 4))
					h.want(4, time.Minute)
					h.stop()
				})
			})
		}
	}
}

// TestRunSparesOthersAKeyThatFails has one service whose commits never succeed.
func TestRunSparesOthersAKeyThatFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := &laggard{Memory: store.NewMemory()}
		tried := 0
		l.fail = func(c store.Commit) (error, bool) {
			for _, op := range c.Ops {
				if d, ok := op.Value.(*v1.TaskDesired); ok && d.Service == "bad" {
					tried++
					return store.ErrConflict, false
				}
			}
			return nil, false
		}
		ops := []store.Op{serviceOp("bad", 1)}
		for i := range 20 {
			ops = append(ops, serviceOp(fmt.Sprint("good", i), 1))
		}
		if _, err := l.Commit(t.Context(), store.Commit{Ops: ops}); err != nil {
			t.Fatal(err)
		}
		h := start(t, l, []reconcile.Rule{maker{name: "maker"}}, reconcile.Options{})
		h.want(20, 10*time.Minute)
		if tried < 5 || tried > 100 {
			t.Errorf("the bad service was tried %d times in ten minutes, want it to back off and not to be given up", tried)
		}
		h.stop()
	})
}

func TestRunSurvivesPanics(t *testing.T) {
	bubble(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		panics := 0
		rule := maker{name: "maker", seen: func(_ *store.Snapshot, key string) {
			if key == "bad" && panics < 3 {
				panics++
				panic("a rule is wrong")
			}
		}}
		l := &laggard{Memory: store.NewMemory()}
		h := start(t, l, []reconcile.Rule{rule}, reconcile.Options{Registry: registry})
		h.put(serviceOp("bad", 1), serviceOp("good", 1))
		h.want(2, time.Minute)
		if got := value(t, registry, "swarm_reconcile_errors_total"); got != 3 {
			t.Errorf("swarm_reconcile_errors_total is %v, want 3", got)
		}
		h.stop()
	})
}

func TestRunEndsWithTheLead(t *testing.T) {
	t.Run("deposed", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			l := &laggard{Memory: store.NewMemory()}
			h := start(t, l, []reconcile.Rule{maker{name: "maker"}}, reconcile.Options{})
			synctest.Wait()
			l.Depose()
			if err := <-h.ended; !errors.Is(err, store.ErrFenced) {
				t.Errorf("got %v, want ErrFenced", err)
			}
		})
	})
	t.Run("fenced", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			l := &laggard{Memory: store.NewMemory()}
			l.fail = func(store.Commit) (error, bool) { return store.ErrFenced, false }
			h := start(t, l, []reconcile.Rule{maker{name: "maker"}}, reconcile.Options{})
			h.put(serviceOp("web", 1))
			if err := <-h.ended; !errors.Is(err, store.ErrFenced) {
				t.Errorf("got %v, want ErrFenced", err)
			}
			if h.tasks() != 0 {
				t.Error("something was written after the lead was lost")
			}
		})
	})
	t.Run("closed", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			l := &laggard{Memory: store.NewMemory()}
			h := start(t, l, []reconcile.Rule{maker{name: "maker"}}, reconcile.Options{})
			synctest.Wait()
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			if err := <-h.ended; !errors.Is(err, store.ErrClosed) && !errors.Is(err, store.ErrFenced) {
				t.Errorf("got %v, want ErrClosed, or ErrFenced where the lead is seen to go first", err)
			}
		})
	})
}

func TestRunGoesOnAfterTheWatchBreaks(t *testing.T) {
	for _, broken := range []error{store.ErrCompacted, store.ErrUnavailable} {
		t.Run(broken.Error(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				l := &laggard{Memory: store.NewMemory(), watches: []error{broken, broken}}
				h := start(t, l, []reconcile.Rule{maker{name: "maker"}}, reconcile.Options{})
				h.put(serviceOp("web", 2)) // perhaps while nobody watches
				h.want(2, time.Second)
				h.put(serviceOp("web", 3))
				h.want(3, time.Second)
				h.stop()
			})
		})
	}
}

// quiet is a rule that nothing wakes.
type quiet struct{ maker }

func (quiet) Keys(*store.Snapshot, store.Change) []string { return nil }

func TestRunDecidesEverythingNowAndThen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := &laggard{Memory: store.NewMemory()}
		h := start(t, l, []reconcile.Rule{quiet{maker{name: "quiet"}}}, reconcile.Options{})
		synctest.Wait()
		h.put(serviceOp("web", 1))
		h.want(0, reconcile.DefaultResync-time.Second)
		h.want(1, 2*time.Second)
		h.stop()
	})
}

// dear is a rule that wants to know of tasks too, takes its time, and counts how often it is asked.
type dear struct {
	maker
	cost  time.Duration
	count *atomic.Int64
}

func (d dear) Keys(s *store.Snapshot, c store.Change) []string {
	if t, ok := reconcile.TaskOf(c); ok {
		return []string{t.Service()}
	}
	if c.Kind == v1.KindNode {
		return reconcile.AllKeys(s)
	}
	return d.maker.Keys(s, c)
}

func (d dear) Decide(now time.Time, s *store.Snapshot, key string) reconcile.Plan {
	d.count.Add(1)
	time.Sleep(d.cost)
	return d.maker.Decide(now, s, key)
}

// TestRunHoldsWhatIsDear tells a service a thousand times of its task, which is dear to decide. What the user asks for
// meanwhile is decided at once.
func TestRunHoldsWhatIsDear(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var count atomic.Int64
		l := &laggard{Memory: store.NewMemory()}
		h := start(t, l, []reconcile.Rule{dear{maker{name: "dear"}, 50 * time.Millisecond, &count}}, reconcile.Options{})
		h.put(serviceOp("web", 1))
		h.want(1, time.Second)
		for i := range 1000 {
			h.put(store.Op{Kind: v1.KindTask, ID: v1.TaskID("web", "1", 1), Section: v1.SectionStatus,
				Value: &v1.TaskStatus{State: v1.TaskRunning, Message: fmt.Sprint(i)}})
			time.Sleep(2 * time.Millisecond)
		}
		if n := count.Load(); n < 3 || n > 7 {
			t.Errorf("decided %d times in three seconds at 50 ms each", n)
		}
		h.put(serviceOp("web", 7))
		h.want(7, 101*time.Millisecond)
		h.stop()
	})
}

// TestRunHurriesWhenNodesAreLost has the same service, of which a node is lost meanwhile, or drained; that a node says
// something else of itself can wait.
func TestRunHurriesWhenNodesAreLost(t *testing.T) {
	node := func(section v1.Section, value any) store.Op {
		op := store.Op{Kind: v1.KindNode, ID: "n1", Section: section, Value: value, If: store.Always()}
		if section == v1.SectionSpec {
			op.Meta = &v1.Meta{ID: "n1"}
		}
		return op
	}
	for _, test := range []struct {
		name  string
		op    store.Op
		waits bool
	}{
		{"lost", node(v1.SectionDesired, &v1.NodeDesired{Down: time.Now()}), false},
		{"drained", node(v1.SectionSpec, &v1.NodeSpec{Availability: v1.AvailabilityDrain}), false},
		{"removed", node(v1.SectionSpec, nil), false},
		{"described", node(v1.SectionStatus, &v1.NodeStatus{State: v1.NodeReady}), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var count atomic.Int64
				h := start(t, &laggard{Memory: store.NewMemory()}, []reconcile.Rule{dear{maker{name: "dear"}, 50 * time.Millisecond, &count}},
					reconcile.Options{})
				h.put(node(v1.SectionSpec, &v1.NodeSpec{}))
				h.put(serviceOp("web", 1))
				h.want(1, time.Second)
				h.put(serviceOp("web", 1))
				time.Sleep(60 * time.Millisecond) // from now on it is held for half a second
				before := count.Load()
				h.put(test.op)
				time.Sleep(110 * time.Millisecond)
				if waits := count.Load() == before; waits != test.waits {
					t.Errorf("the service waits: %v, want %v", waits, test.waits)
				}
				h.stop()
			})
		})
	}
}

// TestPipelinesShareARegistry has a pipeline of other keys beside that of services: each begins with its own keys, and
// measures for itself.
func TestPipelinesShareARegistry(t *testing.T) {
	bubble(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		l := &laggard{Memory: store.NewMemory()}
		lead, err := l.Campaign(t.Context(), "me")
		if err != nil {
			t.Fatal(err)
		}
		seen := make(map[string]int)
		rule := maker{name: "maker", seen: func(_ *store.Snapshot, key string) { seen[key]++ }}
		letters := reconcile.Pipeline{Name: "letter", Rules: []reconcile.Rule{rule},
			AllKeys: func(*store.Snapshot) []string { return []string{"a", "b"} }}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		for _, e := range []*reconcile.Engine{letters.Engine(l, reconcile.Options{Registry: registry}),
			reconcile.New(l, []reconcile.Rule{maker{name: "maker"}}, reconcile.Options{Registry: registry})} {
			go func() { ended <- e.Run(ctx, lead) }()
		}
		if _, err := l.Commit(t.Context(), store.Commit{Ops: []store.Op{serviceOp("web", 5)}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		cancel()
		<-ended
		<-ended
		if seen["a"] != 1 || seen["b"] != 1 {
			t.Errorf("the letters decided %v, want a and b once", seen)
		}
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		pipelines := make(map[string]bool)
		for _, f := range families {
			for _, m := range f.GetMetric() {
				for _, l := range m.GetLabel() {
					if l.GetName() == "pipeline" {
						pipelines[l.GetValue()] = true
					}
				}
			}
		}
		if len(pipelines) != 2 || !pipelines["letter"] || !pipelines["service"] {
			t.Errorf("measured are the pipelines %v, want letter and service", pipelines)
		}
	})
}

// TestRunLetsFreshChangesPass has many services to look at from the start, and one that changes meanwhile.
func TestRunLetsFreshChangesPass(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var ops []store.Op
		for i := range 100 {
			ops = append(ops, serviceOp(fmt.Sprintf("old%03d", i), 0))
		}
		l := &laggard{Memory: store.NewMemory()}
		if _, err := l.Commit(t.Context(), store.Commit{Ops: ops}); err != nil {
			t.Fatal(err)
		}
		var order []string
		rule := maker{name: "maker", seen: func(_ *store.Snapshot, key string) {
			time.Sleep(time.Millisecond)
			order = append(order, key)
		}}
		h := start(t, l, []reconcile.Rule{rule}, reconcile.Options{MaxKeys: 1})
		time.Sleep(10*time.Millisecond + 500*time.Microsecond)
		h.put(serviceOp("fresh", 1))
		h.want(1, 3*time.Second)
		h.stop()
		if at := slices.Index(order, "fresh"); at > 15 {
			t.Errorf("the fresh service was decided after %d others", at)
		}
		if len(order) < 101 {
			t.Errorf("decided %d services, want all", len(order))
		}
	})
}

func TestRunCanBeCalledAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		l := &laggard{Memory: store.NewMemory()}
		e := reconcile.New(l, []reconcile.Rule{maker{name: "maker"}}, reconcile.Options{Registry: registry})
		for i := range 3 {
			lead, err := l.Campaign(t.Context(), "me")
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error)
			go func() { ended <- e.Run(t.Context(), lead) }()
			if _, err := l.Commit(t.Context(), store.Commit{Ops: []store.Op{serviceOp("web", uint64(i+1))}}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			synctest.Wait()
			if s, _ := l.Memory.Snapshot(t.Context(), 0); s.Count(v1.KindTask) != i+1 {
				t.Errorf("lead %d: %d tasks, want %d", i, s.Count(v1.KindTask), i+1)
			}
			l.Depose()
			<-ended
		}
		if got := value(t, registry, "swarm_store_keys_written_total"); got != 3 {
			t.Errorf("swarm_store_keys_written_total is %v, want 3", got)
		}
		for _, name := range []string{"workqueue_depth", "workqueue_adds_total", "swarm_reconcile_duration_seconds"} {
			value(t, registry, name)
		}
	})
}

// value is a metric's, summed over its labels; for a histogram it is 0.
func value(t *testing.T, registry *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
			return sum
		}
	}
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	t.Errorf("no metric %s among %s", name, strings.Join(names, " "))
	return 0
}
