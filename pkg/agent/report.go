package agent

import (
	"cmp"
	"context"
	"slices"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// reporter is what the manager has not confirmed yet: a set of tasks, so that its size is bounded by theirs and the latest
// state of each wins.
type reporter struct {
	pending map[string]*task
	sending bool
	at      time.Time // when to look what can be sent; zero for nothing
	retry   time.Time // no report before
	wait    backoff
	turn    uint64
	size    int // of a report; less after a failure, so that one that is refused does not hold up all
}

const (
	// reportTimeout bounds one report.
	reportTimeout = 30 * time.Second
	// unknownDelay is until a task that the manager did not know is reported again.
	unknownDelay = 5 * time.Second
)

// tell has a task's status reported. That it runs, or has ended, is told soon: others go by it.
func (a *Agent) tell(t *task) {
	t.version++
	a.reports.pending[t.id] = t
	delay := batchDelay
	if t.status.State >= v1.TaskRunning {
		delay = soonDelay
	}
	a.reports.at = earliest(a.reports.at, a.o.Now().Add(delay))
}

// due says when a task's status is to be told; zero if something else has to happen first. A state that soon gives way to
// the next is not worth a write at the manager, so only those that last are told.
func (a *Agent) due(t *task, now time.Time) time.Time {
	state := t.status.State
	switch {
	case now.Before(t.hold):
		return t.hold
	case t.other && !state.Terminal():
		return time.Time{}
	case state.Terminal():
		if a.state.written < t.saved {
			return time.Time{} // what was told must still be known after a restart
		}
		return now
	case state == v1.TaskRunning:
		return now
	case state == v1.TaskReady && t.assigned != nil && !a.view(t, now).start:
		return now
	}
	return t.status.At.Add(batchDelay)
}

// pumpReports sends what there is to tell, if it is time, and says when to look again. Statuses wait for one another for
// a moment, but not when there is nothing to wait for.
func (a *Agent) pumpReports(now time.Time) time.Time {
	r := &a.reports
	if !a.session || r.sending || len(r.pending) == 0 || r.at.IsZero() {
		return time.Time{}
	}
	if now.Before(r.retry) {
		return r.retry
	}
	if now.Before(r.at) && !a.settled() {
		return r.at
	}
	report, versions, next := a.collect(now)
	if r.at = next; len(report.Tasks) > 0 {
		a.send(report, versions)
		return time.Time{}
	}
	return next
}

// settled tells whether nothing is being done that ends by itself soon.
func (a *Agent) settled() bool {
	return a.starts.running+a.starts.waiting()+a.stops.running+a.stops.waiting() == 0 &&
		(a.links.have >= a.links.want || a.links.down) && !a.state.writing && a.state.number == a.state.written
}

// collect takes a report of what is due, and says when the rest will be. Where there is more than a report may hold, those
// go first whose turn was longest ago: one that is refused does not hold up the others for ever.
func (a *Agent) collect(now time.Time) (v1.StatusReport, []uint64, time.Time) {
	r := &a.reports
	var due []*task
	var next time.Time
	for id, t := range r.pending {
		if t.gone || t.assigned == nil {
			delete(r.pending, id) // nobody wants to know
			continue
		}
		switch at := a.due(t, now); {
		case at.IsZero(): // whoever has written the state file looks again
		case at.After(now):
			next = earliest(next, at)
		default:
			due = append(due, t)
		}
	}
	if len(due) > r.size {
		slices.SortFunc(due, func(a, b *task) int { return cmp.Or(cmp.Compare(a.turn, b.turn), cmp.Compare(a.id, b.id)) })
		due, next = due[:r.size], now
	}
	r.turn++
	report := v1.StatusReport{Revision: a.revision, Tasks: make([]v1.TaskReport, len(due))}
	versions := make([]uint64, len(due))
	for i, t := range due {
		t.turn = r.turn
		report.Tasks[i], versions[i] = v1.TaskReport{ID: t.id, Status: t.status}, t.version
	}
	return report, versions, next
}

// send sends a report. One is under way at a time.
func (a *Agent) send(report v1.StatusReport, versions []uint64) {
	a.reports.sending = true
	a.workers.Go(func() {
		if a.at("before report") {
			return
		}
		ctx, cancel := context.WithTimeout(a.ctx, reportTimeout)
		defer cancel()
		result, err := a.o.Manager.Report(ctx, report)
		if a.at("after report") {
			return
		}
		a.post(func() { a.reported(report, versions, result, err) })
	})
}

// reported takes note of what the manager has confirmed.
func (a *Agent) reported(report v1.StatusReport, versions []uint64, result v1.StatusResult, err error) {
	r := &a.reports
	r.sending = false
	now := a.o.Now()
	r.at = earliest(r.at, now.Add(batchDelay)) // tell may have said sooner meanwhile
	if err != nil {
		r.wait.first, r.wait.most = 100*time.Millisecond, 8*time.Second
		r.retry, r.size = now.Add(r.wait.delay()), max(1, len(report.Tasks)/2)
		a.log.Warn("report failed; trying again", "tasks", len(report.Tasks), "err", err)
		return
	}
	r.wait.reset()
	r.retry, r.size = time.Time{}, min(2*r.size, batchTasks)
	unknown := make(map[string]bool, len(result.Unknown))
	for _, id := range result.Unknown {
		unknown[id] = true
	}
	for i, told := range report.Tasks {
		t := a.tasks[told.ID]
		if t == nil {
			continue
		}
		if unknown[t.id] {
			// Either it is gone, and an assignment will say so, or this manager is behind the one that assigned it.
			t.hold = now.Add(unknownDelay)
			a.log.Debug("the manager does not know a task", "task.id", t.id)
			continue
		}
		if t.told = versions[i]; t.told == t.version {
			delete(r.pending, t.id)
		}
	}
	a.later(now.Add(softDelay))
}
