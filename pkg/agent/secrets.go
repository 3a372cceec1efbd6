package agent

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// Secrets and configs come with the tasks that need them. The agent has them in memory for as long as one of those is to run or
// does, and hands them to the runtime, which keeps them for each container in the machine's memory. They are in no file of the
// agent and in no message: an agent that is restarted goes on with what the runtime has, until a manager sends them again.

// dataKey is a secret or a config.
type dataKey struct {
	kind v1.Kind
	id   string
}

// data is what is in one.
type data struct {
	bytes  []byte
	driver *v1.Driver
}

// takeData takes the secrets and configs that came with a message, and wakes the tasks that waited for any.
func (a *Agent) takeData(m v1.Assignment) {
	for _, s := range m.Secrets {
		if s != nil && s.Spec != nil {
			a.data[dataKey{v1.KindSecret, s.Meta.ID}] = data{s.Spec.Data, s.Spec.Templating}
		}
	}
	for _, c := range m.Configs {
		if c != nil && c.Spec != nil {
			a.data[dataKey{v1.KindConfig, c.Meta.ID}] = data{c.Spec.Data, c.Spec.Templating}
		}
	}
}

// forgetData drops what no task needs any more. A session sends again what none needed that was to run, so that is kept at least.
func (a *Agent) forgetData() {
	if len(a.data) == 0 {
		return
	}
	used := make(map[dataKey]bool)
	for _, t := range a.tasks {
		if t.revision == nil || t.gone || !t.wanted && t.phase >= phaseEnded {
			continue
		}
		for _, r := range references(&t.spec().Container) {
			used[r.key] = true
		}
	}
	for key := range a.data {
		if !used[key] {
			delete(a.data, key)
		}
	}
}

// reference is one secret or config of a container.
type reference struct {
	*v1.FileReference
	key dataKey
}

// String is what people call it.
func (r reference) String() string { return strings.ToLower(string(r.key.kind)) + " " + r.Source }

// references are a container's secrets and configs.
func references(c *v1.ContainerSpec) []reference {
	all := make([]reference, 0, len(c.Secrets)+len(c.Configs))
	for i := range c.Secrets {
		all = append(all, reference{&c.Secrets[i], dataKey{v1.KindSecret, c.Secrets[i].ID}})
	}
	for i := range c.Configs {
		all = append(all, reference{&c.Configs[i], dataKey{v1.KindConfig, c.Configs[i].ID}})
	}
	return all
}

// missingError says which secrets and configs a task lacks.
type missingError struct{ refs []reference }

// Error are Docker's words.
func (e *missingError) Error() string {
	names := make([]string, len(e.refs))
	for i, r := range e.refs {
		names[i] = r.String()
	}
	return strings.Join(names, ", ") + " not found"
}

// keepFiles is what a worker has to do for a task's secrets and configs, of which templates may
// refer to the environment; nil where it has none.
func (a *Agent) keepFiles(t *task, env []string) (func(context.Context) error, error) {
	refs := references(&t.spec().Container)
	if len(refs) == 0 {
		return nil, nil
	}
	id, rt := t.id, a.o.Runtime
	files := make([]engine.File, 0, len(refs))
	var missing []reference
	for _, r := range refs {
		d, ok := a.data[r.key]
		if !ok {
			missing = append(missing, r)
			continue
		}
		f, err := fileOf(r, d)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	if err := a.expandFiles(t, env, refs, files); len(missing) == 0 && err != nil {
		return nil, err
	}
	if len(missing) == 0 {
		return func(ctx context.Context) error { return rt.KeepFiles(ctx, id, files) }, nil
	}
	return func(ctx context.Context) error { // what an earlier process put there will do
		kept, err := rt.KeptFiles(ctx, id)
		if err != nil {
			return err
		}
		there := make(map[string]string, len(kept))
		for _, f := range kept {
			there[f.Target], _, _ = strings.Cut(f.Version, versionMark)
		}
		for _, r := range refs {
			if there[r.Target] != r.ID {
				return &missingError{missing}
			}
		}
		return nil
	}, nil
}

// fileOf is a secret or config as a file.
func fileOf(r reference, d data) (engine.File, error) {
	f := engine.File{Target: r.Target, Version: r.ID, Data: d.bytes, Mode: 0o444, Live: r.Live()}
	if r.Mode != nil {
		f.Mode = *r.Mode
	}
	for _, id := range []struct {
		text string
		into *uint32
	}{{r.UID, &f.UID}, {r.GID, &f.GID}} {
		if id.text == "" {
			continue
		}
		n, err := strconv.ParseUint(id.text, 10, 32)
		if err != nil {
			return f, fmt.Errorf("%w: %s: %q is no user or group ID", engine.ErrInvalid, r, id.text)
		}
		*id.into = uint32(n)
	}
	return f, nil
}

// lacks handles an attempt that failed because secrets or configs are not here: a manager that was heard sends all that there are,
// so that the others do not exist. Until then the task waits.
func (a *Agent) lacks(t *task, err error) bool {
	var missing *missingError
	if !errors.As(err, &missing) {
		return false
	}
	if a.complete {
		a.log.Warn("task rejected", "task.id", t.id, "err", missing)
		a.end(t, v1.TaskRejected, t.status.Message, missing.Error())
		return true
	}
	a.observe(t, t.status.State, t.status.Message, "waits for a manager to send "+strings.TrimSuffix(missing.Error(), " not found"))
	t.lacking, t.pause = true, a.o.Now().Add(retryMost)
	return true
}

// relieve has the tasks try again that waited for a manager to send what they lack.
func (a *Agent) relieve() {
	for _, t := range a.tasks {
		if t.lacking {
			t.lacking, t.pause = false, a.o.Now()
		}
	}
}
