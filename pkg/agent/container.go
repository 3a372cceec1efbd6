package agent

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"text/template/parse"

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

// templateData is what a template in a spec can refer to, in Docker's words.
type templateData struct {
	Service struct {
		ID, Name string
		Labels   map[string]string
	}
	Node struct {
		ID, Hostname string
		Platform     v1.Platform
	}
	Task struct {
		ID, Name, Slot string
	}
}

func (a *Agent) templateData(t *task) *templateData {
	d := t.assigned.Desired
	data := new(templateData)
	data.Service.ID, data.Service.Name, data.Service.Labels = d.Service, d.ServiceName, t.revision.Meta.Labels
	data.Node.ID = a.o.NodeID
	description := a.o.Describe()
	data.Node.Hostname, data.Node.Platform = description.Hostname, description.Platform
	data.Task.ID, data.Task.Name = t.id, v1.ContainerName(t.assigned)
	data.Task.Slot = v1.SlotName(d)
	return data
}

// expand is a task's container spec with the templates in it expanded. The spec in the revision stays as it is.
func (a *Agent) expand(t *task) (v1.ContainerSpec, error) {
	spec := t.spec().Container
	e := expander{data: func() *templateData { return a.templateData(t) }}
	spec.Hostname = e.expand("hostname", spec.Hostname)
	if spec.Hostname == "" {
		spec.Hostname = t.id[:min(12, len(t.id))]
	}
	spec.Env = slices.Clone(spec.Env)
	for i, env := range spec.Env {
		if name, value, ok := strings.Cut(env, "="); ok {
			spec.Env[i] = name + "=" + e.expand("env "+name, value)
		}
	}
	spec.Mounts = slices.Clone(spec.Mounts)
	for i := range spec.Mounts {
		m := &spec.Mounts[i]
		m.Source, m.Target = e.expand("mount source", m.Source), e.expand("mount target", m.Target)
		if m.Volume != nil {
			volume := *m.Volume
			m.Volume = &volume
			if volume.Labels = e.expandAll("volume label", volume.Labels); volume.Driver != nil {
				driver := *volume.Driver
				driver.Options = e.expandAll("volume driver option", driver.Options)
				m.Volume.Driver = &driver
			}
			m.Volume.Labels = volume.Labels
		}
	}
	if e.err != nil {
		return v1.ContainerSpec{}, fmt.Errorf("%w: %w", engine.ErrInvalid, e.err)
	}
	return spec, nil
}

// maxExpanded bounds what a template may grow to.
const maxExpanded = 64 << 10

// expander expands templates and keeps the first error.
type expander struct {
	data func() *templateData
	made *templateData
	err  error
}

func (e *expander) expand(where, text string) string {
	if e.err != nil || !strings.Contains(text, "{{") {
		return text
	}
	if e.made == nil {
		e.made = e.data()
	}
	parsed, err := template.New(where).Option("missingkey=error").Funcs(templateFuncs).Parse(text)
	if err == nil {
		err = finite(parsed)
	}
	if err == nil {
		var out bounded
		if err = parsed.Execute(&out, e.made); err == nil {
			return out.String()
		}
	}
	e.err = fmt.Errorf("template in %s: %w", where, err)
	return ""
}

func (e *expander) expandAll(where string, values map[string]string) map[string]string {
	values = maps.Clone(values)
	for name, value := range values {
		values[name] = e.expand(where+" "+name, value)
	}
	return values
}

var templateFuncs = template.FuncMap{
	// join takes the separator first.
	"join": func(separator string, parts ...string) string { return strings.Join(parts, separator) },
}

// finite refuses what could keep a template busy for ever, or let it grow by more than its own length: loops, templates that
// call one another, and whatever uses a value twice that was computed once (variables, with, and the indexes of printf).
func finite(t *template.Template) error {
	if len(t.Templates()) > 1 {
		return errors.New("define and block are not supported")
	}
	if t.Tree == nil {
		return nil
	}
	return finiteList(t.Root)
}

func finiteList(list *parse.ListNode) error {
	if list == nil {
		return nil
	}
	for _, node := range list.Nodes {
		if err := finiteNode(node); err != nil {
			return err
		}
	}
	return nil
}

func finiteNode(node parse.Node) error {
	switch n := node.(type) {
	case *parse.RangeNode:
		return errors.New("range is not supported")
	case *parse.TemplateNode:
		return errors.New("template is not supported")
	case *parse.WithNode:
		return errors.New("with is not supported")
	case *parse.IfNode:
		return cmp.Or(finitePipe(n.Pipe), finiteList(n.List), finiteList(n.ElseList))
	case *parse.ActionNode:
		return finitePipe(n.Pipe)
	case *parse.PipeNode:
		return finitePipe(n)
	case *parse.ChainNode:
		return finiteNode(n.Node)
	case *parse.IdentifierNode:
		if n.Ident == "printf" {
			return errors.New("printf is not supported: use print")
		}
	}
	return nil
}

func finitePipe(pipe *parse.PipeNode) error {
	if len(pipe.Decl) > 0 {
		return errors.New("variables are not supported")
	}
	for _, command := range pipe.Cmds {
		for _, argument := range command.Args {
			if err := finiteNode(argument); err != nil {
				return err
			}
		}
	}
	return nil
}

// bounded is a text that refuses to grow beyond all reason.
type bounded struct{ strings.Builder }

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxExpanded {
		return 0, fmt.Errorf("expands to more than %d bytes", maxExpanded)
	}
	return b.Builder.Write(p)
}
