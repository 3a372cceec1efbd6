package v1

import (
	"math"
	"strconv"
	"strings"
)

func (c *checker) service(field string, s *ServiceSpec) {
	c.size(field, s)
	choice(c, field+".mode", s.Mode, ModeReplicated, ModeGlobal, ModeReplicatedJob, ModeGlobalJob, ModeCron)
	c.replicas(field, s)
	c.schedule(field+".schedule", s)
	c.task(field+".task", &s.Task)
	if p := s.Task.Placement; p != nil && p.MaxReplicas > 0 && (s.Mode == ModeGlobal || s.Mode == ModeGlobalJob) {
		c.fail(field+".task.placement.maxReplicas", "is for mode replicated and replicated-job; mode %s has one task on each node", s.Mode)
	}
	if p := s.Task.Placement; p != nil && p.Rebalance == RebalanceOnJoin && s.Mode != ModeReplicated {
		c.fail(field+".task.placement.rebalance", "is for mode replicated; the tasks of mode %s do not move from node to node", cut(string(s.Mode)))
	}
	job := s.Mode == ModeReplicatedJob || s.Mode == ModeGlobalJob || s.Mode == ModeCron
	c.update(field+".update", s.Update, job, FailurePause, FailureContinue, FailureRollback)
	c.update(field+".rollback", s.Rollback, job, FailurePause, FailureContinue)
	if len(s.RollbackTo) > maxRevisionID || !made(s.RollbackTo, "") && s.RollbackTo != "" {
		c.fail(field+".rollbackTo", "%q is not the ID of a revision: it is for service rollback to write", cut(s.RollbackTo))
	}
	if s.Endpoint != nil {
		c.endpoint(field+".endpoint", s.Endpoint)
	}
	c.dependencies(field+".dependsOn", s.DependsOn)
}

// replicas checks the numbers of tasks against the mode that they belong to.
func (c *checker) replicas(field string, s *ServiceSpec) {
	for _, n := range []struct {
		field string
		value *uint64
		modes []ServiceMode
	}{
		{field + ".replicas", s.Replicas, []ServiceMode{ModeReplicated, ModeReplicatedJob}},
		{field + ".maxConcurrent", s.MaxConcurrent, []ServiceMode{ModeReplicatedJob}},
	} {
		switch {
		case n.value == nil:
		case s.Mode != n.modes[0] && s.Mode != n.modes[len(n.modes)-1]:
			c.fail(n.field, "is for mode %s, not for mode %s", oneOf(n.modes), cut(string(s.Mode)))
		case *n.value > MaxReplicas:
			c.fail(n.field, "%d is too many: want 0 to %d", *n.value, MaxReplicas)
		}
	}
}

func (c *checker) update(field string, u *UpdateConfig, job bool, actions ...FailureAction) {
	if u == nil {
		return
	}
	if job {
		c.fail(field, "is not for jobs: a job that changes begins anew")
		return
	}
	if u.Parallelism != nil && *u.Parallelism > MaxReplicas {
		c.fail(field+".parallelism", "%d is too many: want 0 (all at once) to %d", *u.Parallelism, MaxReplicas)
	}
	c.duration(field+".delay", u.Delay)
	choice(c, field+".failureAction", u.FailureAction, actions...)
	if u.Monitor != nil {
		c.duration(field+".monitor", *u.Monitor)
	}
	if u.ProgressDeadline != nil {
		c.duration(field+".progressDeadline", *u.ProgressDeadline)
	}
	if math.IsNaN(u.MaxFailureRatio) || u.MaxFailureRatio < 0 || u.MaxFailureRatio > 1 {
		c.fail(field+".maxFailureRatio", "%v is out of range: want 0 to 1", u.MaxFailureRatio)
	}
	choice(c, field+".order", u.Order, StopFirst, StartFirst)
}

func (c *checker) endpoint(field string, e *EndpointSpec) {
	choice(c, field+".mode", e.Mode, EndpointVIP, EndpointDNSRR)
	if !c.count(field+".ports", len(e.Ports), maxPorts) {
		return
	}
	for i, p := range e.Ports {
		port := at(field+".ports", i)
		c.word(port+".name", p.Name)
		choice(c, port+".protocol", p.Protocol, TCP, UDP, SCTP)
		choice(c, port+".mode", p.Mode, PublishIngress, PublishHost)
		if p.Target == 0 {
			c.fail(port+".target", "is missing: want the port in the container, 1 to 65535")
		}
		if e.Mode == EndpointDNSRR && p.Mode == PublishIngress {
			c.fail(port+".mode", "ingress needs endpoint mode vip: want host, or %s.mode vip", field)
		}
		c.place(port, p)
	}
	c.publishedOnce(field+".ports", e.Ports)
}

func (c *checker) task(field string, t *TaskSpec) {
	c.container(field+".container", &t.Container)
	if t.Resources != nil {
		c.resources(field+".resources", t.Resources)
	}
	if t.RestartPolicy != nil {
		c.restart(field+".restartPolicy", t.RestartPolicy)
	}
	if t.Placement != nil {
		c.placement(field+".placement", t.Placement)
	}
	c.attachments(field+".networks", t.Networks)
	if t.LogDriver != nil {
		c.driver(field+".logDriver", t.LogDriver)
		c.logOptions(field+".logDriver.options", t.LogDriver)
	}
}

// logOptions checks the options that json-file and local share; other drivers read their own.
func (c *checker) logOptions(field string, d *Driver) {
	if d.Name != "" && d.Name != "json-file" && d.Name != "local" {
		return
	}
	if v, given := d.Options["max-size"]; given {
		if size, err := ParseBytes(v); err != nil || size < 1 {
			c.fail(field+`["max-size"]`, "%q is not a size: want one such as 10m", cut(v))
		}
	}
	if v, given := d.Options["max-file"]; given {
		if n, err := strconv.Atoi(v); err != nil || n < 1 || n > 1000 {
			c.fail(field+`["max-file"]`, "%q is not a number of files: want 1 to 1000", cut(v))
		}
	}
}

func (c *checker) resources(field string, r *Resources) {
	limited := false
	if l := r.Limits; l != nil {
		c.amounts(field+".limits", l.CPUs, l.Memory)
		limited = l.Memory > 0
		if l.PIDs < 0 || l.PIDs > math.MaxInt32 {
			c.fail(field+".limits.pids", "%d is out of range: want 0 (no limit) to %d", l.PIDs, math.MaxInt32)
		}
	}
	if v := r.Reservations; v != nil {
		c.amounts(field+".reservations", v.CPUs, v.Memory)
		c.generic(field+".reservations.generic", v.Generic)
	}
	if swap := r.MemorySwap; swap != nil {
		switch {
		case *swap < -1:
			c.fail(field+".memorySwap", "%d is out of range: want a size, or -1 for no limit", *swap)
		case !limited && *swap != 0:
			c.fail(field+".memorySwap", "needs a limit of memory: set %s.limits.memory too", field)
		case *swap > 0 && *swap < r.Limits.Memory:
			c.fail(field+".memorySwap", "is memory and swap together: want at least the limit of memory, %d", r.Limits.Memory)
		}
	}
	if s := r.MemorySwappiness; s != nil && (*s < 0 || *s > 100) {
		c.fail(field+".memorySwappiness", "%d is out of range: want 0 to 100", *s)
	}
}

// amounts checks cpus and memory, of which zero is none.
func (c *checker) amounts(field string, cpus CPUs, memory Bytes) {
	if cpus != 0 && cpus < minCPUs {
		c.fail(field+".cpus", "%s is out of range: want at least %s", cpus, minCPUs)
	}
	if memory != 0 && memory < minMemory {
		c.fail(field+".memory", "%d bytes is out of range: want at least 4MiB", memory)
	}
}

func (c *checker) generic(field string, list []GenericResource) {
	if !c.count(field, len(list), maxShort) {
		return
	}
	seen := make(map[string]bool, len(list))
	for i, g := range list {
		entry := at(field, i)
		c.word(entry+".kind", g.Kind)
		switch {
		case g.Kind == "":
			c.fail(entry+".kind", "is missing: want the kind of resource, such as gpu")
		case seen[g.Kind]:
			c.fail(entry+".kind", "%q is given twice", cut(g.Kind))
		}
		seen[g.Kind] = true
		if g.Value != "" {
			c.fail(entry+".value", "a service reserves a number of %q, not named ones: want count alone", cut(g.Kind))
		}
		if g.Count < 1 {
			c.fail(entry+".count", "%d is out of range: want at least 1", g.Count)
		}
	}
}

func (c *checker) restart(field string, p *RestartPolicy) {
	choice(c, field+".condition", p.Condition, RestartAny, RestartOnFailure, RestartNone)
	if p.Delay != nil {
		c.duration(field+".delay", *p.Delay)
	}
	if p.MaxAttempts > MaxRestartAttempts {
		c.fail(field+".maxAttempts", "%d is too many: want 0 (no bound) to %d", p.MaxAttempts, MaxRestartAttempts)
	}
	c.duration(field+".window", p.Window)
}

func (c *checker) placement(field string, p *Placement) {
	if c.count(field+".constraints", len(p.Constraints), maxConstraints) {
		for i, expr := range p.Constraints {
			if _, err := ParseConstraint(expr); err != nil {
				c.fail(at(field+".constraints", i), "%v", err)
			}
		}
	}
	if c.count(field+".preferences", len(p.Preferences), maxPreferences) {
		for i, pref := range p.Preferences {
			if !isSpread(pref.Spread) {
				c.fail(at(field+".preferences", i)+".spread", "%q is not a label to spread over: want node.labels.NAME or engine.labels.NAME",
					cut(pref.Spread))
			}
		}
	}
	if p.MaxReplicas > MaxReplicas {
		c.fail(field+".maxReplicas", "%d is too many: want 0 (no bound) to %d", p.MaxReplicas, MaxReplicas)
	}
	if p.Rebalance != "" {
		choice(c, field+".rebalance", p.Rebalance, RebalanceOff, RebalanceOnJoin)
	}
	if c.count(field+".platforms", len(p.Platforms), maxPlatforms) {
		for i, platform := range p.Platforms {
			c.word(at(field+".platforms", i)+".architecture", platform.Architecture)
			c.word(at(field+".platforms", i)+".os", platform.OS)
		}
	}
}

// isSpread tells whether a preference names a label.
func isSpread(s string) bool {
	lower := strings.ToLower(s)
	for _, prefix := range []string{nodeLabelPrefix, engineLabelPrefix} {
		if strings.HasPrefix(lower, prefix) {
			return len(s) > len(prefix) && len(s) <= MaxConstraint && printable(s)
		}
	}
	return false
}

func (c *checker) attachments(field string, list []NetworkAttachment) {
	if !c.count(field, len(list), maxNetworks) {
		return
	}
	seen := make(map[string]bool, len(list))
	for i, n := range list {
		entry := at(field, i)
		c.word(entry+".target", n.Target)
		switch {
		case n.Target == "":
			c.fail(entry+".target", "is missing: want the name or ID of a network")
		case insteadOf[n.Target] != "":
			c.fail(entry+".target", "services cannot be attached to the %s network: %s", n.Target, insteadOf[n.Target])
		case seen[n.Target]:
			c.fail(entry+".target", "%q is given twice", cut(n.Target))
		}
		seen[n.Target] = true
		if c.count(entry+".aliases", len(n.Aliases), maxShort) {
			for j, alias := range n.Aliases {
				if !isHostname(alias) {
					c.fail(at(entry+".aliases", j), "%q is not a host name", cut(alias))
				}
			}
		}
		c.dictionary(entry+".driverOpts", n.DriverOpts, "an option", maxOptions, MaxLabelKey, MaxString)
	}
}

func (c *checker) driver(field string, d *Driver) {
	c.word(field+".name", d.Name)
	c.dictionary(field+".options", d.Options, "an option", maxOptions, MaxLabelKey, MaxString)
}
