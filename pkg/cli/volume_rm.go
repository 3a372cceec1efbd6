package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

// removalWait bounds how long one node may take to remove a volume, which may be large.
const removalWait = 5 * time.Minute

func (a *app) volumeRemoveCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "rm [OPTIONS] VOLUME [VOLUME...]", Aliases: []string{"remove"},
		Short: "Remove one or more volumes, with what is in them",
		Long: `Remove volumes, with what is in them, from all nodes that have one of the name, and what the swarm knows of them. One that a service mounts, also
one without tasks or by a template that may mean it, and one that a container has on any node, stays everywhere. A node that is away keeps its own: the
command says so, and can be repeated.`,
		Example:               "  swarmctl volume rm data-1 data-2",
		Args:                  minArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeNames(a, v1.Volumes),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.daemon()
			if err != nil {
				return err
			}
			return a.removeVolumes(cmd.Context(), c, args, force)
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not error if the volume does not exist")
	return cmd
}

const volumePruneWarning = "WARNING! This will remove all volumes not used by at least one service, with what is in them."

func (a *app) volumePruneCommand() *cobra.Command {
	var force, all bool
	cmd := &cobra.Command{
		Use:   "prune [OPTIONS]",
		Short: "Remove unused volumes, with what is in them",
		Long: `Remove unused volumes, with what is in them, from all nodes. Volumes without a name go with their tasks, so that there is nothing to do for them; with
--all, those go that no service mounts. One whose service was scaled down is still in use: its replica may come back to it.`,
		Example:               "  swarmctl volume prune --all",
		Args:                  noArgs,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !all {
				a.printf("Volumes without a name go with their tasks; --all removes those that no service uses\n")
				return nil
			}
			if !force {
				if err := a.confirm("volume prune", volumePruneWarning); err != nil {
					return err
				}
			}
			return a.pruneVolumes(cmd.Context())
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Remove all unused volumes, not just anonymous ones")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	return cmd
}

func (a *app) pruneVolumes(ctx context.Context) error {
	c, err := a.daemon()
	if err != nil {
		return err
	}
	services, err := client.List(ctx, c, v1.Services, nil)
	if err != nil {
		return daemonError(err)
	}
	used := mountedBy(services)
	known, err := a.volumes(ctx, nil)
	if err != nil {
		return err
	}
	var names []string
	for _, v := range known {
		if !used(v.Name) {
			names = append(names, v.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	a.printf("Deleted Volumes:\n")
	return a.removeVolumes(ctx, c, names, true)
}

// mountedBy tells whether a volume of that name may be one that a task of the services mounts, as the server does, which has the last word.
func mountedBy(services []*v1.Service) func(name string) bool {
	var all []v1.VolumePattern
	for _, s := range services {
		for _, is := range []*v1.Service{s, v1.Effective(s)} {
			all = append(all, v1.VolumesMounted(&is.Spec.Task.Container, s.Meta.ID, s.Meta.Name)...)
		}
	}
	return func(name string) bool {
		return slices.ContainsFunc(all, func(p v1.VolumePattern) bool { return p.Match(name) })
	}
}

// removeVolumes removes each volume from the swarm's state and from the nodes, once nothing of the swarm is known to use it.
func (a *app) removeVolumes(ctx context.Context, c *client.Client, names []string, force bool) error {
	nodes, err := client.List(ctx, c, v1.Nodes, nil)
	if err != nil {
		return daemonError(err)
	}
	var errs []error
	for _, name := range names {
		there := slices.DeleteFunc(slices.Clone(nodes), func(n *v1.Node) bool {
			return n.Status == nil || !slices.Contains(n.Status.Description.Volumes, name)
		})
		if err := volumeFree(ctx, c, there, name); err != nil {
			errs = append(errs, err)
			continue
		}
		err := apiError(client.Delete(ctx, c, v1.Volumes, name), v1.KindVolume, name)
		if err != nil && !notFound(err) {
			errs = append(errs, err)
			continue
		}
		if err != nil && len(there) == 0 {
			if !force {
				errs = append(errs, err)
			}
			continue
		}
		var left []error
		for i, err := range ofEach(there, func(i int) error { return removeVolumeOf(ctx, c, there[i], name) }) {
			if err != nil {
				left = append(left, fmt.Errorf("volume %s stays on node %s: %w", name, nodeName(there[i]), err))
			}
		}
		if errs = append(errs, left...); len(left) == 0 {
			a.printf("%s\n", name)
		}
	}
	return errors.Join(errs...)
}

// volumeFree asks the nodes that have a volume, before anything is removed, whether they could: the copy that is on another node than the
// container may be the one with the data. A node that is away is not asked, and keeps its own.
func volumeFree(ctx context.Context, c *client.Client, there []*v1.Node, name string) error {
	ctx, cancel := context.WithTimeout(ctx, removalWait)
	defer cancel()
	there = slices.DeleteFunc(slices.Clone(there), func(n *v1.Node) bool { return n.Status.State != v1.NodeReady })
	mounted := make([]error, len(there))
	errs := ofEach(there, func(i int) error {
		to, err := c.CheckVolume(ctx, there[i].Meta.ID, name)
		if client.Status(err) == http.StatusConflict {
			mounted[i] = daemonError(err)
			return nil
		}
		if err = volumeAnswer(to, err); err != nil {
			return fmt.Errorf("volume %s stays on all nodes: node %s: %w", name, nodeName(there[i]), err)
		}
		return nil
	})
	for _, err := range mounted {
		if err != nil {
			return err // a service mounts it, wherever it is
		}
	}
	return errors.Join(errs...)
}

// removeVolumeOf has a node remove a volume.
func removeVolumeOf(ctx context.Context, c *client.Client, n *v1.Node, name string) error {
	if n.Status.State != v1.NodeReady {
		return fmt.Errorf("it is %s: remove the volume again once the node is back", n.Status.State)
	}
	ctx, cancel := context.WithTimeout(ctx, removalWait)
	defer cancel()
	return volumeAnswer(c.RemoveVolume(ctx, n.Meta.ID, name))
}

// volumeAnswer is what a node says at its end of a tunnel.
func volumeAnswer(to v1.Tunnel, err error) error {
	if err != nil {
		return daemonError(err)
	}
	defer to.Close()
	_, err = io.Copy(io.Discard, &v1.FrameReader{From: to})
	return err
}
