package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	goruntime "runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// child is a process that this one started. It ends when its standard input does.
type child struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
	waited bool
}

func startChild(ctx context.Context, o options, role string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, "-role", role, "-socket", o.socket, "-nodes", strconv.Itoa(o.nodes), "-tasks", strconv.Itoa(o.tasks),
		"-services", strconv.Itoa(o.services), "-start-delay", o.startDelay.String(), "-limit", o.limit.String(), "-v="+strconv.FormatBool(o.verbose),
		"-cpuprofile", o.cpuProfile, "-memprofile", o.memProfile)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt is for process one, which then ends the others
	cmd.WaitDelay = 5 * time.Second
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the %s: %w", role, err)
	}
	return &child{cmd: cmd, stdin: stdin, stdout: bufio.NewReader(stdout)}, nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// await waits until the child says the line.
func (c *child) await(ctx context.Context, line string) error {
	text, err := c.stdout.ReadString('\n')
	if err == nil && strings.TrimSpace(text) != line {
		err = fmt.Errorf("said %q, want %q", strings.TrimSpace(text), line)
	}
	return errors.Join(err, context.Cause(ctx))
}

// finish has the child come to its end, and reads what it measured.
func (c *child) finish(ctx context.Context, into any) error {
	if err := c.stdin.Close(); err != nil {
		return err
	}
	text, err := io.ReadAll(c.stdout)
	if err != nil {
		return err
	}
	if err := c.wait(); err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	return json.Unmarshal(text, into)
}

func (c *child) wait() error {
	c.waited = true
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w", c.cmd.Args[2], err)
	}
	return nil
}

// stop ends the child if it has not ended yet.
func (c *child) stop() error {
	if c.waited {
		return nil
	}
	c.stdin.Close()
	if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	_ = c.wait() // it was killed: that it did not end well is no news
	return nil
}

// startProfile begins a CPU profile; an empty path is none.
func startProfile(path string) (stop func(), err error) {
	if path == "" {
		return func() {}, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() {
		pprof.StopCPUProfile()
		f.Close()
	}, nil
}

func writeMemProfile(path string) error {
	if path == "" {
		return nil
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	goruntime.GC()
	return errors.Join(pprof.WriteHeapProfile(f), f.Close())
}

func suffixed(path, suffix string) string {
	if path == "" {
		return ""
	}
	return path + suffix
}

// peakRSS is the most memory that a process had resident so far, in MiB.
func peakRSS(pid int) float64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(status) {
		if value, ok := bytes.CutPrefix(line, []byte("VmHWM:")); ok {
			kib, _ := strconv.ParseFloat(string(bytes.Fields(value)[0]), 64)
			return kib / 1024
		}
	}
	return 0
}

// cpuSeconds is the processor time that this process took so far.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}
