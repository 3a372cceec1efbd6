package reconciletest

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

var errUsage = errors.New("no such step; see Run for how they are written")

// Do does one step of a scenario, written as in a script (see Run), and returns what it prints.
func (w *World) Do(step string) (string, error) {
	args := append(strings.Fields(step), "", "", "", "", "") // missing arguments are empty ones
	switch args[0] {
	case "run":
		return w.printRun()
	case "settle":
		return w.settle()
	case "tasks":
		return w.tasks(args[1]), nil
	case "nodes":
		return w.nodes(), nil
	case "update":
		return w.update(args[1])
	case "cron":
		return w.cron(args[1])
	case "services":
		return w.services(), nil
	case "revisions":
		return w.revisions(), nil
	case "authority":
		return w.authority(), nil
	case "networks":
		return w.networks(), nil
	case "addresses":
		return w.addresses(args[1]), nil
	case "ports":
		return w.ports(args[1])
	}
	return "", w.change(args[0], args[1:])
}

// change does a step that prints nothing.
func (w *World) change(name string, args []string) error {
	switch name {
	case "play":
		_, err := w.Play()
		return err
	case "lead":
		w.succeed()
		return nil
	case "tick":
		d, err := time.ParseDuration(args[0])
		w.Now = w.Now.Add(d)
		return err
	case "make":
		return w.Load("kind: Service\nmetadata: {name: " + args[0] + "}\nspec: {task: {container: {image: hello:1}}}")
	case "scale":
		return w.set(args[0], []string{"replicas=" + args[1]})
	case "set":
		return w.set(args[0], args[1:])
	case "edit":
		return w.edit(args[0], args[1:])
	case "resume":
		return w.set(args[0], nil)
	case "rollback":
		return w.rollback(args[0])
	case "delete":
		return w.delete(args[0])
	case "status":
		return w.status(args[0], args[1], args[2], args[3])
	case "unfit":
		return w.unfit(args[0], args[1:])
	case "node":
		return w.node(args[0], args[1], args[2])
	case "history":
		return w.history(args[0])
	case "rotate":
		return w.rotate(args[0])
	case "network":
		return w.network(args[0], args[1:])
	case "pool":
		return w.pool(args[0], args[1:])
	}
	return errUsage
}

func (w *World) service(name string) (*v1.Service, error) {
	o, err := w.Snapshot().Resolve(v1.KindService, name)
	if err != nil {
		return nil, err
	}
	return o.(*v1.Service), nil
}

// set writes a service's spec as the API server does: with the next generation.
func (w *World) set(name string, assignments []string) error {
	o, err := w.service(name)
	if err != nil {
		return err
	}
	return w.assign(o, o.Spec, assignments)
}

// edit does as swarmctl does for its user.
func (w *World) edit(name string, assignments []string) error {
	o, err := w.service(name)
	if err != nil {
		return err
	}
	spec := *v1.Effective(o).Spec
	spec.RollbackTo = ""
	return w.assign(o, &spec, assignments)
}

// rollback goes back to the previous revision, as swarmctl does.
func (w *World) rollback(name string) error {
	o, err := w.service(name)
	if err != nil {
		return err
	}
	to, ok := store.Get(w.Snapshot(), v1.ServiceRevisions, o.Desired.Update.Previous)
	if !ok {
		return fmt.Errorf("%s has no previous revision", name)
	}
	spec := *o.Spec
	spec.Task, spec.Endpoint, spec.RollbackTo = to.Spec.Task, to.Spec.Endpoint, to.Meta.ID
	return w.assign(o, &spec, nil)
}

// assign writes the service with a changed spec.
func (w *World) assign(o *v1.Service, spec *v1.ServiceSpec, assignments []string) (err error) {
	for _, a := range assignments {
		if a == "" {
			continue
		}
		path, text, ok := strings.Cut(a, "=")
		if !ok {
			return fmt.Errorf("%q is no assignment", a)
		}
		var value any
		if err := yaml.Unmarshal([]byte(text), &value); err != nil {
			return err
		}
		keys := strings.Split(path, ".")
		for i := len(keys) - 1; i > 0; i-- {
			value = map[string]any{keys[i]: value}
		}
		if spec, err = merge(spec, map[string]any{keys[0]: value}); err != nil {
			return err
		}
	}
	meta := o.Meta
	meta.Generation++
	meta.UpdatedAt = w.Now
	return w.Commit(store.Op{Kind: v1.KindService, ID: o.Meta.ID, Section: v1.SectionSpec, Value: spec, Meta: &meta})
}

func (w *World) delete(name string) error {
	o, err := w.service(name)
	if err != nil {
		return err
	}
	meta := o.Meta
	meta.Deleting = w.Now
	return w.Commit(store.Op{Kind: v1.KindService, ID: o.Meta.ID, Section: v1.SectionSpec, Value: o.Spec, Meta: &meta})
}

// task finds SERVICE.SLOT, the newest, or SERVICE.SLOT@ATTEMPT.
func (w *World) task(ref string) (*v1.Task, error) {
	name, attempt, _ := strings.Cut(ref, "@")
	var found *v1.Task
	for t := range store.All(w.Snapshot(), v1.Tasks) {
		if v1.TaskName(t.Desired) != name || attempt != "" && strconv.FormatUint(t.Desired.Attempt, 10) != attempt {
			continue
		}
		if found == nil || t.Desired.Attempt > found.Desired.Attempt {
			found = t
		}
	}
	if found == nil {
		return nil, fmt.Errorf("no task %s", ref)
	}
	return found, nil
}

func (w *World) status(ref, state, ran, duration string) error {
	t, err := w.task(ref)
	if err != nil {
		return err
	}
	status := &v1.TaskStatus{At: w.Now}
	if err := status.State.UnmarshalText([]byte(state)); err != nil {
		return err
	}
	if ran == "ran" {
		d, err := time.ParseDuration(duration)
		if err != nil {
			return err
		}
		status.Ran = (*v1.Duration)(&d)
	}
	return w.Commit(w.statusOp(t, status))
}

// unfit is what an agent says that cannot change the secrets and configs of a task.
func (w *World) unfit(ref string, why []string) error {
	t, err := w.task(ref)
	if err != nil {
		return err
	}
	return w.Commit(w.refitOp(t, strings.TrimSpace(strings.Join(why, " "))))
}

func (w *World) history(limit string) error {
	n, err := strconv.ParseInt(limit, 10, 64)
	if err != nil {
		return err
	}
	return w.Commit(store.Op{Kind: v1.KindCluster, ID: v1.ClusterName, Section: v1.SectionSpec, If: store.Always(),
		Value: &v1.ClusterSpec{TaskHistoryLimit: &n}, Meta: &v1.Meta{ID: v1.ClusterName, Name: v1.ClusterName}})
}
