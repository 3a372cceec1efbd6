package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
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
