package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

func (a *app) swarmUnlockCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "unlock",
		Short: "Unlock swarm",
		Long: `Bring the unlock key to a manager that restarted and is locked. The key is asked for, or read from standard input.

Its containers go on running while a manager is locked.`,
		Example: `  swarmctl swarm unlock
  pass show swarm/unlock-key | swarmctl swarm unlock`,
		Args:                  noArgs,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.daemon()
			if err != nil {
				return err
			}
			info, err := c.Info(cmd.Context())
			if err != nil {
				return daemonError(err)
			}
			switch info.Swarm.LocalNodeState {
			case v1.LocalNodeLocked:
			case v1.LocalNodeInactive:
				return errors.New("This node is not part of a swarm") //nolint:staticcheck // Docker's words
			default:
				return errors.New("swarm is not locked")
			}
			key, err := a.readSecret("Enter unlock key: ", "unlock key")
			if err != nil {
				return err
			}
			return daemonError(c.Unlock(cmd.Context(), key))
		},
	}
}

func (a *app) swarmUnlockKeyCommand() *cobra.Command {
	var rotate, quiet bool
	cmd := &cobra.Command{
		Use:   "unlock-key [OPTIONS]",
		Short: "Manage the unlock key",
		Long: `Show the key that unlocks a manager after it restarts, or make another one. Keep the one before for a while: a manager that is
down when the key is rotated wants the key that it knew.`,
		Example: `  swarmctl swarm unlock-key
  swarmctl swarm unlock-key --rotate`,
		Args:                  noArgs,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			c, err := a.daemon()
			if err != nil {
				return err
			}
			get := c.UnlockKey
			if rotate {
				if cluster, err := client.Get(ctx, c, v1.Clusters, v1.ClusterName); err != nil {
					return daemonError(err)
				} else if cluster.Spec == nil || !cluster.Spec.AutoLock {
					return errors.New("cannot rotate because autolock is not turned on")
				}
				get = c.RotateUnlockKey
			}
			key, err := get(ctx)
			switch {
			case err != nil && rotate:
				return daemonError(err)
			case err != nil:
				return fmt.Errorf("could not fetch unlock key: %w", daemonError(err))
			case key == "":
				return errors.New("no unlock key is set")
			}
			if quiet {
				a.printf("%s\n", key)
				return nil
			}
			if rotate {
				a.printf("Successfully rotated manager unlock key.\n\n")
			}
			a.printUnlock(key)
			return nil
		},
	}
	s := cmd.Flags()
	s.BoolVarP(&quiet, "quiet", "q", false, "Only display token")
	s.BoolVar(&rotate, "rotate", false, "Rotate unlock key")
	return cmd
}

func (a *app) printUnlock(key string) {
	if key == "" {
		return
	}
	a.printf("To unlock a swarm manager after it restarts, run the `swarmctl swarm unlock`\ncommand and provide the following key:\n\n    %s\n\n"+
		"Remember to store this key in a password manager, since without it you\nwill not be able to restart the manager.\n", key)
}
