package netplugin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/swarmd/swarmd/pkg/tmpfs"
)

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
	l.synced, l.last = false, nil
	defer l.watch.ignoreAll()
	errs := []error{l.openRouter(), l.removeUplink(), l.host.removeTables(base{}.side(0)), l.removeDataPort()}
	if kernelSix() == nil {
		errs = append(errs, l.host.removeTables(base{}.side(1)))
	}
	if l.router != nil {
		errs = append(errs, l.removeMesh())
		links, err := dump(l.router.LinkList)
		ours := slices.DeleteFunc(links, func(one netlink.Link) bool { _, ours := linkAddress(one.Attrs().Name); return !ours })
		errs = append(errs, err, l.cutAll(ours))
		l.router.close()
		l.router = nil
	}
	errs = append(errs, l.removeOverlays(), l.keys.forget())
	entries, err := os.ReadDir(l.tasksDir())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, e := range entries {
		errs = append(errs, l.confineWithin(e.Name(), nil, false), unpin(l.Namespace(e.Name())))
	}
	errs = append(errs, tmpfs.Unmount(l.tasksDir()), unpin(l.routerPath()), l.restoreForward(), l.restoreForwardSix())
	for _, dir := range []string{l.tasksDir(), filepath.Dir(l.routerPath()), l.wiresDir()} {
		if err := os.Remove(dir); !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if l.have.block.IsValid() {
		for _, s := range l.hostSides(l.have.base) {
			errs = append(errs, l.host.forgetEach(s.family(), strangers{side: s, block: s.swarm()}.match))
		}
	}
	if err := errors.Join(errs...); err != nil {
		l.host.reset()
		return fmt.Errorf("netplugin: tear down: %w", err)
	}
	l.have = state{}
	return nil
}
