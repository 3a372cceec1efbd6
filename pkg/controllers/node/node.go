// Package node decides which nodes are there, and since when they take tasks.
//
// It owns the desired section of nodes. A node is there while its Presence is, which the manager that it has a session with
// keeps alive. The package never looks at clocks to find a node missing: it says for how long the leader must have been awake to
// take one for missing. It never touches a task, and never judges a node that was not there yet: that one is unknown, and takes no tasks.
package node

import (
	"slices"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/store"
)

// Rule is the node rule.
type Rule struct{}

// AllKeys are the IDs of all nodes, sorted.
func AllKeys(s *store.Snapshot) []string {
	keys := make([]string, 0, s.Count(v1.KindNode))
	for n := range store.All(s, v1.Nodes) {
		keys = append(keys, n.Meta.ID)
	}
	slices.Sort(keys)
	return keys
}

// Name implements reconcile.Rule.
func (Rule) Name() string { return "node" }

// Keys implements reconcile.Rule: a node is worth deciding when its presence comes or goes, and when it itself changes.
func (Rule) Keys(_ *store.Snapshot, c store.Change) []string {
	switch c.Kind {
	case v1.KindPresence:
		if (c.Old == nil) != (c.New == nil) {
			return []string{c.ID}
		}
	case v1.KindNode:
		if _, after, changed := reconcile.NodeOf(c); changed && after != nil {
			return []string{c.ID}
		}
	}
	return nil
}

// Decide implements reconcile.Rule.
func (Rule) Decide(now time.Time, s *store.Snapshot, key string) reconcile.Plan {
	n, ok := store.Get(s, v1.Nodes, key)
	if !ok {
		return reconcile.Plan{}
	}
	_, present := store.Get(s, v1.Presences, key)
	next := v1.NodeDesired{}
	if n.Desired != nil {
		next = *n.Desired
	}
	before := next
	plan := reconcile.Plan{}
	switch {
	case present && !next.Down.IsZero():
		next.Down = time.Time{}
	case !present && next.Down.IsZero() && wasReady(n):
		next.Down = now
		plan.Awake = grace(s)
	}
	as := *n
	as.Desired = &next
	switch {
	case !v1.TakesTasks(&as):
		next.Since = time.Time{}
	case next.Since.IsZero():
		next.Since = now
	}
	if next == before {
		return reconcile.Plan{}
	}
	plan.Ops = []store.Op{{Kind: v1.KindNode, ID: key, Section: v1.SectionDesired, Value: &next,
		If: store.AtRevision(n.Meta.Revisions[v1.SectionDesired])}}
	return plan
}

// minGrace is the least time that a node has to be heard of: two attempts to open a session, and the time that one takes.
const minGrace = 3 * time.Second

// grace is how long a leader that stood still waits for nodes whose leases ran out meanwhile, or whose connections broke: a lease
// knows of no stall. It is as long as a silent node is waited for.
func grace(s *store.Snapshot) time.Duration {
	var spec *v1.ClusterSpec
	if c, ok := store.Get(s, v1.Clusters, v1.ClusterName); ok {
		spec = c.Spec
	}
	return max(minGrace, v1.HeartbeatGrace*v1.HeartbeatPeriod(spec, s.Count(v1.KindNode)))
}

// wasReady tells whether the node ever had a session: its agent has said something of it. Early versions wrote there, too,
// that a node is down.
func wasReady(n *v1.Node) bool {
	return n.Status != nil && n.Status.State != "" && n.Status.State != v1.NodeUnknown
}
