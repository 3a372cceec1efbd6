package lab

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Host is a machine of the lab.
type Host struct {
	*Namespace
	Name string
	Addr netip.Addr
	// Root is the data directory of its swarmd.
	Root   string
	lab    *Lab
	daemon *exec.Cmd
	exited chan struct{}
}

// Socket is where the host's swarmd listens.
func (h *Host) Socket() string { return filepath.Join(h.Root, "swarmd.sock") }

// Start starts swarmd and waits until it answers.
func (h *Host) Start(args ...string) {
	h.lab.T.Helper()
	log, err := os.OpenFile(filepath.Join(h.lab.Dir, h.Name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		h.lab.T.Fatal(err)
	}
	defer log.Close()
	h.daemon = h.Command(filepath.Join(h.lab.Bin, "swarmd"), append([]string{"--root", h.Root}, args...)...)
	h.daemon.Stdout, h.daemon.Stderr = log, log
	if err := h.daemon.Start(); err != nil {
		h.lab.T.Fatal(err)
	}
	h.exited = make(chan struct{})
	go func(daemon *exec.Cmd, exited chan struct{}) {
		_ = daemon.Wait() // how it ended is in ProcessState
		close(exited)
	}(h.daemon, h.exited)
	h.lab.Eventually(30*time.Second, "swarmd of "+h.Name+" answers", func() error {
		select {
		case <-h.exited:
			h.lab.T.Fatalf("swarmd of %s ended: %v\n%s", h.Name, h.daemon.ProcessState, h.Log())
		default:
		}
		return h.Ctl("version").Err
	})
}

// Run starts another of the built programs on the host; it is ended with the lab.
func (h *Host) Run(program string, args ...string) {
	h.lab.T.Helper()
	log, err := os.OpenFile(filepath.Join(h.lab.Dir, h.Name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		h.lab.T.Fatal(err)
	}
	defer log.Close()
	cmd := h.Command(filepath.Join(h.lab.Bin, program), args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		h.lab.T.Fatal(err)
	}
	go func() { _ = cmd.Wait() }()
}

// PID is that of the running swarmd.
func (h *Host) PID() int { return h.daemon.Process.Pid }

// Stop ends swarmd as an init system would, and waits.
func (h *Host) Stop() { h.signal(syscall.SIGTERM) }

// Kill ends swarmd with no chance to do anything.
func (h *Host) Kill() { h.signal(syscall.SIGKILL) }

func (h *Host) signal(s syscall.Signal) {
	h.lab.T.Helper()
	if err := h.daemon.Process.Signal(s); err != nil {
		h.lab.T.Fatalf("lab: signal swarmd of %s: %v", h.Name, err)
	}
	select {
	case <-h.exited:
	case <-time.After(30 * time.Second):
		h.lab.T.Fatalf("swarmd of %s did not end within 30 s of %s\n%s", h.Name, s, h.Log())
	}
}

// Log is the end of what swarmd logged.
func (h *Host) Log() string {
	data, _ := os.ReadFile(filepath.Join(h.lab.Dir, h.Name+".log"))
	if len(data) > 16<<10 {
		data = data[len(data)-16<<10:]
	}
	return string(data)
}

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
	cmd := h.Command(filepath.Join(h.lab.Bin, "swarmctl"), args...)
	cmd.Env = append(os.Environ(), "SWARM_HOST=unix://"+h.Socket())
	cmd.Stdin = strings.NewReader(input)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	r := Result{Stdout: stdout.String(), Stderr: stderr.String(), Code: cmd.ProcessState.ExitCode(), Err: err}
	if err != nil {
		r.Err = fmt.Errorf("swarmctl %s: %w\n%s%s", strings.Join(args, " "), err, r.Stdout, r.Stderr)
	}
	return r
}

// Must runs swarmctl and fails the test if that fails; it returns what was printed.
func (h *Host) Must(args ...string) string {
	h.lab.T.Helper()
	r := h.Ctl(args...)
	if r.Err != nil {
		h.lab.T.Fatalf("%v\nswarmd:\n%s", r.Err, h.Log())
	}
	return r.Stdout
}

// Eventually waits until f is content, and fails the test if that takes too long. It asks again every few milliseconds,
// because what it asks has no other way to tell.
func (l *Lab) Eventually(within time.Duration, what string, f func() error) {
	l.T.Helper()
	deadline := time.Now().Add(within)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			l.T.Fatalf("%s: not within %s: %v", what, within, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
