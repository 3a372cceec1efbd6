// Command apiserver is swarmd's API server as a process of its own, on an etcd of the user's own.
package main

import (
	"context"
	"flag"
	"log/slog"
	"os"

	"github.com/swarmd/swarmd/cmd/internal/daemon"
)

const about = `
apiserver serves the API of a swarm whose state is in an etcd of your own. swarmd has it built in; run it by itself,
with controller-manager and agents beside it, if you look after an etcd already:

  apiserver --etcd-endpoints http://127.0.0.1:2379 --key-file /etc/swarmd/keyring.json
  controller-manager --etcd-endpoints http://127.0.0.1:2379 --key-file /etc/swarmd/keyring.json
  agent --host unix:///run/swarmd/swarmd.sock`

func main() {
	var o daemon.APIServerOptions
	m := daemon.Main{
		Name:  "apiserver",
		About: about,
		Flags: func(flags *flag.FlagSet) {
			o.Etcd.EtcdFlags(flags)
			flags.StringVar(&o.Socket, "socket", daemon.DefaultSocket, "`PATH` of the unix socket to listen on")
			flags.StringVar(&o.AuditFile, "audit-file", "", "`FILE` to note every change in, and who made it (default: none)")
		},
		Run: func(ctx context.Context, log *slog.Logger) error {
			o.Log = log
			return daemon.RunAPIServer(ctx, o)
		},
	}
	os.Exit(m.Execute(os.Args[1:], os.Stdout, os.Stderr))
}
