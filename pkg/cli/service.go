package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

func (a *app) serviceCommand() *cobra.Command {
	return group("service", "Manage services", `  swarmctl service create --name web --replicas 3 --publish 8080:80 nginx:1.27
  swarmctl service ls
  swarmctl service ps web
  swarmctl service scale web=5
  swarmctl service logs --follow web`,
		a.serviceCreateCommand(), a.serviceHistoryCommand(), a.serviceInspectCommand(), a.serviceListCommand(), a.serviceLogsCommand(), a.servicePsCommand(),
		a.serviceRollbackCommand(), a.serviceRunCommand(), a.serviceScaleCommand(), a.serviceUpdateCommand(), removeCommand(a, v1.Services, "services",
			"Remove one or more services. Their tasks stop within their grace period; networks, secrets and configs stay."))
}

// removeCommand is the rm of a kind. With a flag --force, which some have, what is not there is no error.
func removeCommand[S, D, T any](a *app, k v1.KindOf[S, D, T], plural, long string) *cobra.Command {
	singular := strings.ToLower(string(k.Kind()))
	return &cobra.Command{
		Use:                   "rm " + strings.ToUpper(singular) + " [" + strings.ToUpper(singular) + "...]",
		Aliases:               []string{"remove"},
		Short:                 "Remove one or more " + plural,
		Long:                  long,
		Args:                  minArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeNames(a, k),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.daemon()
			if err != nil {
				return err
			}
			force, _ := cmd.Flags().GetBool("force") // not of every kind
			var errs []error
			for _, ref := range args {
				if err := apiError(client.Delete(cmd.Context(), c, k, ref), k.Kind(), ref); err != nil {
					if !force || !notFound(err) {
						errs = append(errs, err)
					}
					continue
				}
				a.printf("%s\n", ref)
			}
			return errors.Join(errs...)
		},
	}
}

func (a *app) serviceScaleCommand() *cobra.Command {
	var wait waitFlags
	cmd := &cobra.Command{
		Use:                   "scale [OPTIONS] SERVICE=REPLICAS [SERVICE=REPLICAS...]",
		Short:                 "Scale one or multiple replicated services",
		Example:               "  swarmctl service scale web=5 api=2",
		Args:                  minArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction: func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
			all, directive := completeNames(a, v1.Services)(cmd, args, toComplete)
			for i := range all {
				all[i] += "="
			}
			return all, directive | cobra.ShellCompDirectiveNoSpace
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.scale(cmd, args, &wait) },
	}
	wait.add(cmd)
	return cmd
}

func (a *app) scale(cmd *cobra.Command, args []string, wait *waitFlags) error {
	for _, arg := range args {
		if ref, n, ok := strings.Cut(arg, "="); !ok || ref == "" || n == "" {
			return usageError(cmd, "invalid scale specifier '%s'.", arg)
		}
	}
	c, err := a.daemon()
	if err != nil {
		return err
	}
	started := a.Now()
	var errs []error
	var scaled []*v1.Service
	for _, arg := range args {
		ref, text, _ := strings.Cut(arg, "=")
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: invalid replicas value %s: %v", ref, text, err))
			continue
		}
		svc, err := a.scaleOne(cmd.Context(), c, ref, n)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", ref, err))
			continue
		}
		a.printf("%s scaled to %d\n", ref, n)
		scaled = append(scaled, svc)
	}
	for _, svc := range scaled {
		if err := a.converge(cmd.Context(), c, wait, started, svc); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", svc.Meta.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (a *app) scaleOne(ctx context.Context, c *client.Client, ref string, n uint64) (*v1.Service, error) {
	return a.changeService(ctx, c, ref, func(svc *v1.Service) error {
		if svc.Spec.Mode != v1.ModeReplicated && svc.Spec.Mode != v1.ModeReplicatedJob {
			return errors.New("scale can only be used with replicated or replicated-job mode")
		}
		svc.Spec.Replicas = &n
		return nil
	})
}
