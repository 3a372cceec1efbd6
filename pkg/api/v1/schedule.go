package v1

import (
	"strings"
	"time"
)

// ModeCron is the mode of a service whose tasks are runs by a schedule: each run is a slot with a number of its own, whose one task is to
// complete, and is restarted until then as its restart policy says.
const ModeCron ServiceMode = "cron"

// Schedule says when a service of mode cron runs.
type Schedule struct {
	// Cron is when: minute, hour, day of the month, month and day of the week, such as 30 3 * * MON-FRI, or @hourly, @daily, @weekly,
	// @monthly, @yearly.
	Cron string `json:"cron"`
	// TimeZone is the IANA name of the time zone that Cron is in, such as Europe/Berlin; default UTC.
	TimeZone string `json:"timeZone,omitempty"`
	// Concurrency says what becomes of a run that is due while one is at work; default forbid.
	Concurrency ConcurrencyPolicy `json:"concurrency,omitempty"`
	// StartingDeadline is how late a run may begin; nil is however late. Of runs that were missed, the last alone is made up for.
	StartingDeadline *Duration `json:"startingDeadline,omitempty"`
	// KeepSuccessful and KeepFailed are how many runs are kept that ended so; default 3 and 1. The latest run always is.
	KeepSuccessful *uint64 `json:"keepSuccessful,omitempty"`
	KeepFailed     *uint64 `json:"keepFailed,omitempty"`
	// Suspend begins no runs, but those that RunNow asks for. What falls due meanwhile is not made up for.
	Suspend bool `json:"suspend,omitempty"`
	// RunNow begins a run when it changes to another number than 0.
	RunNow uint64 `json:"runNow,omitempty"`
}

// ConcurrencyPolicy says what becomes of a run that is due while one is at work.
type ConcurrencyPolicy string

// The concurrency policies.
const (
	// ConcurrencyAllow lets runs be at work side by side.
	ConcurrencyAllow ConcurrencyPolicy = "allow"
	// ConcurrencyForbid leaves the run out.
	ConcurrencyForbid ConcurrencyPolicy = "forbid"
	// ConcurrencyReplace stops the one at work; the new run begins once it has ended.
	ConcurrencyReplace ConcurrencyPolicy = "replace"
)

// Limits on runs.
const (
	// MaxKeptRuns is that of KeepSuccessful, and of KeepFailed.
	MaxKeptRuns = 100
	// MaxConcurrentRuns is how many runs of a service are at work at once, where that is allowed; those beyond are left out.
	MaxConcurrentRuns = 100
	maxCron           = 256 // bytes
)

// CronStatus is where a service of mode cron stands. It is all there is to know: a new leader continues by reading it.
type CronStatus struct {
	// Schedule is the schedule and time zone that Next is by. Where the spec has another, Next is found anew.
	Schedule string `json:"schedule"`
	// Next is when the next run is due; zero while suspended.
	Next time.Time `json:"next,omitzero"`
	// Number is that of the latest run.
	Number uint64 `json:"number,omitempty"`
	// RunNow is the Schedule.RunNow that was dealt with last.
	RunNow uint64 `json:"runNow,omitempty"`
	// Runs are those that are kept, in ascending order: what each has come to is its tasks' to say.
	Runs []CronRun `json:"runs,omitempty"`
	// Skipped tells of the latest run that was left out, and why.
	Skipped string `json:"skipped,omitempty"`
}

// CronRun is one run of a service.
type CronRun struct {
	// Number is the slot of the run's tasks.
	Number uint64 `json:"number"`
	// Due is when it was due; zero where it was asked for, and Asked is the RunNow that did.
	Due   time.Time `json:"due,omitzero"`
	Asked uint64    `json:"asked,omitempty"`
	// At is when it was begun.
	At time.Time `json:"at"`
	// Replaced is the number of the run that it was stopped for; 0 is none.
	Replaced uint64 `json:"replaced,omitempty"`
}

// Cron tells whether a service's tasks are runs by a schedule.
func Cron(s *Service) bool { return s != nil && s.Spec != nil && s.Spec.Mode == ModeCron }

// ScheduleText is what CronStatus.Schedule is of a schedule.
func ScheduleText(s *Schedule) string { return strings.TrimSpace(s.Cron + " " + s.TimeZone) }

func (c *checker) schedule(field string, s *ServiceSpec) {
	switch {
	case s.Mode != ModeCron && s.Schedule == nil:
		return
	case s.Mode != ModeCron:
		c.fail(field, "is for mode cron, not for mode %s", cut(string(s.Mode)))
		return
	case s.Schedule == nil:
		c.fail(field, "is missing: mode cron needs one, with a cron such as 30 3 * * *")
		return
	}
	v := s.Schedule
	c.word(field+".cron", v.Cron)
	switch fields := len(strings.Fields(v.Cron)); {
	case len(v.Cron) > maxCron:
		c.fail(field+".cron", "has %d bytes, at most %d are allowed", len(v.Cron), maxCron)
	case fields != 5 && (fields != 1 || v.Cron[0] != '@'):
		c.fail(field+".cron", "%q is no schedule: want five fields (minute hour day month weekday), such as 30 3 * * *, or @hourly, @daily, @weekly, @monthly or @yearly", cut(v.Cron))
	}
	c.word(field+".timeZone", v.TimeZone)
	choice(c, field+".concurrency", v.Concurrency, ConcurrencyAllow, ConcurrencyForbid, ConcurrencyReplace)
	if v.StartingDeadline != nil {
		c.duration(field+".startingDeadline", *v.StartingDeadline)
		if *v.StartingDeadline == 0 {
			c.fail(field+".startingDeadline", "0s lets no run begin: want at least a few seconds, or none to begin however late")
		}
	}
	for name, n := range map[string]*uint64{".keepSuccessful": v.KeepSuccessful, ".keepFailed": v.KeepFailed} {
		if n != nil && *n > MaxKeptRuns {
			c.fail(field+name, "%d is too many: want 0 to %d", *n, MaxKeptRuns)
		}
	}
	if s.Endpoint != nil && len(s.Endpoint.Ports) > 0 {
		c.fail(strings.TrimSuffix(field, ".schedule")+".endpoint.ports", "are not for mode cron: its runs come and go")
	}
}

func defaultSchedule(s *ServiceSpec) {
	if s.Mode != ModeCron || s.Schedule == nil {
		return
	}
	orElse(&s.Schedule.Concurrency, ConcurrencyForbid)
	fill(&s.Schedule.KeepSuccessful, 3)
	fill(&s.Schedule.KeepFailed, 1)
}
