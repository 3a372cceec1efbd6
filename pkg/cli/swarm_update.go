package cli

import (
	"context"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

func (a *app) swarmUpdateCommand() *cobra.Command {
	var f settingsFlags
	cmd := &cobra.Command{
		Use:   "update [OPTIONS]",
		Short: "Update the swarm",
		Long:  "Change settings of the swarm. What is not given stays as it is.",
		Example: `  swarmctl swarm update --cert-expiry 720h
  swarmctl swarm update --autolock=true`,
		Args:                  noArgs,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !f.merge(cmd, new(v1.ClusterSpec)) {
				return cmd.Help() // as Docker
			}
			return a.swarmUpdate(cmd, &f)
		},
	}
	f.add(cmd, "Change manager autolocking setting (true|false)")
	return cmd
}

func (a *app) swarmUpdate(cmd *cobra.Command, f *settingsFlags) error {
	ctx := cmd.Context()
	c, err := a.daemon()
	if err != nil {
		return err
	}
	locked := false
	err = updateCluster(ctx, c, func(s *v1.ClusterSpec) {
		locked = s.AutoLock
		f.merge(cmd, s)
	})
	if err != nil {
		return err
	}
	a.printf("Swarm updated.\n")
	if !f.autolock || locked {
		return nil
	}
	key, err := c.UnlockKey(ctx)
	if err != nil {
		return fmt.Errorf("could not fetch unlock key: %w", daemonError(err))
	}
	a.printUnlock(key)
	return nil
}

// updateCluster lets change work on the swarm's settings and writes them back; where somebody else was faster, it begins again.
func updateCluster(ctx context.Context, c *client.Client, change func(*v1.ClusterSpec)) error {
	for try := 1; ; try++ {
		cluster, err := client.Get(ctx, c, v1.Clusters, v1.ClusterName)
		if err != nil {
			return daemonError(err)
		}
		if cluster.Spec == nil {
			cluster.Spec = new(v1.ClusterSpec)
		}
		change(cluster.Spec)
		_, _, err = client.Update(ctx, c, v1.Clusters, cluster)
		if client.Status(err) == http.StatusConflict && try < maxConflicts && ctx.Err() == nil {
			continue
		}
		return daemonError(err)
	}
}
