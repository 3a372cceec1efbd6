package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/pkg/compose"
)

// spoken is an object as Docker's stack commands say it: service shop_web.
func spoken(k v1.Kind, name string) string { return strings.ToLower(string(k)) + " " + name }

func (a *app) stackRemoveCommand() *cobra.Command {
	var detach bool
	cmd := &cobra.Command{
		Use:     "rm [OPTIONS] STACK [STACK...]",
		Aliases: []string{"remove", "down"},
		Short:   "Remove one or more stacks",
		Long: `Remove the services, secrets, configs and networks of stacks. Volumes stay. A network goes once the tasks on it have ended,
which is waited for: at most a minute longer than the services' grace period.`,
		Example:               "  swarmctl stack rm shop",
		Args:                  minArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     a.completeStacks,
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range args {
				if err := checkStackName(name); err != nil {
					return err
				}
			}
			return a.removeStacks(cmd.Context(), slices.Compact(args), detach)
		},
	}
	cmd.Flags().BoolVarP(&detach, "detach", "d", true, "Do not wait for stack removal")
	return cmd
}

// belongings are what is there of a stack.
type belongings struct {
	services []*v1.Service
	secrets  []*v1.Secret
	configs  []*v1.Config
	networks []*v1.Network
}

func newBelongings(ctx context.Context, c *client.Client, stack string) (*belongings, error) {
	var b belongings
	var errs [4]error
	b.services, errs[0] = client.List(ctx, c, v1.Services, inStack(stack))
	b.secrets, errs[1] = client.List(ctx, c, v1.Secrets, inStack(stack))
	b.configs, errs[2] = client.List(ctx, c, v1.Configs, inStack(stack))
	b.networks, errs[3] = client.List(ctx, c, v1.Networks, inStack(stack))
	for _, err := range errs {
		if err != nil {
			return nil, daemonError(err)
		}
	}
	byName(b.services)
	byName(b.secrets)
	byName(b.configs)
	byName(b.networks)
	return &b, nil
}

// removeStacks removes the services of all stacks first, so that no network waits for those of another one.
func (a *app) removeStacks(ctx context.Context, names []string, detach bool) error {
	c, err := a.daemon()
	if err != nil {
		return err
	}
	var errs []error
	var all []*belongings
	var services []string
	patience, networks := time.Duration(0), false
	for _, name := range names {
		b, err := newBelongings(ctx, c, name)
		if err != nil {
			return err
		}
		if len(b.services)+len(b.secrets)+len(b.configs)+len(b.networks) == 0 {
			fmt.Fprintf(a.Err, "Nothing found in stack: %s\n", name)
			continue
		}
		errs = append(errs, removeAll(ctx, a, c, v1.Services, b.services))
		for _, s := range b.services {
			services = append(services, s.Meta.ID)
			if grace := s.Spec.Task.Container.StopGracePeriod; grace != nil {
				patience = max(patience, time.Duration(*grace))
			}
		}
		networks = networks || len(b.networks) > 0
		all = append(all, b)
	}
	if networks || !detach {
		if err := tasksEnded(ctx, c, services, patience+patienceForTasks); err != nil {
			return errors.Join(append(errs, err)...)
		}
	}
	for _, b := range all {
		errs = append(errs, removeAll(ctx, a, c, v1.Secrets, b.secrets), removeAll(ctx, a, c, v1.Configs, b.configs),
			removeAll(ctx, a, c, v1.Networks, b.networks))
	}
	return errors.Join(errs...)
}

// removeOld removes versions of secrets and configs that were there before the one before, and that no kept revision of a service refers to:
// a rollback may lead there.
func (d *deployment) removeOld(ctx context.Context) error {
	b, err := newBelongings(ctx, d.client, d.stack.Name)
	if err != nil {
		return err
	}
	revisions, err := client.List(ctx, d.client, v1.ServiceRevisions, nil)
	if err != nil {
		return daemonError(err)
	}
	needed := make(map[string]bool)
	for _, r := range revisions {
		for _, ref := range slices.Concat(r.Spec.Task.Container.Secrets, r.Spec.Task.Container.Configs) {
			needed[ref.ID] = true
		}
	}
	return errors.Join(removeVersions(ctx, d, v1.Secrets, b.secrets, d.stack.Secrets, needed),
		removeVersions(ctx, d, v1.Configs, b.configs, d.stack.Configs, needed))
}

func removeVersions[S any](ctx context.Context, d *deployment, k v1.KindOf[S, v1.None, v1.None],
	all, current []*v1.Resource[S, v1.None, v1.None], needed map[string]bool) error {
	for _, o := range superseded(all, current, needed) {
		err := client.Delete(ctx, d.client, k, o.Meta.ID)
		switch client.Status(err) {
		case http.StatusBadRequest, http.StatusNotFound: // somebody uses it, or it is gone
		default:
			if err != nil {
				return fmt.Errorf("failed to remove %s: %w", spoken(k.Kind(), o.Meta.Name), daemonError(err))
			}
			d.printf("Removing %s\n", spoken(k.Kind(), o.Meta.Name))
		}
	}
	return nil
}

// superseded are versions that are neither current nor needed, but for the latest of each key: somebody may be about to use it.
func superseded[S any](all, current []*v1.Resource[S, v1.None, v1.None], needed map[string]bool) []*v1.Resource[S, v1.None, v1.None] {
	old := slices.DeleteFunc(slices.Clone(all), func(o *v1.Resource[S, v1.None, v1.None]) bool {
		return o.Meta.Labels[compose.LabelVersion] == "" || slices.ContainsFunc(current, func(c *v1.Resource[S, v1.None, v1.None]) bool {
			return c.Meta.Name == o.Meta.Name
		})
	})
	slices.SortStableFunc(old, func(x, y *v1.Resource[S, v1.None, v1.None]) int { return y.Meta.CreatedAt.Compare(x.Meta.CreatedAt) })
	latest := make(map[string]bool)
	return slices.DeleteFunc(old, func(o *v1.Resource[S, v1.None, v1.None]) bool {
		key := o.Meta.Labels[compose.LabelKey]
		keep := !latest[key] || needed[o.Meta.ID]
		latest[key] = true
		return keep
	})
}
