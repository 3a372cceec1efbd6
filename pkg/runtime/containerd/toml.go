package containerd

import (
	"fmt"
	"strings"
)

// unneeded are plugins of containerd that nothing of ours uses. Each costs memory, some cost each start of a container
// time, and one (opt) makes folders outside of Root.
var unneeded = []string{
	"io.containerd.differ.v1.erofs",
	"io.containerd.http.v1.pprof",
	"io.containerd.image-verifier.v1.bindir",
	"io.containerd.internal.v1.opt",
	"io.containerd.metrics.v1.grpc-otel",
	"io.containerd.metrics.v1.grpc-prometheus",
	"io.containerd.monitor.container.v1.restart",
	"io.containerd.monitor.task.v1.cgroups",
	"io.containerd.mount-handler.v1.erofs",
	"io.containerd.nri.v1.nri",
	"io.containerd.snapshotter.v1.blockfile",
	"io.containerd.snapshotter.v1.erofs",
	"io.containerd.transfer.v1.local",
	"io.containerd.grpc.v1.transfer",
	"io.containerd.streaming.v1.manager",
	"io.containerd.grpc.v1.streaming",
}

// config is containerd's configuration. --state does not move the sockets of shims, so they are told apart here; runc's
// state and the logs are told with each container.
func (d *daemon) config() string {
	return fmt.Sprintf(`version = 4
root = %q
state = %q
temp = %q
# The kernel, short of memory, takes containers first. Shims and loggers inherit all but one point of this.
oom_score = -999
disabled_plugins = [
  "%s",
]

[debug]
level = "warn"

[plugins.'io.containerd.server.v1.grpc']
address = %q

[plugins.'io.containerd.server.v1.ttrpc']
address = %q

[plugins.'io.containerd.shim.v1.manager']
socket_dir = %q

# Space of removed containers is given back after a few of them, not after a hundred changes of anything.
[plugins.'io.containerd.gc.v1.scheduler']
deletion_threshold = 20
schedule_delay = "500ms"
startup_delay = "10s"
`, d.paths.in("containerd"), d.paths.in("state"), d.paths.in("tmp"), strings.Join(unneeded, "\",\n  \""),
		d.paths.socket, d.paths.socket+".ttrpc", d.paths.run)
}
