package agent

import (
	"fmt"
	"strconv"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// container is what to make for a task: its spec with templates expanded and everything final.
func (a *Agent) container(t *task) (engine.Container, error) {
	spec, err := a.expand(t)
	if err != nil {
		return engine.Container{}, err
	}
	log, err := logConfig(t.spec().LogDriver)
	if err != nil {
		return engine.Container{}, err
	}
	c := engine.Container{ID: t.id, Name: v1.ContainerName(t.assigned), Image: t.image, Spec: spec, Labels: a.labels(t),
		NetNS: namespace(a.o.Network, t.id), Files: a.files(t.id), Log: log}
	if c.Image == "" {
		c.Image = spec.Image // pulled by an earlier process
	}
	if c.NetNS != "" {
		_, c.Spec.Sysctls = splitSysctls(spec.Sysctls)
	}
	if r := t.spec().Resources; r != nil {
		if r.Limits != nil {
			c.Limits = *r.Limits
		}
		c.MemorySwap, c.MemorySwappiness = r.MemorySwap, r.MemorySwappiness
	}
	return c, nil
}

// labels are those by which Docker's tools know a task's container.
func (a *Agent) labels(t *task) map[string]string {
	d := t.assigned.Desired
	return map[string]string{
		"com.docker.swarm.node.id":      a.o.NodeID,
		"com.docker.swarm.service.id":   d.Service,
		"com.docker.swarm.service.name": d.ServiceName,
		"com.docker.swarm.task":         "",
		"com.docker.swarm.task.id":      t.id,
		"com.docker.swarm.task.name":    v1.ContainerName(t.assigned),
	}
}

// splitSysctls parts the settings that belong to a network namespace from the others. Names may be written with slashes, as
// sysctl(8) takes them; they are returned with dots.
func splitSysctls(all map[string]string) (net, others map[string]string) {
	for name, value := range all {
		if !strings.Contains(name, ".") {
			name = strings.ReplaceAll(name, "/", ".")
		}
		into := &others
		if strings.HasPrefix(name, "net.") {
			into = &net
		}
		if *into == nil {
			*into = make(map[string]string)
		}
		(*into)[name] = value
	}
	return net, others
}

// logConfig reads the options of Docker's file log drivers; all of them are kept as files here.
func logConfig(d *v1.Driver) (engine.LogConfig, error) {
	var c engine.LogConfig
	if d == nil {
		return c, nil
	}
	switch d.Name {
	case "none":
		c.Discard = true
		return c, nil
	case "", "json-file", "local":
	default:
		return c, fmt.Errorf("log driver %q is not supported: want json-file, local or none", d.Name)
	}
	for name, value := range d.Options {
		switch name {
		case "max-size":
			size, err := v1.ParseBytes(value)
			if err != nil || size <= 0 {
				return c, fmt.Errorf("log option max-size %q is not a size such as 10m", value)
			}
			c.MaxSize = int64(size)
		case "max-file":
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 {
				return c, fmt.Errorf("log option max-file %q is not a number from 1", value)
			}
			c.MaxFiles = n
		default:
			return c, fmt.Errorf("log option %q is not supported: want max-size or max-file", name)
		}
	}
	return c, nil
}

// templateData is what the templates of a task refer to.
func (a *Agent) templateData(t *task) *v1.TemplateData {
	description := a.o.Describe()
	return v1.NewTemplateData(t.assigned, t.revision.Meta.Labels, a.o.NodeID, &description)
}

// expand is a task's container spec with the templates in it expanded. The spec in the revision stays as it is.
func (a *Agent) expand(t *task) (v1.ContainerSpec, error) {
	spec, errs := v1.ExpandContainer(t.spec().Container, func() *v1.TemplateData { return a.templateData(t) })
	if len(errs) > 0 {
		return v1.ContainerSpec{}, fmt.Errorf("%w: template in %s: %s", engine.ErrInvalid, errs[0].Field, errs[0].Message)
	}
	if n := len(spec.Hostname); n > v1.MaxHostname {
		return v1.ContainerSpec{}, fmt.Errorf("%w: hostname %s has %d characters, and Linux takes %d: use a shorter template, such as {{.Service.Name}}-{{.Task.Slot}}",
			engine.ErrInvalid, spec.Hostname[:v1.MaxHostname]+"…", n, v1.MaxHostname)
	}
	if spec.Hostname == "" {
		spec.Hostname = t.id[:min(12, len(t.id))]
	}
	if p := t.assigned.Desired.Placement; p != nil {
		spec.Env = append(spec.Env, v1.GenericEnv(p.Generic)...)
	}
	return spec, nil
}
