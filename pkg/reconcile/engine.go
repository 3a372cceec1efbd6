package reconcile

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// Defaults of Options.
const (
	DefaultMaxKeys = 256
	DefaultMaxOps  = 20_000
	DefaultResync  = 10 * time.Minute
)

// Options of an Engine. The zero Options are the defaults.
type Options struct {
	// Logger is told what goes wrong; nil tells nobody.
	Logger *slog.Logger
	// Registry takes the engine's metrics, labelled with the pipeline; engines of the same pipeline share them. Nil measures
	// nothing.
	Registry *prometheus.Registry
	// MaxKeys and MaxOps bound one Step. A key whose own plan is larger than MaxOps is still decided whole.
	MaxKeys int
	MaxOps  int
	// Resync is how often every key is decided again though nothing changed.
	Resync time.Duration
	// Awake is the process's, which outlasts the engine; nil is one that never stands still.
	Awake *Awake
}

// Engine runs the rules of a pipeline, in order, over its keys in a store.
type Engine struct {
	store    store.Store
	pipeline Pipeline
	options  Options
	log      *slog.Logger
	metrics  *metrics
}

// New is an engine for rules that are keyed by service.
func New(s store.Store, rules []Rule, o Options) *Engine {
	return Pipeline{Name: "service", AllKeys: AllKeys, Rules: rules}.Engine(s, o)
}

// Engine is one that runs the pipeline.
func (p Pipeline) Engine(s store.Store, o Options) *Engine {
	if o.MaxKeys <= 0 {
		o.MaxKeys = DefaultMaxKeys
	}
	if o.MaxOps <= 0 {
		o.MaxOps = DefaultMaxOps
	}
	if o.Resync <= 0 {
		o.Resync = DefaultResync
	}
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Engine{store: s, pipeline: p, options: o, log: log.With("pipeline", p.Name), metrics: newMetrics(o.Registry, p.Name)}
}

// Keys are what a change makes worth deciding again, by any rule, sorted and without duplicates. s is a snapshot at the
// change's revision or later.
func (e *Engine) Keys(s *store.Snapshot, c store.Change) []string {
	var keys []string
	for _, r := range e.pipeline.Rules {
		keys = append(keys, r.Keys(s, c)...)
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// AllKeys are the keys of the pipeline of services: the IDs of all services, and of those that are gone but left tasks or
// revisions behind, and of all attachments, sorted.
func AllKeys(s *store.Snapshot) []string {
	keys := make(map[string]struct{}, s.Count(v1.KindService))
	for o := range store.All(s, v1.Services) {
		keys[o.Meta.ID] = struct{}{}
	}
	for r := range store.All(s, v1.ServiceRevisions) {
		keys[r.Spec.Service] = struct{}{}
	}
	for t := range store.All(s, v1.Tasks) {
		keys[t.Desired.Service] = struct{}{}
	}
	for a := range store.All(s, v1.Attachments) {
		keys[a.Meta.ID] = struct{}{}
	}
	return slices.Sorted(maps.Keys(keys))
}

// Step decides the keys in order, each over the uncommitted result of those before, and returns what is to be committed
// under the leader's fence, and when which keys are to be decided again though nothing changes. It is pure: no I/O, no
// clock, no memory; the same arguments give the same result. The operations are right together; of a part of them only
// what Phases allows is right: each may rely on all those of the phases before its own, and on none of its own phase.
//
// Once there are Options.MaxOps operations, the keys that are left are not decided: they are in again, at now.
func (e *Engine) Step(now time.Time, s *store.Snapshot, keys []string) (ops []store.Op, again map[string]time.Time) {
	b := newBatch(e, now, time.Time{}, s)
	for _, key := range keys {
		b.decide(key)
	}
	return b.ops, b.again
}

// Commit writes what Step returned: few operations at once, all or none. Many, or large ones, are cut into parts and written
// phase by phase (see Phases): no phase is begun before the one before it is written whole. If a part fails, by a conflict
// too, other parts of its phase may be written, and nothing of a later phase is. So whatever is left undone, by an error or
// because the process ends, leaves a state to decide from again: no slot forgets which attempts it had, no node has more
// than may be placed on it, and nothing is orphaned.
//
// It returns the highest revision that was written, also with an error. Errors are those of store.CommitAll.
func (e *Engine) Commit(ctx context.Context, ops []store.Op, fence *store.Fence) (int64, error) {
	return commit(ctx, e.store, ops, fence)
}
