package compose

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// service is the object of a service.
func (c *converter) service(key string, s *types.ServiceConfig) *v1.Service {
	path := "services." + key
	d := s.Deploy
	if d == nil {
		d = &types.DeployConfig{}
	}
	out := &v1.Service{Spec: &v1.ServiceSpec{Mode: v1.ServiceMode(d.Mode)}}
	out.Meta.Name = c.scoped(key)
	out.Meta.Labels = c.labels(d.Labels)
	out.Meta.Labels[LabelImage] = s.Image
	spec := out.Spec
	spec.Replicas = c.replicas(path, s.Scale, d)
	spec.Schedule = c.schedule(path, d)
	if s.Image == "" {
		c.fail(path, "has no image: want the name of one")
	}
	spec.Task = v1.TaskSpec{
		Container:     c.container(path, key, s),
		Resources:     c.resources(path+".deploy.resources", s, d),
		RestartPolicy: c.restart(path, s.Restart, d.RestartPolicy),
		Placement:     c.placement(path, s.Platform, &d.Placement),
		Networks:      c.attachments(path, key, s),
		LogDriver:     logDriver(s.Logging),
	}
	spec.Update, spec.Rollback = updateConfig(d.UpdateConfig), updateConfig(d.RollbackConfig)
	ports := c.ports(path+".ports", s.Ports)
	if len(ports) > 0 || d.EndpointMode != "" {
		spec.Endpoint = &v1.EndpointSpec{Mode: v1.EndpointMode(d.EndpointMode), Ports: ports}
	}
	return out
}

// replicas are how many tasks the file asks for; nil where it does not say.
func (c *converter) replicas(path string, scale *int, d *types.DeployConfig) *uint64 {
	n := d.Replicas
	switch {
	case n == nil:
		n = scale
	case scale != nil && *scale != *n:
		c.fail(path+".scale", "%d is not deploy.replicas, which is %d: want one of them", *scale, *n)
	}
	switch {
	case n == nil:
		return nil
	case d.Mode == string(v1.ModeGlobal) || d.Mode == string(v1.ModeGlobalJob):
		c.fail(path+".deploy.replicas", "is not for mode %s, which has a task on each node: leave it out", d.Mode)
	case *n < 0:
		c.fail(path+".deploy.replicas", "%d is no number of tasks: want 0 or more", *n)
		return nil
	}
	out := uint64(*n)
	return &out
}

func logDriver(l *types.LoggingConfig) *v1.Driver {
	if l == nil {
		return nil
	}
	return &v1.Driver{Name: l.Driver, Options: l.Options}
}

func (c *converter) resources(path string, s *types.ServiceConfig, d *types.DeployConfig) *v1.Resources {
	out := &v1.Resources{}
	given := false
	if l := d.Resources.Limits; l != nil {
		given = true
		out.Limits = &v1.ResourceLimits{CPUs: cpus(l.NanoCPUs), Memory: v1.Bytes(l.MemoryBytes), PIDs: l.Pids}
	}
	if r := d.Resources.Reservations; r != nil {
		given = true
		out.Reservations = &v1.Reservations{CPUs: cpus(r.NanoCPUs), Memory: v1.Bytes(r.MemoryBytes)}
		for i, g := range r.GenericResources {
			if g.DiscreteResourceSpec == nil {
				c.fail(path+".reservations.generic_resources["+strconv.Itoa(i)+"]", "want a discrete_resource_spec with kind and value")
				continue
			}
			out.Reservations.Generic = append(out.Reservations.Generic,
				v1.GenericResource{Kind: g.DiscreteResourceSpec.Kind, Count: g.DiscreteResourceSpec.Value})
		}
	}
	if s.MemSwapLimit != 0 {
		given = true
		swap := v1.Bytes(s.MemSwapLimit)
		out.MemorySwap = &swap
	}
	if s.MemSwappiness != 0 {
		given = true
		swappiness := int64(s.MemSwappiness)
		out.MemorySwappiness = &swappiness
	}
	if !given {
		return nil
	}
	return out
}

// cpus are what was written: compose-go keeps a float32.
func cpus(n types.NanoCPUs) v1.CPUs {
	out, _ := v1.ParseCPUs(strconv.FormatFloat(float64(n), 'g', -1, 32))
	return out
}

func (c *converter) restart(path, restart string, p *types.RestartPolicy) *v1.RestartPolicy {
	if p != nil {
		out := &v1.RestartPolicy{Condition: v1.RestartCondition(p.Condition), Delay: duration(p.Delay)}
		if p.MaxAttempts != nil {
			out.MaxAttempts = *p.MaxAttempts
		}
		if p.Window != nil {
			out.Window = v1.Duration(*p.Window)
		}
		return out
	}
	word, attempts, limited := strings.Cut(restart, ":")
	out := &v1.RestartPolicy{}
	switch word {
	case "":
		return nil
	case types.RestartPolicyNo:
		out.Condition = v1.RestartNone
	case types.RestartPolicyAlways, types.RestartPolicyUnlessStopped:
		out.Condition = v1.RestartAny
	case types.RestartPolicyOnFailure:
		out.Condition = v1.RestartOnFailure
	default:
		c.fail(path+".restart", "%q is no restart policy: want no, always, unless-stopped or on-failure", restart)
	}
	if limited {
		n, err := strconv.ParseUint(attempts, 10, 32)
		if err != nil || out.Condition != v1.RestartOnFailure {
			c.fail(path+".restart", "%q is no restart policy: want one such as on-failure:3", restart)
		}
		out.MaxAttempts = n
	}
	return out
}

func duration(d *types.Duration) *v1.Duration {
	if d == nil {
		return nil
	}
	out := v1.Duration(*d)
	return &out
}

func (c *converter) placement(path, platform string, p *types.Placement) *v1.Placement {
	out := &v1.Placement{Constraints: p.Constraints, MaxReplicas: p.MaxReplicas}
	for _, pref := range p.Preferences {
		out.Preferences = append(out.Preferences, v1.PlacementPreference{Spread: pref.Spread})
	}
	if platform != "" {
		parts := strings.Split(platform, "/")
		switch {
		case len(parts) == 1 && parts[0] != "":
			out.Platforms = []v1.Platform{{OS: parts[0]}}
		case len(parts) == 2 || len(parts) == 3:
			out.Platforms = []v1.Platform{{OS: parts[0], Architecture: parts[1]}}
		default:
			c.fail(path+".platform", "%q is no platform: want one such as linux/amd64", platform)
		}
	}
	if p.Extensions["x-rebalance"] != nil {
		c.extension(path+".deploy.placement.x-rebalance", p.Extensions["x-rebalance"], &out.Rebalance)
	}
	if len(out.Constraints)+len(out.Preferences)+len(out.Platforms) == 0 && out.MaxReplicas == 0 && out.Rebalance == "" {
		return nil
	}
	return out
}

func updateConfig(u *types.UpdateConfig) *v1.UpdateConfig {
	if u == nil {
		return nil
	}
	out := &v1.UpdateConfig{Parallelism: u.Parallelism, Delay: v1.Duration(u.Delay), FailureAction: v1.FailureAction(u.FailureAction),
		Order: v1.UpdateOrder(u.Order)}
	if u.Monitor != 0 {
		monitor := v1.Duration(u.Monitor)
		out.Monitor = &monitor
	}
	// What was written: compose-go keeps a float32.
	out.MaxFailureRatio, _ = strconv.ParseFloat(strconv.FormatFloat(float64(u.MaxFailureRatio), 'g', -1, 32), 64)
	return out
}

func (c *converter) ports(path string, ports []types.ServicePortConfig) []v1.PortConfig {
	var all []v1.PortConfig
	for i, p := range ports {
		at := path + "[" + strconv.Itoa(i) + "]"
		out := v1.PortConfig{Name: p.Name, Protocol: v1.Protocol(strings.ToLower(p.Protocol)), Mode: v1.PublishMode(p.Mode),
			HostIP: p.HostIP}
		if p.Target == 0 || p.Target > 65535 {
			c.fail(at+".target", "%d is no port: want 1 to 65535", p.Target)
		}
		out.Target = uint16(p.Target)
		if p.Published != "" {
			n, err := strconv.ParseUint(p.Published, 10, 16)
			if err != nil {
				c.fail(at+".published", "%q is not one port: want a number of 0 to 65535, or as many ports as targets", p.Published)
			}
			out.Published = uint16(n)
		}
		all = append(all, out)
	}
	slices.SortStableFunc(all, func(x, y v1.PortConfig) int {
		return cmp.Or(cmp.Compare(x.Published, y.Published), cmp.Compare(x.Target, y.Target), cmp.Compare(x.Protocol, y.Protocol),
			cmp.Compare(x.HostIP, y.HostIP))
	})
	return all
}

// attachments are the networks that a service is on: the default network where it says nothing.
func (c *converter) attachments(path, key string, s *types.ServiceConfig) []v1.NetworkAttachment {
	networks := s.Networks
	if len(networks) == 0 {
		networks = map[string]*types.ServiceNetworkConfig{defaultNetwork: nil}
	}
	if c.used == nil {
		c.used = make(map[string]bool)
	}
	var all []v1.NetworkAttachment
	for _, name := range slices.Sorted(maps.Keys(networks)) {
		if _, ok := c.project.Networks[name]; !ok && name != defaultNetwork {
			c.fail(path+".networks."+name, "there is no such network below networks")
			continue
		}
		c.used[name] = true
		n := networks[name]
		out := v1.NetworkAttachment{Target: c.networkName(name)}
		if n != nil {
			out.Aliases, out.DriverOpts = slices.Clone(n.Aliases), n.DriverOpts
		}
		if n.ServiceNameAliasEnabled() && !slices.Contains(out.Aliases, key) {
			out.Aliases = append(out.Aliases, key)
		}
		if other := slices.IndexFunc(all, func(o v1.NetworkAttachment) bool { return o.Target == out.Target }); other >= 0 {
			c.fail(path+".networks."+name, "is the network %s, which the service is on already", out.Target)
		}
		all = append(all, out)
	}
	slices.SortFunc(all, func(x, y v1.NetworkAttachment) int { return strings.Compare(x.Target, y.Target) })
	return all
}
