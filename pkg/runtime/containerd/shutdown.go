package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Shutdown removes every container and ends containerd, for a node that leaves: no process, mount, socket or control group
// of ours is left. Files stay below Root, images among them. The Runtime is closed afterwards, also after an error.
func (r *Runtime) Shutdown(ctx context.Context) error {
	err := r.removeAll(r.namespaced(ctx))
	err = errors.Join(err, r.client.Close())
	r.cancel()
	r.work.Wait()
	if r.daemon != nil {
		err = errors.Join(err, r.daemon.stop(ctx))
	}
	err = errors.Join(err, r.unmount(ctx), r.cgroup.remove(), r.removeSockets())
	r.client = nil
	return errors.Join(err, r.Close())
}

// removeAll removes all containers, also half made ones.
func (r *Runtime) removeAll(ctx context.Context) error {
	records, err := r.client.ContainerService().List(ctx)
	if err != nil {
		return fmt.Errorf("containerd: list containers: %w", err)
	}
	var group errgroup.Group
	group.SetLimit(8)
	errs := make([]error, len(records))
	for i, record := range records {
		group.Go(func() error {
			errs[i] = r.Remove(ctx, record.ID)
			return nil
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// unmount unmounts what is left below the root, the innermost first.
func (r *Runtime) unmount(ctx context.Context) error {
	for {
		mounts, err := r.paths.mounts()
		if err != nil || len(mounts) == 0 {
			return err
		}
		for i := len(mounts) - 1; i >= 0; i-- {
			err = errors.Join(err, unix.Unmount(mounts[i], unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("containerd: unmount below %s: %w", r.paths.root, errors.Join(err, ctx.Err()))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// removeSockets removes the sockets of containerd and the shims, and the folder if it is outside of the root.
func (r *Runtime) removeSockets() error {
	if r.daemon == nil {
		return nil
	}
	entries, err := os.ReadDir(r.paths.run)
	for _, e := range entries {
		err = errors.Join(err, os.Remove(filepath.Join(r.paths.run, e.Name())))
	}
	if !strings.HasPrefix(r.paths.run, r.paths.root+"/") {
		err = errors.Join(err, os.Remove(r.paths.run))
	}
	return err
}
