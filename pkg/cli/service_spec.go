package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// changed tells whether any of the flags was given.
func (f *serviceFlags) changed(names ...string) bool {
	return slices.ContainsFunc(names, f.set.Changed)
}

// refused says which of the flags given cannot be honoured, by name: a flag that does nothing would be a lie.
func (f *serviceFlags) refused() error {
	for _, name := range []string{"credential-spec", "isolation"} {
		if f.changed(name) {
			return fmt.Errorf("--%s is only for Windows", name)
		}
	}
	return nil
}

// resolveImage is when the image is looked up, where the command names one.
func (f *serviceFlags) resolveImage() string {
	if never, _ := f.set.GetBool("no-resolve-image"); never {
		return "never"
	}
	return "always"
}

// apply writes every flag that was given into the service.
func (f *serviceFlags) apply(svc *v1.Service) error {
	if err := f.refused(); err != nil {
		return err
	}
	f.applyContainer(&svc.Spec.Task.Container)
	f.applyResources(&svc.Spec.Task)
	f.applyRestart(&svc.Spec.Task)
	if f.changed("replicas-max-per-node") {
		placement(&svc.Spec.Task).MaxReplicas = f.maxReplicas
	}
	if err := f.applyRebalance(svc.Spec); err != nil {
		return err
	}
	f.update.apply(f, &svc.Spec.Update)
	f.rollback.apply(f, &svc.Spec.Rollback)
	if f.changed("endpoint-mode") {
		endpoint(svc.Spec).Mode = v1.EndpointMode(strings.ToLower(f.endpointMode))
	}
	if f.logDriver != "" {
		svc.Spec.Task.LogDriver = &v1.Driver{Name: f.logDriver, Options: toMap(f.logOpts.all)}
	} else if f.changed("log-opt") {
		return errors.New("--log-opt needs --log-driver")
	}
	return f.applyHealth(&svc.Spec.Task.Container)
}

// applyRebalance leaves out what is the default, so that turning it off leaves the service as if it had never been on.
func (f *serviceFlags) applyRebalance(s *v1.ServiceSpec) error {
	if !f.changed("rebalance") {
		return nil
	}
	switch r := v1.Rebalance(f.rebalance); {
	case r == v1.RebalanceOff && s.Task.Placement == nil:
	case r == v1.RebalanceOff:
		placement(&s.Task).Rebalance = ""
	case r != v1.RebalanceOnJoin:
		return fmt.Errorf("invalid option %q for flag --rebalance: want off, on-join", f.rebalance)
	default:
		placement(&s.Task).Rebalance = r
	}
	return nil
}

func (f *serviceFlags) applyContainer(c *v1.ContainerSpec) {
	if f.changed("workdir") {
		c.Dir = f.workdir
	}
	if f.changed("user") {
		c.User = f.user
	}
	if f.changed("hostname") {
		c.Hostname = f.hostname
	}
	if f.entrypoint.set {
		c.Command = f.entrypoint.v
	}
	if f.changed("init") {
		c.Init = &f.init
	}
	if f.changed("tty") {
		c.TTY = f.tty
	}
	if f.changed("interactive") {
		c.OpenStdin = f.interactive
	}
	if f.changed("read-only") {
		c.ReadOnly = f.readOnly
	}
	if f.changed("stop-signal") {
		c.StopSignal = f.stopSignal
	}
	if f.stopGrace.set {
		c.StopGracePeriod = &f.stopGrace.v
	}
	if f.stopDrain.set {
		c.StopDrainDelay = &f.stopDrain.v
	}
	if f.changed("oom-score-adj") {
		c.OOMScoreAdj = f.oomScoreAdj
	}
}

func (f *serviceFlags) applyResources(t *v1.TaskSpec) {
	if f.changed("limit-cpu", "limit-memory", "limit-pids") {
		r := resources(t)
		if r.Limits == nil {
			r.Limits = &v1.ResourceLimits{}
		}
		setValue(&r.Limits.CPUs, f.limitCPU)
		setValue(&r.Limits.Memory, f.limitMemory)
		if f.changed("limit-pids") {
			r.Limits.PIDs = f.limitPIDs
		}
	}
	if f.changed("reserve-cpu", "reserve-memory") {
		r := reservations(t)
		setValue(&r.CPUs, f.reserveCPU)
		setValue(&r.Memory, f.reserveMemory)
	}
	if f.swap.set {
		resources(t).MemorySwap = &f.swap.v
	}
	if f.changed("memory-swappiness") {
		r := resources(t)
		r.MemorySwappiness = &f.swappiness
		if f.swappiness == -1 {
			r.MemorySwappiness = nil
		}
	}
}

func (f *serviceFlags) applyRestart(t *v1.TaskSpec) {
	if !f.changed("restart-condition", "restart-delay", "restart-max-attempts", "restart-window") {
		return
	}
	if t.RestartPolicy == nil {
		t.RestartPolicy = &v1.RestartPolicy{}
	}
	p := t.RestartPolicy
	if f.changed("restart-condition") {
		p.Condition = v1.RestartCondition(f.restartCondition)
	}
	if f.restartDelay.set {
		p.Delay = &f.restartDelay.v
	}
	setValue(&p.MaxAttempts, f.maxAttempts)
	setValue(&p.Window, f.restartWindow)
}

func (u *updateFlags) apply(f *serviceFlags, config **v1.UpdateConfig) {
	name := func(flag string) string { return u.prefix + "-" + flag }
	if !f.changed(name("parallelism"), name("delay"), name("monitor"), name("failure-action"), name("max-failure-ratio"), name("order"), name("progress-deadline")) {
		return
	}
	if *config == nil {
		*config = &v1.UpdateConfig{}
	}
	c := *config
	if f.changed(name("parallelism")) {
		c.Parallelism = &u.parallelism
	}
	setValue(&c.Delay, u.delay)
	if u.monitor.set {
		c.Monitor = &u.monitor.v
	}
	if f.changed(name("failure-action")) {
		c.FailureAction = v1.FailureAction(u.failureAction)
	}
	setValue(&c.MaxFailureRatio, u.maxFailureRatio)
	if u.deadline.set {
		c.ProgressDeadline = &u.deadline.v
	}
	if f.changed(name("order")) {
		c.Order = v1.UpdateOrder(u.order)
	}
}

func (f *serviceFlags) applyHealth(c *v1.ContainerSpec) error {
	settings := f.changed("health-cmd", "health-http", "health-tcp", "health-interval", "health-timeout", "health-retries", "health-start-period", "health-start-interval")
	if f.noHealthcheck {
		if settings {
			return errors.New("--no-healthcheck conflicts with --health-* options")
		}
		c.Healthcheck = &v1.Healthcheck{Test: []string{"NONE"}}
		return nil
	}
	if !settings {
		return nil
	}
	if c.Healthcheck == nil {
		c.Healthcheck = &v1.Healthcheck{}
	}
	h := c.Healthcheck
	if len(h.Test) > 0 && h.Test[0] == "NONE" {
		h.Test = nil
	}
	setValue(&h.Interval, f.healthInterval)
	setValue(&h.Timeout, f.healthTimeout)
	setValue(&h.StartPeriod, f.healthStartPeriod)
	setValue(&h.StartInterval, f.healthStartEvery)
	if f.changed("health-retries") {
		h.Retries = f.healthRetries
	}
	return f.applyProbe(h)
}

// applyProbe writes by what health is asked: what is given takes the place of what was.
func (f *serviceFlags) applyProbe(h *v1.Healthcheck) error {
	given := 0
	for _, name := range []string{"health-cmd", "health-http", "health-tcp"} {
		if f.changed(name) {
			given++
		}
	}
	switch {
	case given > 1:
		return errors.New("--health-cmd, --health-http and --health-tcp exclude each other")
	case given == 0:
		return nil
	}
	h.Test, h.HTTP, h.TCP = nil, f.healthHTTP.v, f.healthTCP.v
	if f.healthCmd != "" {
		h.Test = []string{"CMD-SHELL", f.healthCmd}
	}
	return nil
}

func setValue[T any](field *T, f *value[T]) {
	if f.set {
		*field = f.v
	}
}

func placement(t *v1.TaskSpec) *v1.Placement {
	if t.Placement == nil {
		t.Placement = &v1.Placement{}
	}
	return t.Placement
}

func resources(t *v1.TaskSpec) *v1.Resources {
	if t.Resources == nil {
		t.Resources = &v1.Resources{}
	}
	return t.Resources
}

func reservations(t *v1.TaskSpec) *v1.Reservations {
	r := resources(t)
	if r.Reservations == nil {
		r.Reservations = &v1.Reservations{}
	}
	return r.Reservations
}

func endpoint(s *v1.ServiceSpec) *v1.EndpointSpec {
	if s.Endpoint == nil {
		s.Endpoint = &v1.EndpointSpec{}
	}
	return s.Endpoint
}

func dnsConfig(c *v1.ContainerSpec) *v1.DNSConfig {
	if c.DNS == nil {
		c.DNS = &v1.DNSConfig{}
	}
	return c.DNS
}

// capability is a capability's name in its full form, such as CAP_NET_ADMIN.
func capability(name string) string {
	name = strings.ToUpper(strings.TrimSpace(name))
	if name == "ALL" || name == "RESET" || strings.HasPrefix(name, "CAP_") {
		return name
	}
	return "CAP_" + name
}

// effectiveCapabilities are those to add and to drop: what is added is not dropped, and ALL stands for all.
func effectiveCapabilities(add, drop []string) (adds, drops []string) {
	normal := func(names []string) []string {
		var all []string
		for _, name := range names {
			if c := capability(name); c != "RESET" {
				all = append(all, c)
			}
		}
		if slices.Contains(all, "ALL") {
			return []string{"ALL"}
		}
		slices.Sort(all)
		return slices.Compact(all)
	}
	adds, drops = normal(add), normal(drop)
	drops = slices.DeleteFunc(drops, func(c string) bool { return slices.Contains(adds, c) })
	if len(drops) == 0 {
		drops = nil
	}
	return adds, drops
}
