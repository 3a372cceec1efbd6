package scheduler

import (
	"fmt"
	"maps"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// A service that depends on others waits for them once: until a task of it was given a node. From then on its tasks come and go as those of
// any service, for what it depends on fails and comes back, too, and no order can be kept then.

// waitsFor says what a service has yet to wait for, and "" where nothing.
func waitsFor(s *store.Snapshot, service *v1.Service) string {
	if service == nil || len(service.Spec.DependsOn) == 0 {
		return ""
	}
	for t := range s.TasksOfService(service.Meta.ID) {
		if v1.TaskNode(t) != "" {
			return ""
		}
	}
	var missing []string
	for _, d := range service.Spec.DependsOn {
		if why := unmet(s, d); why != "" {
			missing = append(missing, why)
		}
	}
	if len(missing) == 0 {
		return ""
	}
	return "waits for " + strings.Join(missing, ", and for ")
}

// unmet says what is missing of a dependency, and "" where it is met. A service that is to have no tasks keeps nobody waiting.
func unmet(s *store.Snapshot, d v1.Dependency) string {
	id, there := s.ByName(v1.KindService, d.Service)
	if !there {
		if d.Optional {
			return ""
		}
		return d.Service + " to " + d.Wants() + ": there is no such service"
	}
	service, _ := store.Get(s, v1.Services, id)
	service = v1.Effective(service)
	slots := newest(s, service)
	met, wanted := 0, wantedSlots(service, slots)
	for _, t := range slots {
		if d.Meets(t) && (d.Condition != v1.DependsCompleted || staysComplete(service)) {
			met++
		}
	}
	if met >= wanted {
		return ""
	}
	return fmt.Sprintf("%s to %s (%d of %d %s)", d.Service, d.Wants(), met, wanted, map[bool]string{true: "task", false: "tasks"}[wanted == 1])
}

// wantedSlots is how many slots of a service have to have come to it. Of one that is on every node, that is at least one.
func wantedSlots(service *v1.Service, slots map[uint64]*v1.Task) int {
	switch {
	case v1.Global(service):
		return max(len(slots), 1)
	case v1.Cron(service):
		return 1
	case service.Spec.Replicas == nil:
		return 1
	}
	return int(min(*service.Spec.Replicas, v1.MaxReplicas))
}

// newest are the tasks that stand for the slots of a service, as it is now: the latest of each. The slot of a node that the service is not
// to be on any more stands for nothing.
func newest(s *store.Snapshot, service *v1.Service) map[uint64]*v1.Task {
	slots := make(map[uint64]*v1.Task)
	for t := range s.TasksOfService(service.Meta.ID) {
		d := t.Desired
		if d.State == v1.TaskRemove || v1.MoveDropped(t) || v1.Job(service) && !v1.Cron(service) && d.Iteration != service.Meta.Generation {
			continue
		}
		if known := slots[d.Slot]; known == nil || d.Attempt > known.Desired.Attempt {
			slots[d.Slot] = t
		}
	}
	if v1.Global(service) {
		constraints := v1.Constraints(&service.Spec.Task)
		maps.DeleteFunc(slots, func(_ uint64, t *v1.Task) bool {
			n, there := store.Get(s, v1.Nodes, t.Desired.Node)
			return !there || !v1.Hosts(n, constraints)
		})
	}
	return slots
}

// staysComplete tells whether a task that ended well is not started again.
func staysComplete(service *v1.Service) bool {
	p := service.Spec.Task.RestartPolicy
	return v1.Job(service) || p != nil && (p.Condition == v1.RestartNone || p.Condition == v1.RestartOnFailure)
}

// dependents are the services with tasks that wait for a node and that depend on one.
func dependents(s *store.Snapshot, on string) []string {
	var keys []string
	for id := range s.ServicesWithUnplaced() {
		service, ok := store.Get(s, v1.Services, id)
		if !ok {
			continue
		}
		for _, d := range service.Spec.DependsOn {
			if d.Service == on {
				keys = append(keys, id)
			}
		}
	}
	return keys
}

// dependentsOf are those that a change of a service, or of a task of it, concerns.
func dependentsOf(s *store.Snapshot, c store.Change) []string {
	for _, o := range []v1.Object{c.New, c.Old} {
		switch o := o.(type) {
		case *v1.Service:
			return dependents(s, o.Meta.Name)
		case *v1.Task:
			was, _ := c.Old.(*v1.Task)
			if is, _ := c.New.(*v1.Task); was != nil && is != nil && v1.Observed(was) == v1.Observed(is) && was.Desired.State == is.Desired.State &&
				v1.Serves(was) == v1.Serves(is) {
				return nil
			}
			return dependents(s, o.Desired.ServiceName)
		}
	}
	return nil
}
