// Swarm-wire is the encrypted link of one network of a machine whose kernel has no WireGuard: see pkg/netplugin/wire. The node
// daemon starts it, with a TUN device on descriptor 3 and a pipe on 4 on which it says that it is ready. It outlives the daemon.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/swarmd/swarmd/pkg/netplugin/wire"
)

func main() {
	err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "swarm-wire:", err)
	}
	os.Exit(wire.ExitStatus(err))
}

func run() error {
	o := wire.Options{TUN: 3, Ready: 4}
	flag.StringVar(&o.Socket, "socket", "", "where it is configured")
	port := flag.Uint("port", 0, "UDP port")
	flag.Parse()
	if o.Port = uint16(*port); o.Socket == "" || o.Port == 0 || *port > 65535 || flag.NArg() > 0 {
		return fmt.Errorf("want --socket and --port; the node daemon starts this program, not people")
	}
	return wire.Run(o)
}
