package compose

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v4"
)

// check goes through the whole model, notes every key that is refused, and takes it out.
func (p *Project) check() {
	p.walk(p.model, "", "")
	p.shortMounts()
	for _, s := range p.sources {
		for _, d := range s.documents {
			for name, service := range entries(entry(d, "services")) {
				for i, v := range items(entry(service, "volumes")) {
					p.mount(fmt.Sprintf("services.%s.volumes[%d]", name, i), v)
				}
			}
		}
	}
}

// shortMounts takes out what compose-go makes of SOURCE:TARGET beyond what is written: that nodes make the source.
func (p *Project) shortMounts() {
	services, _ := p.model["services"].(map[string]any)
	for _, s := range services {
		service, _ := s.(map[string]any)
		volumes, _ := service["volumes"].([]any)
		for _, v := range volumes {
			volume, _ := v.(map[string]any)
			bind, _ := volume["bind"].(map[string]any)
			switch bind["create_host_path"] {
			case true, types.OptOut(true):
				delete(bind, "create_host_path")
			}
		}
	}
}

// mountOptions are those of a volume's short form that mean something.
var mountOptions = []string{"ro", "rw", "nocopy", "z", "Z", "private", "rprivate", "shared", "rshared", "slave", "rslave"}

// mount checks a volume as it is written, where compose-go leaves out what it does not know, or fills in what is not said.
func (p *Project) mount(path string, v *yaml.Node) {
	if bind := entry(v, "bind"); bind != nil {
		made := entry(bind, "create_host_path")
		if made != nil && p.filled(made) != "false" {
			p.problems.add(path+".bind.create_host_path", refused,
				"not supported: nodes make no folders: leave it out, and make the folder on each node")
		}
	}
	if v.Kind != yaml.ScalarNode {
		return
	}
	parts := strings.Split(p.filled(v), ":")
	if len(parts) < 3 {
		return
	}
	for option := range strings.SplitSeq(parts[len(parts)-1], ",") {
		if !slices.Contains(mountOptions, option) {
			p.problems.fail(path, "the option %q is not known: want %s", option, strings.Join(mountOptions, ", "))
		}
	}
}

// filled is a text with its variables filled in.
func (p *Project) filled(n *yaml.Node) string {
	text := n.Value
	if !p.options.Raw {
		quietly(func() { text, _ = template.Substitute(text, p.lookup) })
	}
	return text
}

// walk checks what is below a path, which pattern stands for in keys.
func (p *Project) walk(value any, path, pattern string) {
	switch v := value.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if !p.enter(v, name, path, pattern) {
				delete(v, name)
			}
		}
	case []any:
		for i, e := range v {
			p.walk(e, fmt.Sprintf("%s[%d]", path, i), pattern+"[]")
		}
	}
}

// enter checks one key of a map, and tells whether it stays.
func (p *Project) enter(v map[string]any, name, path, pattern string) bool {
	at, like := join(path, name), join(pattern, name)
	if named(pattern) {
		like = join(pattern, "*")
	} else if extension(name) {
		return true
	}
	k, known := byPath[like]
	switch {
	case !known:
		p.problems.add(at, firm, "is a key that is not known here: leave it out")
		return false
	case k.fate != honoured:
		p.problems.add(at, k.fate, "not supported: %s", k.note)
		return k.fate == firm
	case !k.open:
		p.walk(v[name], at, like)
	}
	return true
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
