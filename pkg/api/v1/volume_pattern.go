package v1

import (
	"slices"
	"strings"
	"text/template"
	"text/template/parse"
)

// VolumePattern is what the volumes of a mount may be called: between its parts may be anything.
type VolumePattern []string

// VolumesMounted are the volumes with a name that tasks of a service may mount, whichever slot and node they have: a template stands for
// anything, but for the service's own name and ID. A source that is no template at all makes no volume.
func VolumesMounted(c *ContainerSpec, service, name string) (all []VolumePattern) {
	for i := range c.Mounts {
		m := &c.Mounts[i]
		if m.Type != MountVolume || m.Source == "" {
			continue
		}
		if !strings.Contains(m.Source, "{{") {
			all = append(all, VolumePattern{m.Source})
			continue
		}
		parsed, err := template.New("source").Funcs(templateFuncs()).Parse(m.Source)
		if err == nil && parsed.Tree != nil {
			all = append(all, volumePattern(parsed.Root.Nodes, service, name))
		}
	}
	return all
}

func volumePattern(nodes []parse.Node, service, name string) VolumePattern {
	p := VolumePattern{""}
	for _, node := range nodes {
		known, text := knownText(node, service, name)
		if !known {
			p = append(p, "")
		}
		p[len(p)-1] += text
	}
	return p
}

// knownText is what a part of a template comes to, for all tasks of a service.
func knownText(node parse.Node, service, name string) (known bool, text string) {
	switch n := node.(type) {
	case *parse.TextNode:
		return true, string(n.Text)
	case *parse.CommentNode:
		return true, ""
	case *parse.ActionNode:
		if len(n.Pipe.Cmds) != 1 || len(n.Pipe.Cmds[0].Args) != 1 {
			return false, ""
		}
		field, ok := n.Pipe.Cmds[0].Args[0].(*parse.FieldNode)
		switch {
		case ok && slices.Equal(field.Ident, []string{"Service", "Name"}):
			return true, name
		case ok && slices.Equal(field.Ident, []string{"Service", "ID"}):
			return true, service
		}
	}
	return false, ""
}

// Match tells whether a volume of that name may be one of them.
func (p VolumePattern) Match(name string) bool {
	first, last := p[0], p[len(p)-1]
	if len(p) == 1 {
		return name == first
	}
	rest, ok := strings.CutPrefix(name, first)
	if !ok {
		return false
	}
	if rest, ok = strings.CutSuffix(rest, last); !ok {
		return false
	}
	for _, part := range p[1 : len(p)-1] {
		if _, rest, ok = strings.Cut(rest, part); !ok {
			return false
		}
	}
	return true
}
