// Command swarmctl is the command line of a swarm; see pkg/cli.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/swarmd/swarmd/pkg/cli"
)

func main() {
	// The first Ctrl-C ends the command in order; a second one, once stop was called, ends the process at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	code := cli.Run(ctx, cli.Options{}, os.Args[1:])
	stop()
	os.Exit(code)
}
