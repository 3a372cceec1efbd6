package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Shutdown removes every container and ends containerd, for a node that leaves: no process, mount, socket or control group
// of ours is left. Files stay below Root, images among them. The Runtime is closed afterwards, also after an error. Called
// again it does nothing but to return the same.
func (r *Runtime) Shutdown(ctx context.Context) error {
	r.shutdown.Do(func() {
		if r.gone.Load() {
			r.shut = errors.New("containerd: Shutdown after Close")
			return
		}
		r.shut = r.end(ctx)
	})
	return r.shut
}

func (r *Runtime) end(ctx context.Context) error {
	r.cancel() // nobody restarts what is about to end
	r.work.Wait()
	var err error
	if r.daemon != nil {
		err = r.daemon.ensure(ctx)
	}
	if err == nil {
		err = r.removeAll(r.namespaced(ctx))
	}
	if r.daemon != nil {
		err = errors.Join(err, r.daemon.stop(ctx))
	}
	// What could not be removed in good order goes by force.
	err = errors.Join(err, r.killShims(), r.cgroup.kill(), r.unmount(ctx), r.cgroup.remove(ctx), r.removeSockets())
	return errors.Join(err, r.Close())
}

// killShims kills the shims that serve our containerd, whose end did not end them.
func (r *Runtime) killShims() error {
	if r.daemon == nil {
		return nil
	}
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	var errs []error
	for _, file := range processes {
		line, err := os.ReadFile(file)
		if err != nil {
			continue // ended meanwhile
		}
		args := strings.Split(string(line), "\x00")
		address := slices.Index(args, "-address")
		if args[0] != r.paths.bin("containerd-shim-runc-v2") || address < 0 || len(args) < address+2 || args[address+1] != r.paths.socket {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			r.log.Warn("containerd: killing a shim that is left", "pid", pid)
			errs = append(errs, ended(syscall.Kill(pid, syscall.SIGKILL)))
		}
	}
	return errors.Join(errs...)
}

// sweep removes what an earlier process left half made, which nobody else would ever see, and marks and control groups
// without a container.
func (r *Runtime) sweep(ctx context.Context) error {
	groups := r.cgroup.ids() // before the records: a container has its record first
	records, err := r.client.ContainerService().List(ctx)
	if err != nil {
		return fmt.Errorf("containerd: list containers: %w", err)
	}
	known := make(map[string]bool, len(records))
	for _, record := range records {
		known[record.ID] = true
		if _, marked := r.paths.readMark(record.ID); marked || metaOf(record).Owner != r.paths.name {
			continue
		}
		r.log.Info("containerd: removing a container that was left half made", "task.id", record.ID)
		if err := r.Remove(ctx, record.ID); err != nil {
			r.log.Warn("containerd: cannot remove what was left half made", "task.id", record.ID, "error", err)
		}
	}
	marks, err := os.ReadDir(r.paths.in("marks"))
	for _, m := range marks {
		if !known[m.Name()] {
			err = errors.Join(err, os.Remove(r.paths.mark(m.Name())))
		}
	}
	r.sweepGroups(groups, known)
	return errors.Join(err, r.sweepSubpaths())
}

// sweepGroups removes the control groups of containers that are not known, unless there are processes in them: those are
// somebody's.
func (r *Runtime) sweepGroups(groups, known map[string]bool) {
	once, cancel := context.WithCancel(context.Background())
	cancel()
	for id := range groups {
		if known[id] {
			continue
		}
		if err := removeGroups(once, r.cgroup.path(id)); err != nil {
			r.log.Warn("containerd: cannot remove the control groups of a container that is gone", "task.id", id, "error", err)
		}
	}
}

// removeAll removes all containers, also half made ones.
func (r *Runtime) removeAll(ctx context.Context) error {
	records, err := r.client.ContainerService().List(ctx)
	if err != nil {
		return fmt.Errorf("containerd: list containers: %w", err)
	}
	var group errgroup.Group
	group.SetLimit(8)
	errs := make([]error, len(records)) // all of them: one that fails must not keep the others
	for i, record := range records {
		if r.daemon == nil && metaOf(record).Owner != r.paths.name {
			continue // in a containerd that is not ours
		}
		group.Go(func() error {
			errs[i] = r.Remove(ctx, record.ID)
			return nil
		})
	}
	return errors.Join(append(errs, group.Wait())...)
}

// unmount unmounts what is left below the root, the innermost first.
func (r *Runtime) unmount(ctx context.Context) error {
	for {
		mounts, err := r.paths.mounts()
		if err != nil || len(mounts) == 0 {
			return err
		}
		for _, at := range slices.Backward(mounts) {
			err = errors.Join(err, unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
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
