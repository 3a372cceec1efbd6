package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

// networkRow is what a template of network ls sees.
type networkRow struct {
	CreatedAt string
	Driver    string
	ID        string
	IPv4      string
	IPv6      string
	Internal  string
	Labels    string
	Name      string
	Scope     string
}

var networkTable = table{
	columns: `{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}`,
	raw:     `network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n`,
	headings: map[string]string{"ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER", "Scope": "SCOPE", "CreatedAt": "CREATED AT",
		"IPv4": "IPV4", "IPv6": "IPV6", "Internal": "INTERNAL", "Labels": "LABELS"},
}

func (a *app) networkCommand() *cobra.Command {
	rm := removeCommand(a, v1.Networks, "networks", "Remove one or more networks. One that a service or a task uses stays.")
	rm.Flags().BoolP("force", "f", false, "Do not error if the network does not exist")
	return group("network", "Manage networks", `  swarmctl network create backend
  swarmctl service create --name db --network backend postgres:17
  swarmctl network inspect --verbose backend`,
		a.networkAttachCommand(), a.networkCreateCommand(), a.networkDetachCommand(), a.networkDoctorCommand(), a.networkInspectCommand(), a.networkListCommand(), a.networkPruneCommand(), rm)
}

func (a *app) networkListCommand() *cobra.Command {
	var f listFlags
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"},
		Short: "List networks",
		Example: `  swarmctl network ls
  swarmctl network ls --filter dangling=true --format '{{.Name}}'`,
		Args:                  noArgs,
		DisableFlagsInUseLine: true,
		RunE:                  func(cmd *cobra.Command, args []string) error { return a.listNetworks(cmd.Context(), &f) },
	}
	f.add(cmd, v1.KindNetwork)
	cmd.Flags().BoolVar(&f.noTrunc, "no-trunc", false, "Do not truncate the output")
	return cmd
}

func (a *app) listNetworks(ctx context.Context, f *listFlags) error {
	filter, err := f.filters(v1.KindNetwork)
	if err != nil {
		return err
	}
	c, err := a.daemon()
	if err != nil {
		return err
	}
	all, err := client.List(ctx, c, v1.Networks, filter)
	if err != nil {
		return daemonError(err)
	}
	byName(all)
	rows := make([]any, len(all))
	for i, n := range all {
		rows[i] = newNetworkRow(convertNetwork(n), !f.noTrunc)
	}
	return networkTable.write(a.Out, f.format, f.quiet, rows)
}

func newNetworkRow(d *dockerNetworkResource, trunc bool) networkRow {
	row := networkRow{CreatedAt: d.Created.String(), Driver: d.Driver, ID: d.ID, IPv4: fmt.Sprint(d.EnableIPv4), IPv6: fmt.Sprint(d.EnableIPv6),
		Internal: fmt.Sprint(d.Internal), Labels: pairs(d.Labels), Name: d.Name, Scope: d.Scope}
	if trunc {
		row.ID = shortID(row.ID)
	}
	return row
}

func (a *app) networkInspectCommand() *cobra.Command {
	var f inspectFlags
	var verbose bool
	cmd := &cobra.Command{
		Use:   "inspect [OPTIONS] NETWORK [NETWORK...]",
		Short: "Display detailed information on one or more networks",
		Example: `  swarmctl network inspect backend
  swarmctl network inspect --format '{{range .IPAM.Config}}{{.Subnet}}{{end}}' backend`,
		Args:                  minArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeNames(a, v1.Networks),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.daemon()
			if err != nil {
				return err
			}
			return inspect(a.Out, f.format, args, func(ref string) (any, error) { return inspectNetwork(cmd.Context(), c, ref, verbose) })
		},
	}
	f.add(cmd, false)
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "Verbose output for diagnostics: with the services and tasks that are on the network")
	return cmd
}

func inspectNetwork(ctx context.Context, c *client.Client, ref string, verbose bool) (*dockerNetworkResource, error) {
	n, err := client.Get(ctx, c, v1.Networks, ref)
	if err != nil {
		return nil, apiError(err, v1.KindNetwork, ref)
	}
	d := convertNetwork(n)
	if !verbose {
		return d, nil
	}
	r, err := newResidents(ctx, c, n)
	if err != nil {
		return nil, err
	}
	r.convert(d)
	return d, nil
}

// networkBook finds the networks that people mean by what they write.
type networkBook []*v1.Network

func newNetworkBook(ctx context.Context, c *client.Client) (networkBook, error) {
	all, err := client.List(ctx, c, v1.Networks, nil)
	return all, daemonError(err)
}

// exact is the network of that ID or else name, nil where there is none.
func (b networkBook) exact(ref string) *v1.Network {
	var named *v1.Network
	for _, n := range b {
		if n.Meta.ID == ref {
			return n
		}
		if n.Meta.Name == ref {
			named = n
		}
	}
	return named
}

// find is exact, or the only network whose ID begins so.
func (b networkBook) find(ref string) *v1.Network {
	found := b.exact(ref)
	if found != nil || ref == "" {
		return found
	}
	for _, n := range b {
		if !strings.HasPrefix(n.Meta.ID, ref) {
			continue
		}
		if found != nil {
			return nil
		}
		found = n
	}
	return found
}

// id is what a network is compared by: its ID, or what was written where there is no such network.
func (b networkBook) id(ref string) string {
	if n := b.find(ref); n != nil {
		return n.Meta.ID
	}
	return ref
}

// whole are attachments with a name in the place of the beginning of an ID, which may mean another network later.
func (b networkBook) whole(list []v1.NetworkAttachment) []v1.NetworkAttachment {
	list = slices.Clone(list)
	for i := range list {
		if n := b.find(list[i].Target); n != nil && n.Meta.ID != list[i].Target {
			list[i].Target = n.Meta.Name
		}
	}
	return list
}
