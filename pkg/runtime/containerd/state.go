package containerd

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"

	"github.com/swarmd/swarmd/pkg/runtime"
)

// lostCode is the exit code of a container of which nobody knows how it ended: the machine stopped, or its shim was
// killed. It is Docker's.
const lostCode = 255

// List implements runtime.Runtime.
func (r *Runtime) List(ctx context.Context) ([]runtime.State, error) {
	ctx = r.namespaced(ctx)
	// Tasks last: a container that is made in between is then no container without a task.
	records, err := r.client.ContainerService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("containerd: list containers: %w", err)
	}
	answer, err := r.client.TaskService().List(ctx, &tasks.ListTasksRequest{})
	if err != nil {
		return nil, fmt.Errorf("containerd: list tasks: %w", errgrpc.ToNative(err))
	}
	processes := make(map[string]*task.Process, len(answer.Tasks))
	for _, p := range answer.Tasks {
		processes[p.ID] = p
	}
	states := make([]runtime.State, 0, len(records))
	for _, record := range records {
		if s, ok := r.state(record, processes[record.ID]); ok {
			states = append(states, s)
		}
	}
	return states, nil
}

// State implements runtime.Runtime.
func (r *Runtime) State(ctx context.Context, id string) (runtime.State, error) {
	if err := validID(id); err != nil {
		return runtime.State{}, err
	}
	ctx = r.namespaced(ctx)
	record, err := r.client.ContainerService().Get(ctx, id)
	if err != nil && !errdefs.IsNotFound(err) {
		return runtime.State{}, fmt.Errorf("containerd: get container %s: %w", id, err)
	}
	var process *task.Process
	if err == nil {
		answer, terr := r.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: id})
		if terr = errgrpc.ToNative(terr); terr != nil && !errdefs.IsNotFound(terr) {
			return runtime.State{}, fmt.Errorf("containerd: get task %s: %w", id, terr)
		}
		process = answer.GetProcess()
		if s, ok := r.state(record, process); ok {
			return s, nil
		}
	}
	return runtime.State{}, fmt.Errorf("containerd: container %s: %w", id, runtime.ErrNotFound)
}

// state puts together what is known of a container. It is false for one that is
// half made, which Create makes anew, and for one of somebody else.
func (r *Runtime) state(record containers.Container, p *task.Process) (runtime.State, bool) {
	m, marked := r.paths.readMark(record.ID)
	kept := metaOf(record)
	s := runtime.State{ID: record.ID, Labels: kept.Labels, Status: runtime.Created, Started: m.Started, Healthcheck: kept.Healthcheck}
	switch {
	case kept.Owner != r.paths.name, p == nil && !marked:
		return s, false
	case p == nil && m.Exit != nil:
		s.Status, s.ExitCode, s.OOMKilled, s.Ended = runtime.Ended, m.Exit.Code, m.Exit.OOMKilled, m.Exit.At
	case p == nil: // it was here, and its shim is not any more
		s.Status, s.ExitCode = runtime.Ended, lostCode
	case p.Status == task.Status_STOPPED:
		s.Status, s.ExitCode, s.Ended = runtime.Ended, int(p.ExitStatus), p.ExitedAt.AsTime()
		s.OOMKilled = s.ExitCode != 0 && r.cgroup.oomKills(record.ID) > 0
	case p.Status == task.Status_CREATED:
		s.PID = p.Pid
	default: // running, paused, pausing, or a shim that does not say
		s.Status, s.PID = runtime.Running, p.Pid
	}
	if s.Status != runtime.Created && s.Started.IsZero() {
		s.Started = m.made // started by a process that was killed before it could say when
	}
	return s, true
}

// metaOf is what Create kept with the record.
func metaOf(record containers.Container) (m meta) {
	if e, ok := record.Extensions[extension]; ok && json.Unmarshal(e.GetValue(), &m) != nil {
		return meta{}
	}
	return m
}
