package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

func (a *app) nodeCommand() *cobra.Command {
	return group("node", "Manage swarm nodes", `  swarmctl node ls
  swarmctl node ps self
  swarmctl node update --availability drain worker1
  swarmctl node update --label-add zone=east worker1`,
		a.nodeInspectCommand(), a.nodeListCommand(), a.nodePsCommand(), a.nodeUpdateCommand())
}

// nodeRow is what a template of node ls sees.
type nodeRow struct {
	Availability  string
	EngineVersion string
	Hostname      string
	ID            string
	ManagerStatus string
	Self          bool
	Status        string
	TLSStatus     string
}

var nodeTable = table{
	columns: `{{.ID}} {{if .Self}}*{{else}} {{ end }}\t{{.Hostname}}\t{{.Status}}\t{{.Availability}}\t{{.ManagerStatus}}\t{{.EngineVersion}}`,
	raw:     `node_id: {{.ID}}\nhostname: {{.Hostname}}\nstatus: {{.Status}}\navailability: {{.Availability}}\nmanager_status: {{.ManagerStatus}}\n`,
	headings: map[string]string{"ID": "ID", "Self": "", "Hostname": "HOSTNAME", "Status": "STATUS", "Availability": "AVAILABILITY",
		"ManagerStatus": "MANAGER STATUS", "EngineVersion": "ENGINE VERSION", "TLSStatus": "TLS STATUS"},
}

func (a *app) nodeListCommand() *cobra.Command {
	var f listFlags
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"},
		Short:                 "List nodes in the swarm",
		Example:               "  swarmctl node ls --filter role=manager",
		Args:                  noArgs,
		DisableFlagsInUseLine: true,
		RunE:                  func(cmd *cobra.Command, args []string) error { return a.listNodes(cmd.Context(), &f) },
	}
	f.add(cmd, v1.KindNode)
	return cmd
}

func (a *app) listNodes(ctx context.Context, f *listFlags) error {
	filter, err := f.filters(v1.KindNode)
	if err != nil {
		return err
	}
	c, err := a.daemon()
	if err != nil {
		return err
	}
	nodes, err := client.List(ctx, c, v1.Nodes, filter)
	if err != nil {
		return daemonError(err)
	}
	info, err := c.Info(ctx)
	if err != nil {
		return daemonError(err)
	}
	docker := make([]*dockerNode, len(nodes))
	for i, n := range nodes {
		docker[i] = convertNode(n)
	}
	if len(filter) == 0 || info.Swarm.Managers == 1 {
		setLeader(docker)
	}
	slices.SortStableFunc(docker, func(x, y *dockerNode) int {
		return cmp.Or(naturalCompare(x.Description.Hostname, y.Description.Hostname), strings.Compare(x.ID, y.ID))
	})
	rows := make([]any, len(docker))
	for i, d := range docker {
		rows[i] = newNodeRow(d, info.Swarm.NodeID)
	}
	return nodeTable.write(a.Out, f.format, f.quiet, rows)
}

func newNodeRow(d *dockerNode, self string) nodeRow {
	row := nodeRow{
		ID: d.ID, Self: d.ID == self, Hostname: cmp.Or(d.Spec.Name, d.Description.Hostname), Status: pretty(d.Status.State),
		Availability: pretty(d.Spec.Availability), EngineVersion: d.Description.Engine.EngineVersion, TLSStatus: "Unknown",
	}
	if m := d.ManagerStatus; m != nil {
		row.ManagerStatus = pretty(m.Reachability)
		if m.Leader {
			row.ManagerStatus = "Leader"
		}
	}
	return row
}

// getNode finds a node by ID, name, hostname or the beginning of its ID; self is the daemon's own.
func getNode(ctx context.Context, c *client.Client, ref string) (*v1.Node, error) {
	if ref == "self" {
		info, err := c.Info(ctx)
		if err != nil {
			return nil, daemonError(err)
		}
		if info.Swarm.NodeID == "" {
			return nil, errors.New(`node ID not found in /info: this daemon is in no swarm: "swarmctl swarm init" makes one`)
		}
		ref = info.Swarm.NodeID
	}
	node, err := client.Get(ctx, c, v1.Nodes, ref)
	if client.Status(err) != http.StatusNotFound {
		return node, apiError(err, v1.KindNode, ref)
	}
	nodes, listErr := client.List(ctx, c, v1.Nodes, nil)
	if listErr != nil {
		return nil, daemonError(listErr)
	}
	nodes = slices.DeleteFunc(nodes, func(n *v1.Node) bool { return n.Status == nil || n.Status.Description.Hostname != ref })
	switch len(nodes) {
	case 0:
		return nil, &notFoundError{v1.KindNode, ref}
	case 1:
		return nodes[0], nil
	}
	return nil, fmt.Errorf("node %s is ambiguous (%d matches found)", ref, len(nodes))
}

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
			get := func(ref string) (any, error) {
				n, err := getNode(cmd.Context(), c, ref)
				if err != nil {
					return nil, err
				}
				return inspectNode(cmd.Context(), c, n)
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

// inspectNode is a node as docker inspect prints it, with whether it leads.
func inspectNode(ctx context.Context, c *client.Client, n *v1.Node) (*dockerNode, error) {
	d := convertNode(n)
	if d.ManagerStatus == nil {
		return d, nil
	}
	managers, err := client.List(ctx, c, v1.Nodes, v1.Filter{"role": {string(v1.RoleManager)}})
	if err != nil {
		return nil, daemonError(err)
	}
	if len(managers) == 1 {
		setLeader([]*dockerNode{d})
	}
	return d, nil
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
			filter, err := f.filters(v1.KindTask)
			if err != nil {
				return err
			}
			c, err := a.daemon()
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

func (a *app) nodeUpdateCommand() *cobra.Command {
	var availability, role string
	var labels edit[string]
	cmd := &cobra.Command{
		Use:   "update [OPTIONS] NODE",
		Short: "Update a node",
		Example: `  swarmctl node update --availability drain worker1
  swarmctl node update --label-add zone=east worker1`,
		Args:                  exactArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     a.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			err := a.updateNode(cmd.Context(), args[0], func(n *v1.Node) error {
				if availability != "" {
					n.Spec.Availability = v1.NodeAvailability(strings.ToLower(availability))
				}
				if role != "" {
					n.Spec.Role = v1.NodeRole(strings.ToLower(role))
				}
				for _, key := range labels.remove.all {
					if _, ok := n.Meta.Labels[key]; !ok {
						return fmt.Errorf("key %s doesn't exist in node's labels", key)
					}
				}
				n.Meta.Labels = editMap(n.Meta.Labels, labels)
				return nil
			})
			if err == nil {
				a.printf("%s\n", args[0])
			}
			return err
		},
	}
	s := cmd.Flags()
	s.StringVar(&availability, "availability", "", `Availability of the node ("active", "pause", "drain")`)
	s.StringVar(&role, "role", "", `Role of the node ("worker", "manager")`)
	labels = edit[string]{add: newList("list", parseLabel), remove: newStrings()}
	s.Var(labels.add, "label-add", `Add or update a node label ("key=value")`)
	s.Var(labels.remove, "label-rm", "Remove a node label if exists")
	_ = cmd.RegisterFlagCompletionFunc("availability", cobra.FixedCompletions([]string{"active", "pause", "drain"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"worker", "manager"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// updateNode lets change work on a node and writes it back; where somebody else was faster, it begins again.
func (a *app) updateNode(ctx context.Context, ref string, change func(*v1.Node) error) error {
	c, err := a.daemon()
	if err != nil {
		return err
	}
	for try := 1; ; try++ {
		n, err := getNode(ctx, c, ref)
		if err != nil {
			return err
		}
		if err := change(n); err != nil {
			return err
		}
		_, warnings, err := client.Update(ctx, c, v1.Nodes, n)
		if client.Status(err) == http.StatusConflict && try < maxConflicts && ctx.Err() == nil {
			continue
		}
		a.warn(warnings)
		return apiError(err, v1.KindNode, ref)
	}
}
