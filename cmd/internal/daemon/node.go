package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/swarmd/swarmd/pkg/agent"
	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/pkg/controllers"
	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/store"
	"github.com/swarmd/swarmd/pkg/store/etcd"
)

// node is the machine's part in a swarm while it runs.
type node struct {
	identity *identity
	store    *etcd.Store
	leave    func() // the server and the registry
	cancel   context.CancelFunc
	work     sync.WaitGroup
}

// enter starts a node's parts: the store, the doors to it, the rules, the agent.
func (d *Daemon) enter(ctx context.Context, id *identity) (*node, error) {
	if err := d.checkStore(id); err != nil {
		return nil, err
	}
	metrics := prometheus.NewRegistry() // of this swarm; another one begins anew
	s, err := d.openStore(ctx, newStoreMetrics(metrics))
	if err != nil {
		return nil, fmt.Errorf("open the swarm's store: %w", err)
	}
	if id.Init != nil {
		spec := id.Init.Spec
		if spec == nil {
			spec = &v1.ClusterSpec{}
		}
		if err := found(ctx, s, spec, id); err != nil {
			s.Close()
			return nil, fmt.Errorf("write the new swarm's objects: %w", err)
		}
		id.Init = nil
		if err := id.save(d.o.Root); err != nil {
			s.Close()
			return nil, err
		}
	}
	self, err := client.New("unix://" + d.o.Socket)
	if err != nil {
		s.Close()
		return nil, err
	}
	live, cancel := context.WithCancel(context.Background())
	engine := reconcile.New(s, controllers.Rules(), reconcile.Options{Logger: d.log, Registry: metrics})
	d.registry.MustRegister(metrics)
	d.server.Attach(s)
	n := &node{identity: id, store: s, cancel: cancel, leave: func() {
		d.server.Detach()
		d.registry.Unregister(metrics)
	}}
	n.work.Go(func() { d.watchStore(live, s) })
	n.work.Go(func() { d.lead(live, s, engine, id.NodeID) })
	a := agent.New(agent.Options{
		NodeID:   id.NodeID,
		Dir:      d.path("agent"),
		Runtime:  d.runtime,
		Network:  d.network,
		Manager:  self.Node(id.NodeID),
		Describe: func() v1.NodeDescription { return d.machine.describe(d.engine, id.Addr) },
		Log:      d.log,
	})
	n.work.Go(func() {
		if err := a.Run(live); err != nil && live.Err() == nil {
			d.fail(fmt.Errorf("agent: %w", err))
		}
	})
	return n, nil
}

// stop ends the node's parts; its containers go on.
func (n *node) stop() {
	n.cancel()
	n.work.Wait()
	n.leave()
	n.store.Close()
}

// checkStore refuses to go on as the manager of a swarm whose state is gone: an empty store would look like a new swarm,
// and its first decision would be that nothing is to run.
func (d *Daemon) checkStore(id *identity) error {
	if id.Init != nil || len(d.o.EtcdEndpoints) > 0 {
		return nil
	}
	db := d.path("etcd/etcd/member/snap/db")
	if _, err := os.Stat(db); err != nil {
		return fmt.Errorf("%s says that this node manages a swarm, but the swarm's state is gone (%w): put %s back from a backup, "+
			"or run swarmd --cleanup to start anew without the swarm", identityFile(d.o.Root), err, d.path("etcd"))
	}
	return nil
}

func (d *Daemon) openStore(ctx context.Context, m *storeMetrics) (*etcd.Store, error) {
	c := etcd.Config{Log: d.log, OnCommit: m.commit}
	if len(d.o.EtcdEndpoints) > 0 {
		c.Endpoints, c.KeyFile = d.o.EtcdEndpoints, d.path("keyring.json")
	} else {
		c.Dir = d.path("etcd")
	}
	return etcd.Start(ctx, c)
}

// watchStore ends the daemon when the store cannot go on.
func (d *Daemon) watchStore(ctx context.Context, s *etcd.Store) {
	select {
	case <-ctx.Done():
	case <-s.Done():
		if ctx.Err() == nil {
			d.fail(fmt.Errorf("the swarm's store ended: %w", s.Err()))
		}
	}
}

// lead runs the rules whenever this node is the leader.
func (d *Daemon) lead(ctx context.Context, s *etcd.Store, engine *reconcile.Engine, name string) {
	for ctx.Err() == nil {
		lead, err := s.Campaign(ctx, name)
		if err == nil {
			d.log.Info("this node leads the swarm")
			err = engine.Run(ctx, lead)
			resign(lead)
		}
		if ctx.Err() != nil {
			return
		}
		d.log.Warn("this node does not lead any more; trying again", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second): // a store in trouble must not be asked without end
		}
	}
}

func resign(lead store.Lead) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = lead.Resign(ctx) // where it fails, the lease runs out
}

// found writes the objects that a swarm begins with: its settings and, where it is given, its first node. What is there
// already stays.
func found(ctx context.Context, s store.Store, spec *v1.ClusterSpec, first *identity) error {
	now := time.Now().UTC()
	meta := func(name string) *v1.Meta { return &v1.Meta{Name: name, CreatedAt: now, UpdatedAt: now, Generation: 1} }
	cluster := &v1.Cluster{Meta: v1.Meta{Name: v1.ClusterName}, Spec: spec}
	v1.Default(cluster)
	ops := []store.Op{{Kind: v1.KindCluster, ID: v1.ClusterName, Value: cluster.Spec, Meta: meta(v1.ClusterName), If: store.Absent()}}
	if first != nil {
		const index = 1
		node := &v1.NodeSpec{Role: first.Role, Availability: cmp.Or(first.Init.Availability, v1.AvailabilityActive), Index: index}
		ops = append(ops,
			store.Op{Kind: v1.KindNode, ID: first.NodeID, Value: node, Meta: meta(""), If: store.Absent()},
			store.Op{Kind: v1.KindClaim, ID: v1.NodeIndexClaim(index), Value: &v1.ClaimSpec{Holder: first.NodeID}, Meta: meta(""), If: store.Absent()})
	}
	_, err := s.Commit(ctx, store.Commit{Ops: ops})
	if errors.Is(err, store.ErrConflict) {
		return nil
	}
	return err
}
