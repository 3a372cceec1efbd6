// Package compose turns compose files into the objects of a stack.
//
// It owns what a compose file means to a swarm: which keys are honoured and which are refused (keys.go), Docker's names and labels of
// a stack, what secrets and configs are called by their content. compose-go reads, merges and interpolates; nothing of its own opens
// files here.
//
// It never asks the swarm, reads files only through Options.Read, and those alone that the compose files name. It keeps no state: the
// same files, environment and options give the same objects.
package compose

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Limits on what is read.
const (
	// MaxFile is the size of one compose file, in bytes, exclusive; and of a file of variables or labels.
	MaxFile = 1 << 20
	// MaxFiles is how many compose files make a stack.
	MaxFiles = 100
	// MaxRead is what all files that compose files name may hold together, in bytes.
	MaxRead = 64 << 20
	// maxNodes bounds a compose file with its aliases written out.
	maxNodes = 100_000
	maxDepth = 100
)

// Source is one compose file.
type Source struct {
	// Name is what errors call it.
	Name string
	Data []byte
}

// Options are what a compose file needs of the world around it.
type Options struct {
	// Stack is the stack's name.
	Stack string
	// Dir is the absolute path that relative ones begin at.
	Dir string
	// Env looks up a variable.
	Env func(name string) (string, bool)
	// Read reads a file that a compose file names: less than limit bytes of a regular file.
	Read func(path string, limit int64) ([]byte, error)
	// Salt keeps the names of secrets from telling what is in them: see Names. It should be the swarm's own.
	Salt string
	// Lenient leaves out what is refused, with a warning, where that runs nothing but what the files say.
	Lenient bool
	// Raw leaves variables as they are written. It is for printing alone.
	Raw bool
}

// Problem is one thing in a compose file that is refused.
type Problem struct {
	// File is the compose file, and Line the line in it; 0 where it is not known.
	File string
	Line int
	// Path is the key, such as services.web.build.
	Path string
	// Text says what is wrong and what to do.
	Text string
	// Firm tells that Lenient does not leave it out.
	Firm bool
}

// String is the problem in one line.
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d", p.Line)
		}
		b.WriteString(": ")
	}
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	return b.String() + p.Text
}

// Problems are all that is refused in the compose files of a stack.
type Problems []Problem

// Error lists the problems, one on each line, and says that there is a way around those that are not firm.
func (ps Problems) Error() string {
	lines := make([]string, 0, len(ps)+1)
	for _, p := range ps {
		lines = append(lines, p.String())
	}
	if slices.ContainsFunc(ps, func(p Problem) bool { return !p.Firm }) {
		lines = append(lines, "what is refused can be left out with --lenient, unless that would run something else than the file says")
	}
	return strings.Join(lines, "\n")
}

// problems collects what is refused, and knows where it is.
type problems struct {
	sources []*source
	all     Problems
}

func (ps *problems) add(path string, f fate, format string, args ...any) {
	p := Problem{Path: path, Text: fmt.Sprintf(format, args...), Firm: f == firm}
	p.File, p.Line = locate(ps.sources, path)
	ps.all = append(ps.all, p)
}

// fail notes what is wrong in any case.
func (ps *problems) fail(path, format string, args ...any) { ps.add(path, firm, format, args...) }

// result are the problems in the order of the files, or nil. Of those that lenience leaves out, warnings are made.
func (ps *problems) result(lenient bool) (warnings []string, err error) {
	slices.SortStableFunc(ps.all, func(x, y Problem) int {
		if c := ps.order(x.File) - ps.order(y.File); c != 0 {
			return c
		}
		if c := x.Line - y.Line; c != 0 {
			return c
		}
		return strings.Compare(x.Path, y.Path)
	})
	if !lenient {
		if len(ps.all) > 0 {
			return nil, ps.all
		}
		return nil, nil
	}
	var left Problems
	for _, p := range ps.all {
		if p.Firm {
			left = append(left, p)
		} else {
			warnings = append(warnings, p.String()+" (it is left out)")
		}
	}
	if len(left) > 0 {
		return warnings, left
	}
	return warnings, nil
}

func (ps *problems) order(file string) int {
	return slices.IndexFunc(ps.sources, func(s *source) bool { return s.Name == file })
}

// errBudget says that too much is read.
var errBudget = errors.New("the files that are named hold too much")

// reader reads the files that compose files name, within a budget.
type reader struct {
	read func(string, int64) ([]byte, error)
	left int64
}

func (r *reader) file(path string, limit int64) ([]byte, error) {
	if r.read == nil {
		return nil, errors.New("no files can be read here")
	}
	data, err := r.read(path, limit)
	if err != nil {
		return nil, err
	}
	if r.left -= int64(len(data)); r.left < 0 {
		return nil, fmt.Errorf("%w: want at most %d bytes in all", errBudget, int64(MaxRead))
	}
	return data, nil
}
