package store

import (
	"fmt"
	"iter"
	"maps"
	"strings"

	"github.com/tidwall/btree"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// index finds objects by what they refer to. Keys are the two IDs with a zero byte between.
type index struct {
	names         *btree.Map[string, string] // kind/name → ID, not of tasks, not of what is being deleted
	byService     *btree.Map[string, *v1.Task]
	byNode        *btree.Map[string, *v1.Task]
	unplaced      *btree.Map[string, *v1.Task]            // tasks that wait for a node
	revisions     *btree.Map[string, *v1.ServiceRevision] // by service
	loads         *btree.Map[string, *Load]               // by node
	serviceCounts *btree.Map[string, *TaskCounts]         // by service
}

func (x *index) copy() index {
	if x.names == nil {
		return index{new(btree.Map[string, string]), new(btree.Map[string, *v1.Task]), new(btree.Map[string, *v1.Task]),
			new(btree.Map[string, *v1.Task]), new(btree.Map[string, *v1.ServiceRevision]), new(btree.Map[string, *Load]),
			new(btree.Map[string, *TaskCounts])}
	}
	return index{fork(x.names), fork(x.byService), fork(x.byNode), fork(x.unplaced), fork(x.revisions), fork(x.loads),
		fork(x.serviceCounts)}
}

func (x *index) add(o v1.Object) {
	switch o := o.(type) {
	case *v1.Task:
		x.addTask(o)
		return
	case *v1.ServiceRevision:
		x.revisions.Set(o.Spec.Service+"\x00"+o.Meta.ID, o)
		return
	}
	if key := nameKey(o); key != "" {
		x.names.Set(key, o.GetMeta().ID)
	}
}

func (x *index) remove(o v1.Object) {
	switch o := o.(type) {
	case *v1.Task:
		x.removeTask(o)
		return
	case *v1.ServiceRevision:
		x.revisions.Delete(o.Spec.Service + "\x00" + o.Meta.ID)
		return
	}
	if key := nameKey(o); key != "" {
		if id, _ := x.names.Get(key); id == o.GetMeta().ID {
			x.names.Delete(key)
		}
	}
}

func nameKey(o v1.Object) string {
	m := o.GetMeta()
	if m.Name == "" || !m.Deleting.IsZero() {
		return ""
	}
	switch o.(type) {
	case *v1.Service:
		return string(v1.KindService) + "/" + m.Name
	case *v1.Network:
		return string(v1.KindNetwork) + "/" + m.Name
	case *v1.Secret:
		return string(v1.KindSecret) + "/" + m.Name
	case *v1.Config:
		return string(v1.KindConfig) + "/" + m.Name
	case *v1.Volume:
		return string(v1.KindVolume) + "/" + m.Name
	case *v1.Cluster:
		return string(v1.KindCluster) + "/" + m.Name
	}
	return ""
}

func (x *index) addTask(t *v1.Task) {
	service, node := t.Desired.Service, v1.TaskNode(t)
	x.byService.Set(service+"\x00"+t.Meta.ID, t)
	if node != "" {
		x.byNode.Set(node+"\x00"+t.Meta.ID, t)
		if v1.HoldsPlacement(t) {
			x.changeLoad(node, t, +1)
		}
	} else if v1.WaitsForNode(t) {
		x.unplaced.Set(service+"\x00"+t.Meta.ID, t)
	}
	x.changeCounts(service, t, +1)
}

func (x *index) removeTask(t *v1.Task) {
	service, node := t.Desired.Service, v1.TaskNode(t)
	x.byService.Delete(service + "\x00" + t.Meta.ID)
	if node != "" {
		x.byNode.Delete(node + "\x00" + t.Meta.ID)
		if v1.HoldsPlacement(t) {
			x.changeLoad(node, t, -1)
		}
	} else {
		x.unplaced.Delete(service + "\x00" + t.Meta.ID)
	}
	x.changeCounts(service, t, -1)
}

// Load is what the tasks placed on a node hold of it, until they are observed to have ended.
type Load struct {
	Tasks  int
	CPUs   v1.CPUs
	Memory v1.Bytes
	// HostPorts counts the tasks that hold each host mode port, such as "tcp/8080".
	HostPorts map[string]int
}

func (x *index) changeLoad(node string, t *v1.Task, by int) {
	next := Load{}
	if l, ok := x.loads.Get(node); ok {
		next = *l
	}
	p := t.Desired.Placement
	next.Tasks += by
	next.CPUs += p.CPUs * v1.CPUs(by)
	next.Memory += p.Memory * v1.Bytes(by)
	if len(p.HostPorts) > 0 {
		next.HostPorts = maps.Clone(next.HostPorts)
		if next.HostPorts == nil {
			next.HostPorts = make(map[string]int, len(p.HostPorts))
		}
		for _, port := range p.HostPorts {
			if next.HostPorts[port] += by; next.HostPorts[port] == 0 {
				delete(next.HostPorts, port)
			}
		}
	}
	if next.Tasks == 0 {
		x.loads.Delete(node)
		return
	}
	x.loads.Set(node, &next)
}

// TaskCounts are how many tasks of a service are in each observed state, and how many of those are wanted.
type TaskCounts struct {
	Total int
	// Running are observed running and desired to.
	Running int
	// Live are desired to run and have not ended.
	Live int
	// Complete are observed complete.
	Complete int
}

func (x *index) changeCounts(service string, t *v1.Task, by int) {
	next := TaskCounts{}
	if c, ok := x.serviceCounts.Get(service); ok {
		next = *c
	}
	observed := v1.Observed(t)
	next.Total += by
	if v1.Live(t) {
		next.Live += by
	}
	if observed == v1.TaskRunning && t.Desired.State <= v1.TaskComplete {
		next.Running += by
	}
	if observed == v1.TaskComplete {
		next.Complete += by
	}
	if next.Total == 0 {
		x.serviceCounts.Delete(service)
		return
	}
	x.serviceCounts.Set(service, &next)
}

// ByName finds the ID of the object of a kind that has the name. Tasks, nodes and revisions are not found by name, and
// neither is what is being deleted.
func (s *Snapshot) ByName(kind v1.Kind, name string) (id string, ok bool) {
	if s.index.names == nil {
		return "", false
	}
	return s.index.names.Get(string(kind) + "/" + name)
}

// TasksOfService yields the tasks of a service in the order of their IDs.
func (s *Snapshot) TasksOfService(service string) iter.Seq[*v1.Task] {
	return prefixed(s.index.byService, service)
}

// TasksOfNode yields the tasks that were given to a node in the order of their IDs.
func (s *Snapshot) TasksOfNode(node string) iter.Seq[*v1.Task] { return prefixed(s.index.byNode, node) }

// Unplaced yields the tasks of a service that wait for a node, in the order of their IDs.
func (s *Snapshot) Unplaced(service string) iter.Seq[*v1.Task] {
	return prefixed(s.index.unplaced, service)
}

// ServicesWithUnplaced yields the IDs of the services that have tasks waiting for a node.
func (s *Snapshot) ServicesWithUnplaced() iter.Seq[string] {
	return func(yield func(string) bool) {
		if s.index.unplaced == nil {
			return
		}
		for from := ""; ; {
			service, found := "", false
			s.index.unplaced.Ascend(from, func(key string, _ *v1.Task) bool {
				service, _, found = strings.Cut(key, "\x00")
				return false
			})
			if !found || !yield(service) {
				return
			}
			from = service + "\x01"
		}
	}
}

// RevisionsOfService yields the kept revisions of a service in the order of their IDs.
func (s *Snapshot) RevisionsOfService(service string) iter.Seq[*v1.ServiceRevision] {
	return prefixed(s.index.revisions, service)
}

// LoadOf is what the tasks on a node hold of it. It must not be changed.
func (s *Snapshot) LoadOf(node string) Load {
	if s.index.loads == nil {
		return Load{}
	}
	l, ok := s.index.loads.Get(node)
	if !ok {
		return Load{}
	}
	return *l
}

// CountsOf counts the tasks of a service.
func (s *Snapshot) CountsOf(service string) TaskCounts {
	if s.index.serviceCounts == nil {
		return TaskCounts{}
	}
	c, ok := s.index.serviceCounts.Get(service)
	if !ok {
		return TaskCounts{}
	}
	return *c
}

func prefixed[V any](m *btree.Map[string, V], prefix string) iter.Seq[V] {
	return func(yield func(V) bool) {
		if m == nil {
			return
		}
		from := prefix + "\x00"
		m.Ascend(from, func(key string, v V) bool { return strings.HasPrefix(key, from) && yield(v) })
	}
}

// Resolve finds the one object that a user means: by its whole ID, by its name, or by the only ID that begins with ref, in
// that order, as Docker does. What is being deleted is not found.
func (s *Snapshot) Resolve(kind v1.Kind, ref string) (v1.Object, error) {
	if o, ok := s.Lookup(kind, ref); ok && o.GetMeta().Deleting.IsZero() {
		return o, nil
	}
	if id, ok := s.ByName(kind, ref); ok {
		o, _ := s.Lookup(kind, id)
		return o, nil
	}
	if kind == v1.KindNode {
		return s.resolveNode(ref)
	}
	return s.resolvePrefix(kind, ref)
}

// resolveNode finds a node by its host name, which need not be unique, or by the beginning of its ID.
func (s *Snapshot) resolveNode(ref string) (v1.Object, error) {
	var found []*v1.Node
	for n := range All(s, v1.Nodes) {
		if n.Status != nil && n.Status.Description.Hostname == ref {
			found = append(found, n)
		}
	}
	switch len(found) {
	case 0:
		return s.resolvePrefix(v1.KindNode, ref)
	case 1:
		return found[0], nil
	}
	return nil, &AmbiguousError{v1.KindNode, ref, len(found)}
}

func (s *Snapshot) resolvePrefix(kind v1.Kind, ref string) (v1.Object, error) {
	m, ok := s.objects[kind]
	if !ok || ref == "" {
		return nil, &NotFoundError{kind, ref}
	}
	var first v1.Object
	hits := 0
	m.Ascend(ref, func(id string, o v1.Object) bool {
		if !strings.HasPrefix(id, ref) {
			return false
		}
		if o.GetMeta().Deleting.IsZero() {
			first = o
			hits++
		}
		return hits < 2
	})
	switch hits {
	case 0:
		return nil, &NotFoundError{kind, ref}
	case 1:
		return first, nil
	}
	return nil, &AmbiguousError{kind, ref, hits}
}

// NotFoundError says that nothing of the kind is called that.
type NotFoundError struct {
	Kind v1.Kind
	Ref  string
}

// Error implements error in Docker's words.
func (e *NotFoundError) Error() string {
	return fmt.Sprintf("%s %s not found", strings.ToLower(string(e.Kind)), e.Ref)
}

// AmbiguousError says that more than one object of the kind could be meant.
type AmbiguousError struct {
	Kind  v1.Kind
	Ref   string
	Count int
}

// Error implements error in Docker's words.
func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("%s %s is ambiguous (%d matches found)", strings.ToLower(string(e.Kind)), e.Ref, e.Count)
}
