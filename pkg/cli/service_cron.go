package cli

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// cronFlags are those of services of mode cron.
type cronFlags struct {
	schedule, timeZone, concurrency string
	deadline                        *value[v1.Duration]
	successful, failed              *value[uint64]
	suspend                         bool
}

var cronFlagNames = []string{"schedule", "time-zone", "concurrency", "starting-deadline", "keep-successful", "keep-failed", "suspend"}

func (f *serviceFlags) addCronFlags() {
	s, c := f.set, &f.cron
	c.deadline = newValue("duration", parseDuration)
	c.successful, c.failed = newValue("uint", parseUint), newValue("uint", parseUint)
	s.StringVar(&c.schedule, "schedule", "", `When a service of mode cron runs, such as "30 3 * * *" or @daily`)
	s.StringVar(&c.timeZone, "time-zone", "", "Time zone of the schedule, such as Europe/Berlin (default UTC)")
	s.StringVar(&c.concurrency, "concurrency", "", `What becomes of a run that is due while one is at work ("allow", "forbid", "replace") (default "forbid")`)
	s.Var(c.deadline, "starting-deadline", "How late a run may begin that was missed, 0s for however late (s|m|h)")
	s.Var(c.successful, "keep-successful", "How many successful runs are kept (default 3)")
	s.Var(c.failed, "keep-failed", "How many failed runs are kept (default 1)")
	s.BoolVar(&c.suspend, "suspend", false, "Begin no runs until this is false again")
}

// applyCron writes the flags that were given into the schedule.
func (f *serviceFlags) applyCron(s *v1.ServiceSpec) error {
	if !f.changed(cronFlagNames...) {
		return nil
	}
	if s.Mode != v1.ModeCron {
		return fmt.Errorf("--%s can only be used with cron mode", strings.Join(cronFlagNames, ", --"))
	}
	if s.Schedule == nil {
		s.Schedule = &v1.Schedule{}
	}
	v, c := s.Schedule, &f.cron
	if f.changed("schedule") {
		v.Cron = c.schedule
	}
	if f.changed("time-zone") {
		v.TimeZone = c.timeZone
	}
	if f.changed("concurrency") {
		v.Concurrency = v1.ConcurrencyPolicy(c.concurrency)
	}
	if c.deadline.set {
		if v.StartingDeadline = &c.deadline.v; c.deadline.v == 0 {
			v.StartingDeadline = nil
		}
	}
	if c.successful.set {
		v.KeepSuccessful = &c.successful.v
	}
	if c.failed.set {
		v.KeepFailed = &c.failed.v
	}
	if f.changed("suspend") {
		v.Suspend = c.suspend
	}
	return nil
}

func (a *app) serviceRunCommand() *cobra.Command {
	wait := waitFlags{run: true}
	cmd := &cobra.Command{
		Use:   "run [OPTIONS] SERVICE",
		Short: "Begin a run of a service of mode cron now",
		Long: `Begin a run of a service of mode cron, besides those that are due, and wait until it has completed. Its schedule goes on as before. Where
the service forbids that two are at work, and one is, there is no other.`,
		Example: `  swarmctl service run backup
  swarmctl service run --detach backup`,
		Args:                  exactArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeNames(a, v1.Services),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.updateService(cmd.Context(), args[0], &wait, func(svc *v1.Service) error {
				if svc.Spec.Mode != v1.ModeCron || svc.Spec.Schedule == nil {
					return errors.New("run can only be used with cron mode")
				}
				svc.Spec.Schedule.RunNow++
				return nil
			})
		},
	}
	wait.add(cmd)
	return cmd
}

// judgeCron derives how far a service of mode cron is: it is there once it is known when it runs next. Where a run was asked for, that has
// to complete.
func (v view) judgeCron() verdict {
	s, out := v.service, verdict{monitor: settle}
	if s.Desired == nil || s.Desired.Cron == nil {
		return out
	}
	if v.asked != 0 {
		return v.judgeRun()
	}
	c := s.Desired.Cron
	if c.Schedule == v1.ScheduleText(s.Spec.Schedule) && c.RunNow == s.Spec.Schedule.RunNow && s.Spec.Schedule.Suspend == c.Next.IsZero() {
		out.done, out.over, out.note = true, true, nextRun(s)
	}
	return out
}

// askedRun is the run that is waited for, where it has begun and is kept.
func (v view) askedRun() *v1.CronRun {
	if v.asked == 0 || v.service.Desired == nil || v.service.Desired.Cron == nil {
		return nil
	}
	runs := v.service.Desired.Cron.Runs
	if i := slices.IndexFunc(runs, func(r v1.CronRun) bool { return r.Asked == v.asked }); i >= 0 {
		return &runs[i]
	}
	return nil
}

// judgeRun derives how far the run is that was asked for, whatever others were asked for since.
func (v view) judgeRun() verdict {
	s, run := v.service, v.askedRun()
	c, out := s.Desired.Cron, verdict{wanted: 1}
	if run == nil && v.slot == 0 {
		switch {
		case c.RunNow != s.Spec.Schedule.RunNow: // it is not dealt with yet
		case c.RunNow == v.asked:
			out.err = errors.New(cmp.Or(c.Skipped, "the run that was asked for is not kept any more"))
		default:
			out.err = errors.New("the run that was asked for was left out: another was asked for since")
		}
		return out
	}
	out.slots = v.slots()
	known := false // a task of it
	for _, t := range v.tasks {
		if t.Desired.Slot != v.slot {
			continue
		}
		if known = true; v1.Observed(t) == v1.TaskComplete {
			out.running, out.done, out.over = 1, true, true
			return out
		}
	}
	for _, slot := range out.slots {
		if err := hopeless(s, slot); err != nil {
			out.err = fmt.Errorf("task %s %w", slot.name, err)
		}
	}
	switch {
	case out.err != nil:
	case run == nil && known: // the service was heard of before its task, which has ended or goes too
	case run == nil:
		out.err = fmt.Errorf("run %d is not kept any more, and did not complete as far as is known", v.slot)
	case run.Replaced != 0:
		out.err = fmt.Errorf("run %d was stopped: run %d takes its place", run.Number, run.Replaced)
	}
	return out
}

// nextRun says when a service of mode cron runs next.
func nextRun(s *v1.Service) string {
	switch {
	case s.Spec.Schedule != nil && s.Spec.Schedule.Suspend:
		return "suspended"
	case s.Desired == nil || s.Desired.Cron == nil || s.Desired.Cron.Next.IsZero():
		return "not scheduled yet"
	}
	return "next " + zoned(s, s.Desired.Cron.Next)
}

// zoned is a time in the time zone of a service's schedule, where this machine knows that.
func zoned(s *v1.Service, t time.Time) string {
	if location, err := time.LoadLocation(s.Spec.Schedule.TimeZone); err == nil {
		t = t.In(location)
	}
	return t.Format("2006-01-02 15:04 MST")
}

// dockerCron is what inspect says of a schedule, in the manner of Docker's modes, which have none.
type dockerCron struct {
	Schedule         string
	TimeZone         string `json:",omitempty"`
	Concurrency      string
	StartingDeadline time.Duration `json:",omitempty"`
	KeepSuccessful   uint64
	KeepFailed       uint64
	Suspend          bool `json:",omitempty"`
}

type dockerCronStatus struct {
	Next    *time.Time      `json:",omitempty"`
	Runs    []dockerCronRun `json:",omitempty"`
	Skipped string          `json:",omitempty"`
}

type dockerCronRun struct {
	Number  uint64
	Due     *time.Time `json:",omitempty"`
	Started time.Time
}

func convertSchedule(s *v1.Schedule) *dockerCron {
	if s == nil {
		return nil
	}
	d := &dockerCron{Schedule: s.Cron, TimeZone: s.TimeZone, Concurrency: string(s.Concurrency), Suspend: s.Suspend}
	if s.StartingDeadline != nil {
		d.StartingDeadline = time.Duration(*s.StartingDeadline)
	}
	if s.KeepSuccessful != nil {
		d.KeepSuccessful = *s.KeepSuccessful
	}
	if s.KeepFailed != nil {
		d.KeepFailed = *s.KeepFailed
	}
	return d
}

func convertCronStatus(c *v1.CronStatus) *dockerCronStatus {
	if c == nil {
		return nil
	}
	d := &dockerCronStatus{Skipped: c.Skipped}
	if !c.Next.IsZero() {
		d.Next = &c.Next
	}
	for _, run := range c.Runs {
		r := dockerCronRun{Number: run.Number, Started: run.At}
		if !run.Due.IsZero() {
			r.Due = &run.Due
		}
		d.Runs = append(d.Runs, r)
	}
	return d
}
