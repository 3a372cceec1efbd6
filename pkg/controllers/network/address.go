package network

import (
	"reflect"
	"slices"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/store"
)

// Addresses gives services their virtual addresses and ports, and tasks their addresses, before they are placed.
type Addresses struct{}

// Name implements reconcile.Rule.
func (Addresses) Name() string { return "address" }

// Keys implements reconcile.Rule: a service is worth deciding when it or a task of it changes, when a network that it asks for
// does, and when something is free that it waits for.
func (Addresses) Keys(s *store.Snapshot, c store.Change) []string {
	switch c.Kind {
	case v1.KindService:
		before, _ := c.Old.(*v1.Service)
		after, _ := c.New.(*v1.Service)
		return append(wokenByService(s, before, after), c.ID)
	case v1.KindNetwork:
		return wokenByNetwork(s, c)
	case v1.KindTask:
		t, ok := reconcile.TaskOf(c)
		if !ok {
			return nil
		}
		var keys []string
		if gaveUpAddresses(t) {
			keys = waitingFor(s, t.Old.Desired.Networks)
		}
		if t.Decided() || t.Ended() {
			keys = append(append(keys, reconcile.Contestants(s)...), t.Service())
		}
		return keys
	}
	return nil
}

// gaveUpAddresses tells whether a task no longer holds all that it held.
func gaveUpAddresses(t reconcile.TaskChange) bool {
	switch {
	case !v1.HoldsAddresses(t.Old):
		return false
	case !v1.HoldsAddresses(t.New):
		return true
	}
	return t.Old.Desired != t.New.Desired && !sameNetworks(t.Old.Desired.Networks, t.New.Desired.Networks)
}

func sameNetworks(a, b []v1.NetworkAddress) bool { return reflect.DeepEqual(a, b) }

func wokenByService(s *store.Snapshot, before, after *v1.Service) []string {
	keys := reconcile.Contestants(s)
	if before != nil && before.Desired != nil && (after == nil || after.Desired == nil ||
		!sameNetworks(before.Desired.VIPs, after.Desired.VIPs)) {
		keys = append(keys, waitingFor(s, before.Desired.VIPs)...)
	}
	return append(keys, wokenByPorts(s, before, after)...)
}

// wokenByNetwork are the services that ask for a network, by whatever revision that tasks may still be made of.
func wokenByNetwork(s *store.Snapshot, c store.Change) []string {
	o := c.New
	if o == nil {
		o = c.Old
	}
	m := o.GetMeta()
	var keys []string
	for service := range store.All(s, v1.Services) {
		if asksFor(s, service.Meta.ID, m.ID, m.Name) {
			keys = append(keys, service.Meta.ID)
		}
	}
	for service := range s.ServicesOfNetwork(m.ID) {
		keys = append(keys, service.Meta.ID)
	}
	for a := range store.All(s, v1.Attachments) {
		if slices.Contains(a.Spec.Networks, m.ID) {
			keys = append(keys, a.Meta.ID)
		}
	}
	return keys
}

// waitingFor are the services that wait for an address on one of the networks, or may.
func waitingFor(s *store.Snapshot, networks []v1.NetworkAddress) []string {
	var keys []string
	for _, on := range networks {
		for service := range s.ServicesWithoutVIP(on.Network) {
			keys = append(keys, service.Meta.ID)
		}
		name := ""
		if n, ok := store.Get(s, v1.Networks, on.Network); ok {
			name = n.Meta.Name
		}
		for service := range s.ServicesWithUnplaced() {
			if asksFor(s, service, on.Network, name) {
				keys = append(keys, service)
			}
		}
	}
	return keys
}

// asksFor tells whether a service is to be on a network, by its spec or an earlier revision.
func asksFor(s *store.Snapshot, service, id, name string) bool {
	if o, ok := store.Get(s, v1.Services, service); ok && attached(&o.Spec.Task, id, name) {
		return true
	}
	if a, ok := store.Get(s, v1.Attachments, service); ok {
		return slices.Contains(a.Spec.Networks, id)
	}
	for r := range s.RevisionsOfService(service) {
		if attached(&r.Spec.Task, id, name) {
			return true
		}
	}
	return false
}

// attached tells whether a spec names a network, by its ID or its name.
func attached(t *v1.TaskSpec, id, name string) bool {
	return slices.ContainsFunc(t.Networks, func(a v1.NetworkAttachment) bool {
		return a.Target == id || name != "" && a.Target == name
	})
}

// Decide implements reconcile.Rule.
func (Addresses) Decide(now time.Time, s *store.Snapshot, key string) reconcile.Plan {
	d := &decision{now: now, snapshot: s, key: key, pools: make(map[string]*pool), revisions: make(map[string]*revision)}
	if service, ok := store.Get(s, v1.Services, key); ok {
		service = v1.Effective(service)
		d.service = service
		if service.Meta.Deleting.IsZero() {
			d.endpoint()
		}
	}
	d.tasks()
	return d.plan
}

// decision is one under way.
type decision struct {
	now      time.Time
	snapshot *store.Snapshot
	key      string
	service  *v1.Service // nil where it is gone
	// portless is why a port of the service has no number, or "".
	portless  string
	pools     map[string]*pool     // by network
	revisions map[string]*revision // by ID
	plan      reconcile.Plan
}

// endpoint decides what the service itself has.
func (d *decision) endpoint() {
	var before v1.ServiceDesired
	if d.service.Desired != nil {
		before = *d.service.Desired
	}
	next := before
	next.VIPs = d.vips(before.VIPs)
	next.Ports = d.ports()
	if !reflect.DeepEqual(before, next) {
		d.plan.Ops = append(d.plan.Ops, reconcile.SetService(d.service, &next))
	}
}

// set plans a new desired section for a task.
func (d *decision) set(t *v1.Task, next *v1.TaskDesired) {
	d.plan.Ops = append(d.plan.Ops, reconcile.SetTask(d.now, t, next))
}
