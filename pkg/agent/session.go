package agent

import (
	"context"
	"math/rand/v2"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
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

// mostSessionWait is the longest time between two attempts to open a session: a heartbeat's period, so that once a manager can
// be reached the node is back before it is missed.
func mostSessionWait(period time.Duration) time.Duration {
	return min(max(period, v1.DefaultHeartbeatPeriod), 8*time.Second)
}

// keepSession holds a session with a manager, and opens the next whenever one is lost. Nothing else depends on there
// being one.
func (a *Agent) keepSession(ctx context.Context) {
	wait := backoff{first: 100 * time.Millisecond, most: mostSessionWait(v1.DefaultHeartbeatPeriod)}
	away := false
	for ctx.Err() == nil {
		began, opened := time.Now(), false
		var lost error
		for m, err := range a.o.Manager.Session(ctx, a.describe) {
			if err != nil {
				lost = err
				break
			}
			if !opened {
				opened = true
				a.log.Info("session opened", "revision", m.Revision, "tasks", len(m.Tasks))
			}
			if m.Swarm != nil {
				wait.most = mostSessionWait(time.Duration(m.Swarm.Heartbeat))
			}
			if !a.post(func() { a.assign(m) }) {
				return
			}
		}
		if ctx.Err() != nil || opened && !a.post(a.part) {
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
