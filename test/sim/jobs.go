package sim

import (
	"fmt"
	"slices"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// jobNames are the services that run to their end, and the mode of each.
var jobNames = []struct {
	name string
	mode v1.ServiceMode
}{{"sum", v1.ModeReplicatedJob}, {"each", v1.ModeGlobalJob}, {"tick", v1.ModeCron}}

// jobActs makes a job, has one begin anew, asks for a run, or takes one away.
func (w *World) jobActs() {
	j := jobNames[w.rng.IntN(len(jobNames))]
	service := w.named(j.name)
	switch {
	case service == nil:
		w.make(j.name, w.jobSpec(j.mode))
	case w.chance(0.15):
		w.remove(service)
	case j.mode == v1.ModeCron && w.chance(0.5):
		w.update(service, func(s *v1.ServiceSpec) {
			schedule := *s.Schedule
			if schedule.RunNow = uint64(w.now/time.Millisecond) + 1; w.chance(0.3) {
				schedule.Suspend = !schedule.Suspend
			}
			s.Schedule = &schedule
		})
	case j.mode == v1.ModeReplicatedJob && w.chance(0.5):
		n, most := 1+w.rng.Uint64N(5), 1+w.rng.Uint64N(5)
		w.update(service, func(s *v1.ServiceSpec) { s.Replicas, s.MaxConcurrent = &n, &most })
	default:
		w.update(service, func(s *v1.ServiceSpec) { s.Task.ForceUpdate++ })
	}
}

// jobSpec is a job that a user might want.
func (w *World) jobSpec(mode v1.ServiceMode) *v1.ServiceSpec {
	delay := v1.Duration(w.between(0, 3*time.Second))
	s := &v1.ServiceSpec{Mode: mode, Endpoint: &v1.EndpointSpec{}, Task: v1.TaskSpec{Container: v1.ContainerSpec{Image: "job:0"},
		RestartPolicy: &v1.RestartPolicy{Delay: &delay, Condition: []v1.RestartCondition{v1.RestartAny, v1.RestartOnFailure, v1.RestartNone}[w.rng.IntN(3)]}}}
	if w.chance(0.3) {
		s.Task.RestartPolicy.MaxAttempts = 1 + w.rng.Uint64N(3)
	}
	if w.chance(0.3) {
		s.Task.Networks = w.attachments()
	}
	if w.chance(0.4) {
		s.Task.Resources = &v1.Resources{Reservations: &v1.Reservations{Generic: []v1.GenericResource{{Kind: "SSD", Count: 1 + w.rng.Int64N(2)}}}}
	}
	switch mode {
	case v1.ModeReplicatedJob:
		n, most := 1+w.rng.Uint64N(5), 1+w.rng.Uint64N(5)
		s.Replicas, s.MaxConcurrent = &n, &most
	case v1.ModeCron:
		s.Schedule = &v1.Schedule{Cron: "* * * * *",
			Concurrency: []v1.ConcurrencyPolicy{v1.ConcurrencyAllow, v1.ConcurrencyForbid, v1.ConcurrencyReplace}[w.rng.IntN(3)]}
		if w.chance(0.3) {
			late := v1.Duration(w.between(0, 2*time.Minute))
			s.Schedule.StartingDeadline = &late
		}
	}
	v1.Default(&v1.Service{Spec: s})
	return s
}

// works has a job's container come to its end by itself.
func (m *machine) works(t *task) {
	code := 0
	if !m.w.calm && m.w.chance(0.15) {
		code = 1
	}
	m.w.after(m.w.between(10*time.Millisecond, 6*time.Second), func() { m.finish(t.id, code) })
}

// jobs checks what was decided about jobs, on the snapshot that it was decided on: no slot that has completed gets another task, no more are at
// work than may be, and no run of a schedule begins beside another where that is forbidden.
func (c *checks) jobs(w *World, s *store.Snapshot, ops []store.Op) {
	var after *store.Snapshot
	for _, op := range ops {
		switch d := op.Value.(type) {
		case *v1.TaskDesired:
			if _, was := store.Get(s, v1.Tasks, op.ID); was || d.State != v1.TaskComplete && d.Iteration == 0 {
				continue
			}
			if after == nil {
				var err error
				if after, _, err = s.With(s.Revision()+1, ops); err != nil {
					w.fail("decided what cannot be: %v", err)
					return
				}
			}
			c.jobTask(w, s, after, d)
		case *v1.ServiceDesired:
			if o, ok := store.Get(s, v1.Services, op.ID); ok && v1.Cron(o) {
				c.runBegins(w, s, o, d)
			}
		}
	}
}

// jobTask checks a task that was made for a job.
func (c *checks) jobTask(w *World, s, after *store.Snapshot, d *v1.TaskDesired) {
	o, ok := store.Get(after, v1.Services, d.Service)
	if !ok || !v1.Job(o) {
		return
	}
	for _, t := range slotOf(s, d) {
		if t.Desired.Iteration == d.Iteration && t.Desired.State < v1.TaskRemove && v1.Observed(t) == v1.TaskComplete {
			w.fail("%s is made though %s has completed", nameOf(d), nameOf(t.Desired))
		}
	}
	if o.Spec.Mode != v1.ModeReplicatedJob {
		return
	}
	atWork := uint64(0)
	for t := range after.TasksOfService(d.Service) {
		if v1.Live(t) && t.Desired.Iteration == o.Meta.Generation {
			atWork++
		}
	}
	if atWork > *o.Spec.MaxConcurrent {
		w.fail("%s has %d tasks at work, of at most %d", o.Meta.Name, atWork, *o.Spec.MaxConcurrent)
	}
}

// runBegins checks that a run that begins is alone, where its service wants that.
func (c *checks) runBegins(w *World, s *store.Snapshot, o *v1.Service, d *v1.ServiceDesired) {
	if d.Cron == nil || o.Spec.Schedule.Concurrency == v1.ConcurrencyAllow || o.Desired != nil && o.Desired.Cron != nil && o.Desired.Cron.Number == d.Cron.Number {
		return
	}
	for t := range s.TasksOfService(o.Meta.ID) {
		replaced := slices.ContainsFunc(d.Cron.Runs, func(r v1.CronRun) bool { return r.Number == t.Desired.Slot && r.Replaced != 0 })
		if v1.Live(t) && !replaced {
			w.fail("%s begins run %d while %s is at work", o.Meta.Name, d.Cron.Number, nameOf(t.Desired))
		}
	}
}

// schedule checks what a commit says of a schedule: no run begins twice for one time, and none is left out without a word.
func (c *checks) schedule(w *World, before, after *v1.Service) {
	if before == nil || after == nil || after.Desired == nil || after.Desired.Cron == nil {
		return
	}
	is, was := after.Desired.Cron, &v1.CronStatus{}
	if before.Desired != nil && before.Desired.Cron != nil {
		was = before.Desired.Cron
	}
	if is == was {
		return
	}
	if is.Number < was.Number {
		w.fail("the runs of %s are numbered back from %d to %d", after.Meta.Name, was.Number, is.Number)
	}
	begun := false
	for _, r := range is.Runs {
		if r.Number <= was.Number {
			continue
		}
		w.stats.Runs++
		if r.Due.IsZero() {
			continue
		}
		if last := c.due[after.Meta.ID]; !r.Due.After(last) {
			w.fail("run %d of %s is due at %v, and one that was begun before at %v", r.Number, after.Meta.Name, r.Due, last)
		}
		c.due[after.Meta.ID] = r.Due
		begun = begun || !r.Due.Before(was.Next)
	}
	if was.Next.IsZero() || is.Next.IsZero() || is.Schedule != was.Schedule || is.Next.Equal(was.Next) {
		return
	}
	switch {
	case is.Next.Before(was.Next):
		w.fail("the next run of %s goes back from %v to %v", after.Meta.Name, was.Next, is.Next)
	case !begun && is.Skipped == was.Skipped:
		w.fail("%s goes from %v to %v, and neither begins a run nor says why not", after.Meta.Name, was.Next, is.Next)
	}
}

// overdue is a schedule that nobody keeps, or "". Clocks may be off by four minutes against each other.
func (w *World) overdue() string {
	for _, s := range w.services() {
		if !v1.Cron(s) || !s.Meta.Deleting.IsZero() || s.Spec.Schedule.Suspend {
			continue
		}
		if d := s.Desired; d == nil || d.Cron == nil || d.Cron.Next.IsZero() || w.time(0).Sub(d.Cron.Next) > 5*time.Minute {
			return s.Meta.Name + " does not run as it is scheduled"
		}
	}
	return ""
}

// jobAmiss is what a job lacks to be done, or "": as many slots have completed as were asked for, each once, and nothing runs.
func (w *World) jobAmiss(s *v1.Service) string {
	completed := make(map[uint64]int)
	for t := range w.current().TasksOfService(s.Meta.ID) {
		switch {
		case w.unknowable(t):
		case !v1.Observed(t).Terminal() && (t.Desired.State <= v1.TaskComplete || v1.TaskNode(t) != ""):
			return fmt.Sprintf("%s is %s, to be %s %s", nameOf(t.Desired), v1.Observed(t), t.Desired.State, t.Desired.Pending)
		case v1.Observed(t) == v1.TaskComplete && t.Desired.State < v1.TaskRemove && t.Desired.Iteration == s.Meta.Generation:
			completed[t.Desired.Slot]++
		}
	}
	if v1.Cron(s) {
		return ""
	}
	for slot, n := range completed {
		if n > 1 {
			return fmt.Sprintf("slot %d has completed %d times", slot, n)
		}
	}
	if wanted := w.wanted(s); len(completed) < wanted || len(completed) > wanted && s.Spec.Mode == v1.ModeReplicatedJob {
		return fmt.Sprintf("%d of %d have completed", len(completed), wanted)
	}
	return ""
}
