package containerd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/runtime"
	"github.com/swarmd/swarmd/pkg/runtime/containerd/logfile"
)

// all is everything that there is.
var all = v1.LogOptions{Stdout: true, Stderr: true, Tail: -1}

// read is the lines that the options choose, with their stream.
func read(t testing.TB, r *Runtime, id string, o v1.LogOptions) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	var lines []string
	for record, err := range r.Logs(ctx, id, o) {
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, record.Stream+" "+string(record.Line))
	}
	return lines
}

func TestLogStreams(t *testing.T) {
	r := theRuntime(t)
	c := container("out", "a", "sleep", "50ms", "err", "b", "sleep", "50ms", "out", "c", "sleep", "50ms", "words", "no newline")
	run(t, r, c)
	if err := r.Remove(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		options v1.LogOptions
		want    string
	}{
		{all, "stdout a|stderr b|stdout c|stdout no newline"},
		{v1.LogOptions{Stdout: true, Tail: -1}, "stdout a|stdout c|stdout no newline"},
		{v1.LogOptions{Stderr: true, Tail: -1}, "stderr b"},
		{v1.LogOptions{Stdout: true, Stderr: true, Tail: 2}, "stdout c|stdout no newline"},
		{v1.LogOptions{Stdout: true, Stderr: true, Tail: 99}, "stdout a|stderr b|stdout c|stdout no newline"},
		{v1.LogOptions{Stderr: true, Tail: 1}, "stderr b"},
		{v1.LogOptions{Tail: -1}, ""},
	} {
		if got := strings.Join(read(t, r, c.ID, test.options), "|"); got != test.want {
			t.Errorf("%+v: %q, want %q", test.options, got, test.want)
		}
	}
	var second time.Time
	for record := range r.Logs(t.Context(), c.ID, all) {
		if record.Stream == "stderr" {
			second = record.Time
		}
	}
	since := all
	since.Since = second
	if got := read(t, r, c.ID, since); len(got) != 3 {
		t.Errorf("since the second line: %q", got)
	}
}

func TestLogLongLine(t *testing.T) {
	r := theRuntime(t)
	c := container("long", fmt.Sprint(3*logfile.MaxLine+5), "out", "after")
	run(t, r, c)
	var partial []bool
	length := 0
	if err := r.Remove(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	for record, err := range r.Logs(t.Context(), c.ID, all) {
		if err != nil {
			t.Fatal(err)
		}
		if string(record.Line) == "after" {
			continue
		}
		partial = append(partial, record.Partial)
		length += len(record.Line)
	}
	if fmt.Sprint(partial) != "[true true true false]" || length != 3*logfile.MaxLine+5 {
		t.Errorf("parts %v of %d bytes together", partial, length)
	}
	last := all
	last.Tail = 2 // lines, not parts
	if got := read(t, r, c.ID, last); len(got) != 5 {
		t.Errorf("the last two lines are in %d records, want 5", len(got))
	}
}

// TestLogRotation follows a log from before it begins to after its end, while files are made and removed.
func TestLogRotation(t *testing.T) {
	r := theRuntime(t)
	const lines = 20000
	c := container("wait", "/data/go", "lines", fmt.Sprint(lines))
	c.Log = runtime.LogConfig{MaxSize: 64 << 10, MaxFiles: 2}
	create(t, r, c)
	got := make(chan []string)
	go func() {
		var followed []string
		o := all
		o.Follow = true
		for record, err := range r.Logs(t.Context(), c.ID, o) {
			if err != nil {
				t.Error(err)
				break
			}
			followed = append(followed, string(record.Line))
		}
		got <- followed
	}()
	pid, err := r.Start(t.Context(), c.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/root/data/go", pid), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	waitEnd(t, r, c.ID)
	if err := r.Remove(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	followed := <-got
	// Who reads slower than the container writes may lose a file that is rotated away, but never the end, nor the order.
	if len(followed) == 0 || followed[len(followed)-1] != fmt.Sprint("line ", lines-1) {
		t.Fatalf("followed %d lines, the last is %q", len(followed), followed[max(0, len(followed)-1):])
	}
	previous := -1
	for _, line := range followed {
		var n int
		if _, err := fmt.Sscanf(line, "line %d", &n); err != nil || n <= previous {
			t.Fatalf("%q after line %d", line, previous)
		}
		previous = n
	}
	files, err := filepath.Glob(filepath.Join(r.paths.logs(c.ID), "*.log"))
	if err != nil || len(files) != 2 {
		t.Errorf("files %v, %v, want 2", files, err)
	}
	for _, file := range files {
		if info, err := os.Stat(file); err != nil || info.Size() > 64<<10 {
			t.Errorf("%s: %d bytes, %v", file, info.Size(), err)
		}
	}
}

func TestLogDiscard(t *testing.T) {
	r := theRuntime(t)
	c := container("out", "unheard")
	c.Log.Discard = true
	run(t, r, c)
	if got := read(t, r, c.ID, all); got != nil {
		t.Errorf("read %q", got)
	}
	if _, err := os.Stat(r.paths.logs(c.ID)); !os.IsNotExist(err) {
		t.Errorf("a log was made: %v", err)
	}
}

// TestLogPrompt: words that no newline ends are seen while the container runs.
func TestLogPrompt(t *testing.T) {
	r := theRuntime(t)
	c := container("words", "password: ", "forever")
	create(t, r, c)
	if _, err := r.Start(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	o := all
	o.Follow = true
	for record, err := range r.Logs(t.Context(), c.ID, o) {
		if err != nil || string(record.Line) != "password: " || !record.Partial {
			t.Errorf("record %+v, %v", record, err)
		}
		break
	}
}

// TestLogFullDisk fills the file system below the logs: the container goes on, and once there is room its log does too
// and says that something is missing.
func TestLogFullDisk(t *testing.T) {
	root := t.TempDir()
	logs := filepath.Join(root, "logs")
	if err := os.Mkdir(logs, 0o700); err != nil {
		t.Fatal(err)
	}
	mountTmpfs(t, logs, "256k")
	r := start(t, func(c *Config) { c.Root = root })
	load(t, r)
	filler := filepath.Join(logs, "filler")
	c := container("out", "before", "wait", "/data/full", "lines", "50000", "write", "/data/done", "wait", "/data/free", "out", "after")
	create(t, r, c)
	pid, err := r.Start(t.Context(), c.ID)
	if err != nil {
		t.Fatal(err)
	}
	waitLine(t, r, c.ID, "before")
	if err := os.WriteFile(filler, make([]byte, 512<<10), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	inside := fmt.Sprintf("/proc/%d/root/data/", pid)
	for _, step := range []string{"full", "free"} {
		if step == "free" {
			eventually(t, "the container has written all", func() bool { _, err := os.Stat(inside + "done"); return err == nil })
			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(inside+step, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if s := waitEnd(t, r, c.ID); s.ExitCode != 0 {
		t.Errorf("ended as %+v", s)
	}
	got := output(t, r, c.ID)
	if !strings.HasPrefix(got, "before\n") || !strings.HasSuffix(got, "after\n") || !strings.Contains(got, "bytes of output were lost") {
		t.Errorf("log %.200q … %.200q", got, got[max(0, len(got)-200):])
	}
}
