package cli

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxEnvFile bounds a file of environment variables, in bytes: more than the kernel lets a process have.
const maxEnvFile = 8 << 20

// parseEnv reads NAME=value; a NAME alone takes its value from swarmctl's own environment, where it has one.
func (a *app) parseEnv(text string) (string, error) {
	name, _, hasValue := strings.Cut(text, "=")
	if name == "" {
		return "", errors.New("invalid environment variable: " + text)
	}
	if hasValue {
		return text, nil
	}
	if v, ok := a.LookupEnv(name); ok {
		return name + "=" + v, nil
	}
	return text, nil
}

// environment is that of the files with that of the flags over it. The last of equal names counts, and takes the last's
// place.
func (a *app) environment(files, flags []string) ([]string, error) {
	var all []string
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		vars, err := readEnvFile(f, a.LookupEnv)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("invalid env file (%s): %w", name, err)
		}
		all = append(all, vars...)
	}
	var env []string
	for _, e := range append(all, flags...) {
		name := envName(e)
		env = slices.DeleteFunc(env, func(old string) bool { return envName(old) == name })
		env = append(env, e)
	}
	return env, nil
}

func envName(e string) string {
	name, _, _ := strings.Cut(e, "=")
	return name
}

// readEnvFile reads a line NAME=value each; blank lines and those that begin with # say nothing.
func readEnvFile(r io.Reader, lookup func(string) (string, bool)) ([]string, error) {
	var vars []string
	limited := &io.LimitedReader{R: r, N: maxEnvFile + 1}
	scanner := bufio.NewScanner(limited)
	scanner.Buffer(nil, 1<<20)
	for n := 1; scanner.Scan(); n++ {
		raw := scanner.Bytes()
		if !utf8.Valid(raw) {
			return nil, fmt.Errorf("invalid utf8 bytes at line %d: %q", n, raw[:min(len(raw), 40)])
		}
		if n == 1 {
			raw = bytes.TrimPrefix(raw, []byte("\uFEFF"))
		}
		line := strings.TrimLeftFunc(string(raw), unicode.IsSpace)
		if line == "" || line[0] == '#' {
			continue
		}
		name, _, hasValue := strings.Cut(line, "=")
		switch {
		case name == "":
			return nil, fmt.Errorf("no variable name on line '%s'", line)
		case strings.ContainsAny(name, blanks):
			return nil, fmt.Errorf("variable '%s' contains whitespaces", name)
		case hasValue:
			vars = append(vars, line)
		default:
			if v, ok := lookup(name); ok {
				vars = append(vars, name+"="+v)
			}
		}
	}
	if limited.N == 0 {
		return nil, fmt.Errorf("larger than %d bytes", maxEnvFile)
	}
	return vars, scanner.Err()
}
