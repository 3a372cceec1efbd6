package lab

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Host is a machine of the lab. Its methods that return nothing end the test where they fail.
type Host struct {
	// Namespace is nil while the host has no power.
	*Namespace
	Name string
	Addr netip.Addr
	// Root is the data directory of its swarmd.
	Root   string
	lab    *Lab
	number int
	daemon *exec.Cmd // nil where another process started it
	store  *store    // nil where the init system keeps nothing
}

// Socket is where the host's swarmd listens.
func (h *Host) Socket() string { return filepath.Join(h.Root, "swarmd.sock") }

// Start starts swarmd and waits until it answers. A host without power gets it first.
func (h *Host) Start(args ...string) {
	h.lab.T.Helper()
	if err := h.Launch(args...); err != nil {
		h.lab.T.Fatalf("lab: start swarmd of %s: %v", h.Name, err)
	}
	h.Answers()
}

// Launch starts swarmd and waits for nothing.
func (h *Host) Launch(args ...string) error {
	if err := h.PowerOn(); err != nil {
		return err
	}
	log, err := os.OpenFile(h.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	line := append([]string{cmp.Or(h.lab.Swarmd, filepath.Join(h.lab.Bin, "swarmd")), "--root", h.Root}, args...)
	if h.store != nil {
		line = h.store.wrap(line)
	}
	daemon := h.Command(line[0], line[1:]...)
	if h.store != nil {
		var env []string
		env, daemon.ExtraFiles = h.store.pass()
		daemon.Env = append(os.Environ(), env...)
	}
	daemon.Stdout, daemon.Stderr = log, log
	daemon.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // an interrupt at the terminal is not for it
	if err := daemon.Start(); err != nil {
		return err
	}
	h.daemon = daemon
	go func() { _ = daemon.Wait() }() // or it would stay as a zombie; how it ended is in ProcessState
	return nil
}

// Answers waits until swarmd answers on its socket.
func (h *Host) Answers() {
	h.lab.T.Helper()
	h.lab.Eventually(30*time.Second, "swarmd of "+h.Name+" answers", func() error {
		if !h.Alive() {
			h.lab.T.Fatalf("swarmd of %s ended\n%s", h.Name, h.Log())
		}
		return h.Ctl("version").Err
	})
}

// Alive tells whether swarmd runs.
func (h *Host) Alive() bool {
	pid, err := h.pid()
	return err == nil && !zombie(pid)
}

// PID is that of the running swarmd.
func (h *Host) PID() int {
	h.lab.T.Helper()
	pid, err := h.pid()
	if err != nil {
		h.lab.T.Fatalf("%v", err)
	}
	return pid
}

// pid finds swarmd, whoever started it.
func (h *Host) pid() (int, error) {
	if h.daemon != nil {
		return h.daemon.Process.Pid, nil
	}
	all, err := processes(func(pid int, line []string) bool {
		return len(line) > 2 && filepath.Base(line[0]) == "swarmd" && line[1] == "--root" && line[2] == h.Root
	})
	if err != nil {
		return 0, err
	}
	if len(all) == 0 {
		return 0, fmt.Errorf("no swarmd runs on %s", h.Name)
	}
	return all[0], nil
}

// Run starts another of the built programs on the host; it is ended with the lab.
func (h *Host) Run(program string, args ...string) {
	h.lab.T.Helper()
	log, err := os.OpenFile(h.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		h.lab.T.Fatalf("lab: %v", err)
	}
	defer log.Close()
	cmd := h.Command(filepath.Join(h.lab.Bin, program), args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		h.lab.T.Fatalf("lab: %v", err)
	}
	go func() { _ = cmd.Wait() }()
}

// Stop ends swarmd as an init system would, and waits.
func (h *Host) Stop() { h.end(syscall.SIGTERM) }

// Kill ends swarmd with no chance to do anything. Its containers go on.
func (h *Host) Kill() { h.end(syscall.SIGKILL) }

// Pause freezes swarmd. Its containers go on meanwhile.
func (h *Host) Pause() { h.signal(syscall.SIGSTOP) }

// Resume lets a frozen swarmd go on where it was.
func (h *Host) Resume() { h.signal(syscall.SIGCONT) }

func (h *Host) signal(s syscall.Signal) {
	h.lab.T.Helper()
	pid, err := h.pid()
	if err == nil {
		err = syscall.Kill(pid, s)
	}
	if err != nil {
		h.lab.T.Fatalf("lab: %s to swarmd of %s: %v", s, h.Name, err)
	}
}

func (h *Host) end(s syscall.Signal) {
	h.lab.T.Helper()
	pid := h.PID()
	h.signal(s)
	if err := gone(pid, 30*time.Second); err != nil {
		h.lab.T.Fatalf("swarmd of %s: %v after %s\n%s", h.Name, err, s, h.Log())
	}
}

// gone waits until a process has ended.
func gone(pid int, within time.Duration) error {
	for deadline := time.Now().Add(within); !zombie(pid); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("process %d did not end within %s", pid, within)
		}
	}
	return nil
}

// KillAll ends swarmd, its containerd and every container, as if all of them had crashed at once; the kernel closes their
// connections.
func (h *Host) KillAll() {
	h.lab.T.Helper()
	if err := h.killAll(); err != nil {
		h.lab.T.Fatalf("lab: kill everything on %s: %v", h.Name, err)
	}
}

func (h *Host) killAll() error {
	return endProcesses(h.processes)
}

// processes are swarmd, containerd, the shims, the containers and whatever else runs on the host.
func (h *Host) processes() ([]int, error) { return processesBelow(h.Root, h.namespace()) }

// CommandLines are the command lines and environments of the host's processes, as other users' tools show them.
func (h *Host) CommandLines() ([]string, error) {
	pids, err := h.processes()
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, pid := range pids {
		for _, name := range []string{"cmdline", "environ"} {
			if data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name)); err == nil {
				lines = append(lines, strings.ReplaceAll(string(data), "\x00", " "))
			}
		}
	}
	return lines, nil
}

func (h *Host) namespace() string {
	if h.Namespace == nil {
		return ""
	}
	return h.Path
}

func (h *Host) logFile() string { return filepath.Join(h.lab.Dir, h.Name+".log") }

// Log is the end of what swarmd logged.
func (h *Host) Log() string {
	data := h.WholeLog()
	if len(data) > 16<<10 {
		data = data[len(data)-16<<10:]
	}
	return data
}

// WholeLog is all that swarmd ever logged on the host.
func (h *Host) WholeLog() string {
	data, err := os.ReadFile(h.logFile())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err.Error()
	}
	return strings.ToValidUTF8(string(data), "?")
}

// Number is the host's, from 1: the last part of its address.
func (h *Host) Number() int { return h.number }
