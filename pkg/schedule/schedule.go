// Package schedule tells when a cron expression falls due. It is the one home of the cron library, and of what is said here about
// clocks that are changed for the summer.
//
// It is pure, but for time zones, which are read from the machine once, or from this program where the machine has none.
package schedule

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
	_ "time/tzdata" // a machine may have no time zones of its own

	cron "github.com/netresearch/go-cron"
)

// Schedule is when something is to be done.
type Schedule struct {
	when cron.Schedule
	zone *time.Location
	// fixed: it names hours. One that does not goes on by the minutes that pass, whatever the clock is called.
	fixed bool
}

var parser = cron.MustNewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.DowOrDom | cron.Descriptor)

// Parse reads five fields (minute, hour, day of the month, month, day of the week), or @hourly, @daily, @midnight, @weekly, @monthly,
// @yearly or @annually, and the IANA name of a time zone, of which "" is UTC. An error says what is wrong and what to write.
func Parse(expr, zone string) (*Schedule, error) {
	location, err := locate(zone)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(expr, "@every") {
		return nil, errors.New("@every counts from nothing that a swarm remembers: want five fields, such as */5 * * * *")
	}
	if strings.Contains(expr, "=") {
		return nil, errors.New("a time zone is not written here: want it in timeZone")
	}
	when, err := parser.Parse(expr)
	if err != nil {
		return nil, fmt.Errorf("%w: want five fields (minute hour day month weekday), such as 30 3 * * *, or @hourly, @daily, @weekly, @monthly or @yearly", err)
	}
	if span := backwards(expr); span != "" {
		return nil, fmt.Errorf("%q goes backwards: want its two parts with a comma between, such as 22-23,0-2", span)
	}
	s := &Schedule{when: when, zone: location, fixed: namesHours(expr)}
	if s.when.Next(time.Unix(0, 0)).IsZero() {
		return nil, fmt.Errorf("%q never falls due: want a day that a month has", expr)
	}
	return s, nil
}

// named are the numbers of names of months and days.
var named = map[string]int{"jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6, "jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12,
	"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}

// backwards finds a range that ends before it begins, "" where there is none. The library takes it as one around the field's end, and no
// other cron takes it at all.
func backwards(expr string) string {
	number := func(text string) int {
		if n, is := named[strings.ToLower(text)]; is {
			return n
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			return -1 // a star
		}
		return n
	}
	for field := range strings.FieldsSeq(expr) {
		for part := range strings.SplitSeq(field, ",") {
			span, _, _ := strings.Cut(part, "/")
			if from, to, is := strings.Cut(span, "-"); is && number(from) > number(to) {
				return span
			}
		}
	}
	return ""
}

// namesHours tells whether an expression says at which hours, in which case people expect it once on each of its days.
func namesHours(expr string) bool {
	fields := strings.Fields(expr)
	if len(fields) == 5 {
		return !strings.HasPrefix(fields[1], "*")
	}
	return expr != "@hourly"
}

var zones sync.Map // by name; time zones never change while a process lives

func locate(name string) (*time.Location, error) {
	switch {
	case name == "":
		return time.UTC, nil
	case name == "Local":
		return nil, errors.New(`"Local" is another time zone on each manager: want an IANA name such as Europe/Berlin`)
	}
	if known, ok := zones.Load(name); ok {
		return known.(*time.Location), nil
	}
	location, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("%q is no time zone: want an IANA name such as Europe/Berlin, or nothing for UTC", name)
	}
	zones.Store(name, location)
	return location, nil
}

// Next is the first time after t at which it falls due, and zero where there is none within years.
//
// Where clocks go forward, what names its hours and falls into the time that is left out is due as long after the change as it would have
// been; where they go back, it is due in the first of the two equal hours alone.
func (s *Schedule) Next(t time.Time) time.Time {
	if s.fixed {
		return s.nextOfDay(t)
	}
	return s.nextOfMinutes(t)
}

// The library is asked about clocks that are never changed: a time of the zone's clock is written as if it were UTC. What it says itself
// of those that are changed leaves out whole days where midnight is what is left out.

// nextOfDay goes through what the clock may show: what is left out may be due later than what the clock shows after it.
func (s *Schedule) nextOfDay(t time.Time) time.Time {
	var next time.Time
	for shown := s.when.Next(clock(t.In(s.zone)).Add(-most)); !shown.IsZero(); shown = s.when.Next(shown) {
		if !next.IsZero() && shown.After(clock(next.In(s.zone)).Add(most)) {
			break
		}
		if due := first(shown, s.zone); due.After(t) && (next.IsZero() || due.Before(next)) {
			next = due
		}
	}
	return next.UTC()
}

// nextOfMinutes goes from one change of the clock to the next.
func (s *Schedule) nextOfMinutes(t time.Time) time.Time {
	t = t.In(s.zone)
	for shown := clock(t); ; {
		due := s.when.Next(shown)
		if due.IsZero() {
			return due
		}
		due = due.Add(-offset(t))
		_, end := t.ZoneBounds()
		if end.IsZero() || due.Before(end) {
			return due
		}
		t = end
		shown = clock(t).Add(-time.Second)
	}
}

// most is by how much any clock is ever changed, and more.
const most = 3 * time.Hour

// clock is what the clock of a time's zone shows, written as UTC.
func clock(t time.Time) time.Time { return t.Add(offset(t)).UTC() }

func offset(t time.Time) time.Duration {
	_, seconds := t.Zone()
	return time.Duration(seconds) * time.Second
}

// first is when a zone's clock first shows a time, or would have, had it not been put forward.
func first(shown time.Time, zone *time.Location) time.Time {
	t := time.Date(shown.Year(), shown.Month(), shown.Day(), shown.Hour(), shown.Minute(), shown.Second(), 0, zone)
	start, end := t.ZoneBounds()
	for _, change := range []time.Time{start, end} {
		if change.IsZero() {
			continue
		}
		before, after := offset(change.Add(-time.Nanosecond)), offset(change)
		from, to := change.Add(min(before, after)).UTC(), change.Add(max(before, after)).UTC()
		if !shown.Before(from) && shown.Before(to) { // left out, or shown twice
			return shown.Add(-before)
		}
	}
	return t
}

// Latest is the last time not after now at which it fell due, given one, due, that is not after now either.
func (s *Schedule) Latest(due, now time.Time) time.Time {
	// What is due next after a time never gets earlier as the time goes on: halve the time in between until it is found.
	from, to := due, now
	for to.Sub(from) > time.Second {
		middle := from.Add(to.Sub(from) / 2)
		if next := s.Next(middle); !next.IsZero() && !next.After(now) {
			from = next
		} else {
			to = middle
		}
	}
	for next := s.Next(from); !next.IsZero() && !next.After(now); next = s.Next(from) {
		from = next
	}
	return from
}
