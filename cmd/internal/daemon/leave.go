package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"

	"golang.org/x/sync/errgroup"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/netplugin"
	"github.com/swarmd/swarmd/pkg/runtime/containerd"
)

// Leave implements apiserver.Host.
func (d *Daemon) Leave(ctx context.Context, force bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.node == nil {
		return &v1.Problem{Title: "Not in a swarm", Status: http.StatusServiceUnavailable, Detail: "This node is not part of a swarm"}
	}
	if !force {
		return &v1.Problem{Title: "Last manager", Status: http.StatusServiceUnavailable,
			Detail: "You are attempting to leave the swarm on a node that is participating as a manager. " +
				"Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message."}
	}
	if err := os.Rename(identityFile(d.o.Root), d.leavingFile()); err != nil {
		return err
	}
	d.node.stop()
	d.node = nil
	return d.finishLeaving(ctx)
}

// leavingFile is there while a node leaves, so that one that is killed meanwhile goes on leaving.
func (d *Daemon) leavingFile() string { return d.path("leaving.json") }

// finishLeaving removes the containers, links and state of a node that left.
func (d *Daemon) finishLeaving(ctx context.Context) error {
	if _, err := os.Stat(d.leavingFile()); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := removeContainers(ctx, d.runtime); err != nil {
		return fmt.Errorf("leave the swarm: %w", err)
	}
	if err := d.network.Teardown(ctx); err != nil {
		return fmt.Errorf("leave the swarm: remove the network: %w", err)
	}
	if err := removeState(d.o.Root); err != nil {
		return fmt.Errorf("leave the swarm: %w", err)
	}
	d.log.Info("this node left the swarm")
	return os.Remove(d.leavingFile())
}

// removeContainers ends and forgets every container of the swarm.
func removeContainers(ctx context.Context, r *containerd.Runtime) error {
	all, err := r.List(ctx)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for _, c := range all {
		group.Go(func() error {
			if err := r.Remove(ctx, c.ID); err != nil {
				return fmt.Errorf("remove container %s: %w", c.ID, err)
			}
			return r.RemoveLog(ctx, c.ID)
		})
	}
	return group.Wait()
}

// removeState removes what a node remembers of a swarm; images stay.
func removeState(root string) error {
	var errs []error
	for _, name := range []string{"etcd", "agent", "network", "node.json", "keyring.json", "keyring.json.key"} {
		errs = append(errs, os.RemoveAll(root+"/"+name))
	}
	return errors.Join(errs...)
}

// Cleanup stops the daemon of a data directory, if one runs, and removes everything that it made: containers, the
// containerd that held them, links, firewall table, state, images. It works just as well after a crash.
func Cleanup(ctx context.Context, o Options) error {
	if err := o.complete(); err != nil {
		return err
	}
	lock, err := takeOver(ctx, o.Root)
	if err != nil {
		return err
	}
	defer lock.release()
	d := &Daemon{o: o, log: o.Log}
	if d.network, err = netplugin.New(netplugin.Options{Dir: d.path("network"), Log: d.log}); err != nil {
		d.log.Warn("the network is not cleaned up", "err", err) // another swarmd has charge of it
	}
	if err := d.openRuntime(ctx); err != nil {
		return err
	}
	if err := d.removeAll(ctx); err != nil {
		return err
	}
	return errors.Join(removeState(o.Root), os.RemoveAll(d.path("containerd")), os.RemoveAll(d.leavingFile()),
		os.RemoveAll(o.Socket), os.Remove(lockFile(o.Root)))
}

func (d *Daemon) removeAll(ctx context.Context) error {
	if err := removeContainers(ctx, d.runtime); err != nil {
		return errors.Join(err, d.runtime.Close())
	}
	if err := d.runtime.Shutdown(ctx); err != nil {
		return fmt.Errorf("stop containerd: %w", err)
	}
	if d.network == nil {
		return nil
	}
	if err := d.network.Teardown(ctx); err != nil {
		return fmt.Errorf("remove the network: %w", err)
	}
	return d.network.Close()
}
