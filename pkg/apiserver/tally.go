package apiserver

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// How many lines a minute the audit log has of one kind; of the rest it has one line that counts them, so that nobody pushes out of
// the log what matters. What root does, what users do and who was let in is told in any case.
const (
	maxStrangerLines = 10 // refused, of all callers without an identity together
	maxNodeRefused   = 10 // of one node
	maxNodeDone      = 60 // of one node
	maxUserRefused   = 60 // of one user
	// maxTallied is how many callers are told apart, and maxTalliedFrom how many addresses of each.
	maxTallied, maxTalliedFrom = 4096, 4096
)

// tally counts the lines of one window of time.
type tally struct {
	now func() time.Time

	mu    sync.Mutex
	since time.Time
	of    map[string]*tallied
	timer *time.Timer
}

// tallied are the lines of one kind.
type tallied struct {
	lines, more int
	from        map[string]struct{}
	first       v1.AuditRecord // of those that are only counted
}

func newTally(now func() time.Time) *tally { return &tally{now: now, of: make(map[string]*tallied)} }

// bound is what a record is counted by, and how many of it have a line; 0 for all.
func bound(r *v1.AuditRecord) (key string, most int) {
	refused := r.Status >= http.StatusBadRequest
	switch callerKind(r.Who.Kind) {
	case callerNobody:
		if refused {
			return "stranger", maxStrangerLines
		}
	case callerNode:
		if refused {
			return "refused node " + r.Who.Name, maxNodeRefused
		}
		return "node " + r.Who.Name, maxNodeDone
	case callerUser:
		if refused {
			return "refused user " + r.Who.Name, maxUserRefused
		}
	}
	return "", 0
}

// add tells whether a record has a line of its own, and returns the lines that are due for those that had none. due is called when
// there will be others, a window after its first.
func (t *tally) add(r *v1.AuditRecord, due func()) (own bool, counted []*v1.AuditRecord) {
	key, most := bound(r)
	if most == 0 {
		return true, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.now().Sub(t.since) >= tryWindow {
		counted = t.counted()
	}
	k := t.of[key]
	if k == nil {
		if len(t.of) >= maxTallied {
			key = "others"
			k = t.of[key]
		}
		if k == nil {
			k = &tallied{from: make(map[string]struct{})}
			t.of[key] = k
		}
	}
	if k.lines < most {
		k.lines++
		return true, counted
	}
	if k.more++; k.more == 1 {
		k.first = *r
	}
	if len(k.from) < maxTalliedFrom {
		k.from[r.From] = struct{}{}
	}
	if t.timer == nil {
		t.timer = time.AfterFunc(tryWindow, due)
	}
	return false, counted
}

// end begins a new window, and returns the lines that count those of the old one.
func (t *tally) end() []*v1.AuditRecord {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.counted()
}

func (t *tally) counted() []*v1.AuditRecord {
	var lines []*v1.AuditRecord
	for _, k := range t.of {
		if k.more == 0 {
			continue
		}
		line := k.first
		line.Time, line.Query, line.Kind, line.ID, line.Name, line.Revision = t.now().UTC(), "", "", "", "", 0
		word := "refused"
		if line.Status < http.StatusBadRequest {
			word = "like it"
		}
		line.Error = fmt.Sprintf("and %d more %s", k.more, word)
		if len(k.from) > 1 {
			line.From = ""
			line.Error += fmt.Sprintf(" from %d addresses", len(k.from))
		}
		lines = append(lines, &line)
	}
	clear(t.of)
	t.since = t.now()
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
	return lines
}
