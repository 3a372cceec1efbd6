package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/swarmd/swarmd/pkg/agent"
	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/pkg/netplugin"
	"github.com/swarmd/swarmd/pkg/runtime"
	"github.com/swarmd/swarmd/pkg/runtime/containerd"
	"github.com/swarmd/swarmd/pkg/store/etcd"
)

// Leave implements apiserver.Host.
func (d *Daemon) Leave(ctx context.Context, force bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.inside.Load()
	if n == nil {
		return unavailable("Not in a swarm", "This node is not part of a swarm")
	}
	if !force {
		if err := n.mayLeave(ctx); err != nil {
			return err
		}
	}
	n.resign(ctx)
	if err := d.disk().rename(identityName, leavingName); err != nil {
		return err
	}
	n.takeLeave(ctx)
	n.stop()
	d.inside.Store(nil)
	return d.finishLeaving(ctx)
}

// unavailable is how Docker refuses what does not go in the state that the node is in.
func unavailable(title, detail string) *v1.Problem {
	return &v1.Problem{Title: title, Status: http.StatusServiceUnavailable, Detail: detail}
}

// What Docker says to a manager that leaves.
const (
	leavingManager = "You are attempting to leave the swarm on a node that is participating as a manager. "
	leavingLast    = "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message."
	leavingQuorum  = "Removing this node leaves %d managers out of %d. Without a Raft quorum your swarm will be inaccessible. "
	leavingUnknown = "Doing so may lose the consensus of your cluster. "
	leavingForce   = "The only way to restore a swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. " +
		"Use `--force` to suppress this message."
)

// mayLeave refuses to lose a manager unasked.
func (n *node) mayLeave(ctx context.Context) error {
	n.mu.Lock()
	m, locked := n.manager, n.locked
	n.mu.Unlock()
	if locked {
		return errNodeLocked
	}
	if m == nil {
		return nil
	}
	detail := leavingManager
	s := m.opened()
	if s == nil || len(n.d.o.EtcdEndpoints) > 0 {
		return unavailable("A manager", detail+leavingUnknown+leavingForce)
	}
	ctx, cancel := context.WithTimeout(ctx, hearWithin)
	defer cancel()
	list, err := s.Members(ctx)
	all, reachable := count(list)
	switch {
	case err != nil:
		detail += leavingUnknown
	case all <= 1:
		return unavailable("The last manager", detail+leavingLast)
	case reachable-1 < all/2+1:
		detail += fmt.Sprintf(leavingQuorum, reachable-1, all)
	}
	return unavailable("A manager", detail+leavingForce)
}

// count is how many managers vote, and how many of them can be reached.
func count(list []etcd.Member) (all, reachable int) {
	for _, e := range list {
		if e.Voter {
			all++
			if e.Reachable || e.Leader {
				reachable++
			}
		}
	}
	return all, reachable
}

// resignWithin bounds how long a manager that leaves by force tries to do so in order.
const resignWithin = 8 * time.Second

// resign has a manager that leaves made a worker first, where the others can go on without it.
func (n *node) resign(ctx context.Context) {
	n.mu.Lock()
	m := n.manager
	n.mu.Unlock()
	if m == nil || !m.up() || len(n.d.o.EtcdEndpoints) > 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, resignWithin)
	defer cancel()
	if err := n.demoteSelf(ctx); err != nil {
		n.log.Warn("this manager leaves without handing over", "err", err)
		return
	}
	if err := n.await(ctx, func() bool { return n.manager != m }); err != nil {
		n.log.Warn("the other managers did not remove this one in time", "err", err)
	}
}

// demoteSelf makes the node a worker, as its API does for anybody: it refuses what would leave too few managers.
func (n *node) demoteSelf(ctx context.Context) error {
	c, err := client.New("unix://" + n.d.o.Socket)
	if err != nil {
		return err
	}
	defer c.Close()
	id := n.remembers().NodeID
	self, err := client.Get(ctx, c, v1.Nodes, id)
	if err != nil {
		return err
	}
	spec := *self.Spec
	spec.Role = v1.RoleWorker
	_, _, err = client.Update(ctx, c, v1.Nodes, &v1.Node{Meta: self.Meta, Spec: &spec})
	return err
}

// takeLeave tells the managers, if they can be reached, that the node need not be waited for.
func (n *node) takeLeave(ctx context.Context) {
	n.follow()
	if len(n.hosts()) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, hearWithin)
	defer cancel()
	managers, err := n.link.managers(ctx)
	if err == nil {
		err = managers.Leave(ctx)
	}
	if err != nil {
		n.log.Warn("the managers were not told that this node leaves; they will notice", "err", err)
	}
}

// leavingName is there while a node leaves, so that one that is killed meanwhile goes on leaving.
const leavingName = "leaving.json"

// volumesName is the folder of the volumes. It stays when a node leaves: what is in it is the user's.
const volumesName = "volumes"

// finishLeaving removes the containers, links and state of a node that left.
func (d *Daemon) finishLeaving(ctx context.Context) error {
	if !d.disk().exists(leavingName) {
		return nil
	}
	if err := removeContainers(ctx, d.runtime); err != nil {
		return fmt.Errorf("leave the swarm: %w", err)
	}
	if d.network != nil {
		if err := d.network.Teardown(ctx); err != nil {
			return fmt.Errorf("leave the swarm: remove the network: %w", err)
		}
	}
	d.kept.dropAll()
	if err := d.disk().removeSwarm(); err != nil {
		return fmt.Errorf("leave the swarm: %w", err)
	}
	d.log.Info("this node left the swarm")
	return d.disk().remove(leavingName)
}

// removeContainers ends and forgets every container of the swarm.
func removeContainers(ctx context.Context, r runtime.Runtime) error {
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
			if err := r.DropFiles(ctx, c.ID); err != nil {
				return err
			}
			return r.RemoveLog(ctx, c.ID)
		})
	}
	return group.Wait()
}

// removeSwarm removes what a node remembers of a swarm, its place in it first; images stay.
func (d disk) removeSwarm() error {
	if err := agent.UnmountFiles(d.path("agent")); err != nil {
		return err
	}
	return d.remove(identityName, managersName, certFolder, storeName, "keyring.json", "keyring.json.key", copiesName, archiveName, "agent", "network")
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
	d := newDaemon(o)
	if links, err := netplugin.New(netplugin.Options{Dir: d.path("network"), Log: d.log}); err == nil {
		d.network = links
	} else {
		d.log.Warn("the network is not cleaned up", "err", err) // another swarmd has charge of it
	}
	r, err := d.openRuntime(ctx)
	if err != nil {
		return err
	}
	if err := d.removeAll(ctx, r); err != nil {
		return err
	}
	names := []string{"containerd", volumesName, leavingName}
	audits, _ := filepath.Glob(d.path(auditName) + "*")
	for _, path := range audits {
		names = append(names, filepath.Base(path))
	}
	return errors.Join(d.disk().removeSwarm(), d.disk().remove(names...), os.RemoveAll(o.Socket), os.Remove(lockFile(o.Root)))
}

func (d *Daemon) removeAll(ctx context.Context, r *containerd.Runtime) error {
	if err := removeContainers(ctx, r); err != nil {
		return errors.Join(err, r.Close())
	}
	if err := r.Shutdown(ctx); err != nil {
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
