// Command swarmd is the node daemon: it runs the containers that a swarm gives this machine and, on managers, the swarm
// itself. See cmd/internal/daemon for how it is put together.
package main

import (
	"context"
	"flag"
	"log/slog"
	"os"

	"github.com/swarmd/swarmd/cmd/internal/daemon"
)

const about = `
swarmd is the node daemon of a swarm. It starts idle and waits on its socket, which only root can use:

  swarmd &                          start it (or use the systemd unit in deploy/)
  swarmctl swarm init               make this machine the first manager of a new swarm
  swarmctl apply -f service.yaml    run something
  swarmctl swarm leave --force      leave the swarm; swarmd is idle again

Stopping swarmd, or killing it, stops no container. With --cleanup it removes all that it ever made.`

func main() {
	var o daemon.Options
	var cleanup bool
	m := daemon.Main{
		Name:  "swarmd",
		About: about,
		Flags: func(flags *flag.FlagSet) {
			o.NodeFlags(flags)
			o.DaemonFlags(flags)
			flags.BoolVar(&cleanup, "cleanup", false, "stop the swarmd of --root, remove its containers, network and data, and end")
		},
		Run: func(ctx context.Context, log *slog.Logger) error {
			o.Log = log
			if cleanup {
				return daemon.Cleanup(ctx, o)
			}
			began, err := processBegan()
			if err != nil {
				return err
			}
			o.Began = began
			return daemon.Run(ctx, o)
		},
	}
	os.Exit(m.Execute(os.Args[1:], os.Stdout, os.Stderr))
}
