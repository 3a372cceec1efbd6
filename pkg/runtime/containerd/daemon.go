package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/client"
)

const (
	// startTimeout is how long a containerd may take until it answers; on an idle machine it is 30 ms.
	startTimeout = 30 * time.Second
	stopTimeout  = 10 * time.Second
	// maxLog is the size from which containerd.log is cut; one older part is kept.
	maxLog = 5 << 20
)

// daemon is our containerd.
type daemon struct {
	paths     paths
	namespace string
	cgroup    cgroup
	log       *slog.Logger
}

// process is what the pid file says. A process ID alone could be anybody's.
type process struct {
	PID int `json:"pid"`
	// Started is the process's start in clock ticks since boot.
	Started string `json:"started"`
	// Build is what it was started from: another binary or configuration wants another process.
	Build string `json:"build"`
}

// ensure makes sure that the right containerd runs and answers.
func (d *daemon) ensure(ctx context.Context) error {
	config := d.config()
	build, err := d.build(config)
	if err != nil {
		return err
	}
	if running, ok := d.running(); ok {
		if running.Build == build && d.answers(ctx) == nil {
			return nil
		}
		d.log.Info("containerd: restarting one that is of another version or does not answer", "pid", running.PID)
		if err := d.stop(ctx); err != nil {
			return err
		}
	}
	if err := writeFile(d.paths.in("containerd.toml"), []byte(config)); err != nil {
		return fmt.Errorf("containerd: %w", err)
	}
	d.saveExits(ctx)
	os.Remove(d.paths.socket) // one that a dead containerd left would be taken for the new one's
	if err := d.spawn(build); err != nil {
		return err
	}
	if err := d.answers(ctx); err != nil {
		return fmt.Errorf("containerd: started, but does not answer: %w%s", err, d.lastWords())
	}
	return nil
}

// build names what a containerd is started from.
func (d *daemon) build(config string) (string, error) {
	info, err := os.Stat(d.paths.bin("containerd"))
	if err != nil {
		return "", fmt.Errorf("containerd: %w", err)
	}
	return fmt.Sprintf("%s %d %d %s", d.paths.runtime, info.Size(), info.ModTime().UnixNano(), config), nil
}

// spawn starts a containerd that outlives this process: of its own session, with its output in a file, and with none of
// our environment, in which a service manager's notification socket might be.
func (d *daemon) spawn(build string) error {
	output, err := os.OpenFile(d.paths.in("containerd.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("containerd: %w", err)
	}
	defer output.Close()
	cmd := exec.Command(d.paths.bin("containerd"), "--config", d.paths.in("containerd.toml"))
	cmd.Stdout, cmd.Stderr, cmd.Dir = output, output, "/"
	cmd.Env = []string{"PATH=" + d.paths.runtime + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("containerd: %w", err)
	}
	started, err := startTime(cmd.Process.Pid)
	if err == nil {
		var data []byte
		data, err = json.Marshal(process{PID: cmd.Process.Pid, Started: started, Build: build})
		if err == nil {
			err = writeFile(d.paths.in("containerd.pid"), data)
		}
	}
	if err != nil {
		err = errors.Join(err, ended(cmd.Process.Kill()))
		_ = cmd.Wait() // which tells that it was killed
		return fmt.Errorf("containerd: %w%s", err, d.lastWords())
	}
	// Reaped when it ends, so that running does not see a zombie. The goroutine lives as long as containerd does.
	go func() { _ = cmd.Wait() }() // how it ended is in its log
	return nil
}

// running is the containerd of the pid file, if that process is there.
func (d *daemon) running() (process, bool) {
	var p process
	data, err := os.ReadFile(d.paths.in("containerd.pid"))
	if err != nil || json.Unmarshal(data, &p) != nil || p.PID <= 0 {
		return p, false
	}
	started, err := startTime(p.PID)
	return p, err == nil && started == p.Started
}

// answers waits until containerd serves, and fails early when it is dead.
func (d *daemon) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	c, err := connect(d.paths.socket, DefaultNamespace)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		// By hand, not by waiting for the connection: gRPC's own backoff begins at a second.
		if _, err := os.Stat(d.paths.socket); err == nil {
			attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
			serving, err := c.IsServing(attempt)
			cancel()
			if serving && err == nil {
				return nil
			}
		}
		if _, ok := d.running(); !ok {
			return errors.New("it has ended")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// stop ends containerd; containers keep running. It is no error if there is none.
func (d *daemon) stop(ctx context.Context) error {
	p, ok := d.running()
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*stopTimeout)
	defer cancel()
	if err := ended(syscall.Kill(p.PID, syscall.SIGTERM)); err != nil {
		return fmt.Errorf("containerd: stop process %d: %w", p.PID, err)
	}
	kill := time.After(stopTimeout)
	for {
		if _, ok := d.running(); !ok {
			os.Remove(d.paths.in("containerd.pid"))
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("containerd: process %d does not end: %w", p.PID, ctx.Err())
		case <-kill:
			if err := ended(syscall.Kill(p.PID, syscall.SIGKILL)); err != nil {
				return fmt.Errorf("containerd: kill process %d: %w", p.PID, err)
			}
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// supervise restarts containerd when it has died, and bounds its log, until ctx ends.
func (d *daemon) supervise(ctx context.Context) {
	const shortest, longest = 500 * time.Millisecond, 30 * time.Second
	pause := shortest
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		d.cutLog()
		if _, ok := d.running(); ok {
			pause = shortest
			continue
		}
		d.log.Warn("containerd: it has died; restarting it")
		if err := d.ensure(ctx); err != nil && ctx.Err() == nil {
			pause = min(2*pause, longest)
			d.log.Error("containerd: restart failed", "error", err, "retry", pause)
		}
	}
}

// cutLog copies a log that has grown too long aside and empties it in place, since containerd holds it open.
func (d *daemon) cutLog() {
	name := d.paths.in("containerd.log")
	info, err := os.Stat(name)
	if err != nil || info.Size() <= maxLog {
		return
	}
	from, err := os.Open(name)
	if err != nil {
		return
	}
	defer from.Close()
	if to, err := os.Create(name + ".1"); err == nil {
		_, err = io.Copy(to, from)
		if err = errors.Join(err, to.Close()); err != nil {
			d.log.Warn("containerd: the older part of its log is lost", "error", err)
		}
	}
	if err := os.Truncate(name, 0); err != nil {
		d.log.Warn("containerd: its log cannot be cut", "error", err)
	}
}

// ended takes that a process has ended already for success.
func ended(err error) error {
	if errors.Is(err, syscall.ESRCH) || errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// lastWords is the end of containerd's log, to put after an error.
func (d *daemon) lastWords() string {
	data, err := os.ReadFile(d.paths.in("containerd.log"))
	if err != nil || len(data) == 0 {
		return ""
	}
	return ": " + strings.TrimSpace(string(data[max(0, len(data)-500):]))
}

// startTime is when a process started, in clock ticks since boot. A zombie counts as gone.
func startTime(pid int) (string, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", err
	}
	// The second field is the command in brackets, in which anything may be.
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return "", os.ErrProcessDone
	}
	return fields[19], nil
}

// writeFile replaces a file at once, so that a crash never leaves half of it.
func writeFile(name string, data []byte) error {
	if err := os.WriteFile(name+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// connect is a client of the containerd at address. It connects when it is first used, and again after each loss.
func connect(address, namespace string) (*client.Client, error) {
	c, err := client.New(address, client.WithDefaultNamespace(namespace), client.WithTimeout(time.Second))
	if err != nil {
		return nil, fmt.Errorf("containerd: connect to %s: %w", address, err)
	}
	return c, nil
}
