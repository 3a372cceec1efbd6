package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/pkg/compose"
)

// deployFlags are those of stack deploy.
type deployFlags struct {
	composeFlags
	wait     waitFlags
	prune    bool
	withAuth bool
	resolve  string
}

func (a *app) stackDeployCommand() *cobra.Command {
	var f deployFlags
	cmd := &cobra.Command{
		Use:     "deploy [OPTIONS] STACK",
		Aliases: []string{"up"},
		Short:   "Deploy a new stack or update an existing stack",
		Long: `Make what compose files describe: networks, secrets, configs, then services, those that others depend on first. What is there
already and the same stays as it is; what is different is changed. A key that cannot be honoured is refused, with its place and
what to do, before anything is changed.

Secrets and configs are called by their content: a file that has changed is a new secret or config, and the services that use it
roll out. A version goes by itself once no service, and no revision that one can be rolled back to, refers to it.`,
		Example: `  swarmctl stack deploy -c compose.yml shop
  swarmctl stack deploy -c compose.yml -c production.yml --prune --detach=false shop
  swarmctl stack config -c compose.yml | swarmctl stack deploy -c - shop`,
		Args:                  exactArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     a.completeStacks,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(resolveChoices, f.resolve) {
				return fmt.Errorf("invalid option %s for flag --resolve-image: want %s", f.resolve, strings.Join(resolveChoices, ", "))
			}
			if err := checkStackName(args[0]); err != nil {
				return err
			}
			return a.deploy(cmd.Context(), &f, args[0])
		},
	}
	f.add(cmd)
	s := cmd.Flags()
	s.BoolVarP(&f.wait.detach, "detach", "d", true, "Exit immediately instead of waiting for the stack services to converge")
	s.BoolVarP(&f.wait.quiet, "quiet", "q", false, "Suppress progress output")
	s.DurationVar(&f.wait.timeout, "timeout", applyTimeout,
		"Stop waiting for a service after this long and exit with status 1 (0 waits for ever)")
	s.BoolVar(&f.prune, "prune", false, "Prune services that are no longer referenced")
	s.StringVar(&f.resolve, "resolve-image", "always",
		`Query the registry to resolve image digest and supported platforms ("always", "changed", "never")`)
	s.BoolVar(&f.withAuth, "with-registry-auth", false, `Give the swarm this user's logins to the images' registries, as "docker login" has kept them`)
	_ = cmd.RegisterFlagCompletionFunc("resolve-image", cobra.FixedCompletions(resolveChoices, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

var resolveChoices = []string{"always", "changed", "never"}

// deployment makes one stack so.
type deployment struct {
	*app
	client  *client.Client
	flags   *deployFlags
	stack   *compose.Stack
	started time.Time
	// made are the services as they are now, by name.
	made map[string]*v1.Service
	// waited are those that others depend on, as far as they were waited for.
	waited map[compose.Need]bool
}

func (a *app) deploy(ctx context.Context, f *deployFlags, name string) error {
	c, err := a.daemon()
	if err != nil {
		return err
	}
	cluster, err := clusterID(ctx, c)
	if err != nil {
		return err
	}
	p, err := a.project(&f.composeFlags, compose.Options{Stack: name, Salt: cluster})
	if err != nil {
		return unchanged(err)
	}
	stack, err := p.Stack()
	a.warn(p.Warnings)
	if err != nil {
		return unchanged(err)
	}
	f.wait.goal = toRunOrEnd
	d := &deployment{app: a, client: c, flags: f, stack: stack, started: a.Now(), made: make(map[string]*v1.Service),
		waited: make(map[compose.Need]bool)}
	return d.run(ctx)
}

// clusterID is the swarm's own. Without it, all secrets would get other names.
func clusterID(ctx context.Context, c *client.Client) (string, error) {
	info, err := c.Info(ctx)
	if err != nil {
		return "", daemonError(err)
	}
	if info.Swarm.Cluster != nil {
		return info.Swarm.Cluster.ID, nil
	}
	if _, err := client.List(ctx, c, v1.Networks, nil); err != nil { // says what the daemon lacks
		return "", daemonError(err)
	}
	return "", errors.New("the daemon does not say which swarm it is in: try again, or ask another manager")
}

// unchanged says that nothing was done.
func unchanged(err error) error { return fmt.Errorf("%w\nnothing was changed", err) }

func (d *deployment) run(ctx context.Context) error {
	if err := d.checkExternal(ctx); err != nil {
		return unchanged(err)
	}
	if d.flags.prune {
		if err := d.pruneServices(ctx); err != nil {
			return err
		}
	}
	for _, n := range d.stack.Networks {
		if _, err := d.put(ctx, n, ""); err != nil {
			return err
		}
	}
	for _, s := range d.stack.Secrets {
		if err := putData(ctx, d, v1.Secrets, s); err != nil {
			return err
		}
	}
	for _, s := range d.stack.Configs {
		if err := putData(ctx, d, v1.Configs, s); err != nil {
			return err
		}
	}
	if d.flags.withAuth {
		if err := d.sendLogins(ctx, d.client, d.images()); err != nil {
			return err
		}
	}
	var services []*v1.Service
	for i, s := range d.stack.Services {
		made, err := d.service(ctx, s)
		if err != nil {
			return fmt.Errorf("%w\n%d of %d services were not deployed", err, len(d.stack.Services)-i, len(d.stack.Services))
		}
		services = append(services, made)
	}
	return d.convergeAll(ctx, d.client, &d.flags.wait, d.started, services)
}

// images are those of the stack's services.
func (d *deployment) images() []string {
	var all []string
	for _, s := range d.stack.Services {
		all = append(all, s.Spec.Task.Container.Image)
	}
	return all
}

// checkExternal tells which objects should be there and are not, before anything is done.
func (d *deployment) checkExternal(ctx context.Context) error {
	var errs []error
	for _, e := range d.stack.External {
		k, _ := v1.Describe(e.Kind)
		found, err := lookup(ctx, d.client, k, e.Name)
		kind := strings.ToLower(string(e.Kind))
		switch {
		case err != nil:
			return daemonError(err)
		case found == nil:
			errs = append(errs, fmt.Errorf("%s: %s %q is declared as external, but could not be found: create it before the stack is deployed",
				e.Path, kind, e.Name))
		}
	}
	return errors.Join(errs...)
}

// owned tells whether an object of that name is there, and refuses one that is not the stack's.
func (d *deployment) owned(ctx context.Context, obj v1.Object) (v1.Object, error) {
	m := v1.ManifestOf(obj)
	k, _ := v1.Describe(m.Kind)
	old, err := lookup(ctx, d.client, k, obj.GetMeta().Name)
	if err != nil || old == nil {
		return nil, daemonError(err)
	}
	if of := old.GetMeta().Labels[compose.LabelNamespace]; of != d.stack.Name {
		whose := "of no stack"
		if of != "" {
			whose = "of the stack " + of
		}
		return nil, fmt.Errorf("%s is there already, and is %s: want another name, or, where that one is meant, external: true",
			ref(m.Kind, obj.GetMeta().Name), whose)
	}
	return old, nil
}

// put creates or changes an object, and says so; resolve is when a service's image is looked up.
func (d *deployment) put(ctx context.Context, obj v1.Object, resolve string) (applied, error) {
	if _, err := d.owned(ctx, obj); err != nil {
		return applied{}, err
	}
	m := v1.ManifestOf(obj)
	r, err := applyOne(ctx, d.client, document{Manifest: m, resolve: resolve}, false)
	if err != nil {
		return r, fmt.Errorf("%s: %w", ref(m.Kind, obj.GetMeta().Name), daemonError(err))
	}
	d.warn(r.warnings)
	d.say(m.Kind, r.object, r.did)
	return r, nil
}

// say tells what became of an object, in Docker's words where it has some.
func (d *deployment) say(k v1.Kind, obj v1.Object, did string) {
	kind, m := strings.ToLower(string(k)), obj.GetMeta()
	switch did {
	case "created":
		d.printf("Creating %s %s\n", kind, m.Name)
	case "configured":
		d.printf("Updating %s %s (id: %s)\n", kind, m.Name, m.ID)
	default:
		d.printf("Unchanged %s %s\n", kind, m.Name)
	}
}

// putData creates a secret or config. One that is there has the same content where it has the same version; only its labels may
// change.
func putData[S any](ctx context.Context, d *deployment, k v1.KindOf[S, v1.None, v1.None], obj *v1.Resource[S, v1.None, v1.None]) error {
	name, kind := obj.Meta.Name, k.Kind()
	for try := 1; ; try++ {
		found, err := d.owned(ctx, obj)
		if err != nil {
			return err
		}
		if found == nil {
			created, warnings, err := client.Create(ctx, d.client, k, obj)
			if client.Status(err) == http.StatusConflict && try < maxConflicts {
				continue // somebody else deploys the same
			}
			if err != nil {
				return fmt.Errorf("%s: %w", ref(kind, name), daemonError(err))
			}
			d.warn(warnings)
			d.say(kind, created, "created")
			return nil
		}
		old := found.GetMeta()
		if old.Labels[compose.LabelVersion] != obj.Meta.Labels[compose.LabelVersion] {
			return fmt.Errorf("%s has another content: a %s never changes: give it another name in the compose file, or none, "+
				"so that its name tells the content", ref(kind, name), strings.ToLower(string(kind)))
		}
		if maps.Equal(old.Labels, obj.Meta.Labels) {
			d.say(kind, found, "unchanged")
			return nil
		}
		labelled := &v1.Resource[S, v1.None, v1.None]{Meta: v1.Meta{Name: name, Labels: obj.Meta.Labels}}
		r, err := applyOne(ctx, d.client, document{Manifest: v1.ManifestOf(labelled)}, false)
		if err != nil {
			return fmt.Errorf("%s: %w", ref(kind, name), daemonError(err))
		}
		d.say(kind, r.object, r.did)
		return nil
	}
}
