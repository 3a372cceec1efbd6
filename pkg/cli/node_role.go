package cli

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

func (a *app) nodePromoteCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "promote NODE [NODE...]",
		Short: "Promote one or more nodes to manager in the swarm",
		Long: `Make workers managers. Each keeps its tasks, and takes part in the swarm's decisions once it has caught up: "swarmctl node ls" shows it as
Reachable then. Three or five managers let the swarm go on without one or two of them.`,
		Example:               "  swarmctl node promote worker1 worker2",
		Args:                  minArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     a.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.setRoles(cmd.Context(), args, v1.RoleManager, "Node %s is already a manager.\n", "Node %s promoted to a manager in the swarm.\n")
		},
	}
}

func (a *app) nodeDemoteCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demote NODE [NODE...]",
		Short: "Demote one or more nodes from manager in the swarm",
		Long: `Make managers workers. Each keeps its tasks; a leader hands the lead over first. The last manager stays one, and so does any
without whom the others could not decide.`,
		Example:               "  swarmctl node demote manager3",
		Args:                  minArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     a.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.setRoles(cmd.Context(), args, v1.RoleWorker, "Node %s is already a worker.\n", "Manager %s demoted in the swarm.\n")
		},
	}
}

// errNoChange ends a change that there is nothing to write of.
var errNoChange = errors.New("no change")

// setRoles gives nodes a role one after another, up to the first that cannot have it.
func (a *app) setRoles(ctx context.Context, refs []string, role v1.NodeRole, already, done string) error {
	for _, ref := range refs {
		err := a.updateNode(ctx, ref, func(n *v1.Node) error {
			if n.Spec.Role == role {
				a.printf(already, n.Meta.ID)
				return errNoChange
			}
			n.Spec.Role = role
			return nil
		})
		if errors.Is(err, errNoChange) {
			continue
		}
		if err != nil {
			return err
		}
		a.printf(done, ref)
	}
	return nil
}

func (a *app) nodeRemoveCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "rm [OPTIONS] NODE [NODE...]", Aliases: []string{"remove"},
		Short: "Remove one or more nodes from the swarm",
		Long: `Take nodes that are down out of the swarm: their tasks are given up, and their certificates are refused from now on. A node that left with
"swarmctl swarm leave" is down. With --force, a node that is still there is removed too; run "swarmctl swarm leave" on it afterwards.

A manager is demoted first.`,
		Example:               "  swarmctl node rm worker2",
		Args:                  minArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     a.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.daemon()
			if err != nil {
				return err
			}
			query := ""
			if force {
				query = "?force=true"
			}
			var errs []error
			for _, ref := range args {
				n, err := getNode(cmd.Context(), c, ref)
				if err == nil {
					err = apiError(c.Do(cmd.Context(), http.MethodDelete, "/v1/nodes/"+url.PathEscape(n.Meta.ID)+query, nil, nil), v1.KindNode, ref)
				}
				if err != nil {
					errs = append(errs, err)
					continue
				}
				a.printf("%s\n", ref)
			}
			return errors.Join(errs...)
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force remove a node from the swarm")
	return cmd
}
