// Package controllers lists every rule of the swarm, in the order in which they decide. Read this first.
//
// A rule is a pure function of a snapshot (see package reconcile). Rules that decide about the same things are a pipeline:
// each sees the uncommitted result of those before it, so that what a change needs is decided in one pass and written once.
// What one pipeline tells another is in the objects, as for everybody else. The pipelines, each with its rules in order, and
// the sections that they write:
//
//	node       by node
//	  node       is it there                                     Node.desired
//	network    by network
//	  network    which subnets, and which VNI                    Network.desired
//	service    by service, and by attachment, which is like one with one task
//	  rollout    when may which slot move to the new revision    Service.desired.update
//	  service    what tasks exist, and what is to stop           Task.desired, Service.desired.cron
//	  gc         what is over and may go                         removes tasks, revisions, services, attachments
//	  address    with which addresses and ports, or why none     Service.desired.vips and ports, Task.desired.networks
//	  scheduler  where the tasks run, or why nowhere             Task.desired.placement
//	stack      by stack
//	  versions   which contents of its files are over            removes secrets, configs
//	authority  the one
//	  authority  which root every node has come to trust         Authority.desired
//
// The order of the service pipeline is that of the questions. Rollout comes before service, so that a slot is admitted and
// moved in one step. Gc comes after service, which says what to remove. Address comes after both, so that new tasks have their
// addresses when they are first seen, and before the scheduler, which places no task without. The scheduler is last, because all
// the others can be decided without a node, and so that what it places need not be shown to another rule. The networks are a
// pipeline of their own, for a network is there without any service; both rules are in package network. So are the stacks, of which only
// what their files said is in the store on its own; that rule is in package gc.
//
// Package member beside them is pure too, and no rule: what it decides about is etcd's list of members, which is in no
// snapshot.
//
// The package owns the list and the running of it, and nothing else. The rules never import each other: what one tells the
// other is in the objects.
package controllers

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/swarmd/swarmd/pkg/controllers/authority"
	"github.com/swarmd/swarmd/pkg/controllers/gc"
	"github.com/swarmd/swarmd/pkg/controllers/network"
	"github.com/swarmd/swarmd/pkg/controllers/node"
	"github.com/swarmd/swarmd/pkg/controllers/rollout"
	"github.com/swarmd/swarmd/pkg/controllers/scheduler"
	"github.com/swarmd/swarmd/pkg/controllers/service"
	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/store"
)

// Pipelines are all pipelines.
func Pipelines() []reconcile.Pipeline {
	return []reconcile.Pipeline{
		{Name: "node", AllKeys: node.AllKeys, Rules: []reconcile.Rule{node.Rule{}}},
		{Name: "network", AllKeys: network.AllKeys, Rules: []reconcile.Rule{network.Rule{}}},
		{Name: "service", AllKeys: reconcile.AllKeys, Rules: Rules()},
		{Name: "stack", AllKeys: gc.AllStacks, Rules: []reconcile.Rule{gc.Versions{}}},
		{Name: "authority", AllKeys: authority.AllKeys, Rules: []reconcile.Rule{authority.Rule{}}},
	}
}

// Rules are those that are keyed by service, in the order in which they decide.
func Rules() []reconcile.Rule {
	return []reconcile.Rule{rollout.Rule{}, service.Rule{}, gc.Rule{}, network.Addresses{}, scheduler.Rule{}}
}

// Run runs all pipelines for as long as the lead lasts. It ends when the first of them does, with that one's error, and not
// before the others have ended too: store.ErrFenced when the lead is lost, store.ErrClosed when the store is closed, and
// ctx's cause when that ends. It may be called again with a later lead, also with the same registry, but not twice at once.
func Run(ctx context.Context, s store.Store, lead store.Lead, o reconcile.Options) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, p := range Pipelines() {
		engine := p.Engine(s, o)
		group.Go(func() error { return engine.Run(ctx, lead) })
	}
	return group.Wait()
}
