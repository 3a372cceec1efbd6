package agent

import (
	"context"
	"errors"
	"slices"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// A task whose service asks for other secrets or configs, and says that they may change under it, gets another revision. What the runtime
// keeps says what the container has, so that an agent that was restarted goes on with that.

// changeSignal is what a process is sent whose files have changed, where it wants to be told.
const changeSignal = "SIGHUP"

// changing is what an attempt at it says in front of its error.
const changing = "changing secrets and configs: "

// misfit tells whether a task's secrets and configs may be others than it is to have, or it was told anew to have them.
func (t *task) misfit() bool {
	return t.fitted != t.revision.Meta.ID || v1.Refitting(&v1.Task{Desired: t.assigned.Desired, Status: &t.status})
}

// refit is what a worker has to do for a task whose secrets and configs may be others than its container has. That is no reason to end
// the task, whatever comes of it.
func (a *Agent) refit(t *task) func(context.Context) result {
	r, id, rt := result{revision: t.revision.Meta.ID, refitAt: t.assigned.Desired.RefitAt, unheard: t.unheard}, t.id, a.o.Runtime
	told := make(map[string]bool)
	for _, f := range references(&t.spec().Container) {
		if f.OnChange == v1.ChangeSignal {
			told[f.Target] = t.phase >= phaseStarted
		}
	}
	spec, err := a.expand(t)
	var keep func(context.Context) error
	if err == nil {
		keep, err = a.keepFiles(t, spec.Env)
	}
	return func(ctx context.Context) result {
		if r.err = err; err != nil || keep == nil {
			return r
		}
		var before, after []engine.File
		if before, r.err = rt.KeptFiles(ctx, id); r.err != nil {
			return r
		}
		if r.err = keep(ctx); r.err != nil {
			return r
		}
		if after, r.err = rt.KeptFiles(ctx, id); r.err != nil {
			return r
		}
		if slices.ContainsFunc(after, func(f engine.File) bool { return told[f.Target] && !slices.ContainsFunc(before, f.Same) }) {
			r.unheard = true
		}
		if r.unheard {
			r.err = rt.Signal(ctx, id, changeSignal)
			r.unheard = r.err != nil
		}
		return r
	}
}

// refitted takes note of that. What cannot succeed is told, and not tried again until the service changes, or its update is resumed.
func (a *Agent) refitted(t *task, r result) {
	t.unheard = r.unheard
	var missing *missingError
	switch {
	case r.err == nil:
		t.attempts = 0
		a.fitted(t, r)
	case errors.As(r.err, &missing), final(r.err), t.attempts >= maxAttempts:
		a.log.Warn("a task keeps the secrets and configs that it has", "task.id", t.id, "err", r.err)
		t.attempts = 0
		a.fitted(t, r)
	default:
		a.log.Warn("cannot change a task's secrets and configs; trying again", "task.id", t.id, "err", r.err)
		t.attempts++
		a.observe(t, t.status.State, t.status.Message, changing+r.err.Error()+"; trying again")
		a.backOff(t)
	}
}

// fitted takes note of the secrets and configs that a container has, or cannot have, and tells those who asked for them.
func (a *Agent) fitted(t *task, r result) {
	t.fitted = r.revision
	switch {
	case r.err != nil:
		a.observe(t, t.status.State, t.status.Message, changing+r.err.Error())
	case strings.HasPrefix(t.status.Err, changing):
		a.observe(t, t.status.State, t.status.Message, "")
	}
	if r.refitAt.IsZero() || t.status.State.Terminal() {
		return
	}
	next := v1.TaskRefit{At: r.refitAt}
	if r.err != nil {
		next.Err = strings.TrimPrefix(t.status.Err, changing) // as people are told it
	}
	if old := t.status.Refit; old == nil || !old.At.Equal(next.At) || old.Err != next.Err {
		t.status.Refit, t.saved = &next, a.dirty()
		a.tell(t)
	}
}

// hasLive tells whether a container has files that change under it.
func hasLive(c *v1.ContainerSpec) bool {
	live := func(r v1.FileReference) bool { return r.Live() }
	return slices.ContainsFunc(c.Secrets, live) || slices.ContainsFunc(c.Configs, live)
}
