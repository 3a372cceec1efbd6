package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"golang.org/x/sys/unix"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/runtime"
)

// Attach implements runtime.Runtime.
func (r *Runtime) Attach(ctx context.Context, id string, a runtime.Attachment) (exitCode int, err error) {
	if err := validID(id); err != nil {
		return 0, err
	}
	code, err := r.attach(r.namespaced(ctx), id, a)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause // whatever it was cut off at
	}
	if err != nil {
		return 0, failed("attach to", id, err)
	}
	return code, nil
}

func (r *Runtime) attach(ctx context.Context, id string, a runtime.Attachment) (code int, err error) {
	state, err := r.State(ctx, id)
	switch {
	case err != nil:
		return 0, err
	case state.Status != runtime.Running:
		return 0, runtime.ErrNotFound
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	output := &logReader{dir: r.paths.logs(id), options: v1.LogOptions{Stdout: true, Stderr: true, Follow: true}}
	defer output.close()
	if err := output.begin(ctx); errors.Is(err, os.ErrNotExist) {
		return 0, &refusal{"what the task writes is not kept (log driver none), so that nobody can attach to it"}
	} else if err != nil {
		return 0, err
	}
	if a.Stdin != nil {
		input, err := openInput(filepath.Join(r.paths.streams(id), inputPipe))
		if err != nil {
			return 0, err
		}
		defer input.Close()
		go func() { _, _ = io.Copy(input, a.Stdin) }() // a container that has ended reads no more
	}
	go r.resize(ctx, id, a.Resize)
	ended := make(chan ending, 1)
	go func() {
		answer, err := r.client.TaskService().Wait(ctx, &tasks.WaitRequest{ContainerID: id})
		ended <- ending{int(answer.GetExitStatus()), errgrpc.ToNative(err)}
		select { // for what it wrote last
		case <-time.After(outputWait):
		case <-ctx.Done():
		}
		cancel(nil)
	}()
	err = output.read(ctx, func(record v1.LogRecord) bool {
		if werr := show(record, a); werr != nil {
			cancel(werr) // who does not listen is gone
			return false
		}
		return true
	})
	if err == nil && ctx.Err() == nil { // its log has ended, since it is removed
		return (<-ended).result()
	}
	select {
	case e := <-ended:
		return e.result()
	default:
		return 0, errors.Join(context.Cause(ctx), err)
	}
}

// ending is what came of a container.
type ending struct {
	code int
	err  error
}

func (e ending) result() (int, error) {
	if errdefs.IsNotFound(e.err) {
		return 0, runtime.ErrNotFound
	}
	return e.code, e.err
}

// show writes a record as the process wrote it.
func show(record v1.LogRecord, a runtime.Attachment) error {
	to, line := a.Stdout, record.Line
	if record.Stream == "stderr" {
		to = a.Stderr
	}
	if !record.Partial {
		line = append(line, '\n')
	}
	_, err := to.Write(line)
	return err
}

// openInput opens the pipe to a container's input.
func openInput(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, &refusal{"the task has no input: its service is without openStdin (service update --interactive)"}
	case errors.Is(err, unix.ENXIO):
		return nil, runtime.ErrNotFound // nobody reads: it has ended
	case err != nil:
		return nil, fmt.Errorf("open its input: %w", err)
	}
	return f, nil
}

// resize gives the terminal of a container's own process other sizes.
func (r *Runtime) resize(ctx context.Context, id string, sizes <-chan v1.WindowSize) {
	for {
		select {
		case size, open := <-sizes:
			if !open {
				return
			}
			_, _ = r.client.TaskService().ResizePty(ctx, &tasks.ResizePtyRequest{ContainerID: id, Width: uint32(size.Columns), Height: uint32(size.Rows)})
		case <-ctx.Done():
			return
		}
	}
}
