package agent

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// opTimeout bounds one call of the runtime about one container.
const opTimeout = 2 * time.Minute

// enqueue has a worker do something for a task as soon as one is free, and once what must be on disk first is there.
func (a *Agent) enqueue(t *task, act action) {
	if !a.engineUp || act != actStart && !a.onDisk(t) || act == actStart && !a.links.ready(t) {
		return // whoever ends the wait looks at the task again
	}
	t.busy = true
	q := &a.stops
	if act == actCreate || act == actStart {
		q = &a.starts
	}
	q.push(t, act == actStart || act == actSignal || act == actKill)
}

// dispatch gives workers to the tasks that wait for one.
func (a *Agent) dispatch(q *queue) {
	for q.running < q.limit && a.engineUp {
		t := q.pop()
		if t == nil {
			return
		}
		act := step(a.view(t, a.o.Now())) // it may have been told to stop since
		if act < actCreate || act == actPublish || act == actWithdraw || act == actSettle || act == actUnlink {
			t.busy = false
			a.advance(t)
			continue
		}
		a.work(q, t, act)
	}
}

// result is what came of an action.
type result struct {
	pid uint32
	err error
	// state is the container's after a start.
	state engine.State
	// revision is the one that the secrets and configs were those of.
	revision string
	// refitAt is the TaskDesired.RefitAt that this answers; unheard: the process could not be told.
	refitAt time.Time
	unheard bool
}

// work has a worker do one action.
func (a *Agent) work(q *queue, t *task, act action) {
	do, err := a.job(t, act)
	if err != nil {
		t.busy = false
		a.failed(t, v1.TaskRejected, "preparing the container", err)
		a.advance(t)
		return
	}
	switch {
	case act == actStart:
		a.observe(t, v1.TaskStarting, "starting", "")
	case act == actSignal && a.unconfirmed(t):
		a.log.Warn("stopping a task though not every node has confirmed that it sends nothing to it any more", "task.id", t.id, "waited", v1.WithdrawWithin)
	}
	q.running++
	a.workers.Go(func() {
		if a.at("before " + act.String()) {
			return
		}
		ctx, cancel := context.WithTimeout(a.ctx, opTimeout)
		defer cancel()
		r := do(ctx)
		if a.at("after " + act.String()) {
			return
		}
		a.post(func() {
			q.running--
			t.busy = false
			if a.ctx.Err() == nil {
				a.done(t, act, r)
				a.advance(t)
			}
		})
	})
}

// job is what a worker has to do, with all that it needs copied out of the task.
func (a *Agent) job(t *task, act action) (func(context.Context) result, error) {
	id, rt := t.id, a.o.Runtime
	plain := func(do func(context.Context) error) (func(context.Context) result, error) {
		return func(ctx context.Context) result { return result{err: do(ctx)} }, nil
	}
	switch act {
	case actCreate:
		c, err := a.container(t)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", engine.ErrInvalid, err)
		}
		keep, err := a.keepFiles(t, c.Spec.Env)
		if err != nil {
			return nil, err
		}
		own, r := a.ownAddresses(t), result{revision: t.revision.Meta.ID, refitAt: t.assigned.Desired.RefitAt}
		return func(ctx context.Context) result { r.err = a.create(ctx, c, own, keep); return r }, nil
	case actRefit:
		return a.refit(t), nil
	case actStart:
		return func(ctx context.Context) (r result) {
			r.pid, r.err = rt.Start(ctx, id)
			state, err := rt.State(ctx, id) // which also says how the container is found to be healthy
			r.state = state                 // unknown is as good as not started: it is asked again
			if r.err == nil {
				r.err = err
			}
			return r
		}, nil
	case actSignal:
		return plain(func(ctx context.Context) error { return rt.Signal(ctx, id, "") }) // its own stop signal
	case actKill:
		return plain(func(ctx context.Context) error { return rt.Signal(ctx, id, "SIGKILL") })
	case actAgain:
		return plain(func(ctx context.Context) error { return rt.Remove(ctx, id) })
	case actRemove:
		return plain(func(ctx context.Context) error {
			if err := rt.Remove(ctx, id); err != nil {
				return err
			}
			if err := rt.DropFiles(ctx, id); err != nil {
				return err
			}
			return a.removeFiles(id)
		})
	case actForget:
		return plain(func(ctx context.Context) error { return rt.RemoveLog(ctx, id) })
	}
	panic("agent: no worker does " + act.String())
}

// create makes a container, with its files there before it. Workers call it.
func (a *Agent) create(ctx context.Context, c engine.Container, own []netip.Addr, keep func(context.Context) error) error {
	if err := a.writeFiles(c.ID, own, &c.Spec); err != nil {
		return err
	}
	if keep != nil {
		if err := keep(ctx); err != nil {
			return err
		}
	}
	err := a.o.Runtime.Create(ctx, c)
	if hasVolumes(&c.Spec) {
		a.lookAtVolumes(ctx)
	}
	return err
}

// done takes note of what came of an action.
func (a *Agent) done(t *task, act action, r result) {
	switch {
	case act == actStart:
		a.started(t, r)
	case act == actRefit:
		a.refitted(t, r)
	case act == actSignal || act == actKill:
		a.signalled(t, act, r.err)
	case r.err != nil && act == actCreate && a.lacks(t, r.err):
	case r.err != nil && act == actCreate:
		a.failed(t, v1.TaskRejected, "creating the container", r.err)
	case r.err != nil:
		a.log.Error("cannot clean up after a task; trying again", "task.id", t.id, "doing", act.String(), "err", r.err)
		t.attempts++
		a.backOff(t)
	case act == actCreate:
		t.phase, t.attempts, t.unheard = phaseCreated, 0, false
		a.fitted(t, r)
	case act == actRemove:
		t.phase, t.attempts = phaseRemoved, 0
	case act == actAgain:
		a.restarted(t)
	case act == actForget:
		if t.gone { // else it was assigned again meanwhile, and its end is still to be told
			a.forget(t)
		}
	}
}

// started takes note of a start. A process that ran, however briefly, is never started again.
func (a *Agent) started(t *task, r result) {
	switch {
	case r.err == nil, t.ended != nil, r.state.Status == engine.Running, r.state.Status == engine.Ended:
		t.phase, t.attempts = phaseStarted, 0
		if t.container().PID = r.pid; r.err != nil {
			t.status.Container.PID = r.state.PID
		}
		if r.state.Status == engine.Ended && t.ended == nil {
			t.ended = &r.state
		}
		a.watchHealth(t, r.state, false)
		a.beginStreams(t.id)
	case r.state.Status == engine.Created && a.engineUp:
		a.end(t, v1.TaskFailed, "starting", "starting container failed: "+r.err.Error())
	default:
		a.failed(t, v1.TaskFailed, "starting the container", r.err)
	}
}

// signalled takes note of a signal, and of how long its effect may take. A signal that cannot be sent is like one that is
// not heeded: the next one is stronger.
func (a *Agent) signalled(t *task, act action, err error) {
	if err != nil {
		a.log.Warn("cannot signal a container", "task.id", t.id, "doing", act.String(), "err", err)
	}
	wait := killWait
	if t.phase = phaseKilled; act == actSignal {
		t.phase, wait = phaseSignalled, t.grace()
		if err != nil {
			wait = 0
		}
	}
	t.late = a.o.Now().Add(wait)
	a.timers.add(t.late, t.id)
}

// forget is the end of a task of which nothing is left.
func (a *Agent) forget(t *task) {
	delete(a.tasks, t.id)
	delete(a.reports.pending, t.id)
	a.peers.set(t.id, nil)
	a.beginStreams(t.id)
	a.dirty()
}

// pull is a request for an image, shared by all tasks that wait for it.
type pull struct {
	cancel  context.CancelFunc
	waiting map[*task]bool
}

// pullTimeout bounds one pull.
const pullTimeout = 30 * time.Minute

// pullFor has the image of a task pulled, once for all that want it.
func (a *Agent) pullFor(t *task) {
	if !t.known() || !a.engineUp || t.pulling != nil || a.removing {
		if t.assigned != nil && t.revision == nil {
			a.observe(t, v1.TaskAccepted, "accepted", "the manager has not sent revision "+t.assigned.Desired.Revision)
		}
		return
	}
	ref := t.spec().Container.Image
	if a.waitsForImage(t, ref) {
		return
	}
	a.observe(t, v1.TaskPreparing, "preparing", t.status.Err)
	p := a.pulls[ref]
	if p == nil {
		ctx, cancel := context.WithTimeout(a.ctx, pullTimeout)
		p = &pull{cancel, map[*task]bool{}}
		a.pulls[ref] = p
		from := engine.Source{Login: a.loginFor(ref), Peers: func(ctx context.Context, digest string) (io.ReadCloser, error) {
			return a.askPeers(ctx, ref, digest)
		}}
		a.workers.Go(func() {
			defer cancel()
			if a.at("before pull") {
				return
			}
			image, err := a.o.Runtime.Pull(ctx, ref, from)
			if a.at("after pull") {
				return
			}
			a.post(func() { a.pulled(ref, p, image, err) })
		})
	}
	p.waiting[t], t.pulling = true, p
}

// pulled goes on with the tasks that waited for an image.
func (a *Agent) pulled(ref string, p *pull, image engine.Image, err error) {
	if a.pulls[ref] == p {
		delete(a.pulls, ref)
	}
	a.noteRefusal(ref, err)
	for _, t := range sorted(p.waiting) {
		t.pulling = nil
		switch {
		case a.ctx.Err() != nil:
			continue
		case t.phase != phaseNew:
		case err != nil:
			a.failed(t, v1.TaskRejected, "pulling "+ref, err)
		default:
			t.phase, t.image, t.attempts = phasePulled, image.Name, 0
		}
		a.advance(t)
	}
}

// leavePull is for a task that no longer waits for its image. A pull that nobody waits for is given up.
func (a *Agent) leavePull(t *task) {
	p := t.pulling
	if p == nil {
		return
	}
	t.pulling = nil
	delete(p.waiting, t)
	if len(p.waiting) > 0 {
		return
	}
	p.cancel()
	for ref, q := range a.pulls {
		if q == p {
			delete(a.pulls, ref) // whoever wants the image from now on asks anew
		}
	}
}
