package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

// inspectFlags are those of every inspect.
type inspectFlags struct {
	format string
	pretty bool
}

func (f *inspectFlags) add(cmd *cobra.Command, withPretty bool) {
	s := cmd.Flags()
	s.StringVarP(&f.format, "format", "f", "", `Format output: "json", or a Go template`)
	if withPretty {
		s.BoolVar(&f.pretty, "pretty", false, "Print the information in a human friendly format")
	}
}

func (f *inspectFlags) check() error {
	if f.pretty && f.format != "" {
		return fmt.Errorf("--format is incompatible with human friendly format")
	}
	return nil
}

func (a *app) serviceInspectCommand() *cobra.Command {
	var f inspectFlags
	cmd := &cobra.Command{
		Use:   "inspect [OPTIONS] SERVICE [SERVICE...]",
		Short: "Display detailed information on one or more services",
		Example: `  swarmctl service inspect --pretty web
  swarmctl service inspect --format '{{.Spec.TaskTemplate.ContainerSpec.Image}}' web`,
		Args:                  minArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeNames(a, v1.Services),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			c, err := a.daemon()
			if err != nil {
				return err
			}
			get := func(ref string) (any, error) { return inspectService(cmd.Context(), c, ref, !f.pretty) }
			if f.pretty {
				return a.writePretty(servicePretty, args, get)
			}
			return inspect(a.Out, f.format, args, get)
		},
	}
	f.add(cmd, true)
	return cmd
}

// inspectService finds a service as docker inspect prints it. Scripts get the IDs of what it refers to, people the names.
func inspectService(ctx context.Context, c *client.Client, ref string, ids bool) (*dockerService, error) {
	svc, err := client.Get(ctx, c, v1.Services, ref)
	if err != nil {
		return nil, apiError(err, v1.KindService, ref)
	}
	h, err := historyOf(ctx, c, svc)
	if err != nil {
		return nil, err
	}
	svc = v1.Effective(svc) // what runs, as docker says it
	n := names{people: !ids}
	if ids {
		if n, err = referenceNames(ctx, c, svc.Spec); err != nil {
			return nil, err
		}
	}
	if len(svc.Spec.Task.Networks) > 0 || svc.Desired != nil && len(svc.Desired.VIPs) > 0 {
		if n.networks, err = newNetworkBook(ctx, c); err != nil {
			return nil, err
		}
	}
	return convertService(svc, h.previous(), n), nil
}

// referenceNames finds the IDs of what a spec refers to by name.
func referenceNames(ctx context.Context, c *client.Client, s *v1.ServiceSpec) (names, error) {
	n := names{ids: map[v1.Kind]map[string]string{}}
	var err error
	if len(s.Task.Container.Secrets) > 0 {
		n.ids[v1.KindSecret], err = idsByName(ctx, c, v1.Secrets)
	}
	if err == nil && len(s.Task.Container.Configs) > 0 {
		n.ids[v1.KindConfig], err = idsByName(ctx, c, v1.Configs)
	}
	return n, daemonError(err)
}

func idsByName[S, D, T any](ctx context.Context, c *client.Client, k v1.KindOf[S, D, T]) (map[string]string, error) {
	all, err := client.List(ctx, c, k, nil)
	if err != nil {
		return nil, err
	}
	ids := make(map[string]string, len(all))
	for _, o := range all {
		ids[o.Meta.Name] = o.Meta.ID
	}
	return ids, nil
}
