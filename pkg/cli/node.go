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
  swarmctl node promote worker1`,
		a.nodeDemoteCommand(), a.nodeInspectCommand(), a.nodeListCommand(), a.nodePromoteCommand(), a.nodePsCommand(), a.nodeRemoveCommand(),
		a.nodeUpdateCommand())
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
	if info.Swarm.Error != "" {
		a.warn([]string{info.Swarm.Error})
	}
	r, err := newRoster(ctx, c, f.format == "json" || strings.Contains(f.format, "TLSStatus"))
	if err != nil {
		return err
	}
	slices.SortStableFunc(nodes, func(x, y *v1.Node) int {
		return cmp.Or(naturalCompare(nodeName(x), nodeName(y)), strings.Compare(x.Meta.ID, y.Meta.ID))
	})
	rows := make([]any, len(nodes))
	for i, n := range nodes {
		rows[i] = newNodeRow(n, r, info.Swarm.NodeID)
	}
	return nodeTable.write(a.Out, f.format, f.quiet, rows)
}

func newNodeRow(n *v1.Node, r *roster, self string) nodeRow {
	d := r.convert(n)
	row := nodeRow{
		ID: d.ID, Self: d.ID == self, Hostname: cmp.Or(d.Spec.Name, d.Description.Hostname), Status: pretty(d.Status.State),
		Availability: pretty(d.Spec.Availability), EngineVersion: d.Description.Engine.EngineVersion, TLSStatus: r.tlsStatus(n),
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
