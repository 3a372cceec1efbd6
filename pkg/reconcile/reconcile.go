// Package reconcile runs rules: it wakes keys from a watch, shows a rule a fresh enough snapshot, and commits what the
// rule decided under the leader's fence.
//
// A rule is a pure function. The engine owns everything a rule must not have: queue, backoff, clock, retry on conflict,
// the fence, metrics. It never decides anything itself.
//
// Reading order: reconcile.go (what a rule is), engine.go (Step, the pure part), step.go (how plans become one write),
// commit.go (in what order that is written where it is too much for one), run.go and watch.go (Run, the part with
// goroutines), queue.go (what comes when). wake.go is what rules share.
package reconcile

import (
	"time"

	"github.com/swarmd/swarmd/pkg/store"
)

// Rule decides what one key needs, from a snapshot alone. It does no I/O, keeps nothing between calls, and returns no
// error: what cannot be done is written into an object for the user to read.
type Rule interface {
	// Name is that of the rule's folder and of its metrics.
	Name() string
	// Keys are what a change makes worth deciding again: service IDs. It may name too many, never too few.
	Keys(s *store.Snapshot, c store.Change) []string
	// Decide says what the key needs now. Deciding twice on the same snapshot gives the same plan; deciding on the
	// snapshot after a plan gives no further operations.
	Decide(now time.Time, s *store.Snapshot, key string) Plan
}

// Plan is what a rule wants done.
type Plan struct {
	// Ops carry the conditions under which they are right, as a rule: the sections' revisions as the rule saw them.
	Ops []store.Op
	// Again is when the key is to be decided again though nothing changed; zero for never.
	Again time.Time
}
