package cli

import (
	"errors"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

func (a *app) nodeInspectCommand() *cobra.Command {
	var f inspectFlags
	cmd := &cobra.Command{
		Use:                   "inspect [OPTIONS] self|NODE [NODE...]",
		Short:                 "Display detailed information on one or more nodes",
		Example:               "  swarmctl node inspect --pretty self",
		Args:                  minArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     a.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			c, err := a.daemon()
			if err != nil {
				return err
			}
			r, err := newRoster(cmd.Context(), c, true)
			if err != nil {
				return err
			}
			get := func(ref string) (any, error) {
				n, err := getNode(cmd.Context(), c, ref)
				if err != nil {
					return nil, err
				}
				return r.convert(n), nil
			}
			if f.pretty {
				return a.writePretty(nodePretty, args, get)
			}
			return inspect(a.Out, f.format, args, get)
		},
	}
	f.add(cmd, true)
	return cmd
}

func (a *app) completeNodes(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	all, directive := completeNames(a, v1.Nodes)(cmd, args, toComplete)
	return append(all, "self"), directive
}

func (a *app) nodePsCommand() *cobra.Command {
	var f psFlags
	cmd := &cobra.Command{
		Use:                   "ps [OPTIONS] [NODE...]",
		Short:                 "List tasks running on one or more nodes, defaults to current node",
		Example:               "  swarmctl node ps worker1 --filter desired-state=running",
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     a.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, filter, err := a.taskFilter(cmd.Context(), &f)
			if err != nil {
				return err
			}
			if len(args) == 0 {
				args = []string{"self"}
			}
			nodes := make(map[string]bool)
			var errs []error
			for _, ref := range args {
				n, err := getNode(cmd.Context(), c, ref)
				if err != nil {
					errs = append(errs, err)
					continue
				}
				nodes[n.Meta.ID] = true
			}
			tasks, err := listTasks(cmd.Context(), c, filter, "node", nodes)
			if err == nil && len(nodes) > 0 {
				err = a.printTasks(cmd.Context(), c, &f, tasks)
			}
			return errors.Join(append(errs, err)...)
		},
	}
	f.add(cmd)
	return cmd
}
