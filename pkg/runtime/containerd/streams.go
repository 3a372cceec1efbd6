package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"golang.org/x/sys/unix"

	"github.com/swarmd/swarmd/pkg/runtime"
)

// A container whose input is open has a pipe for it, which its shim reads and holds open: whoever is attached writes into it and
// leaves, and the shim lives on when we do not. A shim that starts the logger itself reads no input but a terminal's. Without a terminal
// the output goes through pipes too, which a logger of ours reads.

// The pipes in a container's folder.
const (
	inputPipe  = "in"
	outputPipe = "out"
	errorsPipe = "err"
)

const (
	// attachedIdle is how long the beginning of a line waits for its end where somebody may type, and wants to see it.
	attachedIdle = 20 * time.Millisecond
	// loggerWait is how long a logger may take to be ready, and to end.
	loggerWait = 10 * time.Second
	// loggerLook is how often it is asked whether it has ended.
	loggerLook = 5 * time.Millisecond
)

// connect says where a container's input comes from, and where its output goes.
func (r *Runtime) connect(ctx context.Context, c runtime.Container, request *tasks.CreateTaskRequest) error {
	dir := r.paths.streams(c.ID)
	if c.Spec.OpenStdin {
		if err := makePipes(dir); err != nil {
			return err
		}
		request.Stdin = filepath.Join(dir, inputPipe)
	}
	if c.Log.Discard {
		if c.Spec.OpenStdin { // with an input a shim needs to be told
			request.Stdout, request.Stderr = os.DevNull, os.DevNull
		}
		return nil
	}
	if err := r.clearLogEnd(c.ID); err != nil {
		return err
	}
	if c.Spec.OpenStdin && !c.Spec.TTY {
		request.Stdout, request.Stderr = filepath.Join(dir, outputPipe), filepath.Join(dir, errorsPipe)
		return r.startLogger(ctx, c)
	}
	request.Stdout = r.logger(c)
	request.Stderr = request.Stdout
	return nil
}

func makePipes(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, name := range []string{inputPipe, outputPipe, errorsPipe} {
		if err := unix.Mkfifo(filepath.Join(dir, name), 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("make a pipe: %w", err)
		}
	}
	return nil
}

// startLogger starts swarm-logger as a shim would, on the container's pipes. It ends with the container, or by dropStreams.
func (r *Runtime) startLogger(ctx context.Context, c runtime.Container) error {
	cmd := exec.Command(r.paths.bin("swarm-logger"))
	for option, values := range r.loggerOptions(c) {
		cmd.Args = append(cmd.Args, option, values[0])
	}
	cmd.Dir, cmd.SysProcAttr = "/", &syscall.SysProcAttr{Setsid: true}
	for _, name := range []string{outputPipe, errorsPipe} {
		// Not waiting for a writer; a logger that sees no writer yet does not take it for the end.
		f, err := os.OpenFile(filepath.Join(r.paths.streams(c.ID), name), os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	ready, tell, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	cmd.ExtraFiles = append(cmd.ExtraFiles, tell)
	err = cmd.Start()
	tell.Close()
	if err != nil {
		return fmt.Errorf("start the logger: %w", err)
	}
	go func() { _ = cmd.Wait() }() // or whoever inherits it
	stop := context.AfterFunc(ctx, func() { _ = ready.SetReadDeadline(time.Now()) })
	defer stop()
	_ = ready.SetReadDeadline(time.Now().Add(loggerWait))
	if _, err := ready.Read(make([]byte, 1)); err != nil {
		return fmt.Errorf("start the logger: it did not say that it is ready: %w", err)
	}
	return nil
}

// dropStreams removes a container's pipes, once what was in them is logged. The container's shim must be gone.
func (r *Runtime) dropStreams(ctx context.Context, id string) error {
	dir := r.paths.streams(id)
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, loggerWait)
	defer cancel()
	for _, name := range []string{outputPipe, errorsPipe} {
		// A writer that comes and goes is the end, also for a logger that never saw one.
		for ctx.Err() == nil {
			f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|unix.O_NONBLOCK, 0)
			if err != nil {
				break // ENXIO: nobody reads
			}
			f.Close()
			time.Sleep(loggerLook)
		}
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("the logger did not end: %w", err)
	}
	return os.RemoveAll(dir)
}
