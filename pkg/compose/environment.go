package compose

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/types"
)

// absolute is a path of the compose file.
func (c *converter) absolute(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(c.options.Dir, path)
}

// ParseEnv reads a file of variables, such as .env, in Compose's format. lookup finds what it refers to.
func ParseEnv(name string, data []byte, lookup func(string) (string, bool)) (map[string]string, error) {
	if err := checkGrowth(name, data, lookup); err != nil {
		return nil, err
	}
	var vars map[string]string
	var err error
	quietly(func() { vars, err = dotenv.ParseWithLookup(bytes.NewReader(data), lookup) })
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return vars, nil
}

// parseRaw reads a file of variables as Docker does: each line is NAME=value as it stands, or a name.
func parseRaw(name string, data []byte, lookup func(string) (string, bool)) (map[string]string, error) {
	vars := make(map[string]string)
	for i, line := range strings.Split(string(bytes.TrimPrefix(data, []byte("\uFEFF"))), "\n") {
		line = strings.TrimLeft(strings.TrimSuffix(line, "\r"), " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		variable, value, given := strings.Cut(line, "=")
		if variable == "" || strings.ContainsAny(variable, " \t") {
			return nil, fmt.Errorf("%s:%d: want NAME=value", name, i+1)
		}
		if !given {
			if value, given = lookup(variable); !given {
				continue
			}
		}
		vars[variable] = value
	}
	return vars, nil
}

// environment are a service's variables, by name: those of env_file, under those of environment.
func (c *converter) environment(path string, s *types.ServiceConfig) []string {
	vars := make(map[string]string)
	own := make(map[string]string)
	for name, value := range s.Environment {
		if value != nil {
			own[name] = *value
		} else if found, ok := c.options.Env(name); ok {
			own[name] = found
		}
	}
	lookup := func(name string) (string, bool) {
		if value, ok := c.options.Env(name); ok {
			return value, true
		}
		if value, ok := own[name]; ok {
			return value, true
		}
		value, ok := vars[name]
		return value, ok
	}
	for i, f := range s.EnvFiles {
		at := path + ".env_file[" + strconv.Itoa(i) + "]"
		data, err := c.file(f.Path, MaxFile)
		if errors.Is(err, fs.ErrNotExist) && !bool(f.Required) {
			continue
		}
		var more map[string]string
		if err == nil {
			switch f.Format {
			case "":
				more, err = ParseEnv(f.Path, data, lookup)
			case "raw":
				more, err = parseRaw(f.Path, data, lookup)
			default:
				err = fmt.Errorf("format %q is not known: want raw, or leave it out", f.Format)
			}
		}
		if err != nil {
			c.fail(at, "%v", err)
		}
		maps.Copy(vars, more)
	}
	maps.Copy(vars, own)
	var all []string
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		all = append(all, name+"="+vars[name])
	}
	return all
}

// fileLabels are a service's own labels, over those of label_file.
func (c *converter) fileLabels(path string, s *types.ServiceConfig) map[string]string {
	all := make(map[string]string)
	for i, name := range s.LabelFiles {
		at := path + ".label_file[" + strconv.Itoa(i) + "]"
		data, err := c.file(name, MaxFile)
		var more map[string]string
		if err == nil {
			more, err = ParseEnv(name, data, c.options.Env)
		}
		if err != nil {
			c.fail(at, "%v", err)
		}
		maps.Copy(all, more)
	}
	maps.Copy(all, s.Labels)
	return all
}
