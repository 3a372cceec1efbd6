package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/moby/sys/signal"

	"github.com/swarmd/swarmd/pkg/runtime"
	"github.com/swarmd/swarmd/pkg/runtime/containerd/logfile"
)

// Start implements runtime.Runtime.
func (r *Runtime) Start(ctx context.Context, id string) (uint32, error) {
	if err := validID(id); err != nil {
		return 0, err
	}
	now := time.Now().UTC() // before, so that nothing ends before it started
	answer, err := r.client.TaskService().Start(r.namespaced(ctx), &tasks.StartRequest{ContainerID: id})
	if err == nil {
		// The mark gets the time. It is for people, so that it could not be written is no reason to fail.
		if err := r.paths.writeMark(id, mark{Started: now}); err != nil {
			r.log.Warn("containerd: cannot note when a container started", "task.id", id, "error", err)
		}
		return answer.Pid, nil
	}
	state, serr := r.State(ctx, id)
	switch {
	case serr != nil:
		return 0, fmt.Errorf("containerd: start %s: %w", id, serr)
	case state.Status == runtime.Running:
		return state.PID, nil
	case state.Status == runtime.Ended:
		return 0, fmt.Errorf("containerd: start %s: it has ended already, with exit code %d", id, state.ExitCode)
	}
	return 0, failed("start", id, explainRunc(errgrpc.ToNative(err)))
}

// Signal implements runtime.Runtime.
func (r *Runtime) Signal(ctx context.Context, id, name string) error {
	if name == "" {
		var err error
		if name, err = r.ownStopSignal(ctx, id); err != nil {
			return fmt.Errorf("containerd: signal %s: %w", id, err)
		}
	}
	number, err := signal.ParseSignal(name)
	if err != nil {
		return fmt.Errorf("containerd: signal %s: %w: want one such as SIGTERM: %w", id, err, runtime.ErrInvalid)
	}
	if err := validID(id); err != nil {
		return err
	}
	_, err = r.client.TaskService().Kill(r.namespaced(ctx), &tasks.KillRequest{ContainerID: id, Signal: uint32(number)})
	if err = errgrpc.ToNative(err); err == nil {
		return nil
	}
	state, serr := r.State(ctx, id)
	if serr != nil {
		return fmt.Errorf("containerd: signal %s: %w", id, serr)
	}
	if state.Status == runtime.Ended {
		return nil
	}
	return fmt.Errorf("containerd: signal %s: %w", id, err)
}

// ownStopSignal is what Create noted.
func (r *Runtime) ownStopSignal(ctx context.Context, id string) (string, error) {
	record, err := r.client.ContainerService().Get(r.namespaced(ctx), id)
	if errdefs.IsNotFound(err) {
		return "", runtime.ErrNotFound
	}
	if err != nil {
		return "", err
	}
	return firstOf(metaOf(record).StopSignal, "SIGTERM"), nil
}

// Remove implements runtime.Runtime.
func (r *Runtime) Remove(ctx context.Context, id string) error {
	if err := validID(id); err != nil {
		return err
	}
	if err := r.remove(r.namespaced(ctx), id); err != nil {
		return fmt.Errorf("containerd: remove %s: %w", id, err)
	}
	return nil
}

// remove removes process, control groups, record, snapshot and mark, whichever there are, in the order in which a later call can go on.
func (r *Runtime) remove(ctx context.Context, id string) error {
	if err := r.removeTask(ctx, id); err != nil {
		return err
	}
	if err := r.dropStreams(ctx, id); err != nil {
		return err
	}
	// Runc removes the control groups of what it knows. It knows nothing of what was cut off while it was made.
	if err := r.cgroup.removeOne(ctx, id); err != nil {
		return err
	}
	if err := r.client.SnapshotService(r.snapshotter).Remove(ctx, id); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	if c, err := r.client.ContainerService().Get(ctx, id); err == nil {
		r.used(ctx, c.Image)
	}
	if err := r.client.ContainerService().Delete(ctx, id); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	if err := r.dropSubpaths(id); err != nil {
		return err
	}
	if err := r.removeAnonymous(id); err != nil {
		return err
	}
	if err := os.Remove(r.paths.mark(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return r.markLogEnd(id)
}

// removeTask kills the container if it runs, waits for its end, and ends its shim.
func (r *Runtime) removeTask(ctx context.Context, id string) error {
	service := r.client.TaskService()
	_, err := service.Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: id})
	if err = errgrpc.ToNative(err); err == nil || errdefs.IsNotFound(err) {
		return nil
	}
	_, err = service.Kill(ctx, &tasks.KillRequest{ContainerID: id, Signal: uint32(syscall.SIGKILL), All: true})
	if err = errgrpc.ToNative(err); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	if _, err := service.Wait(ctx, &tasks.WaitRequest{ContainerID: id}); err != nil && !errdefs.IsNotFound(errgrpc.ToNative(err)) {
		return errgrpc.ToNative(err)
	}
	_, err = service.Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: id})
	if err = errgrpc.ToNative(err); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return nil
}

// RemoveLog implements runtime.Runtime.
func (r *Runtime) RemoveLog(_ context.Context, id string) error {
	if err := validID(id); err != nil {
		return err
	}
	if err := os.RemoveAll(r.paths.logs(id)); err != nil {
		return fmt.Errorf("containerd: remove the log of %s: %w", id, err)
	}
	return nil
}

// markLogEnd tells those who follow the log that there will be no more of it.
func (r *Runtime) markLogEnd(id string) error {
	err := os.WriteFile(filepath.Join(r.paths.logs(id), logfile.End), nil, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (r *Runtime) clearLogEnd(id string) error {
	err := os.Remove(filepath.Join(r.paths.logs(id), logfile.End))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
