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
its own, or on a machine that is a worker and nothing else. Stopping it, or killing it, stops no container.

  agent --host unix:///run/swarmd/swarmd.sock --root /var/lib/swarmd-agent
  agent --join 192.168.99.100:2377 --token-file worker.token

The token is needed at the first start only.`

func main() {
	var o daemon.AgentOptions
	m := daemon.Main{
		Name:  "agent",
		About: about,
		Flags: func(flags *flag.FlagSet) {
			flags.StringVar(&o.Host, "host", "unix://"+daemon.DefaultSocket, "`URL` of the API server's socket")
			flags.StringVar(&o.Join, "join", "", "`HOST:PORT` of a manager whose swarm to join as a worker, instead of --host")
			flags.StringVar(&o.TokenFile, "token-file", "", "`FILE` with the join token of workers, for --join")
			flags.StringVar(&o.AdvertiseAddr, "advertise-addr", "", "`ADDRESS` or interface that other nodes reach this one at")
			flags.StringVar(&o.DataPathAddr, "data-path-addr", "", "`ADDRESS` or interface of the traffic between tasks")
			o.Node.NodeFlags(flags)
		},
		Run: func(ctx context.Context, log *slog.Logger) error {
			o.Node.Log = log
			return daemon.RunAgent(ctx, o)
		},
	}
	os.Exit(m.Execute(os.Args[1:], os.Stdout, os.Stderr))
}
