package apiserver

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// match tells whether an object passes a filter.
type match func(v1.Object) bool

// selection is a filter that was made ready on a snapshot: references are resolved, values are read.
type selection struct {
	match match
	// service and node narrow where tasks are looked for; "" for everywhere.
	service, node string
	// fleeting tells that the selection depends on other objects than the one it looks at, so that it cannot be watched.
	fleeting string
}

// filterOf reads the filter of a request.
func filterOf(r *http.Request, k v1.Kind) (v1.Filter, error) {
	f, err := v1.ParseFilters(r.URL.Query()["filter"])
	if err == nil {
		err = f.Check(k)
	}
	if err != nil {
		return nil, problemf(http.StatusBadRequest, "%s", err)
	}
	return f, nil
}

// selectionOf makes a filter ready. Values of one key are alternatives, but for labels, and all keys have to hold. What is being deleted is
// not there any more for users.
func selectionOf(f v1.Filter, k v1.Kind, s *store.Snapshot) (selection, error) {
	sel := selection{match: there}
	for key, values := range f {
		m, err := sel.one(k, s, key, values)
		if err != nil {
			return sel, err
		}
		rest := sel.match
		sel.match = func(o v1.Object) bool { return m(o) && rest(o) }
	}
	return sel, nil
}

func (sel *selection) one(k v1.Kind, s *store.Snapshot, key string, values []string) (match, error) {
	like := beginsWith
	if k == v1.KindNetwork {
		like = contains
	}
	switch key {
	case "id":
		return func(o v1.Object) bool { return like(o.GetMeta().ID, values) }, nil
	case "names":
		return func(o v1.Object) bool { return slices.Contains(values, o.GetMeta().Name) }, nil
	case "label", "node.label":
		switch {
		case k == v1.KindTask:
			sel.fleeting = key
			known := make(map[string]map[string]string)
			return func(o v1.Object) bool { return labelled(containerLabels(s, known, o.(*v1.Task)), values) }, nil
		case k == v1.KindNode && key == "label":
			return func(o v1.Object) bool { return labelled(engineLabels(o), values) }, nil
		}
		return func(o v1.Object) bool { return labelled(o.GetMeta().Labels, values) }, nil
	case "name":
		return func(o v1.Object) bool { return like(nameOf(o), values) }, nil
	}
	switch k {
	case v1.KindTask:
		return sel.task(s, key, values)
	case v1.KindService:
		return mode(values)
	case v1.KindServiceRevision:
		ids, err := resolveAll(s, v1.KindService, values)
		return func(o v1.Object) bool { return slices.Contains(ids, o.(*v1.ServiceRevision).Spec.Service) }, err
	case v1.KindNode:
		return nodeFilter(key, values)
	case v1.KindAttachment:
		return attachmentFilter(s, key, values)
	}
	return sel.network(s, key, values)
}

// nameOf is what an object is called: nodes by their host name, tasks by service and slot.
func nameOf(o v1.Object) string {
	switch o := o.(type) {
	case *v1.Task:
		return v1.TaskName(o.Desired)
	case *v1.Node:
		if o.Status != nil && o.Status.Description.Hostname != "" {
			return o.Status.Description.Hostname
		}
	}
	return o.GetMeta().Name
}

// containerLabels are those of what a task runs, as in Docker, whose tasks have no labels of their own either.
func containerLabels(s *store.Snapshot, known map[string]map[string]string, t *v1.Task) map[string]string {
	labels, ok := known[t.Desired.Revision]
	if !ok {
		if r, found := store.Get(s, v1.ServiceRevisions, t.Desired.Revision); found {
			labels = r.Spec.Task.Container.Labels
		}
		known[t.Desired.Revision] = labels
	}
	return labels
}

func engineLabels(o v1.Object) map[string]string {
	if n := o.(*v1.Node); n.Status != nil {
		return n.Status.Description.Engine.Labels
	}
	return nil
}

func beginsWith(text string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(text, p) })
}

// contains is beginsWith for networks, of which Docker matches any part of a name or ID.
func contains(text string, parts []string) bool {
	return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(text, p) })
}

// labelled tells whether the labels have each key or key=value that is wanted.
func labelled(labels map[string]string, wanted []string) bool {
	return !slices.ContainsFunc(wanted, func(w string) bool {
		key, value, valued := strings.Cut(w, "=")
		have, ok := labels[key]
		return !ok || valued && have != value
	})
}

func mode(values []string) (match, error) {
	modes := []string{string(v1.ModeReplicated), string(v1.ModeGlobal), string(v1.ModeReplicatedJob), string(v1.ModeGlobalJob), string(v1.ModeCron)}
	if err := among("mode", values, modes); err != nil {
		return nil, err
	}
	return func(o v1.Object) bool { return slices.Contains(values, string(o.(*v1.Service).Spec.Mode)) }, nil
}

func nodeFilter(key string, values []string) (match, error) {
	if key == "role" {
		if err := among(key, values, []string{string(v1.RoleManager), string(v1.RoleWorker)}); err != nil {
			return nil, err
		}
		return func(o v1.Object) bool { return slices.Contains(values, string(o.(*v1.Node).Spec.Role)) }, nil
	}
	err := among(key, values, []string{"accepted", "pending"})
	accepted := slices.Contains(values, "accepted") // whoever is in the store was
	return func(v1.Object) bool { return accepted }, err
}

// task makes ready what only tasks are filtered by.
func (sel *selection) task(s *store.Snapshot, key string, values []string) (match, error) {
	switch key {
	case "service":
		ids, err := resolveAll(s, v1.KindService, values)
		if len(ids) == 1 {
			sel.service = ids[0]
		}
		return func(o v1.Object) bool { return slices.Contains(ids, o.(*v1.Task).Desired.Service) }, err
	case "node":
		ids, err := resolveAll(s, v1.KindNode, values)
		if len(ids) == 1 {
			sel.node = ids[0]
		}
		return func(o v1.Object) bool { return slices.Contains(ids, v1.TaskNode(o.(*v1.Task))) }, err
	case "up-to-date":
		if err := among(key, values, []string{"true", "false"}); err != nil {
			return nil, err
		}
		sel.fleeting = key
		current := make(map[string]string) // what each service asks for now
		return func(o v1.Object) bool { return slices.Contains(values, upToDate(s, current, o.(*v1.Task))) }, nil
	}
	states := make([]v1.TaskState, len(values))
	for i, v := range values {
		state, ok := v1.ParseTaskState(strings.ToLower(v))
		if !ok {
			return nil, problemf(http.StatusBadRequest, "invalid filter '%s=%s': want a task's state such as running, accepted or shutdown", key, clip(v))
		}
		states[i] = state
	}
	if key == "state" {
		return func(o v1.Object) bool { return slices.Contains(states, v1.Observed(o.(*v1.Task))) }, nil
	}
	return func(o v1.Object) bool { return slices.Contains(states, o.(*v1.Task).Desired.State) }, nil
}

// upToDate tells, as "true" or "false", whether a task runs what its service asks for now.
func upToDate(s *store.Snapshot, current map[string]string, t *v1.Task) string {
	revision, known := current[t.Desired.Service]
	if !known {
		if service, ok := store.Get(s, v1.Services, t.Desired.Service); ok {
			revision = v1.RevisionID(v1.Effective(service))
		}
		current[t.Desired.Service] = revision
	}
	if revision == t.Desired.Revision {
		return "true"
	}
	return "false"
}

// network makes ready what networks and volumes are filtered by.
func (sel *selection) network(s *store.Snapshot, key string, values []string) (match, error) {
	switch key {
	case "driver":
		return func(o v1.Object) bool {
			switch o := o.(type) {
			case *v1.Network:
				return slices.Contains(values, o.Spec.Driver)
			case *v1.Volume:
				return slices.Contains(values, o.Spec.Driver)
			}
			return false
		}, nil
	case "scope":
		err := among(key, values, []string{"swarm", "local", "global"})
		return func(v1.Object) bool { return slices.Contains(values, "swarm") }, err
	case "type":
		err := among(key, values, []string{"custom", "builtin"})
		return func(v1.Object) bool { return slices.Contains(values, "custom") }, err
	}
	sel.fleeting = key
	err := among(key, values, []string{"true", "false", "1", "0"})
	dangling := slices.Contains(values, "true") || slices.Contains(values, "1")
	return func(o v1.Object) bool { return (networkUser(s, o.(*v1.Network)) == "") == dangling }, err
}

// among refuses values that a key does not have.
func among(key string, values, allowed []string) error {
	for _, v := range values {
		if !slices.Contains(allowed, v) {
			return problemf(http.StatusBadRequest, "invalid filter '%s=%s': want %s", key, clip(v), strings.Join(allowed, ", "))
		}
	}
	return nil
}

// resolveAll are the IDs that references mean. What is no longer there, or is being deleted, may still be meant by its ID:
// tasks outlive their service.
func resolveAll(s *store.Snapshot, k v1.Kind, refs []string) ([]string, error) {
	ids := make([]string, 0, len(refs))
	for _, ref := range refs {
		obj, err := s.Resolve(k, ref)
		var missing *store.NotFoundError
		switch {
		case err == nil:
			ids = append(ids, obj.GetMeta().ID)
		case errors.As(err, &missing) && len(ref) == v1.IDLength:
			ids = append(ids, ref)
		default:
			return nil, err
		}
	}
	return ids, nil
}
