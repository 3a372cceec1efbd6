package reconcile

import (
	"context"
	"sync"
	"time"
)

const (
	// awakeTick is how often it is noted that this process runs.
	awakeTick = 250 * time.Millisecond
	// stoodStill is how long nothing may be noted before the process counts as having stood still: a heartbeat, of which a
	// node is waited for at least two more.
	stoodStill = time.Second
)

// Awake knows since when this process has run without a stall. A process stands still when it is stopped, when its machine is paused or
// copied, or when nothing on it gets on: what others said meanwhile it could not hear, and that time counts for nobody's silence.
// A nil Awake knows of no stall.
type Awake struct {
	clock func() time.Time

	mu    sync.Mutex
	last  time.Time // when it was noted last that the process runs
	since time.Time // the end of the latest stall; zero before the first
}

// NewAwake is an Awake that has seen no stall yet. Run has to go on beside it.
func NewAwake() *Awake { return newAwake(time.Now) }

func newAwake(clock func() time.Time) *Awake { return &Awake{clock: clock, last: clock()} }

// Run notes that the process runs, until ctx ends.
func (a *Awake) Run(ctx context.Context) {
	ticker := time.NewTicker(awakeTick)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			a.Since()
		case <-ctx.Done():
			return
		}
	}
}

// Since is when the latest stall ended, or zero. It notes that the process runs, too: whoever comes first after a stall learns of
// it, whatever else wakes at the same time.
func (a *Awake) Since() time.Time {
	if a == nil {
		return time.Time{}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.clock()
	// A machine that slept or was paused may show it in the time of day alone. Who sets that forward costs a little patience.
	if max(now.Sub(a.last), now.Round(0).Sub(a.last.Round(0))) >= stoodStill {
		a.since = now
	}
	a.last = now
	return a.since
}
