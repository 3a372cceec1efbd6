package apiserver

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// reportTries is how often what is written of nodes and tasks is decided again when someone else wrote in between.
const reportTries = 5

// reporter writes the status of tasks and nodes for their agents. One goroutine writes for everybody: what comes while a
// commit is under way goes into the next one together, and each is decided on a snapshot that shows all those before, so
// that no state goes back.
type reporter struct {
	backend *backend
	queue   chan *observation
	written int64 // the revision of the latest commit
}

// observation is one request to write.
type observation struct {
	// decide is what to write, seen from the snapshot. It may be called several times.
	decide func(*store.Snapshot) []store.Op
	// wrote is when it has been done: the revision that shows it, or why not.
	wrote chan wrote
}

type wrote struct {
	revision int64
	err      error
}

func newReporter(b *backend) *reporter {
	return &reporter{backend: b, queue: make(chan *observation)}
}

// do writes what decide says, and returns a revision that shows it.
func (r *reporter) do(ctx context.Context, decide func(*store.Snapshot) []store.Op) (int64, error) {
	o := &observation{decide, make(chan wrote, 1)}
	select {
	case r.queue <- o:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case <-r.backend.ctx.Done():
		return 0, errDetached
	}
	select {
	case w := <-o.wrote:
		return w.revision, w.err
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// run writes until the backend ends.
func (r *reporter) run() {
	for {
		select {
		case <-r.backend.ctx.Done():
			return
		case o := <-r.queue:
			r.write(r.gather(o))
		}
	}
}

// gather takes what waits already, up to about one commit.
func (r *reporter) gather(first *observation) []*observation {
	all := []*observation{first}
	for len(all) < store.MaxOps/2 {
		select {
		case o := <-r.queue:
			all = append(all, o)
		default:
			return all
		}
	}
	return all
}

// write commits what all observations ask for, and answers them.
func (r *reporter) write(all []*observation) {
	ctx, cancel := context.WithTimeout(r.backend.ctx, commitTime)
	defer cancel()
	var conflict error
	for try := 0; try < reportTries; try++ {
		snapshot, err := r.fresh(ctx, try > 0)
		if err == nil {
			var ops []store.Op
			for _, o := range all {
				ops = append(ops, o.decide(snapshot)...)
			}
			err = r.commit(ctx, ops)
		}
		switch {
		case err == nil:
			answer(all, wrote{revision: max(r.written, snapshot.Revision())})
			return
		case errors.Is(err, store.ErrNoLease) && len(all) > 1:
			try = reportTries // one of them lives under a lease that has ended: each on its own
		case !errors.Is(err, store.ErrConflict):
			answer(all, wrote{err: err})
			return
		}
		conflict = err
	}
	if len(all) > 1 { // one of them may be at fault: each on its own
		for _, o := range all {
			r.write([]*observation{o})
		}
		return
	}
	answer(all, wrote{err: conflict})
}

func answer(all []*observation, w wrote) {
	for _, o := range all {
		o.wrote <- w
	}
}

// fresh is a snapshot that shows all of this writer's commits, and after a conflict everybody's.
func (r *reporter) fresh(ctx context.Context, conflict bool) (*store.Snapshot, error) {
	atLeast := r.written
	if conflict {
		revision, err := r.backend.store.Sync(ctx)
		if err != nil {
			return nil, err
		}
		atLeast = max(atLeast, revision)
	}
	return r.backend.store.Snapshot(ctx, atLeast)
}

// commit writes the operations, which may each stand alone, in as many commits as it takes.
func (r *reporter) commit(ctx context.Context, ops []store.Op) error {
	if len(ops) == 0 {
		return nil
	}
	revision, err := store.CommitAll(ctx, r.backend.store, store.Commit{Ops: ops})
	r.written = max(r.written, revision)
	if err == nil {
		r.backend.server.metrics.reports.Add(float64(len(ops)))
	}
	return err
}

// status takes a report of a node's agent.
func (s *Server) status(w http.ResponseWriter, r *http.Request) error {
	b, err := s.attached()
	if err != nil {
		return err
	}
	body, err := s.readBody(w, r, maxReportBody)
	if err != nil {
		return err
	}
	var report v1.StatusReport
	if err := decodeReport(body, &report); err != nil {
		return err
	}
	node := r.PathValue("ref")
	if err := b.caughtUp(r.Context(), report.Revision); err != nil {
		return err
	}
	var result v1.StatusResult
	var refused error
	taken := 0
	_, err = b.reports.do(r.Context(), func(snapshot *store.Snapshot) []store.Op {
		result, refused = v1.StatusResult{}, nil
		_ = b.allowances.take(node, -taken) // what it would have written before is decided anew
		if _, ok := snapshot.Lookup(v1.KindNode, node); !ok {
			refused = &store.NotFoundError{Kind: v1.KindNode, Ref: clip(node)}
			return nil
		}
		ops := make([]store.Op, 0, len(report.Tasks))
		taken = 0
		for i := range report.Tasks {
			ops = appendReport(ops, snapshot, node, &report.Tasks[i], &result, &taken)
		}
		if refused = b.allowances.take(node, taken); refused != nil {
			taken = 0
			return nil
		}
		return ops
	})
	if err == nil {
		err = refused
	}
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, result)
}

// reportPatience is how long a report waits for this server to have seen what its agent was told.
const reportPatience = 2 * time.Second

// caughtUp waits until this server has seen what an agent was told, maybe by another manager. Else it would take the agent's
// newest tasks for unknown ones.
func (b *backend) caughtUp(ctx context.Context, told int64) error {
	if told <= 0 {
		return nil
	}
	waiting, cancel := context.WithTimeout(ctx, reportPatience)
	defer cancel()
	_, err := b.store.Snapshot(waiting, told)
	if err != nil && errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return problemf(http.StatusServiceUnavailable, "this manager has not seen revision %d yet, which the node was told of: try again in a moment", told)
	}
	return err
}

// appendReport appends the write of one task's status, if it is one: the task has to be the node's, its state never goes
// back nor from one end to another, and what is known already is not written again. It adds to size what that counts for.
func appendReport(ops []store.Op, s *store.Snapshot, node string, report *v1.TaskReport, result *v1.StatusResult, size *int) []store.Op {
	t, ok := store.Get(s, v1.Tasks, report.ID)
	if !ok || v1.TaskNode(t) != node {
		result.Unknown = append(result.Unknown, report.ID)
		return ops
	}
	if known := t.Status; known != nil {
		ended := known.State.Terminal() && report.Status.State != known.State
		if ended || report.Status.State < known.State || reflect.DeepEqual(*known, report.Status) {
			return ops
		}
	}
	status := report.Status
	*size += cost(t.Status, &status)
	return append(ops, store.Op{Kind: v1.KindTask, ID: report.ID, Section: v1.SectionStatus, Value: &status,
		If: store.AtRevision(t.Meta.Revisions[v1.SectionStatus])})
}
