package compose

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/schema"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"go.yaml.in/yaml/v4"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// ports checks ports as they are written: compose-go's errors do not tell which one they are about.
func (p *Project) ports() {
	if p.options.Raw {
		return
	}
	for _, s := range p.sources {
		for _, d := range s.documents {
			for name, service := range entries(entry(d, "services")) {
				for i, v := range items(entry(service, "ports")) {
					p.port(fmt.Sprintf("services.%s.ports[%d]", name, i), v)
				}
			}
		}
	}
}

func (p *Project) port(path string, v *yaml.Node) {
	switch v.Kind {
	case yaml.ScalarNode:
		text := p.filled(v)
		if text == "" {
			return // a variable that has to be set, which compose-go tells of
		}
		if _, err := types.ParsePortConfig(text); err != nil {
			p.problems.fail(path, "%.100q is no port: %v: want [[ADDRESS:]PUBLISHED:]TARGET[/PROTOCOL], such as 8080:80, 127.0.0.1:53:53/udp or "+
				"9000-9002:80-82, with as many on both sides", text, err)
		}
	case yaml.MappingNode:
		at := entry(v, "host_ip")
		if at == nil {
			return
		}
		if text := p.filled(at); text != "" {
			if _, err := netip.ParseAddr(text); err != nil {
				p.problems.fail(path+".host_ip", "invalid ip address: %.100s: want one such as 127.0.0.1 or ::1", text)
			}
		}
	}
}

// placed says where an error of compose-go is. What does not fit the schema it tells in few words, and of several only one.
func (p *Project) placed(err error) error {
	if _, already := errors.AsType[*noFilesError](err); already {
		return err
	}
	said := err.Error()
	var found []misfit
	for _, s := range p.sources {
		if after, ok := strings.CutPrefix(said, "validating "+s.Name+": "); ok {
			at, _, _ := strings.Cut(after, " ")
			said, found = after, s.misfits(at)
			break
		}
	}
	at, text, _ := strings.Cut(said, " ")
	if section, _, _ := strings.Cut(at, "."); len(found) == 0 && byPath[section].path != "" {
		found = append(found, misfit{strings.TrimSuffix(at, ":"), text})
	}
	for _, m := range found {
		p.problems.fail(m.path, "%s", m.text)
	}
	if len(found) > 0 {
		_, err := p.problems.result(false)
		return err
	}
	if slices.ContainsFunc(p.sources, func(s *source) bool { return strings.Contains(err.Error(), s.Name) }) {
		return err
	}
	return fmt.Errorf("%s: %w", p.names(), err)
}

// misfit is something in a file that is not as the schema has it.
type misfit struct{ path, text string }

// misfits are what a file has at the location that compose-go names, and all of its keys that the schema does not know. What else does not
// fit may be made to, by variables or other files.
func (s *source) misfits(location string) (all []misfit) {
	compiled, err := compile()
	if err != nil {
		return nil // as compose-go's own cannot be, and says
	}
	for _, d := range s.documents {
		tree, err := decoded(d)
		if err != nil {
			continue
		}
		wrong, ok := errors.AsType[*jsonschema.ValidationError](compiled.Validate(tree))
		if !ok {
			continue
		}
		types := make(map[string][]string) // that are wanted, by location
		for _, l := range leaves(wrong) {
			steps := l.InstanceLocation
			at := strings.Join(steps, ".")
			path, pattern := place(tree, steps)
			switch k := l.ErrorKind.(type) {
			case *kind.FalseSchema:
				above, within := place(tree, steps[:max(0, len(steps)-1)])
				all = append(all, unknown(above, within, steps[len(steps)-1:]...)...)
			case *kind.AdditionalProperties:
				all = append(all, unknown(path, pattern, k.Properties...)...)
			case *kind.Type:
				if at != location {
					continue
				}
				for _, want := range k.Want {
					if word := words[want]; word != "" && !slices.Contains(types[at], word) {
						types[at] = append(types[at], word)
					}
				}
				all = slices.DeleteFunc(all, func(m misfit) bool { return m.path == path })
				all = append(all, misfit{path, fmt.Sprintf("is %s: want %s", words[k.Got], strings.Join(types[at], ", or "))})
			}
		}
	}
	return all
}

// words are what users call the types of JSON; null is what they leave out.
var words = map[string]string{"string": "a text", "array": "a list", "object": "a mapping", "number": "a number", "integer": "a number",
	"boolean": "true or false"}

// unknown are keys below a path that the schema does not know.
func unknown(path, pattern string, names ...string) (all []misfit) {
	for _, name := range names {
		if slices.ContainsFunc(keys, func(k key) bool { return k.path == join(pattern, name) }) {
			continue // the schema takes no key for one that it knows once something below one of them is wrong, which is told as well
		}
		text := "is a key that is not known here: leave it out"
		if meant := v1.Nearest(name, below(pattern)); meant != "" {
			text = fmt.Sprintf("is a key that is not known here: did you mean %s?", meant)
		}
		all = append(all, misfit{join(path, name), text})
	}
	return all
}

// below are the honoured keys directly below a pattern.
func below(pattern string) (names []string) {
	for _, k := range keys {
		parent, name := "", k.path
		if i := strings.LastIndexByte(k.path, '.'); i >= 0 {
			parent, name = k.path[:i], k.path[i+1:]
		}
		if parent == pattern && k.fate == honoured && name != "*" {
			names = append(names, name)
		}
	}
	return names
}

// place is a location as problems and as keys have it.
func place(tree any, steps []string) (path, pattern string) {
	for _, step := range steps {
		switch v := tree.(type) {
		case []any:
			path, pattern, tree = path+"["+step+"]", pattern+"[]", nil
			if i, err := strconv.Atoi(step); err == nil && i < len(v) {
				tree = v[i]
			}
		case map[string]any:
			like := join(pattern, step)
			if named(pattern) {
				like = join(pattern, "*")
			}
			path, pattern, tree = join(path, step), like, v[step]
		}
	}
	return path, pattern
}

// leaves are the errors that others only lead to. Of alternatives they are those that fit the furthest.
func leaves(e *jsonschema.ValidationError) []*jsonschema.ValidationError {
	if len(e.Causes) == 0 {
		return []*jsonschema.ValidationError{e}
	}
	alternatives := false
	switch e.ErrorKind.(type) {
	case *kind.OneOf, *kind.AnyOf:
		alternatives = true
	}
	var all []*jsonschema.ValidationError
	furthest := 0
	for _, cause := range e.Causes {
		found := leaves(cause)
		reached := 0
		for _, l := range found {
			depth := 2 * len(l.InstanceLocation)
			if _, inside := l.ErrorKind.(*kind.AdditionalProperties); inside {
				depth++ // all of it fits but a key
			}
			reached = max(reached, depth)
		}
		if alternatives && reached > furthest {
			all, furthest = nil, reached
		}
		if !alternatives || reached == furthest {
			all = append(all, found...)
		}
	}
	return all
}

func compile() (*jsonschema.Schema, error) {
	document, err := jsonschema.UnmarshalJSON(strings.NewReader(schema.Schema))
	if err != nil {
		return nil, err
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("compose.json", document); err != nil {
		return nil, err
	}
	return compiler.Compile("compose.json")
}

// decoded is a document as the schema reads it.
func decoded(d *yaml.Node) (tree any, err error) {
	var values any
	if err := d.Decode(&values); err != nil {
		return nil, err
	}
	data, err := json.Marshal(values)
	if err != nil {
		return nil, err
	}
	return tree, json.Unmarshal(data, &tree)
}
