package netplugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Options are what Linux needs.
type Options struct {
	// Dir is where namespaces are mounted, for this daemon alone, best on a tmpfs: Dir/netns/<task ID> and Dir/router/gw. It
	// is made if it is not there.
	Dir string
	// Log is told of what is unusual; nil for slog's default.
	Log *slog.Logger
}

// Linux is the Network of a Linux machine: the network namespace that the thread calling New is in, which a daemon's always
// is. The methods may be called from any goroutine; calls that change something are made one after another.
type Linux struct {
	dir  string
	log  *slog.Logger
	host *namespace
	lock int // the socket whose name keeps other daemons out of this namespace

	mu       sync.Mutex
	router   *namespace // nil until there is one
	mtu      int
	synced   bool // what is in have is what the kernel has
	have     state
	warnings []string
}

// state is what the kernel has.
type state struct {
	base
	tasks map[string]TaskLink // whole links in mounted namespaces
	ports ports
}

var _ Network = (*Linux)(nil)

// New takes charge of the machine's network. It changes nothing before Apply. Where another live swarmd has charge of the same
// network namespace, it fails. Close gives the charge back.
func New(o Options) (*Linux, error) {
	l := &Linux{dir: o.Dir, log: o.Log, lock: -1}
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
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lock < 0 {
		return nil
	}
	l.host.close()
	l.router.close()
	l.router, l.synced = nil, false
	err := unix.Close(l.lock)
	l.lock = -1
	return err
}

// Namespace implements Network.
func (l *Linux) Namespace(task string) string { return filepath.Join(l.tasksDir(), task) }

// Resync makes the next Apply read back all that the kernel has, and repair it, instead of trusting that it is as it was left.
func (l *Linux) Resync() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.synced = false
}

// Warnings are sentences about what on this machine is not ours and keeps the network from working, as of the last resync.
func (l *Linux) Warnings() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.warnings)
}

// errClosed is of a call after Close.
var errClosed = errors.New("netplugin: closed")

// Apply implements Network. The first one, those after Resync and those after an error read back what the kernel has, adopt what
// is right of it, repair the rest and remove what nobody wants; the others make only the difference to the Apply before. An
// error about single tasks holds a TaskError for each of them: see TaskErrors. A backend that goes while its task stays keeps
// its connections; they are cut when the task goes, or at once where the port is published no more or the backend is no
// task of this machine.
func (l *Linux) Apply(ctx context.Context, c Config) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lock < 0 {
		return errClosed
	}
	want, err := check(c)
	if want == nil {
		return fmt.Errorf("netplugin: %w", err)
	}
	if applyErr := l.apply(ctx, want); applyErr != nil {
		err = errors.Join(err, applyErr)
		if _, alone := TaskErrors(applyErr); !alone {
			l.synced = false
		}
	}
	if err != nil {
		return fmt.Errorf("netplugin: %w", err)
	}
	return nil
}

func (l *Linux) apply(ctx context.Context, want *desired) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !l.synced || l.have.base != want.base {
		if err := l.resync(want); err != nil {
			return err
		}
	}
	gone, moved, missing := l.difference(want)
	if err := l.unlink(moved); err != nil {
		return err
	}
	made, err := l.link(ctx, want.base, missing)
	for _, t := range made {
		l.have.tasks[t.ID] = t
	}
	err = errors.Join(err, l.applySettings(want))
	if _, alone := TaskErrors(err); !alone {
		return err
	}
	before := l.have.ports
	if publishErr := l.publish(want.ports); publishErr != nil {
		return errors.Join(err, publishErr)
	}
	old := l.forgotten(before, want, gone, moved)
	return errors.Join(err, l.host.forget(old), l.remove(gone))
}

// difference is what the tasks that are there have to become. Those that are gone stay until no port leads to them; those that
// moved, or have the address that another one should have, lose their links at once.
func (l *Linux) difference(want *desired) (gone, moved map[string]TaskLink, missing []TaskLink) {
	gone, moved = map[string]TaskLink{}, map[string]TaskLink{}
	owner := map[netip.Addr]string{}
	for id, t := range want.tasks {
		owner[t.Address] = id
		if l.have.tasks[id].Address != t.Address {
			missing = append(missing, t)
		}
	}
	for id, t := range l.have.tasks {
		w, wanted := want.tasks[id]
		switch {
		case wanted && w.Address != t.Address, owner[t.Address] != "" && owner[t.Address] != id:
			moved[id] = t
		}
		if !wanted && !want.refused[id] {
			gone[id] = t
		}
	}
	return gone, moved, missing
}

// unlink removes the links of tasks whose namespaces stay for now.
func (l *Linux) unlink(tasks map[string]TaskLink) error {
	var links []netlink.Link
	for id, t := range tasks {
		if have, linked := l.have.tasks[id]; !linked || have.Address != t.Address {
			continue // its link went before, and the address may be another's by now
		}
		if one, err := l.router.LinkByName(linkName(t.Address)); err == nil {
			links = append(links, one)
		}
		delete(l.have.tasks, id)
	}
	return l.cutAll(links)
}

// remove removes tasks' links and namespaces.
func (l *Linux) remove(tasks map[string]TaskLink) error {
	errs := []error{l.unlink(tasks)}
	for id := range tasks {
		errs = append(errs, unpin(l.Namespace(id)))
	}
	return errors.Join(errs...)
}

// applySettings writes the settings of linked tasks that have other ones than before.
func (l *Linux) applySettings(want *desired) error {
	var errs []error
	for id, t := range want.tasks {
		old, linked := l.have.tasks[id]
		if !linked || maps.Equal(old.Sysctls, t.Sysctls) {
			continue
		}
		inside, err := openNamespace("task "+id, l.Namespace(id))
		if err == nil {
			err = inside.within(func() error { return setSysctls(t.settings()...) })
			inside.close()
		}
		if err != nil {
			errs = append(errs, &TaskError{id, err})
			continue
		}
		l.have.tasks[id] = t
	}
	return errors.Join(errs...)
}

// publish makes the published ports those of want, in one transaction.
func (l *Linux) publish(want ports) error {
	if maps.EqualFunc(l.have.ports, want, slices.Equal[[]netip.AddrPort]) {
		return nil
	}
	c, err := l.host.firewall()
	if err != nil {
		return err
	}
	t := newTransaction(c)
	t.change(l.have.ports, want)
	if err := t.commit(); err != nil {
		return fmt.Errorf("change published ports in table %s of %s: %w", tableName, l.host.name, err)
	}
	l.have.ports = want
	return nil
}

// forgotten are the flows that lead nowhere now.
func (l *Linux) forgotten(before ports, want *desired, gone ...map[string]TaskLink) []flows {
	var all []flows
	lost := map[netip.Addr]bool{}
	for _, tasks := range gone {
		for _, t := range tasks {
			if t.Address.IsValid() && !lost[t.Address] {
				lost[t.Address] = true
				all = append(all, flows{to: t.Address}, flows{from: t.Address})
			}
		}
	}
	local := map[netip.Addr]bool{}
	for _, t := range want.tasks {
		local[t.Address] = true
	}
	for k, old := range before {
		now, published := want.ports[k]
		for _, b := range old {
			if _, stays := slices.BinarySearchFunc(now, b, netip.AddrPort.Compare); stays || lost[b.Addr()] {
				continue
			}
			if !published || !local[b.Addr()] {
				all = append(all, flows{to: b.Addr(), toPort: b.Port(), published: k})
			}
		}
	}
	return all
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
		if a, ours := linkAddress(one.Attrs().Name); ours && taskName.MatchString(task) && pinned(l.Namespace(task)) {
			addresses[task] = a
		}
	}
	return addresses, nil
}

// Teardown implements Network. A machine that did not forward packets before the first Apply does not do so any more.
func (l *Linux) Teardown(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lock < 0 {
		return errClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	l.synced = false
	errs := []error{l.openRouter(), l.removeUplink(), l.removeTable()}
	if l.router != nil {
		links, err := dump(l.router.LinkList)
		ours := slices.DeleteFunc(links, func(one netlink.Link) bool { _, ours := linkAddress(one.Attrs().Name); return !ours })
		errs = append(errs, err, l.cutAll(ours))
		l.router.close()
		l.router = nil
	}
	entries, err := os.ReadDir(l.tasksDir())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, e := range entries {
		errs = append(errs, unpin(l.Namespace(e.Name())))
	}
	errs = append(errs, unpin(l.routerPath()), l.restoreForward())
	for _, dir := range []string{l.tasksDir(), filepath.Dir(l.routerPath())} {
		if err := os.Remove(dir); !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("netplugin: tear down: %w", err)
	}
	l.have = state{}
	return nil
}
