package v1

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"strings"
	"text/template"
	"text/template/parse"
)

// TemplateData is what the templates of a service refer to, in Docker's words.
type TemplateData struct {
	Service struct {
		ID, Name string
		Labels   map[string]string
	}
	Node struct {
		ID, Hostname string
		Platform     Platform
	}
	Task struct {
		ID, Name, Slot string
	}
}

// MaxExpanded bounds what a template in a spec may grow to, and MaxExpandedData that of a secret or config, in bytes.
const (
	MaxExpanded     = 64 << 10
	MaxExpandedData = MaxConfigSize
)

// Expand expands a Go template of a spec. It may use what can neither go on for ever nor grow by more than its own length and
// what it refers to.
func Expand(text string, data *TemplateData) (string, error) {
	return expand(text, data, nil, MaxExpanded)
}

// ExpandData expands a secret or config that is a Go template, with functions that give back the secret or config at a target, and
// a variable of the environment.
func ExpandData(text string, data *TemplateData, secret, config, env func(name string) (string, error)) (string, error) {
	given := 0 // all that was given back, for it may be put together many times before anything is written
	bound := func(get func(string) (string, error)) func(string) (string, error) {
		return func(name string) (string, error) {
			text, err := get(name)
			if given += len(text); given > MaxExpandedData {
				return "", fmt.Errorf("expands to more than %d bytes", MaxExpandedData)
			}
			return text, err
		}
	}
	return expand(text, data, template.FuncMap{"secret": bound(secret), "config": bound(config), "env": bound(env)}, MaxExpandedData)
}

// CheckData tells why ExpandData would refuse a text whatever it refers to. The error may hold parts of the text.
func CheckData(text string) error {
	get := func(string) (string, error) { return "", nil }
	_, err := parseTemplate(text, template.FuncMap{"secret": get, "config": get, "env": get})
	return err
}

func parseTemplate(text string, more template.FuncMap) (*template.Template, error) {
	funcs := templateFuncs()
	maps.Copy(funcs, more)
	parsed, err := template.New("line").Option("missingkey=error").Funcs(funcs).Parse(text)
	if err == nil {
		err = finite(parsed)
	}
	return parsed, err
}

func expand(text string, data *TemplateData, more template.FuncMap, most int) (string, error) {
	parsed, err := parseTemplate(text, more)
	if err != nil {
		return "", err
	}
	out := bounded{most: most}
	if err := parsed.Execute(&out, data); err != nil {
		return "", err
	}
	return out.String(), nil
}

// templateFuncs are those that templates of a spec have besides Go's own.
func templateFuncs() template.FuncMap {
	return template.FuncMap{
		// join takes the separator first.
		"join": func(separator string, parts ...string) string { return strings.Join(parts, separator) },
	}
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
		switch n.Ident {
		case "printf":
			return errors.New("printf is not supported: use print")
		case "js": // each one may double what the one before it made
			return errors.New("js is not supported")
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
type bounded struct {
	strings.Builder
	most int
}

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > b.most {
		return 0, fmt.Errorf("expands to more than %d bytes", b.most)
	}
	return b.Builder.Write(p)
}
