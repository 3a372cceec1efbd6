package netplugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Options are what Linux needs.
type Options struct {
	// Dir is where namespaces are mounted, for this daemon alone: Dir/netns/<task ID>, in memory, and Dir/router/gw. It is made if it is
	// not there.
	Dir string
	// Wire is the path of the program swarm-wire, which encrypts networks where the kernel has no WireGuard.
	Wire string
	// Log is told of what is unusual; nil for slog's default.
	Log *slog.Logger
	// Repaired, unless nil, is given how many changes of a kind (link, address, route, rule, neighbour, table) an Apply made though its
	// Config was that of the Apply before: it mended what others had done. It must not call back.
	Repaired func(kind string, changes int)
}

// Linux is the Network of a Linux machine: the network namespace that the thread calling New is in, which a daemon's always
// is. The methods may be called from any goroutine; calls that change something are made one after another.
type Linux struct {
	dir  string
	log  *slog.Logger
	wire string
	keys *keyring
	host *namespace
	lock int // the socket whose name keeps other daemons out of this namespace

	mu       sync.Mutex
	router   *namespace     // nil until there is one
	mtu      int            // of the links between the machine and its router
	below    map[uint32]int // the MTUs of the machine's links that packets leave by, as they were measured
	taskMTU  int            // of tasks' links: what fits wherever they send
	vx       int            // the index of the router's link to other nodes, 0 for none
	six      bool           // tasks have IPv6 gateway addresses
	hostSix  bool           // the machine itself has IPv6
	kept     bool           // of IPv6, the machine forwards what is ours alone
	force    bool           // of IPv6, the kernel forwards by links
	old      bool           // as a kernel that cannot, for tests
	noSix    atomic.Bool    // that the latest resync found no IPv6 for tasks
	underlay underlay
	peers    []Peer           // that the plans were made with
	plans    map[string]*plan // of the overlays that are as they should be
	checked  checked          // of the latest Config
	overlays map[string]*overlay
	// tunnelMTU is how large a packet of an overlay may be that goes to another node.
	tunnelMTU int
	synced    bool // what is in have is what the kernel has
	have      state
	warnings  []string
	yielding  yielding
	watch     *watcher // nil where nothing is watched
	disturbed chan struct{}
	unswept   atomic.Bool // a link that was to go is there still
	repaired  func(kind string, changes int)
	last      *Config                // of the latest Apply, if it failed for nothing but what its error names
	failed    error                  // that of the latest Apply
	conflicts map[conflict]time.Time // since when there are those that the latest Config has
	processes bool                   // the kernel has no WireGuard
	// pinning is held while a guest is looked at and mounted: it must not be two.
	pinning sync.Mutex
}

// state is what the kernel has.
type state struct {
	base
	tasks map[string]TaskLink // whole links in mounted namespaces
	publication
	six publication // of IPv6, with the same addresses
	// draining are the backends that take no new connections, as far as this process was told.
	draining  ports
	peers     map[uint32]Peer
	underlays map[netip.Addr]bool
	wires     map[uint16]bool // ports of encrypted networks that the data port's table has
	targets   map[target]bool
	internal  map[netip.Addr]bool
	sealed    map[seal]bool
	confined  map[string]map[confine]bool // by task; one that is not there may be confined in any way
	// unrepaired is what could not be put right inside single tasks when all was read back, by task.
	unrepaired map[string]error
}

// answers are the publication of an IP version.
func (s *state) answers(v int) *publication {
	if v == 1 {
		return &s.six
	}
	return &s.publication
}

var _ Network = (*Linux)(nil)

// New takes charge of the machine's network. It changes nothing before Apply. Where another live swarmd has charge of the same
// network namespace, it fails. Close gives the charge back.
func New(o Options) (*Linux, error) {
	l := &Linux{dir: o.Dir, log: o.Log, lock: -1, plans: map[string]*plan{}, overlays: map[string]*overlay{}, conflicts: map[conflict]time.Time{},
		disturbed: make(chan struct{}, 1), repaired: o.Repaired, wire: o.Wire}
	l.keys = &keyring{path: filepath.Join(l.wiresDir(), "keys.json")}
	if l.log == nil {
		l.log = slog.Default()
	}
	if !filepath.IsAbs(o.Dir) {
		return nil, fmt.Errorf("netplugin: directory %q must be an absolute path", o.Dir)
	}
	var err error
	if l.host, err = openNamespace("host", threadNetNS); err != nil {
		return nil, fmt.Errorf("netplugin: %w", err)
	}
	if err := l.claim(); err != nil {
		l.host.close()
		return nil, fmt.Errorf("netplugin: %w", err)
	}
	if err := l.startWatching(); err != nil {
		l.log.Warn("changes by others are noticed late", "err", err)
	}
	return l, nil
}

// claim takes a name that only one process in a network namespace can have, and that goes with the process.
func (l *Linux) claim() error {
	return l.host.within(func() error {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open socket: %w", err)
		}
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: "@swarmd/netplugin"}); err != nil {
			_ = unix.Close(fd)
			if errors.Is(err, unix.EADDRINUSE) {
				return errors.New("another swarmd has charge of this network namespace: stop it, or run this one in a network namespace of its own")
			}
			return fmt.Errorf("claim this network namespace: %w", err)
		}
		l.lock = fd
		return nil
	})
}

// Close gives up the charge of the machine's network, all of which stays as it is.
func (l *Linux) Close() error {
	l.stopWatching()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lock < 0 {
		return nil
	}
	l.host.close()
	l.router.close()
	l.closeOverlays()
	l.router, l.synced = nil, false
	err := unix.Close(l.lock)
	l.lock = -1
	return err
}

// errClosed is of a call after Close.
var errClosed = errors.New("netplugin: closed")

// Namespace implements Network.
func (l *Linux) Namespace(task string) string { return filepath.Join(l.tasksDir(), task) }

// Resync makes the next Apply read back all that the kernel has, and repair it, instead of trusting that it is as it was left.
func (l *Linux) Resync() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.synced = false
}

// PublicKey is what the other nodes are to be told of this one for encrypted networks. It is made where there is none yet, and changes
// every twelve hours; each key is used from when Config.Key says that they were told. It may be called at any time.
func (l *Linux) PublicKey() (PublicKey, error) {
	k, err := l.keys.tell(time.Now())
	if err != nil {
		err = fmt.Errorf("netplugin: keys of encrypted networks in %s: %w", l.wiresDir(), err)
	}
	return k, err
}

// Disturbed implements Network.
func (l *Linux) Disturbed() <-chan struct{} { return l.disturbed }

// Warnings are sentences about what on this machine is not ours and keeps the network from working, as of the last resync, and of ports
// that came since.
func (l *Linux) Warnings() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append(slices.Clone(l.warnings), l.yielding.told()...)
}

// Addresses implements Network.
func (l *Linux) Addresses(context.Context) (map[string]netip.Addr, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lock < 0 {
		return nil, errClosed
	}
	addresses := map[string]netip.Addr{}
	if err := l.openRouter(); err != nil || l.router == nil {
		return addresses, err
	}
	links, err := dump(l.router.LinkList)
	if err != nil {
		return nil, fmt.Errorf("netplugin: list links in %s: %w", l.router.name, err)
	}
	for _, one := range links {
		task := one.Attrs().Alias
		if a, ours := linkAddress(one.Attrs().Name); ours && isID(task) && pinned(l.Namespace(task)) {
			addresses[task] = a
		}
	}
	return addresses, nil
}
