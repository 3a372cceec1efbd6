package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

func (a *app) describeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "describe KIND NAME...",
		Short: "Show objects in detail, with what belongs to them",
		Long: `Show objects in detail: a service with its tasks and why they are not running, a node with whether it is there, its certificate and its tasks,
a network with its subnets and who is on it, everything else as its manifest.`,
		Example:           "  swarmctl describe service web",
		Args:              minArgs(1),
		ValidArgsFunction: a.completeKindAndNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			k, refs, err := kindAndNames(args)
			if err != nil {
				return err
			}
			if len(refs) == 0 {
				return usageError(cmd, "%s: '%s' wants the names of objects", cmd.Root().Name(), cmd.CommandPath())
			}
			c, err := a.daemon()
			if err != nil {
				return err
			}
			var errs []error
			for _, ref := range refs {
				errs = append(errs, a.describe(cmd.Context(), c, k, ref))
			}
			return errors.Join(errs...)
		},
	}
}

func (a *app) describe(ctx context.Context, c *client.Client, k v1.Descriptor, ref string) error {
	o, err := getObject(ctx, c, k, ref)
	if err != nil {
		return err
	}
	id := o.GetMeta().ID
	key := ""
	switch k.Kind() {
	case v1.KindService:
		key = "service"
		err = a.writePretty(servicePretty, []string{id}, func(ref string) (any, error) { return inspectService(ctx, c, ref, false) })
	case v1.KindNode:
		key = "node"
		err = a.describeNode(ctx, c, o.(*v1.Node))
	case v1.KindNetwork:
		return a.describeNetwork(ctx, c, o.(*v1.Network))
	default:
		text, err := manifestYAML(o)
		if err != nil {
			return err
		}
		a.printf("%s", paragraph(string(text)))
		return nil
	}
	if err != nil {
		return err
	}
	tasks, err := listTasks(ctx, c, nil, key, map[string]bool{id: true})
	if err != nil {
		return err
	}
	a.printf("Tasks:\n")
	if err := a.printTasks(ctx, c, &psFlags{listFlags: listFlags{noTrunc: true}}, tasks); err != nil {
		return err
	}
	a.printf("\n")
	return nil
}
