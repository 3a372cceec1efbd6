package containerd

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/runtime"
)

// screen is what somebody who is attached sees.
type screen struct {
	t      *testing.T
	mu     sync.Mutex
	text   strings.Builder
	typing *io.PipeWriter
	size   chan v1.WindowSize
	leave  context.CancelFunc
	end    chan error
	code   int
}

// Write implements io.Writer.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// shows waits until the text is to be seen.
func (s *screen) shows(text string) {
	s.t.Helper()
	eventually(s.t, "the screen shows "+text, func() bool { return strings.Contains(s.String(), text) })
}

// types writes to the container's input.
func (s *screen) types(text string) {
	s.t.Helper()
	if _, err := io.WriteString(s.typing, text); err != nil {
		s.t.Error(err)
	}
}

// attach attaches somebody to a container.
func attach(t *testing.T, r *Runtime, id string) *screen {
	in, typed := io.Pipe()
	ctx, leave := context.WithCancel(t.Context())
	s := &screen{t: t, typing: typed, size: make(chan v1.WindowSize), leave: leave, end: make(chan error, 1)}
	go func() {
		var err error
		s.code, err = r.Attach(ctx, id, runtime.Attachment{Stdin: in, Stdout: s, Stderr: s, Resize: s.size})
		in.Close()
		s.end <- err
	}()
	t.Cleanup(func() { leave(); typed.Close() })
	return s
}

// begin starts a container whose input is open.
func begin(t *testing.T, r *Runtime, tty bool, args ...string) string {
	t.Helper()
	c := container(args...)
	c.Spec.OpenStdin, c.Spec.TTY = true, tty
	create(t, r, c)
	if _, err := r.Start(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	return c.ID
}

// TestAttach types at containers with and without a terminal: two see the same, leave and come back, also after a restart of ours, and
// the container's end is told with its exit code.
func TestAttach(t *testing.T) {
	for _, tty := range []bool{true, false} {
		name := "pipes"
		if tty {
			name = "terminal"
		}
		t.Run(name, func(t *testing.T) {
			r := start(t, nil)
			load(t, r)
			id := begin(t, r, tty, "echo")
			first, second := attach(t, r, id), attach(t, r, id)
			first.types("one\n")
			first.shows("heard one")
			first.shows("length 3")
			second.types("two\n")
			first.shows("heard two")
			second.shows("heard two")
			second.shows("> ") // a prompt is no line, and does not wait for being one
			first.leave()
			if err := <-first.end; !errors.Is(err, context.Canceled) {
				t.Errorf("who leaves: %v", err)
			}
			second.typing.Close() // the end of one's input is not the container's
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			<-second.end
			r, err := Start(t.Context(), Config{Root: r.paths.root, Bin: binaries(t)})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				ctx, cancel := context.WithTimeout(context.Background(), timeout)
				defer cancel()
				if err := errors.Join(r.Remove(ctx, id), r.Shutdown(ctx)); err != nil {
					t.Error(err)
				}
				if _, err := os.Stat(r.paths.streams(id)); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the pipes of a container that is removed: %v", err)
				}
			})
			third := attach(t, r, id)
			third.types("three\n")
			third.shows("heard three")
			if strings.Contains(third.String(), "two") {
				t.Errorf("who comes later sees what was before: %q", third.String())
			}
			third.types("quit 5\n")
			if err := <-third.end; err != nil || third.code != 5 || !strings.Contains(third.String(), "bye") {
				t.Errorf("the end: status %d, %v after %q", third.code, err, third.String())
			}
			if _, err := r.Attach(t.Context(), id, runtime.Attachment{}); !errors.Is(err, runtime.ErrNotFound) {
				t.Errorf("a container that has ended: %v, want ErrNotFound", err)
			}
			var log strings.Builder
			for record, err := range r.Logs(t.Context(), id, v1.LogOptions{Stdout: true, Stderr: true, Tail: -1}) {
				if err != nil {
					t.Fatal(err)
				}
				log.Write(record.Line)
			}
			for _, want := range []string{"heard one", "heard two", "heard three", "bye"} {
				if strings.Count(log.String(), want) != 1 {
					t.Errorf("the log has %q %d times:\n%s", want, strings.Count(log.String(), want), log.String())
				}
			}
		})
	}
}

// TestAttachResize gives a terminal another size.
func TestAttachResize(t *testing.T) {
	r := theRuntime(t)
	id := begin(t, r, true, "size")
	s := attach(t, r, id)
	s.types("ready\n")
	s.shows("heard ready")
	s.size <- v1.WindowSize{Rows: 50, Columns: 132}
	s.shows("50x132\r\n")
}

// TestAttachRefused attaches where there is nothing to attach to; who does not listen is let go.
func TestAttachRefused(t *testing.T) {
	r := theRuntime(t)
	for _, tty := range []bool{true, false} {
		c := container("out", "hello", "echo")
		c.Spec.OpenStdin, c.Spec.TTY, c.Log.Discard = true, tty, true
		create(t, r, c)
		if _, err := r.Start(t.Context(), c.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Attach(t.Context(), c.ID, runtime.Attachment{}); !errors.Is(err, runtime.ErrInvalid) || !strings.Contains(err.Error(), "log driver none") {
			t.Errorf("without a log (tty %t): %v", tty, err)
		}
	}
	plain := container("out", "a", "sleep", "200ms", "trap")
	create(t, r, plain)
	if _, err := r.Attach(t.Context(), plain.ID, runtime.Attachment{}); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("a container that was not started: %v", err)
	}
	if _, err := r.Start(t.Context(), plain.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Attach(t.Context(), plain.ID, runtime.Attachment{Stdin: strings.NewReader("x")}); !errors.Is(err, runtime.ErrInvalid) {
		t.Errorf("without an input: %v", err)
	}
	deaf := errors.New("deaf")
	id := begin(t, r, false, "echo")
	in, typed := io.Pipe()
	defer typed.Close()
	go func() { _, _ = io.WriteString(typed, "x\n") }()
	if _, err := r.Attach(t.Context(), id, runtime.Attachment{Stdin: in, Stdout: failing{deaf}, Stderr: io.Discard}); !errors.Is(err, deaf) {
		t.Errorf("who does not listen: %v", err)
	}
}

// failing is a writer that cannot.
type failing struct{ error }

func (f failing) Write([]byte) (int, error) { return 0, f.error }

// TestCreateFailsWithPipes: a container that cannot be made leaves no logger that waits for it.
func TestCreateFailsWithPipes(t *testing.T) {
	r := theRuntime(t)
	c := container("echo")
	c.Spec.OpenStdin, c.Spec.Command = true, []string{"/no/such/command"}
	before := time.Now()
	if err := r.Create(t.Context(), c); !errors.Is(err, runtime.ErrInvalid) {
		t.Fatal(err)
	}
	if _, err := os.Stat(r.paths.streams(c.ID)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v after %s", err, time.Since(before))
	}
}
