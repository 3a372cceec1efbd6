package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

// fileFlags say which manifests are meant.
type fileFlags struct {
	files     []string
	recursive bool
}

func (f *fileFlags) add(cmd *cobra.Command, what string) {
	s := cmd.Flags()
	s.StringSliceVarP(&f.files, "filename", "f", nil, "File or directory of the manifests "+what+"; - is standard input")
	s.BoolVarP(&f.recursive, "recursive", "R", false, "Read the folders below a directory, too")
	_ = cmd.MarkFlagFilename("filename", "yaml", "yml", "json")
}

func (a *app) applyCommand() *cobra.Command {
	var f fileFlags
	var wait waitFlags
	var dry bool
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Make the swarm as manifests say",
		Long: `Create what manifests describe, change what is different, and wait until the services run.

Everything is read and checked before anything is changed. Applying the same again changes nothing. What a manifest leaves
out gets its default, also where it was set by hand before. Only forceUpdate, which "swarmctl service update --force" counts,
stays: its default would start every task anew.`,
		Example: `  swarmctl apply -f web.yaml
  swarmctl apply -R -f deploy/ --detach
  cat web.yaml | swarmctl apply -f - --dry-run`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			docs, err := a.readManifests(f.files, f.recursive)
			if err != nil {
				return err
			}
			return a.apply(cmd.Context(), docs, &wait, dry)
		},
	}
	f.add(cmd, "to apply")
	wait.add(cmd)
	timeout := cmd.Flags().Lookup("timeout")
	wait.timeout, timeout.DefValue = applyTimeout, applyTimeout.String()
	cmd.Flags().BoolVar(&dry, "dry-run", false, "Only say what would be done, with the daemon's checks")
	return cmd
}

// applyTimeout is how long apply waits for a service where nothing else is said: it runs where nobody looks on, and a
// service that cannot be placed would keep it for ever.
const applyTimeout = 10 * time.Minute

// applyOrder is by what refers to what: services come late, and after them only what is attached to networks.
var applyOrder = []v1.Kind{v1.KindCluster, v1.KindUser, v1.KindNode, v1.KindNetwork, v1.KindSecret, v1.KindConfig, v1.KindVolume, v1.KindRegistry,
	v1.KindService, v1.KindAttachment}

func (a *app) apply(ctx context.Context, docs []document, wait *waitFlags, dry bool) error {
	c, err := a.daemon()
	if err != nil {
		return err
	}
	slices.SortStableFunc(docs, func(x, y document) int {
		return slices.Index(applyOrder, x.Kind) - slices.Index(applyOrder, y.Kind)
	})
	suffix := ""
	if dry {
		suffix = " (dry run)"
	}
	started := a.Now()
	var services []*v1.Service
	for i, d := range docs {
		r, err := applyOne(ctx, c, d, dry)
		if err != nil {
			err = located(d.where, fmt.Errorf("%s: %w", d.name(), daemonError(err)))
			if left := len(docs) - i - 1; i > 0 || left > 0 {
				err = fmt.Errorf("%w\n%d of %d objects were applied%s, %d were not", err, i, len(docs), suffix, left+1)
			}
			return err
		}
		a.warn(r.warnings)
		a.printf("%s %s%s\n", d.name(), r.did, suffix)
		if s, ok := r.object.(*v1.Service); ok {
			services = append(services, s)
		}
	}
	if dry {
		return nil
	}
	return a.convergeAll(ctx, c, wait, started, services)
}

// applied is what became of one manifest.
type applied struct {
	did      string // created, configured or unchanged
	object   v1.Object
	before   v1.Object // nil where there was none
	warnings []string
}

// applyOne creates the object of a manifest, or gives it the manifest's labels and spec.
func applyOne(ctx context.Context, c *client.Client, d document, dry bool) (applied, error) {
	describer, _ := v1.Describe(d.Kind)
	for try := 1; ; try++ {
		old, err := lookup(ctx, c, describer, d.Object.GetMeta().Name)
		if err != nil {
			return applied{}, err
		}
		keeps := d.keepForced(old)
		r, err := put(ctx, c, describer, d, old, dry)
		// Between looking and writing, somebody else may have created it, removed it, or forced it.
		status := client.Status(err)
		lost := (old == nil || keeps) && status == http.StatusConflict || old != nil && status == http.StatusNotFound
		if !lost || try >= maxConflicts || ctx.Err() != nil {
			return r, err
		}
	}
}

// keepForced gives a service's manifest that does not say forceUpdate the one that is there, on condition that the service is
// still the one that was looked at. It tells whether it made that condition: not where the manifest brings its own.
func (d document) keepForced(old v1.Object) bool {
	svc, ok := d.Object.(*v1.Service)
	if !ok || d.forces {
		return false
	}
	task := &svc.Spec.Task
	task.ForceUpdate = 0
	was, ok := old.(*v1.Service)
	if ok = ok && was.Spec != nil; ok {
		task.ForceUpdate = was.Spec.Task.ForceUpdate
		svc.Spec.RollbackTo = cmp.Or(svc.Spec.RollbackTo, was.Spec.RollbackTo) // which a manifest hardly ever says
	}
	if d.conditional {
		return false
	}
	svc.Meta.Revisions = v1.Revisions{}
	if ok {
		svc.Meta.Revisions[v1.SectionSpec] = was.Meta.Revisions[v1.SectionSpec]
	}
	return ok
}

func put(ctx context.Context, c *client.Client, k v1.Descriptor, d document, old v1.Object, dry bool) (applied, error) {
	query := url.Values{}
	if dry {
		query.Set("dryRun", "true")
	}
	if k.Kind() == v1.KindService {
		query.Set("resolveImage", cmp.Or(d.resolve, "changed")) // the same manifest again means the same bits again
	}
	method, path := http.MethodPost, "/v1/"+k.Plural()
	if old != nil {
		method, path = http.MethodPut, path+"/"+url.PathEscape(old.GetMeta().ID)
	}
	if old != nil && k.Kind() == v1.KindNode {
		d.Object.GetMeta().Name = old.GetMeta().Name // it may have been called by its host's
	}
	out := answer{object: k.New()}
	if err := c.Do(ctx, method, path+"?"+query.Encode(), d.Manifest, &out); err != nil {
		return applied{}, err
	}
	r := applied{did: "configured", object: out.object, before: old, warnings: out.warnings}
	switch {
	case old == nil:
		r.did = "created"
	case old.GetMeta().Revisions[k.Home()] == out.object.GetMeta().Revisions[k.Home()]:
		r.did = "unchanged"
	}
	return r, nil
}

// answer is what the daemon answers a write with: the object, and warnings beside its fields.
type answer struct {
	object   v1.Object
	warnings []string
}

// UnmarshalJSON implements json.Unmarshaler.
func (a *answer) UnmarshalJSON(data []byte) error {
	var more struct {
		Warnings []string `json:"warnings"`
	}
	if err := json.Unmarshal(data, &more); err != nil {
		return err
	}
	a.warnings = more.Warnings
	return json.Unmarshal(data, a.object)
}

// lookup finds an object by its exact name, or nil. Nodes, which seldom have a name, are found by what people call them.
func lookup(ctx context.Context, c *client.Client, k v1.Descriptor, name string) (v1.Object, error) {
	if k.Kind() == v1.KindNode {
		n, err := getNode(ctx, c, name)
		if err != nil {
			return nil, err
		}
		return n, nil
	}
	obj := k.New()
	err := c.Do(ctx, http.MethodGet, "/v1/"+k.Plural()+"/"+url.PathEscape(name), nil, obj)
	switch {
	case client.Status(err) == http.StatusNotFound:
		return nil, nil
	case err != nil:
		return nil, err
	case obj.GetMeta().Name != name: // found by the beginning of its ID
		return nil, nil
	}
	return obj, nil
}

// convergeAll waits for services one after another; they start at the same time all the same.
func (a *app) convergeAll(ctx context.Context, c *client.Client, wait *waitFlags, started time.Time, services []*v1.Service) error {
	var errs []error
	for _, s := range services {
		if wait.detach {
			break
		}
		if len(services) > 1 && !wait.quiet {
			a.printf("\n%s\n", ref(v1.KindService, s.Meta.Name))
		}
		err := a.converge(ctx, c, wait, started, s)
		if _, ok := errors.AsType[*exitError](err); ok {
			return err
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// parseKind reads a kind as people write it: service, services, svc.
func parseKind(text string) (v1.Descriptor, error) {
	short := map[string]v1.Kind{"svc": v1.KindService, "no": v1.KindNode, "net": v1.KindNetwork, "vol": v1.KindVolume,
		"revision": v1.KindServiceRevision, "revisions": v1.KindServiceRevision}
	lower := strings.ToLower(text)
	var known []string
	for _, d := range v1.Kinds {
		if v1.Internal(d.Kind()) {
			continue
		}
		if lower == d.Plural() || lower == strings.ToLower(string(d.Kind())) || short[lower] == d.Kind() {
			return d, nil
		}
		known = append(known, d.Plural())
	}
	return nil, fmt.Errorf("%q is no kind of object: want one of %s", text, strings.Join(known, ", "))
}
