package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

func (a *app) swarmBackupCommand() *cobra.Command {
	var force, quiet bool
	cmd := &cobra.Command{
		Use:   "backup [OPTIONS] FILE|-",
		Short: "Back up the swarm from a manager that runs",
		Long: `Write everything that the swarm is to a file: services, secrets, nodes, its CA. The file is as secret as what is in it, unless
the swarm locks itself (swarm update --autolock); keep the unlock key apart from it then, for a restore wants that of the time of the backup.

A file that is there already is left as it is, and nothing half-written is left where the backup fails.`,
		Example: `  swarmctl swarm backup /backup/swarm-$(date +%F).tar
  swarmctl swarm backup - | ssh backup.example.com 'umask 077; cat > swarm.tar'`,
		Args:                  exactArgs(1),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			path := args[0]
			if path == "-" && a.Terminal() > 0 {
				return errors.New("a backup is nothing for a terminal: name a file, or redirect standard output")
			}
			if _, err := os.Lstat(path); path != "-" && !force && !errors.Is(err, fs.ErrNotExist) {
				if err == nil {
					err = fmt.Errorf("%s exists already: it was left as it is (--force replaces it)", path)
				}
				return err
			}
			c, err := a.daemon()
			if err != nil {
				return err
			}
			if path == "-" {
				return daemonError(c.Backup(cmd.Context(), a.Out))
			}
			var size int64
			err = writeFileFrom(path, force, func(f *os.File) error {
				if err := c.Backup(cmd.Context(), f); err != nil {
					return err
				}
				size, err = f.Seek(0, io.SeekCurrent)
				return err
			})
			if err != nil {
				return daemonError(err)
			}
			if !quiet {
				a.printf("Swarm backed up to %s (%s).\nWhoever reads this file reads every secret of the swarm, unless it is locked: keep it as one.\n", path, units.HumanSize(float64(size)))
			}
			return nil
		},
	}
	s := cmd.Flags()
	s.BoolVarP(&force, "force", "f", false, "Replace the file if there is one")
	s.BoolVarP(&quiet, "quiet", "q", false, "Print nothing")
	return cmd
}

func (a *app) swarmRestoreCommand() *cobra.Command {
	var r v1.InitRequest
	var addresses addressFlags
	cmd := &cobra.Command{
		Use:   "restore [OPTIONS] FILE|-",
		Short: "Make this machine the first manager of a swarm that was backed up",
		Long: `Make this daemon's machine the only manager of the swarm that a file of "swarmctl swarm backup" holds. The machine must be in no
swarm, and the swarm's own managers must be gone for good: two of one swarm would be at odds.

Workers come back on their own where this machine has the address of a manager that they knew; the others leave and join anew.`,
		Example:               "  swarmctl swarm restore --advertise-addr 192.168.99.121 /backup/swarm-2026-11-22.tar",
		Args:                  exactArgs(1),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if r.Availability, err = addresses.parsed(cmd); err != nil {
				return err
			}
			r.ListenAddr = addresses.given()
			in := a.In
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			c, err := a.daemon()
			if err != nil {
				return err
			}
			id, err := c.Restore(cmd.Context(), r, in)
			if err != nil {
				return daemonError(err)
			}
			a.printf("Swarm restored: current node (%s) is now its only manager.\n\n", id)
			info, err := c.Info(cmd.Context())
			if err != nil {
				return daemonError(err)
			}
			if info.Swarm.LocalNodeState == v1.LocalNodeLocked {
				a.printf("It is locked: run `swarmctl swarm unlock` with the unlock key of the time of the backup.\n\n")
				return nil
			}
			a.printf("Nodes that do not come back on their own leave the swarm and join it anew: see 'swarmctl swarm join-token worker'.\n")
			return nil
		},
	}
	addresses.add(cmd, &r.AdvertiseAddr, &r.DataPathAddr)
	return cmd
}
