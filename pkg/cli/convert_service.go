package cli

import (
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// names finds the names and IDs that specs refer to. A reference that it does not know stays as it is.
type names struct {
	ids      map[v1.Kind]map[string]string // name → ID
	networks networkBook
	// people tells that networks are called by their names, not by their IDs.
	people bool
}

// network is what a network is called that a spec refers to by name or ID.
func (n names) network(ref string) string {
	found := n.networks.exact(ref)
	switch {
	case found == nil:
		return n.id(v1.KindNetwork, ref)
	case n.people:
		return found.Meta.Name
	}
	return found.Meta.ID
}

// id is the ID of the object of that kind that ref names.
func (n names) id(kind v1.Kind, ref string) string {
	if id, ok := n.ids[kind][ref]; ok {
		return id
	}
	return ref
}

// convertService is a service as docker inspect prints it. Previous is the revision that ran before, nil where none is known.
func convertService(s *v1.Service, previous *v1.ServiceRevision, n names) *dockerService {
	spec := v1.ServiceSpec{}
	if s.Spec != nil {
		spec = *s.Spec
	}
	d := &dockerService{
		ID:         s.Meta.ID,
		dockerMeta: convertMeta(&s.Meta),
		Spec:       convertServiceSpec(&s.Meta, &spec, n),
	}
	if e := d.Spec.EndpointSpec; e != nil {
		d.Endpoint.Spec = *e
		d.Endpoint.Ports = e.Ports
	}
	if s.Desired != nil {
		if len(s.Desired.Ports) > 0 {
			d.Endpoint.Ports = convertPorts(s.Desired.Ports)
		}
		for _, vip := range s.Desired.VIPs {
			for _, address := range vip.Addresses {
				d.Endpoint.VirtualIPs = append(d.Endpoint.VirtualIPs, dockerVirtualIP{n.network(vip.Network), address})
			}
		}
		d.UpdateStatus = convertUpdateStatus(s.Desired.Update)
		d.CronStatus = convertCronStatus(s.Desired.Cron)
	}
	if previous != nil && previous.Spec != nil {
		before := spec
		before.Task, before.Endpoint = previous.Spec.Task, previous.Spec.Endpoint
		p := convertServiceSpec(&s.Meta, &before, n)
		d.PreviousSpec = &p
	}
	return d
}

func convertMeta(m *v1.Meta) dockerMeta {
	return dockerMeta{Version: dockerVersion{uint64(m.Revisions.Max())}, CreatedAt: m.CreatedAt, UpdatedAt: m.UpdatedAt}
}

func annotations(m *v1.Meta) dockerAnnotations {
	labels := m.Labels
	if labels == nil {
		labels = map[string]string{}
	}
	return dockerAnnotations{m.Name, labels}
}

func convertServiceSpec(m *v1.Meta, s *v1.ServiceSpec, n names) dockerServiceSpec {
	var depends []dockerDependency
	for _, d := range s.DependsOn {
		depends = append(depends, dockerDependency{d.Service, string(d.Condition), d.Optional})
	}
	return dockerServiceSpec{
		DependsOn:         depends,
		dockerAnnotations: annotations(m),
		TaskTemplate:      convertTaskSpec(&s.Task, n),
		Mode:              convertMode(s),
		UpdateConfig:      convertUpdateConfig(s.Update),
		RollbackConfig:    convertUpdateConfig(s.Rollback),
		EndpointSpec:      convertEndpoint(s.Endpoint),
	}
}

func convertMode(s *v1.ServiceSpec) dockerMode {
	switch s.Mode {
	case v1.ModeGlobal:
		return dockerMode{Global: &struct{}{}}
	case v1.ModeGlobalJob:
		return dockerMode{GlobalJob: &struct{}{}}
	case v1.ModeReplicatedJob:
		return dockerMode{ReplicatedJob: &dockerJob{MaxConcurrent: s.MaxConcurrent, TotalCompletions: s.Replicas}}
	case v1.ModeCron:
		return dockerMode{Cron: convertSchedule(s.Schedule)}
	default:
		return dockerMode{Replicated: &dockerReplicated{Replicas: s.Replicas}}
	}
}

func convertUpdateConfig(u *v1.UpdateConfig) *dockerUpdateConfig {
	if u == nil {
		return nil
	}
	d := &dockerUpdateConfig{
		Parallelism: 1, Delay: time.Duration(u.Delay), FailureAction: string(u.FailureAction), MaxFailureRatio: u.MaxFailureRatio,
		Order: string(u.Order),
	}
	if u.Parallelism != nil {
		d.Parallelism = *u.Parallelism
	}
	if u.Monitor != nil {
		d.Monitor = time.Duration(*u.Monitor)
	}
	if u.ProgressDeadline != nil {
		d.ProgressDeadline = time.Duration(*u.ProgressDeadline)
	}
	return d
}

func convertUpdateStatus(u *v1.UpdateStatus) *dockerUpdateStatus {
	if u == nil {
		return nil
	}
	d := &dockerUpdateStatus{State: string(u.State), Message: u.Message}
	if !u.StartedAt.IsZero() {
		d.StartedAt = &u.StartedAt
	}
	if !u.CompletedAt.IsZero() {
		d.CompletedAt = &u.CompletedAt
	}
	return d
}

func convertEndpoint(e *v1.EndpointSpec) *dockerEndpointSpec {
	if e == nil {
		return nil
	}
	return &dockerEndpointSpec{Mode: string(e.Mode), Ports: convertPorts(e.Ports)}
}

func convertPorts(ports []v1.PortConfig) []dockerPort {
	var all []dockerPort
	for _, p := range ports {
		all = append(all, dockerPort{p.Name, string(p.Protocol), uint32(p.Target), uint32(p.Published), string(p.Mode), p.HostIP, p.Interface})
	}
	return all
}

func convertTaskSpec(t *v1.TaskSpec, n names) dockerTaskSpec {
	d := dockerTaskSpec{
		ContainerSpec: convertContainer(&t.Container, n),
		Resources:     convertResources(t.Resources),
		RestartPolicy: convertRestart(t.RestartPolicy),
		Placement:     convertPlacement(t.Placement),
		LogDriver:     convertDriver(t.LogDriver),
		ForceUpdate:   t.ForceUpdate,
		Runtime:       "container",
	}
	for _, net := range t.Networks {
		d.Networks = append(d.Networks, dockerNetwork{n.network(net.Target), net.Aliases, net.DriverOpts})
	}
	return d
}

func convertDriver(v *v1.Driver) *dockerDriver {
	if v == nil {
		return nil
	}
	return &dockerDriver{v.Name, v.Options}
}

func convertResources(r *v1.Resources) *dockerResources {
	if r == nil {
		return nil
	}
	d := &dockerResources{Limits: &dockerLimits{}, Reservations: &dockerReservations{}, MemorySwappiness: r.MemorySwappiness}
	if l := r.Limits; l != nil {
		*d.Limits = dockerLimits{int64(l.CPUs), int64(l.Memory), l.PIDs}
	}
	if v := r.Reservations; v != nil {
		*d.Reservations = dockerReservations{int64(v.CPUs), int64(v.Memory), convertGeneric(v.Generic)}
	}
	if r.MemorySwap != nil {
		swap := int64(*r.MemorySwap)
		d.SwapBytes = &swap
	}
	return d
}

func convertGeneric(all []v1.GenericResource) []dockerGeneric {
	var d []dockerGeneric
	for _, g := range all {
		if g.Value != "" {
			d = append(d, dockerGeneric{NamedResourceSpec: &dockerNamed{g.Kind, g.Value}})
		} else {
			d = append(d, dockerGeneric{DiscreteResourceSpec: &dockerDiscrete{g.Kind, g.Count}})
		}
	}
	return d
}

func convertRestart(r *v1.RestartPolicy) *dockerRestartPolicy {
	if r == nil {
		return nil
	}
	attempts, window := r.MaxAttempts, time.Duration(r.Window)
	d := &dockerRestartPolicy{Condition: string(r.Condition), MaxAttempts: &attempts}
	if r.Delay != nil {
		delay := time.Duration(*r.Delay)
		d.Delay = &delay
	}
	if window != 0 {
		d.Window = &window
	}
	return d
}

func convertPlacement(p *v1.Placement) *dockerPlacement {
	if p == nil {
		return nil
	}
	d := &dockerPlacement{Constraints: p.Constraints, MaxReplicas: p.MaxReplicas, Rebalance: string(p.Rebalance)}
	for _, pref := range p.Preferences {
		d.Preferences = append(d.Preferences, dockerPreference{&dockerSpread{pref.Spread}})
	}
	for _, pl := range p.Platforms {
		d.Platforms = append(d.Platforms, dockerPlatform(pl))
	}
	return d
}
