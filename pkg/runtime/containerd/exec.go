package containerd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
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
	// Both streams in one pipe, as Docker has it.
	output := &head{limit: limit}
	code, err := r.run(ctx, id, runtime.Process{Command: command, Stdout: output, Stderr: output})
	return runtime.ExecResult{ExitCode: code, Output: output.bytes()}, err
}

// Run implements runtime.Runtime.
func (r *Runtime) Run(ctx context.Context, id string, p runtime.Process) (exitCode int, err error) {
	if err := validID(id); err != nil {
		return 0, err
	}
	code, err := r.run(r.namespaced(ctx), id, p)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause // whatever it was cut off at
	}
	if err != nil {
		return 0, failed("exec in", id, err)
	}
	return code, nil
}

func (r *Runtime) run(ctx context.Context, id string, p runtime.Process) (code int, err error) {
	process, err := r.processOf(ctx, id)
	if err != nil {
		return 0, err
	}
	if err := r.adapt(ctx, id, process, p); err != nil {
		return 0, err
	}
	name := "exec-" + rand.Text() // not one that was used before: a start that was cut off leaves files of its name
	started := make(chan struct{})
	if p.Stdin != nil {
		p.Stdin = &endingReader{p.Stdin, func() {
			select {
			case <-started: // before, there is nobody to tell
				r.closeInput(ctx, id, name)
			case <-ctx.Done():
			}
		}}
	}
	pipes, err := r.addProcess(ctx, id, name, process, p)
	if err != nil {
		return 0, err
	}
	defer func() { _ = pipes.Close() }() // it was cancelled, or the call failed for another reason
	code, err = r.runProcess(ctx, id, name, started, p.Resize)
	r.endProcess(ctx, id, name)
	read := make(chan struct{})
	go func() { pipes.Wait(); close(read) }()
	select {
	case <-read:
	case <-time.After(outputWait):
	}
	pipes.Cancel()
	return code, err
}

// adapt makes the container's own process the one to run.
func (r *Runtime) adapt(ctx context.Context, id string, process *specs.Process, p runtime.Process) error {
	process.Args, process.Terminal = p.Command, p.TTY
	if p.Dir != "" {
		process.Cwd = p.Dir
	}
	if p.TTY {
		process.ConsoleSize = &specs.Box{Height: uint(p.Size.Rows), Width: uint(p.Size.Columns)}
		process.Env = withEnv([]string{"TERM=xterm"}, process.Env)
	}
	process.Env = withEnv(process.Env, p.Env)
	if p.User == "" {
		return nil
	}
	state, err := r.State(ctx, id)
	if err != nil {
		return err
	}
	process.User, err = userInside(state.PID, p.User)
	return err
}

// withEnv is an environment with others' settings, which take the place of those of the same name.
func withEnv(env, others []string) []string {
	name := func(setting string) string { n, _, _ := strings.Cut(setting, "="); return n }
	all := slices.DeleteFunc(slices.Clone(env), func(setting string) bool {
		return slices.ContainsFunc(others, func(other string) bool { return name(other) == name(setting) })
	})
	return append(all, others...)
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

// addProcess makes a process that waits to be started, with its input and output connected.
func (r *Runtime) addProcess(ctx context.Context, id, name string, process *specs.Process, p runtime.Process) (cio.IO, error) {
	spec, err := typeurl.MarshalAnyToProto(process)
	if err != nil {
		return nil, err
	}
	options := []cio.Opt{cio.WithStreams(p.Stdin, p.Stdout, p.Stderr), cio.WithFIFODir(r.paths.in("tmp"))}
	if p.TTY {
		options = append(options, cio.WithTerminal)
	}
	pipes, err := cio.NewCreator(options...)(name)
	if err != nil {
		return nil, err
	}
	c := pipes.Config()
	_, err = r.client.TaskService().Exec(ctx, &tasks.ExecProcessRequest{ContainerID: id, ExecID: name,
		Stdin: c.Stdin, Stdout: c.Stdout, Stderr: c.Stderr, Terminal: c.Terminal, Spec: spec})
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

// endingReader tells when there is no more to read.
type endingReader struct {
	io.Reader
	ended func()
}

// Read implements io.Reader.
func (e *endingReader) Read(p []byte) (int, error) {
	n, err := e.Reader.Read(p)
	if err != nil {
		e.ended()
	}
	return n, err
}

// closeInput has the process see the end of its input. One that has ended, or was not started, needs none.
func (r *Runtime) closeInput(ctx context.Context, id, name string) {
	_, err := r.client.TaskService().CloseIO(ctx, &tasks.CloseIORequest{ContainerID: id, ExecID: name, Stdin: true})
	if err != nil {
		r.log.Debug("containerd: the end of the input was not told", "task.id", id, "error", err)
	}
}

// runProcess starts the process and waits for its end, and has its terminal get other sizes.
func (r *Runtime) runProcess(ctx context.Context, id, name string, started chan<- struct{}, resize <-chan v1.WindowSize) (code int, err error) {
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
	close(started)
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case size, open := <-resize:
				if !open {
					return
				}
				_, _ = service.ResizePty(ctx, &tasks.ResizePtyRequest{ContainerID: id, ExecID: name, Width: uint32(size.Columns), Height: uint32(size.Rows)})
			case <-done:
				return
			}
		}
	}()
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
