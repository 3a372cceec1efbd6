package v1

import (
	"reflect"
	"slices"
	"strings"
	"time"
)

// NodeLost tells whether nothing can be known of what runs on a node, so that its tasks are replaced without waiting for
// them to end: it was removed (nil), or the rules found it missing.
func NodeLost(n *Node) bool {
	return n == nil || n.Desired != nil && !n.Desired.Down.IsZero()
}

// NodeDrained tells whether a node gives its tasks up.
func NodeDrained(n *Node) bool {
	return n != nil && n.Spec != nil && n.Spec.Availability == AvailabilityDrain
}

// Global tells whether a service's tasks are made for nodes, one for each that the service is to be on.
func Global(s *Service) bool {
	return s != nil && s.Spec != nil && (s.Spec.Mode == ModeGlobal || s.Spec.Mode == ModeGlobalJob)
}

// Job tells whether a service's tasks are to complete, rather than to run.
func Job(s *Service) bool {
	return s != nil && s.Spec != nil && (s.Spec.Mode == ModeReplicatedJob || s.Spec.Mode == ModeGlobalJob || s.Spec.Mode == ModeCron)
}

// Hosts tells whether a global service with these constraints is to have a task on a node, as Docker Swarm has it: on each that
// is ready, not drained, and satisfies them. One that is paused keeps the task that it has, as it is.
func Hosts(n *Node, constraints []Constraint) bool {
	return !NodeLost(n) && !NodeDrained(n) && n.Meta.Deleting.IsZero() && n.Spec != nil && n.Spec.Index > 0 &&
		n.Status != nil && n.Status.State == NodeReady && Satisfies(n, constraints)
}

// NodePaused tells whether a node takes no new tasks, and keeps those that it has.
func NodePaused(n *Node) bool {
	return n != nil && n.Spec != nil && n.Spec.Availability == AvailabilityPause
}

// TakesTasks tells whether a node is there and takes new tasks.
func TakesTasks(n *Node) bool {
	return n != nil && n.Status != nil && n.Status.State == NodeReady && !NodeLost(n) && n.Meta.Deleting.IsZero() && n.Spec != nil &&
		(n.Spec.Availability == AvailabilityActive || n.Spec.Availability == "")
}

// Rebalances tells whether the tasks of a service that run move to nodes that come.
func Rebalances(s *Service) bool {
	return s != nil && s.Spec != nil && s.Meta.Deleting.IsZero() && (s.Spec.Mode == ModeReplicated || s.Spec.Mode == "") &&
		s.Spec.Task.Placement != nil && s.Spec.Task.Placement.Rebalance == RebalanceOnJoin
}

// MayRebalance tells whether the tasks of such a service may move now: no rollout is under way, or has stopped half-way.
func MayRebalance(s *Service) bool {
	if !Rebalances(s) {
		return false
	}
	if s.Desired == nil || s.Desired.Update == nil {
		return true
	}
	state := s.Desired.Update.State
	return state == UpdateCompleted || state == UpdateRollbackCompleted
}

// MoveDropped tells whether a task was to take over from another, and did not.
func MoveDropped(t *Task) bool { return t.Desired.Move != nil && t.Desired.State > TaskComplete }

// SameButPlacement tells whether a revision's tasks need no replacement when a service changes to what it says now, as
// long as their nodes satisfy its placement, and what is in files that change while they run is changed.
func SameButPlacement(r *ServiceRevisionSpec, s *ServiceSpec) bool {
	before, now := r.Task, s.Task
	before.Placement, now.Placement = nil, nil
	of := mounted // a file is mounted so that it can change, or not: where any is to change, all have to be mounted as is asked for now
	if SameFiles(r, s) {
		of = contents
	}
	before.Container.Secrets, now.Container.Secrets = of(before.Container.Secrets), of(now.Container.Secrets)
	before.Container.Configs, now.Container.Configs = of(before.Container.Configs), of(now.Container.Configs)
	return reflect.DeepEqual(&before, &now) && reflect.DeepEqual(r.Endpoint, s.Endpoint)
}

// SameFiles tells whether the tasks of a revision have the secrets and configs that a service asks for now. What becomes of tasks when one
// changes is for the next change to say, and is nothing that they have.
func SameFiles(r *ServiceRevisionSpec, s *ServiceSpec) bool {
	before, now := &r.Task.Container, &s.Task.Container
	return reflect.DeepEqual(contents(before.Secrets), contents(now.Secrets)) && reflect.DeepEqual(contents(before.Configs), contents(now.Configs))
}

// contents are the files as a task has them.
func contents(refs []FileReference) []FileReference {
	return byTarget(refs, func(r *FileReference) { r.OnChange = "" })
}

// mounted are the files without what is in those that change while a task runs.
func mounted(refs []FileReference) []FileReference {
	return byTarget(refs, func(r *FileReference) {
		if r.Live() {
			r.Source, r.ID, r.OnChange = "", "", ChangeNone
		} else {
			r.OnChange = ""
		}
	})
}

// byTarget are references made comparable: replacing one puts it last.
func byTarget(refs []FileReference, change func(*FileReference)) []FileReference {
	if len(refs) == 0 {
		return nil
	}
	refs = slices.Clone(refs)
	for i := range refs {
		change(&refs[i])
	}
	slices.SortFunc(refs, func(a, b FileReference) int { return strings.Compare(a.Target, b.Target) })
	return refs
}

// Constraints parses the placement constraints of a task. One that cannot be parsed, which validation refuses, becomes
// the zero Constraint, which no node satisfies.
func Constraints(t *TaskSpec) []Constraint {
	if t.Placement == nil || len(t.Placement.Constraints) == 0 {
		return nil
	}
	parsed := make([]Constraint, len(t.Placement.Constraints))
	for i, text := range t.Placement.Constraints {
		if c, err := ParseConstraint(text); err == nil {
			parsed[i] = c
		}
	}
	return parsed
}

// Satisfies tells whether all constraints hold for a node.
func Satisfies(n *Node, constraints []Constraint) bool {
	for _, c := range constraints {
		if !c.Match(n) {
			return false
		}
	}
	return true
}

// RevisionOf is the revision that a service's current spec asks for; its ID is RevisionID.
func RevisionOf(s *Service) *ServiceRevisionSpec {
	return &ServiceRevisionSpec{Service: s.Meta.ID, Task: s.Spec.Task, Endpoint: s.Spec.Endpoint, Number: s.Meta.Generation}
}

// FailureMemory is how long a slot's failure counts against the node it happened on.
const FailureMemory = 5 * time.Minute
