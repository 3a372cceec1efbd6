package compose

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// source is a compose file as a tree, to find where a key is.
type source struct {
	Source
	documents []*yaml.Node
}

// parse reads a file as YAML, within the limits.
func parse(s Source) (*source, error) {
	if len(s.Data) >= MaxFile {
		return nil, fmt.Errorf("%s: %d bytes are too many: want less than %d", s.Name, len(s.Data), MaxFile)
	}
	src := &source{Source: s}
	d := yaml.NewDecoder(bytes.NewReader(s.Data))
	left := maxNodes
	for {
		var node yaml.Node
		err := d.Decode(&node)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
		if left -= written(&node, make(map[*yaml.Node]int), 0); left < 0 {
			return nil, fmt.Errorf("%s: is too large or too deep with its aliases written out: want at most %d values and keys, and %d levels",
				s.Name, maxNodes, maxDepth)
		}
		if len(node.Content) > 0 {
			if root := resolve(node.Content[0]); root.Kind != yaml.MappingNode {
				return nil, fmt.Errorf("%s:%d: is no mapping: want keys with values, such as services: {web: {image: nginx}}", s.Name, root.Line)
			}
			src.documents = append(src.documents, node.Content[0])
		}
	}
	if len(src.documents) == 0 {
		return nil, fmt.Errorf("%s: is empty: want services", s.Name)
	}
	return src, nil
}

// written counts a node and what is below it with every alias written out, up to a little more than maxNodes. What holds itself,
// or is too deep, counts as too many.
func written(n *yaml.Node, known map[*yaml.Node]int, depth int) int {
	if count, ok := known[n]; ok {
		return count
	}
	if depth > maxDepth {
		return maxNodes + 1
	}
	known[n] = maxNodes + 1 // for whoever comes back here before the count is known
	count := 1
	if n.Alias != nil {
		count += written(n.Alias, known, depth+1)
	}
	for _, c := range n.Content {
		count += written(c, known, depth+1)
		if count > maxNodes {
			return maxNodes + 1
		}
	}
	known[n] = count
	return count
}

// locate finds the file and the line of a path: those of the last file that has it, or as much of it as any has.
func locate(sources []*source, path string) (file string, line int) {
	steps := strings.FieldsFunc(strings.ReplaceAll(path, "[", ".["), func(r rune) bool { return r == '.' })
	most := -1
	for _, s := range sources {
		for _, d := range s.documents {
			at, found := find(d, steps, 0)
			if found >= most {
				most, file, line = found, s.Name, at
			}
		}
	}
	if most <= 0 && len(sources) > 1 {
		return "", 0
	}
	return file, line
}

// find follows steps as far as they go, and tells the line where they end and how many there were.
func find(n *yaml.Node, steps []string, done int) (line, found int) {
	n = resolve(n)
	line, found = n.Line, done
	if done == len(steps) {
		return line, found
	}
	switch n.Kind {
	case yaml.MappingNode:
		// A name may hold dots: as many steps as it takes are one key.
		for i := 0; i+1 < len(n.Content); i += 2 {
			name := n.Content[i]
			if name.Value == "<<" {
				if at, deep := find(n.Content[i+1], steps, done); deep > found {
					line, found = at, deep
				}
				continue
			}
			taken := strings.Count(name.Value, ".") + 1
			if done+taken > len(steps) || strings.Join(steps[done:done+taken], ".") != name.Value {
				continue
			}
			at, deep := find(n.Content[i+1], steps, done+taken)
			if deep == done+taken {
				at = name.Line
			}
			return at, deep
		}
	case yaml.SequenceNode:
		i, err := strconv.Atoi(strings.Trim(steps[done], "[]"))
		if err == nil && i < len(n.Content) && strings.HasPrefix(steps[done], "[") {
			at, deep := find(n.Content[i], steps, done+1)
			return max(at, n.Content[i].Line), deep
		}
	}
	return line, found
}

// resolve is what an alias stands for.
func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode && n.Alias != nil {
		n = n.Alias
	}
	return n
}

// entries are the names and values of a mapping, but for those that it merges; none of anything else.
func entries(n *yaml.Node) iter.Seq2[string, *yaml.Node] {
	return func(yield func(string, *yaml.Node) bool) {
		if n == nil || n.Kind != yaml.MappingNode {
			return
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if !yield(n.Content[i].Value, resolve(n.Content[i+1])) {
				return
			}
		}
	}
}

// entry is a mapping's value of a name, also of what it merges; nil where it has none.
func entry(n *yaml.Node, name string) *yaml.Node {
	for key, value := range entries(n) {
		if key == name {
			return value
		}
	}
	for key, value := range entries(n) {
		if key != "<<" {
			continue
		}
		if found := entry(value, name); found != nil {
			return found
		}
		for _, merged := range items(value) {
			if found := entry(merged, name); found != nil {
				return found
			}
		}
	}
	return nil
}

// items are the values of a list.
func items(n *yaml.Node) []*yaml.Node {
	if n == nil || n.Kind != yaml.SequenceNode {
		return nil
	}
	all := make([]*yaml.Node, len(n.Content))
	for i, c := range n.Content {
		all[i] = resolve(c)
	}
	return all
}
