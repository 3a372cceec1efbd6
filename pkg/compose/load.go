package compose

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/compose-spec/compose-go/v2/consts"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/sirupsen/logrus"
)

// Project is what compose files say, merged and interpolated, with only keys in it that are honoured.
type Project struct {
	// Warnings are what the user should know: what was left out, which variables are not set.
	Warnings []string

	options  Options
	sources  []*source
	model    map[string]any
	files    *types.Project
	problems problems
}

// Load reads compose files: a later one goes over those before it. The error is Problems where keys are refused; nothing that the
// files name was read then.
func Load(files []Source, o Options) (*Project, error) {
	if len(files) == 0 || len(files) > MaxFiles {
		return nil, fmt.Errorf("%d compose files: want 1 to %d", len(files), MaxFiles)
	}
	if o.Env == nil {
		o.Env = func(string) (string, bool) { return "", false }
	}
	p := &Project{options: o}
	for _, f := range files {
		s, err := parse(f)
		if err != nil {
			return nil, err
		}
		p.sources = append(p.sources, s)
	}
	p.problems.sources = p.sources
	p.Warnings = p.unset()
	if p.ports(); len(p.problems.all) > 0 {
		return nil, p.problems.all
	}
	var options loader.Options
	model, err := p.merge(&options)
	if err != nil {
		return nil, p.placed(err)
	}
	p.model = model
	p.check()
	warnings, err := p.problems.result(o.Lenient)
	if err != nil {
		return nil, err
	}
	p.Warnings = append(p.Warnings, warnings...)
	p.problems.all = nil
	if o.Raw {
		return p, nil
	}
	quietly(func() {
		p.files, err = loader.ModelToProject(clone(p.model).(map[string]any), &options, types.ConfigDetails{WorkingDir: o.Dir})
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.names(), err)
	}
	return p, nil
}

func (p *Project) names() string {
	var names []string
	for _, s := range p.sources {
		names = append(names, s.Name)
	}
	return strings.Join(names, ", ")
}

// merge lets compose-go merge and interpolate the files. The options that it used are left in options.
func (p *Project) merge(options *loader.Options) (map[string]any, error) {
	details := types.ConfigDetails{WorkingDir: p.options.Dir, Environment: types.Mapping{}}
	for _, s := range p.sources {
		details.ConfigFiles = append(details.ConfigFiles, types.ConfigFile{Filename: s.Name, Content: s.Data})
	}
	set := func(o *loader.Options) {
		o.SetProjectName("stack", true) // compose-go allows lower case alone; the stack's name is lookup's
		o.SkipNormalization, o.SkipDefaultValues, o.SkipInclude = true, true, true
		o.SkipResolveEnvironment, o.SkipResolveLabels = true, true
		o.SkipConsistencyCheck = true // the converter's errors say where it is
		o.SkipInterpolation = p.options.Raw
		o.ResourceLoaders = []loader.ResourceLoader{noFiles{}}
		o.MaxNodeVisits = maxNodes
		o.Interpolate.LookupValue = p.lookup
		*options = *o
	}
	var model map[string]any
	var err error
	quietly(func() { model, err = loader.LoadModelWithContext(context.Background(), details, set) })
	if refusal, ok := errors.AsType[*noFilesError](err); ok {
		return nil, refusal
	}
	return model, err
}

// lookup is the value of a variable.
func (p *Project) lookup(name string) (string, bool) {
	if name == "COMPOSE_PROJECT_NAME" {
		return p.options.Stack, true
	}
	return p.options.Env(name)
}

// unset warns of variables that have no value and no default: an empty text takes their place.
func (p *Project) unset() []string {
	if p.options.Raw {
		return nil
	}
	missing := make(map[string]string)
	for _, s := range p.sources {
		for _, d := range s.documents {
			var tree map[string]any
			if d.Decode(&tree) != nil {
				continue // compose-go says what is wrong
			}
			for name, v := range template.ExtractVariables(tree, template.DefaultPattern) {
				if _, ok := p.lookup(name); !ok && !v.Required && v.DefaultValue == "" && v.PresenceValue == "" {
					missing[name] = s.Name
				}
			}
		}
	}
	var warnings []string
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		warnings = append(warnings, fmt.Sprintf("%s: the variable %s is not set: it is taken as empty", missing[name], name))
	}
	return warnings
}

// noFiles keeps compose-go from opening files: everything that is read is read by Options.Read.
type noFiles struct{}

func (noFiles) Accept(string) bool { return true }

func (noFiles) Load(ctx context.Context, path string) (string, error) {
	from, _ := ctx.Value(consts.ComposeFileKey{}).(string)
	return "", &noFilesError{from, path}
}

func (noFiles) Dir(path string) string { return path }

type noFilesError struct{ from, path string }

// Error says what to do instead.
func (e *noFilesError) Error() string {
	return fmt.Sprintf("%s: extends.file: %s: not supported: %s", e.from, e.path, byPath["services.*.extends.file"].note)
}

// quiet guards the logger that compose-go tells its warnings to.
var quiet sync.Mutex

// quietly runs f without compose-go's log: what users should know, Project.Warnings says.
func quietly(f func()) {
	quiet.Lock()
	defer quiet.Unlock()
	level := logrus.GetLevel()
	logrus.SetLevel(logrus.FatalLevel)
	defer logrus.SetLevel(level)
	f()
}

// clone copies the maps and lists of a tree.
func clone(value any) any {
	switch v := value.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, e := range v {
			out[name] = clone(e)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = clone(e)
		}
		return out
	}
	return value
}
