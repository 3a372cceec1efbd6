package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// patience is how long a command may take before it is ended.
const patience = 3 * time.Minute

// Result is what a command printed and how it ended.
type Result struct {
	Stdout, Stderr string
	Code           int
	Err            error
}

// Ctl runs swarmctl on the host.
func (h *Host) Ctl(args ...string) Result { return h.CtlInput("", args...) }

// CtlInput is Ctl with something on standard input.
func (h *Host) CtlInput(input string, args ...string) Result {
	return h.CtlWithin(patience, input, args...)
}

// CtlWithin is CtlInput for those who do not wait long.
func (h *Host) CtlWithin(within time.Duration, input string, args ...string) Result {
	if h.Namespace == nil {
		return Result{Code: -1, Err: fmt.Errorf("swarmctl %s: %s has no power", strings.Join(args, " "), h.Name)}
	}
	return h.lab.ctl(within, h.Namespace, []string{"SWARM_HOST=unix://" + h.Socket()}, input, args...)
}

// ClientCtl runs swarmctl on the machine outside of the swarm, as a user with nothing but its own folder.
func (l *Lab) ClientCtl(home string, args ...string) Result {
	return l.ctl(patience, l.Client, []string{"HOME=" + home, "XDG_CONFIG_HOME=", "SWARM_HOST="}, "", args...)
}

func (l *Lab) ctl(within time.Duration, from *Namespace, env []string, input string, args ...string) Result {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	cmd := from.Command(filepath.Join(l.Bin, "swarmctl"), args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin = strings.NewReader(input)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Start()
	if err == nil {
		stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() }) // it may have ended just now
		err = cmd.Wait()
		stop()
	}
	r := Result{Stdout: stdout.String(), Stderr: stderr.String(), Code: cmd.ProcessState.ExitCode(), Err: err}
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("not within %s: %w", within, err)
		}
		r.Err = fmt.Errorf("swarmctl %s: %w\n%s%s", strings.Join(args, " "), err, r.Stdout, r.Stderr)
	}
	return r
}

// Must runs swarmctl and fails the test if that fails; it returns what was printed.
func (h *Host) Must(args ...string) string {
	h.lab.T.Helper()
	r := h.Ctl(args...)
	if r.Err != nil {
		h.lab.T.Fatalf("on %s: %v\nswarmd:\n%s", h.Name, r.Err, h.Log())
	}
	return r.Stdout
}

// Eventually waits until f is content, and fails the test if that takes too long. It asks again every few milliseconds,
// because what it asks has no other way to tell.
func (l *Lab) Eventually(within time.Duration, what string, f func() error) {
	l.T.Helper()
	if err := Await(within, f); err != nil {
		l.T.Fatalf("%s: not within %s: %v", what, within, err)
	}
}

// Await waits until f is content, and returns its last error if that takes too long. It asks ever more seldom, so that what is waited for
// is not held up by the questions, and is late by a tenth of what it took, half a second at most.
func Await(within time.Duration, f func() error) error {
	began := time.Now()
	for {
		err := f()
		took := time.Since(began)
		if err == nil || took > within {
			return err
		}
		time.Sleep(min(max(took/10, 20*time.Millisecond), 500*time.Millisecond))
	}
}
