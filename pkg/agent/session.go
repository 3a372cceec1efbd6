package agent

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff is a delay that doubles, with jitter so that a thousand agents do not come back at the same moment.
type backoff struct {
	first, most, next time.Duration
}

func (b *backoff) reset() { b.next = 0 }

func (b *backoff) delay() time.Duration {
	b.next = min(max(2*b.next, b.first), b.most)
	return b.next/2 + rand.N(b.next/2+1)
}

// sleep waits, or tells that ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// keepSession holds a session with a manager, and opens the next whenever one is lost. Nothing else depends on there
// being one.
func (a *Agent) keepSession(ctx context.Context) {
	wait := backoff{first: 100 * time.Millisecond, most: 8 * time.Second}
	away := false
	for ctx.Err() == nil {
		began, opened := time.Now(), false
		var lost error
		for m, err := range a.o.Manager.Session(ctx, a.o.Describe) {
			if err != nil {
				lost = err
				break
			}
			if !opened {
				opened = true
				a.log.Info("session opened", "revision", m.Revision, "tasks", len(m.Tasks))
			}
			if !a.post(func() { a.assign(m) }) {
				return
			}
		}
		if ctx.Err() != nil {
			return
		}
		if opened || !away {
			a.log.Warn("session lost; tasks go on, trying again", "err", lost)
		}
		away = true
		if time.Since(began) > wait.most {
			wait.reset()
		}
		sleep(ctx, wait.delay())
	}
}
