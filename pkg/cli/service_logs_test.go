package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// TestLogParts: the parts of a long line stay together though another task writes in between.
func TestLogParts(t *testing.T) {
	var out, errs bytes.Buffer
	p := &logPrinter{app: &app{Options: withDefaults(Options{Out: &out, Err: &errs})}, flags: &logFlags{noTaskIDs: true},
		width: 2, hosts: map[string]string{"n": "host"}, prefixes: map[string]string{}, partial: map[string]v1.TaskLogRecord{}}
	for _, r := range []struct {
		task, stream, line string
		partial            bool
	}{
		{"1", "stdout", "one ", true}, {"10", "stdout", "two", false}, {"1", "stderr", "err", false}, {"1", "stdout", "line", false},
		{"10", "stdout", strings.Repeat("x", maxLine), true}, {"10", "stdout", "y", false}, {"1", "stdout", "pro", true}, {"1", "stdout", "mpt> ", true},
	} {
		err := p.print(&v1.TaskLogRecord{Task: r.task, Name: "web." + r.task, Slot: uint64(len(r.task)*9 - 8), Node: "n",
			LogRecord: v1.LogRecord{Stream: r.stream, Line: []byte(r.line), Partial: r.partial}})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := p.flush(); err != nil {
		t.Fatal(err)
	}
	want := "web.10@host    | two\nweb.1@host     | one line\nweb.10@host    | " + strings.Repeat("x", maxLine) + "\nweb.10@host    | y\nweb.1@host     | prompt> \n"
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	if errs.String() != "web.1@host     | err\n" {
		t.Errorf("stderr %q", errs.String())
	}
}

func TestParseTime(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"42m": now.Add(-42 * time.Minute), "2026-01-01T00:00:00Z": time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		"1767312000.5": time.Unix(1767312000, 5e8), "2026-01-01": time.Date(2026, 1, 1, 0, 0, 0, 0, time.Local),
	} {
		got, err := parseTime(text, now)
		if err != nil || !got.Equal(want) {
			t.Errorf("%s: %s %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "yesterday", "NaN", "1e300", "12:00"} {
		if got, err := parseTime(text, now); err == nil {
			t.Errorf("%q was read as %s", text, got)
		}
	}
}
