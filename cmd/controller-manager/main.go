// Command controller-manager is swarmd's rules as a process of their own, on an etcd of the user's own.
package main

import (
	"context"
	"flag"
	"log/slog"
	"os"

	"github.com/swarmd/swarmd/cmd/internal/daemon"
)

const about = `
controller-manager decides what a swarm's services need, while it is the leader, and waits to become it otherwise. Run as
many as you like beside apiserver; swarmd has it built in.

  controller-manager --etcd-endpoints http://127.0.0.1:2379 --key-file /etc/swarmd/keyring.json`

func main() {
	var o daemon.ControllerOptions
	m := daemon.Main{
		Name:  "controller-manager",
		About: about,
		Flags: func(flags *flag.FlagSet) {
			hostname, _ := os.Hostname()
			o.Etcd.EtcdFlags(flags)
			flags.StringVar(&o.Name, "name", hostname, "`NAME` that tells this candidate for the lead from others")
			flags.StringVar(&o.MetricsAddr, "metrics-addr", "", "serve Prometheus metrics and /healthz at this `HOST:PORT`")
		},
		Run: func(ctx context.Context, log *slog.Logger) error {
			o.Log = log
			return daemon.RunControllers(ctx, o)
		},
	}
	os.Exit(m.Execute(os.Args[1:], os.Stdout, os.Stderr))
}
