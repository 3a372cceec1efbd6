// Package containerd runs containers on containerd. It is the real runtime.Runtime.
//
// It owns a containerd: a child process of its own session that keeps running when this process stops or is killed, that is
// found again by the next one, and restarted when it died. It owns all that this containerd makes, below one folder: images,
// snapshots, runc's state, sockets, logs. Containers run under shims, which outlive containerd too; their output goes to
// swarm-logger, which outlives everything but the container.
//
// It never decides what should run, keeps nothing in memory that it could not read again, and knows nothing of networks
// but the path of a namespace. Nothing else imports containerd.
package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/log"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/singleflight"

	"github.com/swarmd/swarmd/pkg/runtime"
)

// DefaultNamespace is the containerd namespace that everything of ours is in.
const DefaultNamespace = "swarmd"

// Config says where a Runtime keeps what it has, and what it runs.
type Config struct {
	// Root is an absolute path below which everything is kept. Sockets are too, unless Root has more than 38 bytes: then
	// they are in /run/swarmd-<hash of Root>, because a shim's socket must not have a longer name.
	Root string
	// Bin is the folder with containerd, containerd-shim-runc-v2, runc, swarm-logger and init.
	Bin string
	// Volumes is an absolute path below which volumes are; empty is Root/volumes.
	Volumes string
	// Address is the socket of a containerd that is there already and is used instead of one of our own. It must see the
	// same files as this process does, and find containerd-shim-runc-v2 by itself.
	Address string
	// InsecureRegistries are spoken to by plain HTTP: each a host with its port, or a CIDR that the host's address is in.
	// Those on this machine's loopback always are.
	InsecureRegistries []string
	// Namespace is the containerd namespace; empty is DefaultNamespace.
	Namespace string
	// Credentials is asked for the user and password of a registry's host; nil, or empty strings, is to ask as nobody.
	Credentials func(host string) (user, password string, err error)
	// Log is told what a person who looks after the machine should know; nil is slog.Default.
	Log *slog.Logger
}

// Runtime implements runtime.Runtime. Its methods may be called by many goroutines.
type Runtime struct {
	config Config
	paths  paths
	log    *slog.Logger
	client *client.Client
	lock   *os.File
	// snapshotter is overlayfs, or native where the kernel or the file system cannot.
	snapshotter string
	cgroup      cgroup
	images      imageCache
	flights     singleflight.Group
	pulls       chan struct{}
	volumes     locks // of those who make or remove one

	daemon *daemon // nil with Config.Address
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup

	close, shutdown sync.Once
	closed, shut    error // what they returned
	gone            atomic.Bool
}

var _ runtime.Runtime = (*Runtime)(nil)

// maxPulls is how many images are pulled at the same time, Docker's.
const maxPulls = 3

// Start connects to the containerd that an earlier Start with the same Root left running, or starts one. It ends when
// containerd answers, or with an error. One process at a time may use a Root.
func Start(ctx context.Context, config Config) (_ *Runtime, err error) {
	if config.Namespace == "" {
		config.Namespace = DefaultNamespace
	}
	if config.Log == nil {
		config.Log = slog.Default()
	}
	p, err := newPaths(config)
	if err != nil {
		return nil, err
	}
	r := &Runtime{config: config, paths: p, log: config.Log, pulls: make(chan struct{}, maxPulls)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	if r.lock, err = p.prepare(); err != nil {
		return nil, err
	}
	if err := r.cgroup.find(p.name); err != nil {
		return nil, err
	}
	address := config.Address
	if address != "" {
		if _, err := os.Stat(address); err != nil {
			return nil, fmt.Errorf("containerd: Config.Address: %w", err)
		}
	} else {
		address = p.socket
		r.daemon = &daemon{paths: p, namespace: config.Namespace, cgroup: r.cgroup, log: config.Log}
		if err := r.daemon.ensure(ctx); err != nil {
			return nil, err
		}
		r.work.Go(func() { r.daemon.supervise(r.ctx) })
	}
	if r.client, err = connect(address, config.Namespace); err != nil {
		return nil, err
	}
	if r.snapshotter, err = r.findSnapshotter(r.namespaced(ctx)); err != nil {
		return nil, err
	}
	if err := errors.Join(r.sweep(r.namespaced(ctx)), r.sweepEmptyFiles()); err != nil {
		return nil, err
	}
	return r, nil
}

// namespaced is ctx with the namespace that each call to containerd needs. What its client would log by itself is in the
// errors that it returns.
func (r *Runtime) namespaced(ctx context.Context) context.Context {
	return log.WithLogger(namespaces.WithNamespace(ctx, r.config.Namespace), silence)
}

// silence is a logger of containerd's kind that says nothing.
var silence = logrus.NewEntry(&logrus.Logger{Out: io.Discard, Formatter: new(logrus.TextFormatter), Level: logrus.PanicLevel})

// findSnapshotter is overlayfs where it works, else native, which copies whole images.
func (r *Runtime) findSnapshotter(ctx context.Context) (string, error) {
	answer, err := r.client.IntrospectionService().Plugins(ctx, "type==io.containerd.snapshotter.v1")
	if err != nil {
		return "", fmt.Errorf("containerd: list snapshotters: %w", err)
	}
	for _, name := range []string{"overlayfs", "native"} {
		for _, p := range answer.Plugins {
			if p.ID == name && p.InitErr == nil {
				return name, nil
			}
		}
		r.log.Warn("containerd: snapshotter does not work here", "snapshotter", name)
	}
	return "", errors.New("containerd: neither the overlayfs nor the native snapshotter works here; see containerd.log")
}

// Info implements runtime.Runtime.
func (r *Runtime) Info(ctx context.Context) (runtime.Info, error) {
	v, err := r.client.Version(r.namespaced(ctx))
	if err != nil {
		return runtime.Info{}, fmt.Errorf("containerd: version: %w", err)
	}
	info := runtime.Info{Version: "containerd " + strings.TrimPrefix(v.Version, "v"), Cgroup: 1}
	if cgroups.Mode() == cgroups.Unified {
		info.Cgroup = 2
	}
	if out, err := exec.CommandContext(ctx, r.paths.bin("runc"), "--version").Output(); err == nil {
		first, _, _ := strings.Cut(string(out), "\n")
		info.Version += ", " + strings.Replace(first, " version", "", 1)
	}
	return info, nil
}

// Close lets go of containerd, which keeps running as its containers do. It may be called again.
func (r *Runtime) Close() error {
	r.close.Do(func() {
		r.gone.Store(true)
		r.cancel()
		r.work.Wait()
		if r.client != nil {
			r.closed = r.client.Close()
		}
		if r.lock != nil {
			r.closed = errors.Join(r.closed, r.lock.Close())
		}
	})
	return r.closed
}
