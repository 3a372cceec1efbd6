package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store/etcd"
)

// errInSwarm is Docker's refusal to be in two swarms.
var errInSwarm = unavailable("Already in a swarm",
	`This node is already part of a swarm. Use "swarmctl swarm leave" to leave this swarm and join another one.`)

// enterWithin bounds how long a request waits for the node to have arrived in its swarm: as long as Docker's.
const enterWithin = 20 * time.Second

func badRequest(err error) error {
	return &v1.Problem{Title: "Bad request", Status: http.StatusBadRequest, Detail: err.Error()}
}

// Init implements apiserver.Host.
func (d *Daemon) Init(ctx context.Context, r v1.InitRequest) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := d.inside.Load(); n != nil && r.ForceNewCluster {
		return d.forceNew(ctx, n, r)
	} else if n != nil {
		return "", errInSwarm
	}
	if err := checkInit(&r); err != nil {
		return "", badRequest(err)
	}
	id, door, err := d.begin(r, stepFound)
	if err != nil {
		return "", err
	}
	if err := d.found(ctx, id, door, nil); err != nil {
		return "", err
	}
	d.log.Info("this node is the first manager of a new swarm", "node.id", id.NodeID, "addr", id.Addr)
	return id.NodeID, nil
}

// Restore implements apiserver.Joiner.
func (d *Daemon) Restore(ctx context.Context, r v1.InitRequest, archive io.Reader) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.inside.Load() != nil {
		return "", errInSwarm
	}
	if len(d.o.EtcdEndpoints) > 0 {
		return "", badRequest(errors.New("this daemon works on an etcd of your own (--etcd-endpoints): restore that by its own means"))
	}
	if err := checkAvailability(r.Availability); err != nil {
		return "", badRequest(err)
	}
	id, door, err := d.begin(r, stepRestore)
	if err != nil {
		return "", err
	}
	if err := d.found(ctx, id, door, archive); err != nil {
		return "", err
	}
	d.log.Info("this node is the first manager of a swarm from a backup", "node.id", id.NodeID, "addr", id.Addr)
	return id.NodeID, nil
}

// gatewayPool is the one that a new swarm is to have.
func gatewayPool(r *v1.InitRequest) string {
	if r.Spec == nil {
		return v1.DefaultGatewayPool
	}
	return cmp.Or(r.Spec.GatewayPool, v1.DefaultGatewayPool)
}

// begin finds out where the first manager of a swarm is reached, and opens its port.
func (d *Daemon) begin(r v1.InitRequest, s step) (*identity, net.Listener, error) {
	p, err := findPlace(r.ListenAddr, r.AdvertiseAddr, r.DataPathAddr, "")
	if err == nil && s == stepFound {
		err = p.outside(gatewayPool(&r), choosePool)
	}
	if err != nil {
		return nil, nil, badRequest(err)
	}
	door, err := listenAt(p.listen)
	if err != nil {
		return nil, nil, badRequest(err)
	}
	return &identity{
		NodeID: v1.NewID(), Role: v1.RoleManager, Addr: p.addr, ListenAddr: p.listen, DataAddr: p.data, Step: s, Init: &r,
	}, door, nil
}

// found makes the first manager of a swarm, of a backup unless that is nil. Where it fails, the machine is as it was.
func (d *Daemon) found(ctx context.Context, id *identity, door net.Listener, archive io.Reader) (err error) {
	defer func() {
		if err != nil {
			door.Close()
			err = errors.Join(err, d.disk().removeSwarm())
		}
	}()
	if err := d.disk().removeSwarm(); err != nil { // what a crash left of another try
		return err
	}
	if archive != nil {
		if err := d.disk().copy(archiveName, archive); err != nil {
			return fmt.Errorf("keep the backup: %w", err)
		}
	}
	if err := id.save(d.disk()); err != nil {
		return err
	}
	n := d.newNode(id)
	switch err := n.settle(ctx); {
	case errors.Is(err, etcd.ErrLocked) && id.Step == stepRestore:
		n.lock() // the unlock key has to be brought before there is a swarm
	case err != nil && id.Step == stepRestore:
		n.stop()
		return badRequest(err)
	case err != nil:
		n.stop()
		return err
	}
	return d.arrive(ctx, n, door)
}

// arrive starts a node whose disk says that it is in a swarm, and waits until it is.
func (d *Daemon) arrive(ctx context.Context, n *node, door net.Listener) error {
	n.start(door)
	ctx, cancel := context.WithTimeout(ctx, enterWithin)
	defer cancel()
	err := n.await(ctx, func() bool { return n.locked || n.manager != nil && (n.manager.up() || n.manager.trouble() != nil) })
	n.mu.Lock()
	m := n.manager
	n.mu.Unlock()
	if err == nil && m != nil {
		err = m.trouble()
	}
	if err != nil {
		n.stop()
		return err
	}
	d.inside.Store(n)
	return nil
}

// forceNew makes the node the only manager of its swarm, with all that it knows.
func (d *Daemon) forceNew(ctx context.Context, n *node, r v1.InitRequest) (string, error) {
	id := n.remembers()
	n.mu.Lock()
	locked := n.locked
	n.mu.Unlock()
	switch {
	case locked:
		return "", errNodeLocked
	case id.Role != v1.RoleManager || len(d.o.EtcdEndpoints) > 0 || id.Member != memberStarted && id.Step == stepNone:
		return "", unavailable("Not a manager", "This node is not a swarm manager, and has no state of the swarm to go on with: "+
			"use --force-new-cluster on a node that was a manager, or restore a backup.")
	}
	next := id
	if r.AdvertiseAddr != "" || r.ListenAddr != "" || r.DataPathAddr != "" {
		p, err := findPlace(r.ListenAddr, r.AdvertiseAddr, r.DataPathAddr, "")
		if err != nil {
			return "", badRequest(err)
		}
		next.Addr, next.ListenAddr, next.DataAddr = p.addr, p.listen, p.data
	}
	next.Step, next.Init, next.Member = stepForce, &v1.InitRequest{Availability: r.Availability}, memberStarted
	n.stop()
	unlock := n.unlock
	if err := next.save(d.disk()); err != nil {
		next = id // go on as before
		d.inside.Store(d.resumed(&next, unlock))
		return "", err
	}
	if err := d.disk().remove(managersName); err != nil {
		d.log.Warn("the addresses of the managers from before stay", "err", err)
	}
	n = d.resumed(&next, unlock)
	d.inside.Store(n)
	ctx, cancel := context.WithTimeout(ctx, enterWithin)
	defer cancel()
	if err := n.await(ctx, func() bool { return n.trouble != "" || n.manager != nil && n.manager.up() }); err != nil {
		return "", err
	}
	if text := n.info(ctx).Error; text != "" {
		return "", errors.New(text)
	}
	d.log.Warn("this node is the only manager of its swarm from now on; the managers from before have to join again", "node.id", next.NodeID)
	return next.NodeID, nil
}

// resumed is a node that goes on with what is on disk.
func (d *Daemon) resumed(id *identity, unlock []byte) *node {
	n := d.newNode(id)
	n.unlock = unlock
	n.start(nil)
	return n
}
