package compose

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v4"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// Labels of what belongs to a stack; the first two are Docker's.
const (
	// LabelNamespace is on everything, also on containers and volumes; its value is the stack's name.
	LabelNamespace = v1.LabelStack
	// LabelImage is on services: the image as the file has it.
	LabelImage = "com.docker.stack.image"
	// LabelKey is on secrets and configs: their name in the file, which all their versions have in common.
	LabelKey = v1.LabelStackKey
	// LabelVersion is on secrets and configs: what tells this content from others.
	LabelVersion = v1.LabelStackVersion
)

// Stack are the objects that compose files mean. What a slice holds is in the order to make it in.
type Stack struct {
	Name     string
	Networks []*v1.Network
	Secrets  []*v1.Secret
	Configs  []*v1.Config
	// Services come after those that they depend on.
	Services []Service
	// External are objects that have to be there before.
	External []External
}

// Service is a service, and what has to be before it is made.
type Service struct {
	*v1.Service
	Needs []Need
}

// Need is a service that another depends on.
type Need struct {
	// Service is the object's name.
	Service string
	// Completed tells that its tasks have to end well. Else they have to run, which they do once they are healthy.
	Completed bool
	// Optional tells that the other goes on without.
	Optional bool
	// condition is what it is in the service's spec.
	condition v1.DependencyCondition
}

// External is an object that the stack uses and does not own.
type External struct {
	Kind v1.Kind
	Name string
	// Path is where the compose file says so.
	Path string
}

// Config is the model of the files, as one compose file would have it: it means the same when it is read again. There is no
// secret's content in it.
func (p *Project) Config() map[string]any {
	if p.options.Raw {
		return clone(p.model).(map[string]any)
	}
	return escape(p.model).(map[string]any)
}

// YAML is Config as a compose file.
func (p *Project) YAML() ([]byte, error) { return yaml.Marshal(p.Config()) }

// escape copies a tree, with every $ doubled, so that it stands for itself.
func escape(value any) any {
	switch v := value.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, e := range v {
			out[name] = escape(e)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = escape(e)
		}
		return out
	case string:
		return strings.ReplaceAll(v, "$", "$$")
	}
	return value
}

// Stack makes the objects. It reads the files that the compose files name. The error is Problems where something cannot be, also what
// the swarm does not honour yet.
func (p *Project) Stack() (*Stack, error) {
	return p.convert((*converter).named, (*converter).valid)
}

// convert makes the objects, and lets checks look at them.
func (p *Project) convert(checks ...func(*converter)) (*Stack, error) {
	if p.files == nil {
		return nil, errors.New("variables are not filled in")
	}
	c := &converter{project: p.files, options: p.options, problems: problems{sources: p.sources},
		reader: reader{read: p.options.Read, left: MaxRead}, stack: &Stack{Name: p.options.Stack}}
	c.secrets()
	c.configs()
	c.services()
	c.networks()
	for _, check := range checks {
		check(c)
	}
	warnings, err := c.problems.result(p.options.Lenient)
	p.Warnings = append(p.Warnings, warnings...)
	if err != nil {
		return nil, err
	}
	return c.stack, nil
}

// converter makes the objects of a stack, and notes what it cannot.
type converter struct {
	problems
	reader
	project *types.Project
	options Options
	stack   *Stack
	// names are what secrets and configs are called, by kind and key.
	names map[string]string
	// used are the networks that services are on, by key.
	used map[string]bool
}

// scoped is a name as the stack's own.
func (c *converter) scoped(name string) string { return c.options.Stack + "_" + name }

// labels are those of the file with the stack's.
func (c *converter) labels(given map[string]string) map[string]string {
	all := maps.Clone(given)
	if all == nil {
		all = make(map[string]string)
	}
	all[LabelNamespace] = c.options.Stack
	return all
}

func (c *converter) services() {
	if len(c.project.Services) == 0 {
		c.fail("services", "there are none: want at least one")
	}
	for _, name := range c.ordered() {
		s := c.project.Services[name]
		made, needs := c.service(name, &s), c.needs(name, &s)
		for _, need := range needs {
			made.Spec.DependsOn = append(made.Spec.DependsOn, v1.Dependency{Service: need.Service, Condition: need.condition, Optional: need.Optional})
		}
		c.stack.Services = append(c.stack.Services, Service{made, needs})
	}
}

// ordered are the services' keys, each after those that it depends on, else by name.
func (c *converter) ordered() []string {
	var all, above []string
	done := make(map[string]bool)
	var visit func(string)
	visit = func(name string) {
		if i := slices.Index(above, name); i >= 0 {
			c.fail("services."+name+".depends_on", "services need each other: %s", strings.Join(append(above[i:], name), " needs "))
			return
		}
		s, ok := c.project.Services[name]
		if !ok || done[name] {
			return
		}
		above = append(above, name)
		for _, needed := range slices.Sorted(maps.Keys(s.DependsOn)) {
			visit(needed)
		}
		above = above[:len(above)-1]
		if !done[name] {
			all = append(all, name)
		}
		done[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(c.project.Services)) {
		visit(name)
	}
	return all
}

func (c *converter) needs(name string, s *types.ServiceConfig) []Need {
	var all []Need
	for _, key := range slices.Sorted(maps.Keys(s.DependsOn)) {
		d := s.DependsOn[key]
		path := fmt.Sprintf("services.%s.depends_on.%s", name, key)
		if _, ok := c.project.Services[key]; !ok {
			if d.Required {
				c.fail(path, "there is no such service")
			}
			continue
		}
		if d.Restart {
			c.add(path+".restart", refused, "not supported: a change of one service restarts no other: leave it out")
		}
		need := Need{Service: c.scoped(key), Optional: !d.Required}
		switch d.Condition {
		case "", types.ServiceConditionStarted:
			need.condition = v1.DependsStarted
		case types.ServiceConditionHealthy:
			need.condition = v1.DependsHealthy
		case types.ServiceConditionCompletedSuccessfully:
			need.Completed, need.condition = true, v1.DependsCompleted
		default:
			c.fail(path+".condition", "%q is no condition: want service_started, service_healthy or service_completed_successfully", d.Condition)
		}
		all = append(all, need)
	}
	return all
}

// each calls f with every object and where it is in the files.
func (c *converter) each(f func(path string, obj v1.Object)) {
	for _, o := range c.stack.Networks {
		f("networks."+c.networkKey(o.Meta.Name), o)
	}
	for _, o := range c.stack.Secrets {
		f("secrets."+o.Meta.Labels[LabelKey], o)
	}
	for _, o := range c.stack.Configs {
		f("configs."+o.Meta.Labels[LabelKey], o)
	}
	for _, o := range c.stack.Services {
		f("services."+strings.TrimPrefix(o.Meta.Name, c.scoped("")), o.Service)
	}
}

func (c *converter) networkKey(name string) string {
	for key := range c.used {
		if c.networkName(key) == name {
			return key
		}
	}
	return name
}

// named notes objects with one name.
func (c *converter) named() {
	seen := make(map[string]string)
	c.each(func(path string, obj v1.Object) {
		name := string(v1.ManifestOf(obj).Kind) + "/" + obj.GetMeta().Name
		if other, taken := seen[name]; taken {
			c.fail(path, "the name %s is that of %s already", obj.GetMeta().Name, other)
		}
		seen[name] = path
	})
}

// valid notes what api/v1 would refuse of an object, and what the swarm does not honour yet.
func (c *converter) valid() {
	c.each(func(path string, obj v1.Object) {
		errs, err := faults(obj)
		if err != nil {
			c.fail(path, "%v", err)
		}
		for _, e := range errs {
			c.fail(path, "%v", e)
		}
	})
}

// faults are what is wrong with an object. They are looked for on a copy: what is left out stays out, so that the swarm's defaults hold.
func faults(obj v1.Object) (v1.FieldErrors, error) {
	data, err := json.Marshal(v1.ManifestOf(obj))
	if err != nil {
		return nil, err
	}
	m, err := v1.DecodeManifest(data)
	if errs, ok := errors.AsType[v1.FieldErrors](err); ok {
		return errs, nil
	}
	if err != nil {
		return nil, err
	}
	v1.Default(m.Object)
	if errs := v1.Validate(m.Object); len(errs) > 0 {
		return errs, nil
	}
	return v1.Unsupported(m.Object), nil
}
