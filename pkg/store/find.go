package store

import (
	"fmt"
	"iter"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// ByName finds the ID of the object of a kind that has the name; the first of them where several have. Tasks, nodes and
// revisions are not found by name, and neither is what is being deleted.
func (s *Snapshot) ByName(kind v1.Kind, name string) (id string, ok bool) {
	from := namePrefix(kind, name)
	s.index.names.tree.Ascend(from, func(key, found string) bool {
		if strings.HasPrefix(key, from) {
			id, ok = found, true
		}
		return false
	})
	return id, ok
}

// TasksOfService yields the tasks of a service in the order of their IDs.
func (s *Snapshot) TasksOfService(service string) iter.Seq[*v1.Task] {
	return s.index.byService.members(service)
}

// TasksOfNode yields the tasks that were given to a node in the order of their IDs.
func (s *Snapshot) TasksOfNode(node string) iter.Seq[*v1.Task] { return s.index.byNode.members(node) }

// Unplaced yields the tasks of a service that wait for a node, in the order of their IDs.
func (s *Snapshot) Unplaced(service string) iter.Seq[*v1.Task] {
	return s.index.unplaced.members(service)
}

// ServicesWithUnplaced yields the IDs of the services that have tasks waiting for a node.
func (s *Snapshot) ServicesWithUnplaced() iter.Seq[string] { return s.index.unplaced.keys() }

// GlobalServices yields the services whose tasks are made for nodes, in the order of their IDs.
func (s *Snapshot) GlobalServices() iter.Seq[*v1.Service] { return s.index.global.members("") }

// RebalancedServices yields the services whose tasks move to nodes that come, in the order of their IDs.
func (s *Snapshot) RebalancedServices() iter.Seq[*v1.Service] { return s.index.balanced.members("") }

// RevisionsOfService yields the kept revisions of a service in the order of their IDs.
func (s *Snapshot) RevisionsOfService(service string) iter.Seq[*v1.ServiceRevision] {
	return s.index.revisions.members(service)
}

// LoadOf is what the tasks on a node hold of it. It must not be changed.
func (s *Snapshot) LoadOf(node string) Load {
	l, _ := s.index.loads.tree.Get(node)
	return l
}

// CountsOf counts the tasks of a service.
func (s *Snapshot) CountsOf(service string) TaskCounts {
	c, _ := s.index.counts.tree.Get(service)
	return c
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
		if n.Meta.Deleting.IsZero() && n.Status != nil && n.Status.Description.Hostname == ref {
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
	at, ok := kindAt[kind]
	if !ok || ref == "" {
		return nil, &NotFoundError{kind, ref}
	}
	var first v1.Object
	hits := 0
	s.objects[at].tree.Ascend(ref, func(id string, o v1.Object) bool {
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
