// Command agent is the part of swarmd that runs containers, as a process of its own.
package main

import (
	"context"
	"flag"
	"log/slog"
	"os"

	"github.com/swarmd/swarmd/cmd/internal/daemon"
)

const about = `
agent runs the containers that a swarm gives this machine. swarmd has it built in; run it by itself beside an apiserver of
its own. Stopping it, or killing it, stops no container.

  agent --host unix:///run/swarmd/swarmd.sock --root /var/lib/swarmd-agent`

func main() {
	var o daemon.AgentOptions
	m := daemon.Main{
		Name:  "agent",
		About: about,
		Flags: func(flags *flag.FlagSet) {
			flags.StringVar(&o.Host, "host", "unix://"+daemon.DefaultSocket, "`URL` of the API server's socket")
			o.Node.NodeFlags(flags)
		},
		Run: func(ctx context.Context, log *slog.Logger) error {
			o.Node.Log = log
			return daemon.RunAgent(ctx, o)
		},
	}
	os.Exit(m.Execute(os.Args[1:], os.Stdout, os.Stderr))
}
