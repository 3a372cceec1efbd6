package arch

// rooms is the architecture: every package of ours, and what of ours it may import. Imports go one way only, from the
// nouns (api/v1) over the state and the rules to the doors and hands. A package may also import what lies below its own
// folder. A trailing /... stands for all packages below a folder. Tests may import what they need.
var rooms = []room{
	// Nouns.
	{"pkg/api/v1", nothing},
	{"pkg/schedule", nothing},
	// Memory.
	{"pkg/tmpfs", nothing},
	// Streams of files.
	{"pkg/archive", nothing},
	// State.
	{"pkg/store", of{"pkg/api/v1"}},
	{"pkg/store/etcd", of{"pkg/api/v1", "pkg/store"}},
	{"pkg/store/storetest", of{"pkg/api/v1", "pkg/store"}},
	{"pkg/client", of{"pkg/api/v1", "pkg/store", "pkg/ca"}},
	// Engine and rules. The rules never import each other; the list of them imports them all.
	{"pkg/reconcile", of{"pkg/api/v1", "pkg/store"}},
	{"pkg/reconcile/reconciletest", of{"pkg/api/v1", "pkg/store", "pkg/reconcile"}},
	{"pkg/controllers", of{"pkg/store", "pkg/controllers/...", "pkg/reconcile"}},
	{"pkg/controllers/rollout", of{"pkg/api/v1", "pkg/store", "pkg/reconcile"}},
	{"pkg/controllers/service", of{"pkg/api/v1", "pkg/store", "pkg/reconcile", "pkg/schedule"}},
	{"pkg/controllers/network", of{"pkg/api/v1", "pkg/store", "pkg/reconcile"}},
	{"pkg/controllers/scheduler", of{"pkg/api/v1", "pkg/store", "pkg/reconcile"}},
	{"pkg/controllers/node", of{"pkg/api/v1", "pkg/store", "pkg/reconcile"}},
	{"pkg/controllers/member", of{"pkg/api/v1", "pkg/store", "pkg/reconcile"}},
	{"pkg/controllers/authority", of{"pkg/api/v1", "pkg/store", "pkg/reconcile"}},
	{"pkg/controllers/gc", of{"pkg/api/v1", "pkg/store", "pkg/reconcile"}},
	// Hands.
	{"pkg/netplugin", of{"pkg/tmpfs"}},
	{"pkg/netplugin/wire", nothing},
	{"pkg/dnsplugin", of{"pkg/api/v1", "pkg/store"}},
	{"pkg/runtime", of{"pkg/api/v1", "pkg/archive"}},
	{"pkg/runtime/runtimetest", of{"pkg/api/v1", "pkg/runtime"}},
	{"pkg/runtime/containerd", of{"pkg/api/v1", "pkg/archive", "pkg/runtime"}},
	{"pkg/runtime/containerd/logfile", of{"pkg/api/v1"}},
	{"pkg/agent", of{"pkg/api/v1", "pkg/archive", "pkg/store", "pkg/runtime", "pkg/netplugin", "pkg/dnsplugin", "pkg/tmpfs"}},
	// Doors.
	{"pkg/ca", nothing},
	{"pkg/apiserver", of{"pkg/api/v1", "pkg/store", "pkg/ca", "pkg/schedule"}},
	{"pkg/dockerapi", of{"pkg/api/v1", "pkg/store"}},
	{"pkg/compose", of{"pkg/api/v1"}},
	{"pkg/cli", of{"pkg/api/v1", "pkg/archive", "pkg/store", "pkg/client", "pkg/ca", "pkg/compose"}},
	// Mains, which wire it all, and what is built around them.
	{"cmd/...", everything},
	{"deploy/examples/...", nothing},
	{"test/arch", nothing},
	{"test/bench/...", everything},
	{"test/e2e/...", everything},
	{"test/scale/...", everything},
	{"test/sim/...", everything},
}

// homes are the big foreign libraries, and the rooms that may import them. Of the tests' rooms, e2e makes its lab with
// netlink, and bench has a bare loop on containerd and a network as Docker lays it out to compare with.
var homes = []home{
	{"go.etcd.io/", of{"pkg/store/etcd"}},
	{"github.com/containerd/", of{"pkg/runtime/containerd/...", "test/bench/..."}},
	{"github.com/opencontainers/runc", nothing},
	{"github.com/vishvananda/", of{"pkg/netplugin", "test/e2e/...", "test/bench/..."}},
	{"github.com/google/nftables", of{"pkg/netplugin", "test/e2e/...", "test/bench/..."}},
	{"github.com/mdlayher/netlink", of{"pkg/netplugin", "test/e2e/..."}},
	{"golang.zx2c4.com/wireguard", of{"pkg/netplugin/..."}},
	{"github.com/coredns/", of{"pkg/dnsplugin"}},
	{"github.com/miekg/dns", of{"pkg/dnsplugin"}},
	{"github.com/moby/moby", of{"pkg/dockerapi"}},
	{"github.com/docker/docker/", of{"pkg/dockerapi"}},
	{"github.com/compose-spec/", of{"pkg/compose"}},
	{"go.yaml.in/yaml", of{"pkg/compose"}},
	{"github.com/spf13/", of{"pkg/cli"}},
	{"github.com/netresearch/go-cron", of{"pkg/schedule"}},
	{"k8s.io/", of{"pkg/reconcile"}},
	{"sigs.k8s.io/", of{"pkg/cli", "pkg/reconcile/reconciletest"}},
}

// refused are libraries that nothing may import, tests included: the standard library and go-cmp say it as well.
var refused = []string{"github.com/stretchr/testify", "github.com/onsi/gomega", "github.com/onsi/ginkgo", "go.uber.org/dig"}

// vague are package names that say nothing of what is inside.
var vague = []string{"util", "utils", "common", "helpers", "helper", "manager", "types", "base", "misc"}

// The hard limits on lengths, in lines; see CONTRIBUTING. Tests and generated files are free.
const (
	maxFileLines     = 500
	maxFunctionLines = 70
)

type (
	// room is a package and what it may import of ours.
	room struct {
		path string
		may  of
	}
	// home is a foreign library, by the beginning of its import path, and who may import it.
	home struct {
		foreign string
		rooms   of
	}
	// of are paths below the module.
	of []string
)

var (
	nothing    = of{}
	everything = of{"..."}
)
