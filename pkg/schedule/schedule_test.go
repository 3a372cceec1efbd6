package schedule_test

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/swarmd/swarmd/pkg/schedule"
)

const form = "2006-01-02T15:04Z07:00"

func at(t *testing.T, zone, text string) time.Time {
	t.Helper()
	location, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := time.ParseInLocation("2006-01-02T15:04", text, location)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// TestNext has what falls due after a time, in the words of the zone's own clock: also where that is changed.
func TestNext(t *testing.T) {
	for _, test := range []struct{ expr, zone, after, want string }{
		{"*/15 * * * *", "", "2026-01-01T00:05", "2026-01-01T00:15Z 2026-01-01T00:30Z"},
		{"@daily", "", "2026-01-01T00:00", "2026-01-02T00:00Z 2026-01-03T00:00Z"},
		{"0 0 * * FRI-7", "", "2026-01-01T12:00", "2026-01-02T00:00Z 2026-01-03T00:00Z 2026-01-04T00:00Z 2026-01-09T00:00Z"},
		{"0 9 * * MON-FRI", "", "2026-01-02T12:00", "2026-01-05T09:00Z 2026-01-06T09:00Z"},
		{"0 4 29 2 *", "", "2026-01-01T00:00", "2028-02-29T04:00Z 2032-02-29T04:00Z"},
		{"30 3 * * *", "Asia/Kathmandu", "2026-01-01T00:00", "2026-01-01T03:30+05:45 2026-01-02T03:30+05:45"},
		// Clocks go forward: what would be at half past two is when half past two would have been.
		{"30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", "2026-03-29T03:30+02:00 2026-03-30T02:30+02:00"},
		{"30 2 * * *", "Europe/Berlin", "2026-03-29T03:10", "2026-03-29T03:30+02:00 2026-03-30T02:30+02:00"},
		{"0 3 * * *", "Europe/Berlin", "2026-03-28T12:00", "2026-03-29T03:00+02:00 2026-03-30T03:00+02:00"},
		{"*/30 * * * *", "Europe/Berlin", "2026-03-29T01:10", "2026-03-29T01:30+01:00 2026-03-29T03:00+02:00 2026-03-29T03:30+02:00"},
		// Also where that is midnight, or half an hour.
		{"@daily", "America/Santiago", "2026-09-05T12:00", "2026-09-06T01:00-03:00 2026-09-07T00:00-03:00"},
		{"30 0 5 9 *", "America/Santiago", "2027-01-01T00:00", "2027-09-05T01:30-03:00 2028-09-05T00:30-03:00"},
		{"0 0 * * *", "Australia/Lord_Howe", "2026-10-03T12:00", "2026-10-04T00:00+10:30 2026-10-05T00:00+11:00 2026-10-06T00:00+11:00"},
		{"0 0 * * *", "Australia/Lord_Howe", "2026-04-04T12:00", "2026-04-05T00:00+11:00 2026-04-06T00:00+10:30 2026-04-07T00:00+10:30"},
		// Either day counts where both are given.
		{"0 12 13 * FRI", "Asia/Kathmandu", "2026-11-29T00:00", "2026-12-04T12:00+05:45 2026-12-11T12:00+05:45 2026-12-13T12:00+05:45"},
		// Clocks go back: there are two half past two, and one of them counts, but for what is there in every hour.
		{"30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", "2026-10-25T02:30+02:00 2026-10-26T02:30+01:00"},
		{"*/20 2 * * *", "Europe/Berlin", "2026-10-25T01:50", "2026-10-25T02:00+02:00 2026-10-25T02:20+02:00 2026-10-25T02:40+02:00 2026-10-26T02:00+01:00"},
		{"0 3 * * *", "Europe/Berlin", "2026-10-24T12:00", "2026-10-25T03:00+01:00 2026-10-26T03:00+01:00"},
		{"30 * * * *", "Europe/Berlin", "2026-10-25T01:00", "2026-10-25T01:30+02:00 2026-10-25T02:30+02:00 2026-10-25T02:30+01:00 2026-10-25T03:30+01:00"},
		{"@hourly", "Europe/Berlin", "2026-10-25T01:30", "2026-10-25T02:00+02:00 2026-10-25T02:00+01:00"},
		{"45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00", "2026-04-05T01:45+11:00 2026-04-06T01:45+10:30"}, // half an hour
	} {
		s, err := schedule.Parse(test.expr, test.zone)
		if err != nil {
			t.Errorf("%s: %v", test.expr, err)
			continue
		}
		next, got := at(t, test.zone, test.after), []string{}
		for range strings.FieldsSeq(test.want) {
			next = s.Next(next)
			got = append(got, next.In(at(t, test.zone, test.after).Location()).Format(form))
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s in %s after %s:\ngot  %s\nwant %s", test.expr, test.zone, test.after, strings.Join(got, " "), test.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, test := range []struct{ expr, zone, want string }{
		{"", "", "want five fields"},
		{"* * * *", "", "want five fields"},
		{"* * * * * *", "", "want five fields"},
		{"60 * * * *", "", "want five fields"},
		{"* * * * BLU", "", "want five fields"},
		{"@reboot", "", "want five fields"},
		{"0 22-2 * * *", "", `"22-2" goes backwards: want its two parts with a comma between, such as 22-23,0-2`},
		{"5-1 * * * *", "", `"5-1" goes backwards`},
		{"1,50-10/5 * * * *", "", `"50-10" goes backwards`},
		{"0 0 * * FRI-MON", "", `"FRI-MON" goes backwards`},
		{"0 0 * nov-2 *", "", `"nov-2" goes backwards`},
		{"@every 5m", "", "want five fields, such as */5"},
		{"CRON_TZ=Asia/Tokyo 0 9 * * *", "", "want it in timeZone"},
		{"0 0 31 2 *", "", "never falls due"},
		{"@daily", "Mars/Olympus", `"Mars/Olympus" is no time zone`},
		{"@daily", "../../etc/passwd", "is no time zone"},
		{"@daily", "Local", "another time zone on each manager"},
	} {
		if _, err := schedule.Parse(test.expr, test.zone); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q in %q: got %v, want %q", test.expr, test.zone, err, test.want)
		}
	}
}

// TestNextAgainstEachMinute holds what falls due against going through every minute of a day on which a clock is changed.
func TestNextAgainstEachMinute(t *testing.T) {
	exprs := rapid.SampledFrom([]string{"* * * * *", "0 * * * *", "*/7 */2 * * *", "0 0 * * *", "30 2 * * *", "*/20 0-3 * * *", "15 1,2 * * SUN", "59 23 * * *"})
	days := rapid.SampledFrom([]struct{ zone, day string }{
		{"Europe/Berlin", "2026-03-29"}, {"Europe/Berlin", "2026-10-25"}, {"America/Santiago", "2026-09-06"}, {"America/Santiago", "2026-04-05"},
		{"Asia/Beirut", "2026-03-29"}, {"Asia/Beirut", "2026-10-25"}, {"Australia/Lord_Howe", "2026-10-04"}, {"Australia/Lord_Howe", "2026-04-05"},
		{"America/Havana", "2026-03-08"}, {"Africa/Cairo", "2026-04-24"}, {"Asia/Tokyo", "2026-04-24"},
	})
	rapid.Check(t, func(t *rapid.T) {
		expr, day := exprs.Draw(t, "expr"), days.Draw(t, "day")
		s, err := schedule.Parse(expr, day.zone)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := schedule.Parse(expr, "")
		if err != nil {
			t.Fatal(err)
		}
		location, err := time.LoadLocation(day.zone)
		if err != nil {
			t.Fatal(err)
		}
		day0, err := time.ParseInLocation(time.DateOnly, day.day, location)
		if err != nil {
			t.Fatal(err)
		}
		matches := func(shown time.Time) bool { return plain.Next(shown.Add(-time.Second)).Equal(shown) }
		namesHours := expr[strings.Index(expr, " ")+1] != '*'
		due := map[time.Time]bool{}
		start, end := day0.Add(-24*time.Hour).UTC(), day0.Add(48*time.Hour).UTC()
		var last time.Time // the latest that the clock has shown
		for at := start; at.Before(end); at = at.Add(time.Minute) {
			_, seconds := at.In(location).Zone()
			shown := at.Add(time.Duration(seconds) * time.Second)
			for left := last.Add(time.Minute); namesHours && !last.IsZero() && left.Before(shown); left = left.Add(time.Minute) {
				if matches(left) {
					due[at.Add(left.Sub(last)-time.Minute)] = true
				}
			}
			if matches(shown) && (!namesHours || shown.After(last)) {
				due[at] = true
			}
			if shown.After(last) {
				last = shown
			}
		}
		at := start.Add(time.Duration(rapid.IntRange(60, 48*60).Draw(t, "minute")) * time.Minute).Add(time.Duration(rapid.IntRange(0, 59).Draw(t, "second")) * time.Second)
		want := at.Truncate(time.Minute).Add(time.Minute)
		for !due[want] && want.Before(end) {
			want = want.Add(time.Minute)
		}
		if got := s.Next(at); want.Before(end) && !got.Equal(want) {
			t.Fatalf("%s in %s after %s: got %s, want %s", expr, day.zone, at.In(location).Format(form), got.In(location).Format(form), want.In(location).Format(form))
		}
	})
}

// TestLatest finds what fell due last, however long ago the first of what was missed was, and agrees with going through all of it.
func TestLatest(t *testing.T) {
	s, err := schedule.Parse("*/5 * * * *", "")
	if err != nil {
		t.Fatal(err)
	}
	first := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	now := time.Date(2026, 7, 1, 12, 3, 0, 0, time.UTC)
	if got, want := s.Latest(first, now), time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC); !got.Equal(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	exprs := rapid.SampledFrom([]string{"* * * * *", "0 * * * *", "30 2 * * *", "*/20 1-3 * * *", "0 0 1 * *", "15 2 * * SUN", "@weekly"})
	zones := rapid.SampledFrom([]string{"", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"})
	rapid.Check(t, func(t *rapid.T) {
		s, err := schedule.Parse(exprs.Draw(t, "expr"), zones.Draw(t, "zone"))
		if err != nil {
			t.Fatal(err)
		}
		start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(rapid.Int64Range(0, 365*86400).Draw(t, "start")) * time.Second)
		due := s.Next(start)
		now := due.Add(time.Duration(rapid.Int64Range(0, 3*86400).Draw(t, "later")) * time.Second)
		want := due
		for next := s.Next(want); !next.After(now); next = s.Next(want) {
			if !next.After(want) {
				t.Fatalf("next after %v is %v", want, next)
			}
			want = next
		}
		if got := s.Latest(due, now); !got.Equal(want) {
			t.Fatalf("from %v to %v: got %v, want %v", due, now, got, want)
		}
	})
}
