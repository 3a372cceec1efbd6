package cli

import (
	"os"
	"syscall"
)

// proxied are the signals that attach passes on, and their names.
var proxied = map[os.Signal]string{syscall.SIGINT: "SIGINT", syscall.SIGTERM: "SIGTERM"}
