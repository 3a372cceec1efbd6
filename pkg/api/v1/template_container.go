package v1

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// maxExpandedAll bounds what the templates of one container may come to together, in bytes. The kernel takes no larger environment.
const maxExpandedAll = 4 << 20

// NewTemplateData is what the templates of a task refer to on its node, of a service with these labels.
func NewTemplateData(t *Task, labels map[string]string, node string, description *NodeDescription) *TemplateData {
	data := new(TemplateData)
	data.Service.ID, data.Service.Name, data.Service.Labels = t.Desired.Service, t.Desired.ServiceName, labels
	data.Node.ID, data.Node.Hostname, data.Node.Platform = node, description.Hostname, description.Platform
	data.Task.ID, data.Task.Name, data.Task.Slot = t.Meta.ID, ContainerName(t), SlotName(t.Desired)
	return data
}

// ExpandContainer is a container's spec with the templates in it expanded; the one that is given stays as it is. Data is asked for once, if there is
// any template. What cannot be expanded is told by its field in the container's spec.
func ExpandContainer(spec ContainerSpec, data func() *TemplateData) (ContainerSpec, FieldErrors) {
	e := expander{data: data, left: maxExpandedAll}
	spec.Hostname = e.expand("hostname", spec.Hostname)
	spec.Env = slices.Clone(spec.Env)
	for i, env := range spec.Env {
		if name, value, ok := strings.Cut(env, "="); ok {
			spec.Env[i] = name + "=" + e.expand(at("env", i), value)
		}
	}
	spec.Mounts = slices.Clone(spec.Mounts)
	for i := range spec.Mounts {
		m, field := &spec.Mounts[i], at("mounts", i)
		m.Source, m.Target = e.expand(field+".source", m.Source), e.expand(field+".target", m.Target)
		if m.Volume == nil {
			continue
		}
		volume := *m.Volume
		m.Volume = &volume
		volume.Labels = e.expandAll(field+".volume.labels", volume.Labels)
		if volume.Driver != nil {
			driver := *volume.Driver
			driver.Options = e.expandAll(field+".volume.driver.options", driver.Options)
			volume.Driver = &driver
		}
	}
	return spec, e.errs
}

// expander expands the templates of one container.
type expander struct {
	data func() *TemplateData
	made *TemplateData
	left int // bytes that they may yet come to
	errs FieldErrors
}

func (e *expander) expand(field, text string) string {
	if !strings.Contains(text, "{{") || e.left < 0 || len(e.errs) >= maxFindings {
		return text
	}
	if e.made == nil {
		e.made = e.data()
	}
	out, err := Expand(text, e.made)
	if err == nil {
		if e.left -= len(out); e.left < 0 {
			err = fmt.Errorf("all templates together expand to more than %d bytes", maxExpandedAll)
		}
	}
	if err != nil {
		e.errs = append(e.errs, FieldError{Field: field, Message: err.Error()})
	}
	return out
}

func (e *expander) expandAll(field string, values map[string]string) map[string]string {
	values = maps.Clone(values)
	for _, name := range slices.Sorted(maps.Keys(values)) {
		values[name] = e.expand(field+"["+strconv.Quote(cut(name))+"]", values[name])
	}
	return values
}

// templates checks those of a service's tasks as a node would come to expand them, of a task and a node that might be. Whatever a real one has is
// as long at most, so that what takes a part of it is not refused.
func (c *checker) templates(s *Service) {
	dummy := HashID("dummy")
	d := &TaskDesired{Service: dummy, ServiceName: s.Meta.Name, Slot: 1}
	if s.Spec.Mode == ModeGlobal || s.Spec.Mode == ModeGlobalJob {
		d.Node = dummy
	}
	_, errs := ExpandContainer(s.Spec.Task.Container, func() *TemplateData {
		return NewTemplateData(&Task{Meta: Meta{ID: dummy}, Desired: d}, s.Meta.Labels, dummy,
			&NodeDescription{Hostname: strings.Repeat("h", 253), Platform: Platform{OS: "linux", Architecture: "amd64"}})
	})
	for _, e := range errs {
		c.fail("spec.task.container."+e.Field, "cannot be expanded: %s", e.Message)
	}
}
