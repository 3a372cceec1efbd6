package containerd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/swarmd/swarmd/pkg/runtime"
)

// outputWait is how long what a command wrote may take to be read once the command has ended: something that it started may have
// its output open for ever.
const outputWait = time.Second

// Exec implements runtime.Runtime.
func (r *Runtime) Exec(ctx context.Context, id string, command []string, limit int) (runtime.ExecResult, error) {
	if err := validID(id); err != nil {
		return runtime.ExecResult{}, err
	}
	result, err := r.exec(r.namespaced(ctx), id, command, limit)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause // whatever it was cut off at
	}
	if err != nil {
		return runtime.ExecResult{}, failed("exec in", id, err)
	}
	return result, nil
}

func (r *Runtime) exec(ctx context.Context, id string, command []string, limit int) (result runtime.ExecResult, err error) {
	process, err := r.processOf(ctx, id)
	if err != nil {
		return result, err
	}
	process.Args, process.Terminal = command, false
	output := &head{limit: limit}
	name := "exec-" + rand.Text() // not one that was used before: a start that was cut off leaves files of its name
	p, err := r.addProcess(ctx, id, name, process, output)
	if err != nil {
		return result, err
	}
	defer func() { _ = p.Close() }() // it was cancelled, or the call failed for another reason
	code, err := r.runProcess(ctx, id, name)
	r.endProcess(ctx, id, name)
	read := make(chan struct{})
	go func() { p.Wait(); close(read) }()
	select {
	case <-read:
	case <-time.After(outputWait):
	}
	p.Cancel()
	return runtime.ExecResult{ExitCode: code, Output: output.bytes()}, err
}

// processOf is the container's own process.
func (r *Runtime) processOf(ctx context.Context, id string) (*specs.Process, error) {
	record, err := r.client.ContainerService().Get(ctx, id)
	if errdefs.IsNotFound(err) {
		return nil, runtime.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	var spec specs.Spec
	if err := typeurl.UnmarshalTo(record.Spec, &spec); err != nil {
		return nil, err
	}
	if spec.Process == nil {
		return nil, errors.New("its record has no process")
	}
	return spec.Process, nil
}

// addProcess makes a process that waits to be started. What it will write goes to output.
func (r *Runtime) addProcess(ctx context.Context, id, name string, process *specs.Process, output *head) (cio.IO, error) {
	spec, err := typeurl.MarshalAnyToProto(process)
	if err != nil {
		return nil, err
	}
	// Both streams in one pipe, as Docker has it.
	pipes, err := cio.NewCreator(cio.WithStreams(nil, output, output), cio.WithFIFODir(r.paths.in("tmp")))(name)
	if err != nil {
		return nil, err
	}
	c := pipes.Config()
	_, err = r.client.TaskService().Exec(ctx, &tasks.ExecProcessRequest{ContainerID: id, ExecID: name, Stdout: c.Stdout, Stderr: c.Stderr, Spec: spec})
	if err = errgrpc.ToNative(err); err == nil {
		return pipes, nil
	}
	pipes.Cancel()
	pipes.Wait()
	if errdefs.IsNotFound(err) || errdefs.IsFailedPrecondition(err) {
		err = runtime.ErrNotFound
	}
	return nil, errors.Join(err, pipes.Close())
}

// runProcess starts the process and waits for its end.
func (r *Runtime) runProcess(ctx context.Context, id, name string) (code int, err error) {
	service := r.client.TaskService()
	if _, err := service.Start(ctx, &tasks.StartRequest{ContainerID: id, ExecID: name}); err != nil {
		err = errgrpc.ToNative(err)
		if errdefs.IsUnavailable(err) || ctx.Err() != nil {
			return 0, err // nobody's fault in the container
		}
		if err = explainRunc(err); !errors.Is(err, runtime.ErrInvalid) {
			err = &refusal{err.Error()}
		}
		return 0, err
	}
	answer, err := service.Wait(ctx, &tasks.WaitRequest{ContainerID: id, ExecID: name})
	if err != nil {
		return 0, errgrpc.ToNative(err)
	}
	return int(answer.ExitStatus), nil
}

// endProcess kills the process if it still runs, and removes it. It is done also when ctx has ended.
func (r *Runtime) endProcess(ctx context.Context, id, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	service := r.client.TaskService()
	remove := &tasks.DeleteProcessRequest{ContainerID: id, ExecID: name}
	_, err := service.DeleteProcess(ctx, remove)
	if err == nil || errdefs.IsNotFound(errgrpc.ToNative(err)) {
		return
	}
	_, err = service.Kill(ctx, &tasks.KillRequest{ContainerID: id, ExecID: name, Signal: uint32(syscall.SIGKILL)})
	if err == nil {
		_, _ = service.Wait(ctx, &tasks.WaitRequest{ContainerID: id, ExecID: name}) // Delete tells whether it has ended
	}
	if _, err := service.DeleteProcess(ctx, remove); err != nil && !errdefs.IsNotFound(errgrpc.ToNative(err)) {
		r.log.Warn("containerd: cannot remove what a command left", "task.id", id, "error", fmt.Sprint(err))
	}
}

// head keeps the beginning of what is written to it.
type head struct {
	limit int
	mu    sync.Mutex
	kept  []byte
}

// Write implements io.Writer; it takes everything.
func (h *head) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.kept = append(h.kept, p[:min(len(p), h.limit-len(h.kept))]...)
	return len(p), nil
}

func (h *head) bytes() []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clip(h.kept)
}
