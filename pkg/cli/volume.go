package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

// dockerVolume is what docker volume inspect prints, and on which nodes there are volumes of that name.
type dockerVolume struct {
	CreatedAt  time.Time `json:",omitzero"`
	Driver     string
	Labels     map[string]string
	Mountpoint string
	Name       string
	Options    map[string]string
	Scope      string
	// Nodes are the host names of those that have such a volume, OnNodes what it is like on each that said so.
	Nodes   []string
	OnNodes []volumeOnNode `json:",omitempty"`
	on      []*v1.Node
	// Described tells whether there is an object that says what volumes of that name are like.
	Described bool
}

// volumeRow is what a template of volume ls sees.
type volumeRow struct {
	ID     string `json:"-"` // what --quiet prints: the name, as with Docker
	Driver string
	Labels string
	Name   string
	Nodes  string
	Scope  string
}

var volumeTable = table{
	columns:  `{{.Driver}}\t{{.Name}}\t{{.Nodes}}`,
	raw:      `name: {{.Name}}\ndriver: {{.Driver}}\nnodes: {{.Nodes}}\n`,
	headings: map[string]string{"Driver": "DRIVER", "Name": "VOLUME NAME", "Nodes": "NODES", "Labels": "LABELS", "Scope": "SCOPE"},
}

func (a *app) volumeCommand() *cobra.Command {
	return group("volume", "Manage volumes", `  swarmctl volume create --opt type=nfs --opt o=addr=10.0.0.5,rw --opt device=:/export shared
  swarmctl service create --name web --mount source=shared,target=/srv nginx
  swarmctl volume ls`,
		a.volumeCreateCommand(), a.volumeInspectCommand(), a.volumeListCommand(), a.volumePruneCommand(), a.volumeRemoveCommand())
}

func (a *app) volumeCreateCommand() *cobra.Command {
	var driver string
	options, labels := newList("map", parseOption), newList("list", parseLabel)
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] VOLUME",
		Short: "Say what volumes of a name are like",
		Long: `Say what volumes of a name are like. Volumes are made by the nodes, each its own, when a task that has one mounted first runs there; without
options that needs no command. With the options type, device and o, as mount has them, a volume is what is mounted there: a file server is
the same for all nodes.`,
		Example:               "  swarmctl volume create --opt type=nfs --opt o=addr=10.0.0.5,rw --opt device=:/export shared",
		Args:                  exactArgs(1),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.daemon()
			if err != nil {
				return err
			}
			v := &v1.Volume{Spec: &v1.VolumeSpec{Driver: driver, Options: toMap(options.all)}}
			v.Meta.Name, v.Meta.Labels = args[0], toMap(labels.all)
			made, warnings, err := client.Create(cmd.Context(), c, v1.Volumes, v)
			if err != nil {
				return daemonError(err)
			}
			a.warn(warnings)
			a.printf("%s\n", made.Meta.Name)
			return nil
		},
	}
	s := cmd.Flags()
	s.StringVarP(&driver, "driver", "d", v1.VolumeLocal, "Specify volume driver name")
	s.VarP(options, "opt", "o", "Set driver specific options (type, device, o)")
	s.Var(labels, "label", "Set metadata for a volume")
	return cmd
}

func (a *app) volumeListCommand() *cobra.Command {
	var f listFlags
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"},
		Short: "List volumes",
		Long: `List the volumes that the swarm knows of, and those that nodes have, with their host names. Labels are those of volume create alone, and so is
--filter label=: what a task's volume was made with volume inspect asks its nodes.`,
		Args:                  noArgs,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			filter, err := f.filters(v1.KindVolume)
			if err != nil {
				return err
			}
			all, err := a.volumes(cmd.Context(), filter)
			if err != nil {
				return err
			}
			rows := make([]any, len(all))
			for i, v := range all {
				rows[i] = volumeRow{v.Name, v.Driver, pairs(v.Labels), v.Name, strings.Join(v.Nodes, ","), v.Scope}
			}
			return volumeTable.write(a.Out, f.format, f.quiet, rows)
		},
	}
	f.add(cmd, v1.KindVolume)
	return cmd
}

// volumes are those that there is an object of, and without a filter, or by name alone, those that nodes have, sorted by name.
func (a *app) volumes(ctx context.Context, filter v1.Filter) ([]*dockerVolume, error) {
	c, err := a.daemon()
	if err != nil {
		return nil, err
	}
	objects, err := client.List(ctx, c, v1.Volumes, filter)
	if err != nil {
		return nil, daemonError(err)
	}
	nodes, err := client.List(ctx, c, v1.Nodes, nil)
	if err != nil {
		return nil, daemonError(err)
	}
	return mergeVolumes(objects, nodes, func(name string) bool {
		for key, values := range filter {
			if key != "name" || !slices.ContainsFunc(values, func(v string) bool { return strings.HasPrefix(name, v) }) {
				return false
			}
		}
		return true
	}), nil
}

// mergeVolumes puts together what the swarm knows of volumes and which of them nodes have; wanted says which to list of those that
// there is no object of.
func mergeVolumes(objects []*v1.Volume, nodes []*v1.Node, wanted func(name string) bool) []*dockerVolume {
	byName := make(map[string]*dockerVolume)
	for _, o := range objects {
		byName[o.Meta.Name] = &dockerVolume{CreatedAt: o.Meta.CreatedAt, Driver: o.Spec.Driver, Labels: o.Meta.Labels, Name: o.Meta.Name, Options: o.Spec.Options,
			Scope: v1.VolumeLocal, Described: true}
	}
	for _, n := range nodes {
		if n.Status == nil {
			continue
		}
		for _, name := range n.Status.Description.Volumes {
			if byName[name] == nil && wanted(name) {
				byName[name] = &dockerVolume{Driver: v1.VolumeLocal, Name: name, Scope: v1.VolumeLocal}
			}
			if v := byName[name]; v != nil {
				v.Nodes, v.on = append(v.Nodes, n.Status.Description.Hostname), append(v.on, n)
			}
		}
	}
	all := make([]*dockerVolume, 0, len(byName))
	for _, v := range byName {
		slices.Sort(v.Nodes)
		all = append(all, v)
	}
	slices.SortFunc(all, func(x, y *dockerVolume) int { return strings.Compare(x.Name, y.Name) })
	return all
}
