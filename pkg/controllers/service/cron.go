package service

import (
	"fmt"
	"reflect"
	"slices"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/schedule"
)

// A service of mode cron has a slot for each of its runs, numbered as they begin, and what happens in it is what happens in the slot of a
// job. Which runs there are is in the service: a run is written there together with when the next one is due, so that none begins twice,
// whoever leads. What a run has come to is not written: its tasks say it.

const reasonReplaced = "a later run has taken its place"

// runs are a service's as a decision makes them.
type runs struct {
	*view
	spec *v1.Schedule
	// before is what was written, status what is to be.
	before, status v1.CronStatus
	had            map[uint64]*slot
}

// cron keeps the slots of the runs that are kept, with those that begin now.
func cron(v *view) (l layout) {
	if v.service.Spec.Schedule == nil {
		return l // which validation refuses
	}
	r := &runs{view: v, spec: v.service.Spec.Schedule, had: make(map[uint64]*slot, len(v.slots))}
	if d := v.service.Desired; d != nil && d.Cron != nil {
		r.before = *d.Cron
	}
	r.status = r.before
	r.status.Runs = slices.Clone(r.before.Runs)
	for _, s := range v.slots {
		r.had[s.number] = s
	}
	r.begin()
	r.forget()
	r.write()
	var replaced []*slot
	for _, run := range r.status.Runs {
		s := r.slot(run.Number)
		delete(r.had, run.Number)
		s.after = replaced
		if run.Replaced == 0 {
			l.keep = append(l.keep, s)
			continue
		}
		s.reason = reasonReplaced
		l.rest = append(l.rest, s)
		replaced = append(slices.Clip(replaced), s)
	}
	for _, s := range v.slots {
		if r.had[s.number] != nil {
			l.drop = append(l.drop, s)
		}
	}
	return l
}

// slot is that of a run, which has none yet where no task was made for it.
func (r *runs) slot(number uint64) *slot {
	if s := r.had[number]; s != nil {
		return s
	}
	return &slot{number: number}
}

// begin begins what was asked for, and what is due.
func (r *runs) begin() {
	if r.spec.RunNow != r.before.RunNow {
		if r.status.RunNow = r.spec.RunNow; r.spec.RunNow != 0 {
			r.add(time.Time{})
		}
	}
	when, err := schedule.Parse(r.spec.Cron, r.spec.TimeZone)
	if err != nil {
		r.status.Next, r.status.Skipped = time.Time{}, err.Error() // a time zone that this machine does not know
		return
	}
	text := v1.ScheduleText(r.spec)
	switch {
	case r.spec.Suspend:
		r.status.Next = time.Time{}
	case r.status.Schedule != text || r.status.Next.IsZero():
		since := r.service.Meta.UpdatedAt // not now: there may have been no leader for a while
		if since.IsZero() {
			since = r.now
		}
		r.status.Next = when.Next(since)
	}
	r.status.Schedule = text
	if next := r.status.Next; !next.IsZero() && !r.now.Before(next) {
		due := when.Latest(next, r.now)
		r.status.Next = when.Next(due)
		if late, most := r.now.Sub(due), r.spec.StartingDeadline; most != nil && late > time.Duration(*most) {
			r.skip(due, fmt.Sprintf("it was missed, and is %s late", late.Round(time.Second)))
		} else {
			r.add(due)
		}
	}
	r.plan.Again = reconcile.Sooner(r.plan.Again, r.status.Next)
}

// add begins a run, as far as the runs that are at work allow it. One that was asked for is not due at any time.
func (r *runs) add(due time.Time) {
	var busy []*v1.CronRun
	for i := range r.status.Runs {
		if run := &r.status.Runs[i]; r.atWork(run) {
			busy = append(busy, run)
		}
	}
	switch {
	case len(busy) >= v1.MaxConcurrentRuns:
		r.skip(due, fmt.Sprintf("%d runs are at work", len(busy)))
		return
	case len(busy) > 0 && (r.spec.Concurrency == v1.ConcurrencyForbid || r.spec.Concurrency == ""):
		r.skip(due, fmt.Sprintf("run %d is still at work", busy[0].Number))
		return
	}
	r.status.Number++
	if r.spec.Concurrency == v1.ConcurrencyReplace {
		for _, run := range busy {
			if run.Replaced == 0 {
				run.Replaced = r.status.Number
			}
		}
	}
	run := v1.CronRun{Number: r.status.Number, Due: due, At: r.now}
	if due.IsZero() {
		run.Asked = r.spec.RunNow
	}
	r.status.Runs = append(r.status.Runs, run)
}

// skip says that a run was left out, and why.
func (r *runs) skip(due time.Time, why string) {
	if due.IsZero() {
		r.status.Skipped = "the run asked for at " + r.now.UTC().Format(time.RFC3339) + ": " + why
		return
	}
	r.status.Skipped = "the run of " + due.UTC().Format(time.RFC3339) + ": " + why
}

// atWork tells whether anything of a run is running, or will.
func (r *runs) atWork(run *v1.CronRun) bool {
	s := r.slot(run.Number)
	return run.Replaced == 0 && r.open(s) || slices.ContainsFunc(s.tasks, func(t *v1.Task) bool { return !r.ended(t) })
}

// forget gives up the oldest of the runs that are over, as many as are not to be kept. The latest run stays.
func (r *runs) forget() {
	successful, failed := uint64(3), uint64(1)
	if n := r.spec.KeepSuccessful; n != nil {
		successful = *n
	}
	if n := r.spec.KeepFailed; n != nil {
		failed = *n
	}
	gone := make(map[uint64]bool)
	for i := range slices.Backward(r.status.Runs) {
		run := &r.status.Runs[i]
		if r.atWork(run) {
			continue
		}
		left := &failed
		if r.completed(r.slot(run.Number)) {
			left = &successful
		}
		switch {
		case *left > 0:
			*left--
		case run.Number != r.status.Number:
			gone[run.Number] = true
		}
	}
	r.status.Runs = slices.DeleteFunc(r.status.Runs, func(run v1.CronRun) bool { return gone[run.Number] })
}

// write plans what the service is to remember, where that is news.
func (r *runs) write() {
	if len(r.status.Runs) == 0 {
		r.status.Runs = nil
	}
	if reflect.DeepEqual(r.status, r.before) {
		return
	}
	desired := v1.ServiceDesired{}
	if r.service.Desired != nil {
		desired = *r.service.Desired
	}
	desired.Cron = &r.status
	r.plan.Ops = append(r.plan.Ops, reconcile.SetService(r.service, &desired))
}
