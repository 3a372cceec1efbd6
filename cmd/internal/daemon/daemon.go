package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/apiserver"
	"github.com/swarmd/swarmd/pkg/netplugin"
	"github.com/swarmd/swarmd/pkg/runtime"
	"github.com/swarmd/swarmd/pkg/runtime/containerd"
)

// Options say what a daemon is to be. The zero value of all but Root and RuntimeDir is sensible.
type Options struct {
	// Root is the data directory.
	Root string
	// Socket is where the API listens; default DefaultSocket for DefaultRoot, and swarmd.sock in any other Root.
	Socket string
	// RuntimeDir holds containerd, its shim, runc, swarm-logger, swarm-wire and init; default RuntimeDirBeside.
	RuntimeDir string
	// ContainerdAddress is the socket of a containerd that is there already.
	ContainerdAddress string
	// Labels are what the node says of its engine, for constraints and preferences.
	Labels map[string]string
	// InsecureRegistries are spoken to without TLS.
	InsecureRegistries []string
	// GenericResources are what the node has that tasks can reserve, each as KIND=VALUE.
	GenericResources []string
	// RegistryConfig is a file with logins to registries, in the format of Docker's config.json.
	RegistryConfig string
	// EtcdEndpoints are those of an etcd of one's own, instead of the one inside the daemon.
	EtcdEndpoints []string
	// MetricsAddr is host:port to serve Prometheus metrics at; empty for none but those on the socket.
	MetricsAddr string
	// Began is when the process did; now where it is zero.
	Began time.Time
	Log   *slog.Logger
}

// Daemon is one machine's swarmd.
type Daemon struct {
	o        Options
	log      *slog.Logger
	machine  machine
	runtime  runtime.Runtime
	engine   string // the runtime's version
	network  network
	registry *prometheus.Registry
	managing managerMetrics // part of the registry
	// programming is how fast the network follows the swarm.
	programming *programming
	// collected counts what the removal of images gave back.
	collected func(bytes int64)
	server    *apiserver.Server
	kept      *keptSockets
	failed    chan error // what the daemon cannot go on after
	parts     *parts
	// startup is how long the process took from its beginning until it was asked for this first: the daemon is there then.
	startup func() time.Duration

	mu     sync.Mutex           // of entering and leaving a swarm
	inside atomic.Pointer[node] // nil while the machine is in no swarm
	before func(change string)  // tests only: see disk
}

// network is what the daemon needs of the machine's network beside what its agent does with it.
type network interface {
	netplugin.Network
	Warnings() []string
	PublicKey() (netplugin.PublicKey, error)
	IPv6() bool
	Close() error
}

// Run is the daemon's life, until ctx ends or it cannot go on. Containers outlive it. Where something keeps it from ending, it returns
// all the same after a while, and the process has to end.
func Run(ctx context.Context, o Options) error {
	if err := o.complete(); err != nil {
		return err
	}
	d := newDaemon(o)
	return d.parts.within(ctx, d.log, endWithin, func() error { return d.live(ctx) })
}

// live is all of a daemon's life.
func (d *Daemon) live(ctx context.Context) error {
	lock, err := acquireSoon(ctx, d.o.Root)
	if err != nil {
		return err
	}
	defer lock.release()
	defer d.close()
	defer d.parts.stop()
	if err := d.open(ctx); err != nil {
		return err
	}
	return d.run(ctx)
}

func newDaemon(o Options) *Daemon {
	began := o.Began
	if began.IsZero() {
		began = time.Now()
	}
	d := &Daemon{o: o, log: o.Log, registry: newRegistry(), failed: make(chan error, 4), parts: newParts(), kept: inherit(o.Log)}
	d.startup = sync.OnceValue(func() time.Duration { return time.Since(began) })
	d.programming = newProgramming(d.registry)
	d.collected = newCollected(d.registry)
	d.registry.MustRegister(&d.managing)
	return d
}

// auditName is the audit log; what it grew out of has a number behind it. It outlives the node's place in a swarm.
const auditName = "audit.log"

// run is what comes once the machine is in hand.
func (d *Daemon) run(ctx context.Context) error {
	// Who connects from now on waits, rather than being told that there is no swarm while there is one on its way.
	door, err := listen(d.o.Socket)
	if err != nil {
		return err
	}
	defer door.Close()
	d.server = apiserver.New(apiserver.Options{Host: d, Resolver: d.runtime, Reach: reach, Registry: d.registry, Log: d.log, AuditFile: d.path(auditName)})
	if err := d.resume(ctx); err != nil {
		return err
	}
	shut, err := d.serve(door)
	if err != nil {
		return err
	}
	defer shut()
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		d.log.Warn("cannot tell the init system that swarmd is ready", "err", err)
	}
	d.log.Info("swarmd is ready", "version", Version(), "socket", d.o.Socket, "root", d.o.Root, "startup", d.startup())
	select {
	case <-ctx.Done():
		d.log.Info("swarmd stops; containers go on")
		if n := d.inside.Load(); n != nil {
			n.rest()
		}
		return nil
	case err := <-d.failed:
		d.parts.stop()
		return err
	}
}

func (o *Options) complete() error {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	root, err := filepath.Abs(o.Root)
	if err != nil {
		return err
	}
	o.Root = root
	if o.Socket == "" && root == DefaultRoot {
		o.Socket = DefaultSocket
	} else if o.Socket == "" {
		o.Socket = filepath.Join(root, "swarmd.sock")
	}
	if o.RuntimeDir == "" {
		if o.RuntimeDir, err = RuntimeDirBeside(); err != nil {
			return err
		}
	}
	if os.Geteuid() != 0 {
		return errors.New("swarmd needs root: it makes containers, links and firewall rules. Try sudo")
	}
	return os.MkdirAll(root, 0o700)
}

func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// open gets hold of the machine: its containers and its network.
func (d *Daemon) open(ctx context.Context) error {
	var err error
	if d.machine, err = thisMachine(d.o.GenericResources); err != nil {
		return err
	}
	// The network first: it refuses where another swarmd has this namespace, and then no containerd must be left running.
	links, err := netplugin.New(netplugin.Options{Dir: d.path("network"), Wire: filepath.Join(d.o.RuntimeDir, "swarm-wire"), Log: d.log, Repaired: newRepairs(d.registry)})
	if err != nil {
		return err
	}
	d.network = links
	_, err = d.openRuntime(ctx)
	return err
}

func (d *Daemon) openRuntime(ctx context.Context) (*containerd.Runtime, error) {
	r, err := containerd.Start(ctx, containerd.Config{
		Root:               d.path("containerd"),
		Volumes:            d.path(volumesName),
		Bin:                d.o.RuntimeDir,
		Address:            d.o.ContainerdAddress,
		InsecureRegistries: d.o.InsecureRegistries,
		Credentials:        credentialsFrom(d.o.RegistryConfig),
		Log:                d.log,
	})
	if err != nil {
		return nil, fmt.Errorf("start the container runtime: %w", err)
	}
	d.runtime = r
	info, err := r.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask the container runtime: %w", err)
	}
	d.engine = info.Version
	return r, nil
}

func (d *Daemon) path(name string) string { return filepath.Join(d.o.Root, name) }

// serve opens the doors, and returns how to close them.
func (d *Daemon) serve(l net.Listener) (shut func(), err error) {
	door := d.answer(l, d.patient(d.server.Handler()))
	shutMetrics := func() {}
	if d.o.MetricsAddr != "" {
		only := http.NewServeMux()
		only.Handle("GET /metrics", d.server.Handler())
		if shutMetrics, err = d.serveMetrics(d.o.MetricsAddr, only); err != nil {
			door.Close()
			return nil, err
		}
	}
	return func() {
		defer d.parts.begin("requests")()
		d.server.Close() // ends watches and sessions, which would not end by themselves
		shutdown(door)
		shutMetrics()
	}, nil
}

func (d *Daemon) serveMetrics(addr string, h http.Handler) (shut func(), err error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("serve metrics (--metrics-addr): %w", err)
	}
	s := d.answer(l, h)
	return func() { shutdown(s) }, nil
}

func (d *Daemon) answer(l net.Listener, h http.Handler) *http.Server {
	s := apiserver.NewHTTPServer(h, d.log)
	closeUnasked(s)
	go func() {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			d.fail(fmt.Errorf("serve %s: %w", l.Addr(), err))
		}
	}()
	return s
}

// fail ends the daemon, for the init system to start it again.
func (d *Daemon) fail(err error) {
	select {
	case d.failed <- err:
	default: // one reason is enough
	}
}

// startWithin is how long a daemon that starts waits for the store of its swarm before it answers all the same.
const startWithin = 5 * time.Second

// resume finishes what an earlier daemon began: leaving a swarm, or being in one.
func (d *Daemon) resume(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.finishLeaving(ctx); err != nil {
		return err
	}
	id, err := loadIdentity(d.disk())
	if err != nil {
		return err
	}
	if err := d.dropArchive(id); err != nil || id == nil {
		return err
	}
	n := d.newNode(id)
	if err := n.checkState(); err != nil {
		return err
	}
	n.start(nil)
	d.inside.Store(n)
	if id.Role == v1.RoleManager {
		waiting, cancel := context.WithTimeout(ctx, startWithin)
		defer cancel()
		_ = n.await(waiting, func() bool {
			return n.locked || n.trouble != "" || n.manager != nil && (n.manager.up() || n.manager.trouble() != nil)
		})
	}
	return nil
}

func (d *Daemon) disk() disk { return disk{root: d.o.Root, before: d.before} }

// links is the network as an agent has it; nil for none.
func (d *Daemon) links() netplugin.Network {
	if d.network == nil {
		return nil
	}
	return d.network
}

// close lets go of everything in the reverse order. Containers and links stay.
func (d *Daemon) close() {
	defer d.parts.begin("entering or leaving a swarm, or closing")()
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := d.inside.Swap(nil); n != nil {
		n.stop()
	}
	if d.network != nil {
		defer d.parts.begin("the network or the container runtime")()
		if err := d.network.Close(); err != nil {
			d.log.Warn("let go of the network", "err", err)
		}
	}
	if d.runtime != nil {
		if err := d.runtime.Close(); err != nil {
			d.log.Warn("close the container runtime", "err", err)
		}
	}
}
