// Package reconcile runs rules: it wakes keys from a watch, shows a rule a fresh enough snapshot, and commits what the
// rule decided under the leader's fence.
//
// A rule is a pure function. The engine owns everything a rule must not have: queue, backoff, clock, retry on conflict,
// the fence, metrics. It never decides anything itself.
//
// Reading order: reconcile.go (what a rule is), engine.go (Step, the pure part), step.go (how plans become one write),
// commit.go (in what order that is written where it is too much for one), run.go and watch.go (Run, the part with
// goroutines), queue.go (what comes when), awake.go (when the process stood still). wake.go is what rules share.
package reconcile

import (
	"time"

	"github.com/swarmd/swarmd/pkg/store"
)

// Pipeline is rules that decide about the same things, such as services, one after another, each over the uncommitted result
// of the one before. Pipelines know nothing of each other: what one commits, another hears of as everybody does. No two write
// the same section of an object.
type Pipeline struct {
	// Name is what the keys are IDs of, in lower case, for metrics and logs: service, node.
	Name string
	// AllKeys are all that there is to decide about in a snapshot, sorted. They may be more than there are objects: what is gone
	// may have left something behind.
	AllKeys func(*store.Snapshot) []string
	Rules   []Rule
}

// Rule decides what one key needs, from a snapshot alone. It does no I/O, keeps nothing between calls, and returns no
// error: what cannot be done is written into an object for the user to read.
type Rule interface {
	// Name is that of the rule's folder and of its metrics.
	Name() string
	// Keys are what a change makes worth deciding again: of the keys of the rule's pipeline. It may name too many, never too
	// few.
	Keys(s *store.Snapshot, c store.Change) []string
	// Decide says what the key needs now. Deciding twice on the same snapshot gives the same plan; deciding on the
	// snapshot after a plan gives no further operations. The snapshot may hold what is not committed yet, and of that only a
	// part may ever be: what must not have two holders is taken only where it is free in its Stored, too.
	Decide(now time.Time, s *store.Snapshot, key string) Plan
}

// Plan is what a rule wants done.
type Plan struct {
	// Ops carry the conditions under which they are right, as a rule: the sections' revisions as the rule saw them.
	Ops []store.Op
	// Again is when the key is to be decided again though nothing changed; zero for never.
	Again time.Time
	// Awake is for how long the process must have been awake for the operations to be right, where they follow from somebody's
	// silence. Where it was not, they are not done, and the key is decided again once it was.
	Awake time.Duration
}
