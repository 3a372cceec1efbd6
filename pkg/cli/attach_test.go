package cli_test

import (
	"context"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/swarmd/swarmd/pkg/cli"
)

// watched is what a command prints, which another goroutine may look at.
type watched struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write implements io.Writer.
func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// shows waits for a text.
func (w *watched) shows(t *testing.T, text string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !strings.Contains(w.String(), text); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it shows %q, want %q in it", w.String(), text)
		}
	}
}

// reported waits until the managers know the state of a service's only task.
func (s *swarm) reported(t *testing.T, service, state string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		_, out, stderr := run(t, s.host(), "service", "ps", "--format", "{{.CurrentState}}", service)
		if strings.HasPrefix(out, state) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the task of %s is %s%s, want %s", service, out, stderr, state)
		}
	}
}

// TestAttach types at a task, and sends it a signal, which ends it and attach.
func TestAttach(t *testing.T) {
	s := newSwarm(t)
	s.start(1)
	for _, args := range [][]string{
		{"service", "create", "-q", "--name", "echo", "-i", "--restart-condition", "none", "hello:1"},
		{"service", "create", "-q", "--name", "plain", "hello:1"},
		{"service", "create", "-q", "--name", "shell", "-i", "-t", "hello:1"},
	} {
		if code, _, stderr := run(t, s.host(), args...); code != 0 {
			t.Fatal(stderr)
		}
	}
	in, typed := io.Pipe()
	signals := make(chan os.Signal)
	var out, errs watched
	codes := make(chan int, 1)
	ctx, interrupt := context.WithCancel(t.Context())
	go func() {
		codes <- cli.Run(ctx, cli.Options{In: in, Out: &out, Err: &errs, Getenv: func(string) string { return s.host() },
			Signals: func() (<-chan os.Signal, func()) { return signals, func() {} }}, []string{"attach", "echo.1"})
	}()
	for _, line := range []string{"one\n", "two\n"} {
		if _, err := io.WriteString(typed, line); err != nil {
			t.Fatal(err)
		}
		out.shows(t, line)
	}
	typed.Close() // the task goes on, and attach does
	interrupt()   // is the task's business
	signals <- syscall.SIGINT
	if code := <-codes; code != 128+2 || errs.String() != "" {
		t.Errorf("after a signal to the task: status %d, %s", code, errs.String())
	}
	s.reported(t, "echo", "Failed") // attach knows it from the node, and the managers only soon
	for _, bad := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"attach", "shell"}, 1, "the input device is not a TTY"},
		{[]string{"attach", "--detach-keys", "ctrl-p,xyz", "shell"}, 1, "invalid detach keys (ctrl-p,xyz)"},
		{[]string{"attach", "nothing"}, 1, "no such task or service: nothing"},
		{[]string{"attach", "echo"}, 1, "no task of service echo runs"},
	} {
		if code, _, stderr := run(t, s.host(), bad.args...); code != bad.code || !strings.Contains(stderr, bad.says) {
			t.Errorf("%q: status %d, %s; want %d, %q", bad.args, code, stderr, bad.code, bad.says)
		}
	}
	leave, cancel := context.WithCancel(t.Context())
	go func() {
		codes <- cli.Run(leave, cli.Options{In: strings.NewReader(""), Out: &out, Err: &errs, Getenv: func(string) string { return s.host() }},
			[]string{"attach", "--sig-proxy=false", "plain"})
	}()
	cancel()
	if code := <-codes; code == 0 {
		t.Errorf("attach that is interrupted: status %d, %s", code, errs.String())
	}
	if _, out, _ := run(t, s.host(), "service", "ps", "--format", "{{.CurrentState}}", "plain"); !strings.HasPrefix(out, "Running") {
		t.Errorf("whom nobody is attached to any more: %s", out)
	}
}
