package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// versionMark is before what tells contents of one secret or config apart that were made of a template.
const versionMark = "@"

// expandFiles expands the files that are templates. Files are those of the references, in their order, all of them.
func (a *Agent) expandFiles(t *task, env []string, refs []reference, files []engine.File) error {
	if len(files) != len(refs) {
		return nil
	}
	var made *v1.TemplateData
	for i, r := range refs {
		if a.data[r.key].driver == nil {
			continue
		}
		if made == nil {
			made = a.templateData(t)
		}
		text := string(a.data[r.key].bytes)
		find := func(kind v1.Kind) func(string) (string, error) {
			return func(name string) (string, error) { return a.dataAt(kind, name, text, refs) }
		}
		out, err := v1.ExpandData(text, made, find(v1.KindSecret), find(v1.KindConfig), func(name string) (string, error) { return valueOf(env, name), nil })
		if err == nil && len(out) > v1.MaxExpandedData {
			err = fmt.Errorf("it expands to more than %d bytes", v1.MaxExpandedData)
		}
		switch {
		case err != nil && r.key.kind == v1.KindSecret: // the error may quote of the template, which is secret
			return fmt.Errorf("%w: %s is not a template that can be expanded", engine.ErrInvalid, r)
		case err != nil:
			return fmt.Errorf("%w: template in %s: %w", engine.ErrInvalid, r, err)
		}
		sum := sha256.Sum256([]byte(out))
		files[i].Data, files[i].Version = []byte(out), r.ID+versionMark+hex.EncodeToString(sum[:8])
	}
	return nil
}

// dataAt is what is in the secret or config that a template calls by its target, or its name. The error names it only where the
// template does so by itself: it may as well have been put together of secrets.
func (a *Agent) dataAt(kind v1.Kind, name, text string, refs []reference) (string, error) {
	for _, r := range refs {
		if r.key.kind == kind && (name == r.Source || name == r.Target || path.Join("/run/secrets", name) == r.Target || "/"+name == r.Target) {
			return string(a.data[r.key].bytes), nil
		}
	}
	if !strings.Contains(text, strconv.Quote(name)) {
		return "", errors.New("the task has none of that target")
	}
	return "", fmt.Errorf("the task has no %s %q", strings.ToLower(string(kind)), name)
}

// valueOf is that of a variable; empty where there is none, as in a shell.
func valueOf(env []string, name string) string {
	for _, e := range env {
		if n, value, _ := strings.Cut(e, "="); n == name {
			return value
		}
	}
	return ""
}
