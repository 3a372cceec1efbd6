package agent

import (
	"context"
	"errors"
	"slices"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// A task whose service asks for other secrets or configs, and says that they may change under it, gets another revision. What the runtime
// keeps says what the container has, so that an agent that was restarted goes on with that.

// changeSignal is what a process is sent whose files have changed, where it wants to be told.
const changeSignal = "SIGHUP"

// refit is what a worker has to do for a task whose secrets and configs may be others than its container has. That is no reason to end
// the task, whatever comes of it.
func (a *Agent) refit(t *task) func(context.Context) result {
	revision, id, rt := t.revision.Meta.ID, t.id, a.o.Runtime
	told := make(map[string]bool)
	for _, r := range references(&t.spec().Container) {
		if r.OnChange == v1.ChangeSignal {
			told[r.Target] = t.phase >= phaseStarted
		}
	}
	spec, err := a.expand(t)
	var keep func(context.Context) error
	if err == nil {
		keep, err = a.keepFiles(t, spec.Env)
	}
	return func(ctx context.Context) result {
		if err != nil || keep == nil {
			return result{err: err, revision: revision}
		}
		before, err := rt.KeptFiles(ctx, id)
		if err == nil {
			err = keep(ctx)
		}
		var after []engine.File
		if err == nil {
			after, err = rt.KeptFiles(ctx, id)
		}
		if err == nil && slices.ContainsFunc(after, func(f engine.File) bool { return told[f.Target] && !slices.ContainsFunc(before, f.Same) }) {
			err = rt.Signal(ctx, id, changeSignal)
		}
		return result{err: err, revision: revision}
	}
}

// refitted takes note of that. What cannot succeed is told, and not tried again until the service changes.
func (a *Agent) refitted(t *task, r result) {
	var missing *missingError
	switch {
	case r.err == nil:
		t.fitted, t.attempts = r.revision, 0
	case errors.As(r.err, &missing), final(r.err), t.attempts >= maxAttempts:
		a.log.Warn("a task keeps the secrets and configs that it has", "task.id", t.id, "err", r.err)
		t.fitted, t.attempts = r.revision, 0
		a.observe(t, t.status.State, t.status.Message, "changing secrets and configs: "+r.err.Error())
	default:
		a.log.Warn("cannot change a task's secrets and configs; trying again", "task.id", t.id, "err", r.err)
		t.attempts++
		a.backOff(t)
	}
}

// hasLive tells whether a container has files that change under it.
func hasLive(c *v1.ContainerSpec) bool {
	live := func(r v1.FileReference) bool { return r.Live() }
	return slices.ContainsFunc(c.Secrets, live) || slices.ContainsFunc(c.Configs, live)
}
