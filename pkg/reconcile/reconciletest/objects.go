package reconciletest

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"

	"sigs.k8s.io/yaml"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

var documents = regexp.MustCompile(`(?m)^---\s*$`)

// Load makes the objects of a scenario: YAML documents with kind, metadata and the sections. What a document leaves out is
// filled in: an ID from the name, the defaults of the spec, a ready node with a session, 4 cpus and 8 GiB, a task's ID from
// its slot and attempt. A task's revision may be written as "current", for that of its service.
func (w *World) Load(text string) error {
	for i, document := range documents.Split(text, -1) {
		var head struct{ Kind v1.Kind }
		if err := yaml.Unmarshal([]byte(document), &head); err != nil {
			return fmt.Errorf("object %d: %w", i+1, err)
		}
		if head.Kind == "" {
			continue
		}
		d, ok := v1.Describe(head.Kind)
		if !ok {
			return fmt.Errorf("object %d: no kind %q", i+1, head.Kind)
		}
		o := d.New()
		if err := yaml.Unmarshal([]byte(document), o); err != nil {
			return fmt.Errorf("object %d: %w", i+1, err)
		}
		if err := w.complete(o); err != nil {
			return fmt.Errorf("object %d: %w", i+1, err)
		}
		ops := opsOf(d, o)
		if n, ok := o.(*v1.Node); ok && n.Status.State == v1.NodeReady && n.Desired == nil {
			ops = append(ops, w.session(n)...)
			if v1.TakesTasks(n) { // it has for a while
				ops = append(ops, store.Op{Kind: v1.KindNode, ID: n.Meta.ID, Section: v1.SectionDesired, Value: &v1.NodeDesired{Since: w.Now}, If: store.Always()})
			}
		}
		if err := w.Commit(ops...); err != nil {
			return fmt.Errorf("object %d: %w", i+1, err)
		}
	}
	return nil
}

func opsOf(d v1.Descriptor, o v1.Object) []store.Op {
	meta := o.GetMeta()
	ops := []store.Op{{Kind: d.Kind(), ID: meta.ID, Section: d.Home(), Value: d.Section(o, d.Home()), Meta: meta, If: store.Absent()}}
	for _, s := range []v1.Section{v1.SectionSpec, v1.SectionDesired, v1.SectionStatus} {
		if value := d.Section(o, s); value != nil && s != d.Home() {
			ops = append(ops, store.Op{Kind: d.Kind(), ID: meta.ID, Section: s, Value: value, If: store.Always()})
		}
	}
	return ops
}

func (w *World) complete(o v1.Object) error {
	meta := o.GetMeta()
	if meta.ID == "" {
		meta.ID = meta.Name
	}
	if meta.CreatedAt.IsZero() {
		meta.CreatedAt, meta.UpdatedAt = w.Now, w.Now
	}
	switch o := o.(type) {
	case *v1.Service:
		meta.Generation = max(meta.Generation, 1)
		v1.Default(o)
	case *v1.Network:
		v1.Default(o)
	case *v1.Node:
		w.completeNode(o)
	case *v1.Task:
		return w.completeTask(o)
	}
	return nil
}

func (w *World) completeNode(o *v1.Node) {
	if o.Spec == nil {
		o.Spec = &v1.NodeSpec{}
	}
	if o.Spec.Index == 0 {
		w.indexes++
		o.Spec.Index = w.indexes
	}
	if o.Spec.Availability == "" {
		o.Spec.Availability = v1.AvailabilityActive
	}
	if o.Status == nil {
		o.Status = &v1.NodeStatus{State: v1.NodeReady}
	}
	d := &o.Status.Description
	if d.Hostname == "" {
		d.Hostname = o.Meta.ID
	}
	if d.Platform == (v1.Platform{}) {
		d.Platform = v1.Platform{Architecture: "amd64", OS: "linux"}
	}
	if d.Resources.CPUs == 0 {
		d.Resources = v1.NodeResources{CPUs: 4e9, Memory: 8 << 30}
	}
}

func (w *World) completeTask(o *v1.Task) error {
	d := o.Desired
	if d == nil {
		return fmt.Errorf("a task needs a desired section")
	}
	d.Attempt = max(d.Attempt, 1)
	if d.State == v1.TaskNew {
		d.State = v1.TaskRunning
	}
	service, known := store.Get(w.Snapshot(), v1.Services, d.Service)
	if known {
		d.ServiceName = service.Meta.Name
		if d.Revision == "" || d.Revision == "current" {
			d.Revision = v1.RevisionID(service)
		}
	}
	if o.Meta.ID == "" {
		o.Meta.ID = v1.TaskID(d.Service, strconv.FormatUint(d.Slot, 10), d.Attempt)
	}
	return nil
}

// merge puts a JSON merge patch over a value.
func merge[T any](value *T, patch map[string]any) (*T, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	var tree map[string]any
	if err := json.Unmarshal(text, &tree); err != nil {
		return nil, err
	}
	mergeTree(tree, patch)
	if text, err = json.Marshal(tree); err != nil {
		return nil, err
	}
	next := new(T)
	return next, json.Unmarshal(text, next)
}

func mergeTree(into, patch map[string]any) {
	for key, value := range patch {
		branch, isBranch := value.(map[string]any)
		below, hasBelow := into[key].(map[string]any)
		switch {
		case value == nil:
			delete(into, key)
		case isBranch && hasBelow:
			mergeTree(below, branch)
		default:
			into[key] = value
		}
	}
}
