package v1

import (
	"slices"
	"strconv"
)

// Unsupported tells which fields of a valid object this version does not honour yet, sorted by field, or nil. Whoever takes
// objects from users refuses those: a field is never silently ignored.
func Unsupported(obj Object) FieldErrors {
	u := unsupported{new(checker)}
	switch o := obj.(type) {
	case *Service:
		if o.Spec != nil {
			u.service(o.Spec)
		}
	case *Network:
		if o.Spec != nil && o.Spec.Ingress {
			u.fail("spec.ingress", "is not supported: published ports use the gateway network, whose addresses are chosen when the swarm is "+
				"made: swarmctl swarm init --gateway-pool")
		}
	case *Secret:
		if o.Spec != nil {
			u.when(o.Spec.Driver != nil, "spec.driver")
			u.when(o.Spec.Templating != nil, "spec.templating")
		}
	case *Config:
		if o.Spec != nil {
			u.when(o.Spec.Templating != nil, "spec.templating")
		}
	case *Volume:
		if o.Spec != nil && o.Spec.Driver != "" && o.Spec.Driver != "local" {
			u.value("spec.driver", o.Spec.Driver, "local")
		}
	}
	return u.sorted()
}

// unsupported collects what is not honoured.
type unsupported struct{ *checker }

// when notes a field that is given.
func (u unsupported) when(given bool, field string) {
	if given {
		u.fail(field, "is not supported yet")
	}
}

// value notes a field with a value that is not honoured, and which ones are.
func (u unsupported) value(field, value string, honoured ...string) {
	u.fail(field, "%s is not supported yet: want %s", cut(value), oneOf(honoured))
}

func (u unsupported) service(s *ServiceSpec) {
	if s.Mode != "" && s.Mode != ModeReplicated {
		u.value("spec.mode", string(s.Mode), string(ModeReplicated))
	}
	for _, c := range []struct {
		field  string
		config *UpdateConfig
	}{{"spec.update", s.Update}, {"spec.rollback", s.Rollback}} {
		if c.config != nil && c.config.FailureAction == FailureRollback {
			u.value(c.field+".failureAction", string(FailureRollback), string(FailurePause), string(FailureContinue))
		}
	}
	u.task("spec.task", &s.Task)
	u.attachments("spec.task.networks", s.Task.Networks)
}

// insteadOf says what to do instead of attaching a service to one of Docker's predefined networks.
var insteadOf = map[string]string{
	"bridge":          "is not needed: every task has a way out without it",
	"docker_gwbridge": "is not needed: every task has a way out without it",
	"host":            "is not supported yet: for a port of the machine itself, publish it in mode host",
	"none":            "is not supported yet: want overlay networks, or no networks",
}

func (u unsupported) attachments(field string, list []NetworkAttachment) {
	for i, n := range list {
		if instead, ok := insteadOf[n.Target]; ok {
			u.fail(at(field, i)+".target", "the network %s %s", n.Target, instead)
		}
		u.when(len(n.DriverOpts) > 0, at(field, i)+".driverOpts")
	}
}

func (u unsupported) task(field string, t *TaskSpec) {
	if r := t.Resources; r != nil && r.Reservations != nil {
		u.when(len(r.Reservations.Generic) > 0, field+".resources.reservations.generic")
	}
	if d := t.LogDriver; d != nil {
		if !slices.Contains([]string{"", "json-file", "local", "none"}, d.Name) {
			u.value(field+".logDriver.name", d.Name, "json-file", "local", "none")
		}
		for name := range d.Options {
			if name != "max-size" && name != "max-file" {
				u.fail(field+".logDriver.options["+strconv.Quote(cut(name))+"]", "is not supported yet: want max-size or max-file")
			}
		}
	}
	u.container(field+".container", &t.Container)
}

func (u unsupported) container(field string, s *ContainerSpec) {
	u.when(len(s.Secrets) > 0, field+".secrets")
	u.when(len(s.Configs) > 0, field+".configs")
	u.when(len(s.Mounts) > 0, field+".mounts")
	u.when(s.OpenStdin, field+".openStdin")
	if h := s.Healthcheck; h != nil && !slices.Equal(h.Test, []string{"NONE"}) {
		u.fail(field+".healthcheck", "is not supported yet: want none, or test [NONE]")
	}
	if p := s.Privileges; p != nil {
		u.when(p.AppArmor != nil, field+".privileges.appArmor")
		u.when(p.SELinux != nil, field+".privileges.seLinux")
	}
}
