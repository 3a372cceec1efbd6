package sim

import (
	"errors"
	"fmt"
	"slices"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// user is whoever works with the swarm.
type user struct {
	made int // services and networks, for their IDs
}

// names are those that services get, and get again once they are free.
var names = []string{"web", "db", "job"}

// userActs does something now and then, until the faults stop.
func (w *World) userActs() {
	if w.calm {
		return
	}
	w.act()
	w.after(w.between(100*time.Millisecond, 8*time.Second), w.userActs)
}

func (w *World) act() {
	name := names[w.rng.IntN(len(names))]
	service := w.named(name)
	if w.chance(0.15) {
		w.networkActs()
	}
	if w.chance(0.25) {
		w.jobActs()
	}
	if w.chance(0.04) {
		w.joins()
	}
	switch {
	case service == nil:
		w.create(name)
	case w.chance(0.35):
		w.update(service, w.scale)
	case w.chance(0.5):
		w.update(service, func(s *v1.ServiceSpec) {
			s.Task.Container.Image = fmt.Sprintf("app:%d", w.rng.IntN(4))
		})
	case w.chance(0.2):
		w.rollback(service)
	case w.chance(0.3):
		w.update(service, func(s *v1.ServiceSpec) { s.Task.ForceUpdate++ })
	case w.chance(0.3):
		w.update(service, func(s *v1.ServiceSpec) { s.Task.Networks = w.attachments() })
	case w.chance(0.7):
		w.drain()
	default:
		w.remove(service)
		if w.chance(0.5) {
			w.create(name)
		}
	}
}

// scale changes how many replicas there are to be, or where a global service is to be.
func (w *World) scale(s *v1.ServiceSpec) {
	n := w.rng.Uint64N(5)
	switch {
	case s.Mode != v1.ModeGlobal:
		s.Replicas = &n
	case n < 2:
		s.Task.Placement = &v1.Placement{Constraints: []string{"node.labels.zone==east"}}
	default:
		s.Task.Placement = nil
	}
}

// replicas says how many tasks a service is to have.
func replicas(s *v1.ServiceSpec) string {
	if s.Replicas == nil {
		return string(s.Mode)
	}
	return fmt.Sprintf("%d replicas", *s.Replicas)
}

// named is the service of that name, or nil.
func (w *World) named(name string) *v1.Service {
	id, ok := w.current().ByName(v1.KindService, name)
	if !ok {
		return nil
	}
	s, _ := store.Get(w.current(), v1.Services, id)
	return v1.Effective(s)
}

// create makes a service of some kind.
func (w *World) create(name string) {
	spec := w.spec()
	w.depends(name, spec)
	w.make(name, spec)
}

// make makes a service.
func (w *World) make(name string, spec *v1.ServiceSpec) {
	w.user.made++
	id := v1.HashID("sim", fmt.Sprint(w.o.Seed), fmt.Sprint(w.user.made))
	now := w.time(0)
	w.trace("user creates %s(%.4s): %s, %s", name, id, replicas(spec), v1.OrderNow(&v1.Service{Spec: spec}))
	w.userCommit(
		store.Op{Kind: v1.KindClaim, ID: v1.NameClaim(v1.KindService, name), Value: &v1.ClaimSpec{Holder: id}, If: store.Absent()},
		store.Op{Kind: v1.KindService, ID: id, Value: spec, If: store.Absent(),
			Meta: &v1.Meta{ID: id, Name: name, CreatedAt: now, UpdatedAt: now, Generation: 1}},
	)
}

// spec is what a user might want.
func (w *World) spec() *v1.ServiceSpec {
	s := &v1.ServiceSpec{Task: v1.TaskSpec{Container: v1.ContainerSpec{Image: "app:0"}}}
	n := w.rng.Uint64N(5)
	delay, parallelism, monitor := v1.Duration(w.between(0, 3*time.Second)), w.rng.Uint64N(3), v1.Duration(w.between(0, 3*time.Second))
	s.Replicas = &n
	s.Task.RestartPolicy = &v1.RestartPolicy{Condition: v1.RestartAny, Delay: &delay}
	s.Update = &v1.UpdateConfig{Parallelism: &parallelism, Monitor: &monitor, FailureAction: v1.FailurePause, Order: v1.StopFirst}
	if w.chance(0.3) {
		s.Update.Delay = v1.Duration(w.between(0, 2*time.Second))
	}
	if w.chance(0.6) {
		s.Update.FailureAction = []v1.FailureAction{v1.FailureContinue, v1.FailureRollback}[w.rng.IntN(2)]
	}
	deadline := v1.Duration(w.between(5*time.Second, 5*time.Minute))
	back := w.rng.Uint64N(3)
	s.Update.ProgressDeadline = &deadline
	s.Rollback = &v1.UpdateConfig{Parallelism: &back, Monitor: &monitor, ProgressDeadline: &deadline}
	if w.chance(0.2) {
		s.Task.RestartPolicy.MaxAttempts = 1 + w.rng.Uint64N(3)
	}
	if w.chance(0.1) {
		s.Task.RestartPolicy.Condition = []v1.RestartCondition{v1.RestartNone, v1.RestartOnFailure}[w.rng.IntN(2)]
	}
	if w.chance(0.6) {
		s.Task.Networks = w.attachments()
	}
	s.Endpoint = &v1.EndpointSpec{}
	switch {
	case w.chance(0.1):
		s.Endpoint.Mode = v1.EndpointDNSRR
	case w.chance(0.2):
		s.Endpoint.Ports = []v1.PortConfig{{Target: 80}}
	}
	start, everywhere := w.chance(0.3), w.chance(0.2)
	switch {
	case everywhere:
		s.Mode, s.Replicas = v1.ModeGlobal, nil
		w.scale(s)
	default:
		w.restrict(s)
	}
	if start {
		s.Update.Order = v1.StartFirst
		s.Rollback.Order = []v1.UpdateOrder{v1.StartFirst, v1.StopFirst}[w.rng.IntN(2)]
	}
	v1.Default(&v1.Service{Spec: s})
	return s
}

// restrict makes a service choosy about nodes.
func (w *World) restrict(s *v1.ServiceSpec) {
	if w.chance(0.5) {
		s.Task.Resources = &v1.Resources{Reservations: &v1.Reservations{CPUs: 1e9}}
		if w.chance(0.5) {
			s.Task.Resources.Reservations.Generic = []v1.GenericResource{{Kind: "GPU", Count: 1}}
		}
	}
	switch {
	case w.chance(0.15) && w.withHostPort() < 2: // a third would find no node where one is drained
		s.Endpoint = &v1.EndpointSpec{Ports: []v1.PortConfig{{Target: 80, Published: 8080, Mode: v1.PublishHost}}}
	case w.chance(0.15):
		s.Task.Placement = &v1.Placement{MaxReplicas: 2}
	case w.chance(0.15):
		s.Task.Placement = &v1.Placement{Constraints: []string{"node.labels.zone==east"}}
	}
	if w.chance(0.4) {
		if s.Task.Placement == nil {
			s.Task.Placement = &v1.Placement{}
		}
		s.Task.Placement.Rebalance = v1.RebalanceOnJoin
	}
}

// withHostPort counts the services that want the host port.
func (w *World) withHostPort() (n int) {
	for _, s := range w.services() {
		if s.Meta.Deleting.IsZero() && hostPort(s.Spec) {
			n++
		}
	}
	return n
}

// hostPort tells whether a service wants the host port.
func hostPort(s *v1.ServiceSpec) bool {
	return slices.ContainsFunc(s.Endpoint.Ports, func(p v1.PortConfig) bool { return p.Mode == v1.PublishHost })
}

// update changes the spec of a service.
func (w *World) update(s *v1.Service, change func(*v1.ServiceSpec)) {
	spec, meta := *s.Spec, s.Meta
	if w.chance(0.1) { // by a program that knows nothing of what was rolled back
		if raw, ok := store.Get(w.current(), v1.Services, meta.ID); ok {
			spec = *raw.Spec
		}
	}
	spec.RollbackTo = ""
	change(&spec)
	meta.Generation++
	meta.UpdatedAt = w.time(0)
	w.trace("user updates %s(%.4s): %s of %s, force %d", meta.Name, meta.ID, replicas(&spec), spec.Task.Container.Image, spec.Task.ForceUpdate)
	w.userCommit(store.Op{Kind: v1.KindService, ID: meta.ID, Value: &spec, Meta: &meta, If: store.AtRevision(meta.Revisions[v1.SectionSpec])})
}

// rollback goes back to the revision before, if there is one.
func (w *World) rollback(s *v1.Service) {
	if s.Desired == nil || s.Desired.Update == nil {
		return
	}
	to, ok := store.Get(w.current(), v1.ServiceRevisions, s.Desired.Update.Previous)
	if !ok {
		return
	}
	w.update(s, func(spec *v1.ServiceSpec) {
		spec.Task, spec.Endpoint, spec.RollbackTo = to.Spec.Task, to.Spec.Endpoint, to.Meta.ID
	})
}

// remove asks for a service to go, and frees its name.
func (w *World) remove(s *v1.Service) {
	meta := s.Meta
	meta.Deleting = w.time(0)
	meta.UpdatedAt = meta.Deleting
	w.trace("user removes %s(%.4s)", meta.Name, meta.ID)
	w.userCommit(
		store.Op{Kind: v1.KindService, ID: meta.ID, Value: s.Spec, Meta: &meta, If: store.AtRevision(meta.Revisions[v1.SectionSpec])},
		store.Op{Kind: v1.KindClaim, ID: v1.NameClaim(v1.KindService, meta.Name), If: store.Exists()},
	)
}

// drain changes the availability of a node.
func (w *World) drain() {
	w.setAvailability(w.machines[w.rng.IntN(len(w.machines))],
		[]v1.NodeAvailability{v1.AvailabilityActive, v1.AvailabilityActive, v1.AvailabilityDrain, v1.AvailabilityDrain, v1.AvailabilityPause}[w.rng.IntN(5)])
}

func (w *World) setAvailability(m *machine, a v1.NodeAvailability) {
	n, ok := store.Get(w.current(), v1.Nodes, m.id)
	if !ok || n.Spec.Availability == a {
		return
	}
	spec := *n.Spec
	spec.Availability = a
	w.trace("user sets %s to %s", m.id, a)
	w.userCommit(store.Op{Kind: v1.KindNode, ID: m.id, Value: &spec, Meta: &n.Meta, If: store.Exists()})
}

func (w *World) userCommit(ops ...store.Op) {
	if _, err := w.commit(actorUser, store.Commit{Ops: ops}); err != nil && !errors.Is(err, store.ErrConflict) {
		w.fail("user: %v", err)
	}
}

// services are those that are there, in the order of their IDs, each as it is to be.
func (w *World) services() (all []*v1.Service) {
	for s := range store.All(w.current(), v1.Services) {
		all = append(all, v1.Effective(s))
	}
	return all
}
