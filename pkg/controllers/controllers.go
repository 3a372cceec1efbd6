// Package controllers lists every rule of the swarm, in the order in which they decide. Read this first.
//
// A rule is a pure function of a snapshot (see package reconcile). All of them are keyed by service, and each sees the
// uncommitted result of those before it, so that what a change of a service needs is decided in one pass and written once:
//
//	rollout    when may which slot move to the new revision    Service.desired.update
//	service    what tasks exist, and what is to stop           Task.desired
//	gc         what is over and may go                         removes tasks, revisions, services
//	scheduler  where the tasks run, or why nowhere             Task.desired.placement
//
// The order is that of the questions. Rollout comes before service, so that a slot is admitted and moved in one step. Gc
// comes after service, which says what to remove. The scheduler is last, because all the others can be decided without a
// node, and so that what it places need not be shown to another rule.
//
// The package owns the list and nothing else. The rules never import each other: what one tells the other is in the
// objects.
package controllers

import (
	"github.com/swarmd/swarmd/pkg/controllers/gc"
	"github.com/swarmd/swarmd/pkg/controllers/rollout"
	"github.com/swarmd/swarmd/pkg/controllers/scheduler"
	"github.com/swarmd/swarmd/pkg/controllers/service"
	"github.com/swarmd/swarmd/pkg/reconcile"
)

// Rules are all rules in the order in which they decide.
func Rules() []reconcile.Rule {
	return []reconcile.Rule{rollout.Rule{}, service.Rule{}, gc.Rule{}, scheduler.Rule{}}
}
