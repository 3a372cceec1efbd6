// Package schedule tells when a cron expression falls due. It is the one home of the cron library, and of what is said here about
// clocks that are changed for the summer.
//
// It is pure, but for time zones, which are read from the machine once, or from this program where the machine has none.
package schedule

import (
	"errors"
	"fmt"
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

var parser = cron.MustNewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)

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
	s := &Schedule{when: when, zone: location, fixed: namesHours(expr)}
	if s.when.Next(time.Unix(0, 0)).IsZero() {
		return nil, fmt.Errorf("%q never falls due: want a day that a month has", expr)
	}
	return s, nil
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
// Where clocks go forward, what falls into the hour that is left out is due when that hour would have ended. Where they go back, what
// names its hours is due in the first of the two equal hours alone.
func (s *Schedule) Next(t time.Time) time.Time {
	from := t.In(s.zone)
	if offset(from) > offset(from.Add(-most)) {
		from = from.Add(-most) // the library makes up for what was left out only where it begins before
	}
	next := s.when.Next(from)
	for !next.IsZero() && (!next.After(t) || s.fixed && repeats(next)) {
		next = s.when.Next(next)
	}
	return next.UTC()
}

// most is by how much any clock is ever changed, and more.
const most = 3 * time.Hour

func offset(t time.Time) int {
	_, seconds := t.Zone()
	return seconds
}

// repeats tells whether clocks showed the same before they were last put back.
func repeats(t time.Time) bool {
	now, before := offset(t), offset(t.Add(-most))
	if before <= now {
		return false
	}
	return offset(t.Add(time.Duration(now-before)*time.Second)) == before
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
