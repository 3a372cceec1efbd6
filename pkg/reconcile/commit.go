package reconcile

import (
	"context"
	"errors"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// oneCommit is how many operations every store takes in one commit: etcd's own default is 128.
const oneCommit = 100

// commit writes what a Step decided: at once where that is possible, else phase by phase.
func commit(ctx context.Context, s store.Store, ops []store.Op, fence *store.Fence) (int64, error) {
	if len(ops) <= oneCommit {
		revision, err := s.Commit(ctx, store.Commit{Ops: ops, Fence: fence})
		if !errors.Is(err, store.ErrTooLarge) || len(ops) < 2 {
			return revision, err
		}
	}
	var revision int64
	for _, part := range Phases(ops) {
		r, err := store.CommitAll(ctx, s, store.Commit{Ops: part, Fence: fence})
		revision = max(revision, r)
		if err != nil {
			return revision, err
		}
	}
	return revision, nil
}

// phase says when an operation of a Step is written. What a later phase does may rely on all that the earlier ones did.
type phase int

const (
	// writeOthers: tasks refer to revisions, and the service remembers the attempts of tasks that are removed.
	writeOthers phase = iota
	// stopTasks: a task that is to stop no longer counts against maxReplicas, and another may be placed in its stead.
	stopTasks
	// writeTasks makes tasks, places them and lets them run.
	writeTasks
	// removeTasks: a slot's last task is its memory of what attempts there were, until a later one is there.
	removeTasks
	// removeOthers: a revision goes after the tasks that refer to it.
	removeOthers
	// removeServices: whoever looks for what a service has left behind starts from the service.
	removeServices

	phases
)

func phaseOf(op *store.Op) phase {
	task, ok := op.Value.(*v1.TaskDesired)
	switch {
	case ok && task.State > v1.TaskComplete:
		return stopTasks
	case op.Kind == v1.KindTask && removes(op):
		return removeTasks
	case op.Kind == v1.KindTask:
		return writeTasks
	case op.Kind == v1.KindService && removes(op):
		return removeServices
	case removes(op):
		return removeOthers
	}
	return writeOthers
}

// Phases sorts what Step returned into the parts that Commit writes one after another if it cannot write all at once,
// without those that are empty. Within a phase every operation may stand alone, once the phases before it are written
// whole. In order: what is not about tasks, but for removals; tasks that are to stop; all else about tasks; the removal of
// tasks; the removal of anything else; and last that of services.
func Phases(ops []store.Op) [][]store.Op {
	var sorted [phases][]store.Op
	for i := range ops {
		p := phaseOf(&ops[i])
		sorted[p] = append(sorted[p], ops[i])
	}
	parts := make([][]store.Op, 0, phases)
	for _, part := range sorted {
		if len(part) > 0 {
			parts = append(parts, part)
		}
	}
	return parts
}
