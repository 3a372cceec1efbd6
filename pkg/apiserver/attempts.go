package apiserver

import (
	"net/http"
	"sync"
	"time"
)

// Limits of failed tries to be let in, for each address.
const (
	maxTries  = 20
	tryWindow = time.Minute
	// maxTriers is how many addresses are remembered. When there are more, the oldest is forgotten.
	maxTriers = 4096
)

// attempts counts failures, so that guessing and flooding are slow. It never holds up who gives what is right from elsewhere.
type attempts struct {
	most int

	mu   sync.Mutex
	now  func() time.Time
	from map[string]*failures
}

// failures are those of one window of time.
type failures struct {
	since time.Time
	count int
}

func newAttempts(most int, now func() time.Time) *attempts {
	return &attempts{most: most, now: now, from: make(map[string]*failures)}
}

// allow refuses who failed too often.
func (t *attempts) allow(who string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f := t.from[who]; f != nil && f.count >= t.most && t.now().Sub(f.since) < tryWindow {
		return problemf(http.StatusTooManyRequests, "too many failed tries from this address: wait for %s", tryWindow)
	}
	return nil
}

// failed notes a failure.
func (t *attempts) failed(who string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	f := t.from[who]
	if f == nil {
		if len(t.from) >= maxTriers {
			t.forget()
		}
		f = &failures{since: now}
		t.from[who] = f
	}
	if now.Sub(f.since) >= tryWindow {
		*f = failures{since: now}
	}
	f.count++
}

// forget makes room: for all whose time is over, or else for the oldest.
func (t *attempts) forget() {
	oldest := ""
	for who, f := range t.from {
		if t.now().Sub(f.since) >= tryWindow {
			delete(t.from, who)
			continue
		}
		if oldest == "" || f.since.Before(t.from[oldest].since) {
			oldest = who
		}
	}
	if len(t.from) >= maxTriers {
		delete(t.from, oldest)
	}
}
