// Package network decides with which address: the subnets and the VNI of each network, and on them the virtual addresses of
// services and the addresses of tasks, and the numbers of published ports that a service left open.
//
// It owns the desired section of networks, ServiceDesired.VIPs and Ports, and TaskDesired.Networks; and it says in Pending what a
// task waits for before it may be placed, and in Behind whom. It never decides what is on a network, and never gives away what
// somebody still holds: a task holds its addresses until it is observed to have ended, a service until it is gone.
//
// There are two rules, for networks come and go on their own, and a network is there before what is on it. Rule is keyed by
// network, Addresses by service. See docs/design/009-network-addresses.md for why no address has two holders.
//
// Reading order: network.go (a network), subnet.go, vni.go (what it gets), address.go (a service), attach.go (what it is on), vip.go,
// port.go (what it gets), task.go (what its tasks get), pool.go (which address).
package network

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/store"
)

// Rule gives networks their subnets and VNIs.
type Rule struct{}

// AllKeys are the IDs of all networks, sorted.
func AllKeys(s *store.Snapshot) []string {
	keys := make([]string, 0, s.Count(v1.KindNetwork))
	for n := range store.All(s, v1.Networks) {
		keys = append(keys, n.Meta.ID)
	}
	return keys
}

// Name implements reconcile.Rule.
func (Rule) Name() string { return "network" }

// Keys implements reconcile.Rule: a network is worth deciding when it changes, when another has its VNI too, and, while it lacks
// something, when another gives something up and when the pools change.
func (Rule) Keys(s *store.Snapshot, c store.Change) []string {
	switch c.Kind {
	case v1.KindCluster:
		return lacking(s)
	case v1.KindNetwork:
		before, _ := c.Old.(*v1.Network)
		after, _ := c.New.(*v1.Network)
		var keys []string
		if gaveUp(before, after) {
			keys = lacking(s)
		}
		if after == nil {
			return keys
		}
		if after.Desired != nil {
			keys = slices.AppendSeq(keys, s.NetworksWithVNI(after.Desired.VNI))
		}
		return append(keys, c.ID)
	}
	return nil
}

// lacking are the networks that have not all that they need.
func lacking(s *store.Snapshot) []string {
	var keys []string
	for n := range store.All(s, v1.Networks) {
		if !ready(n) || n.Desired.Problem != "" {
			keys = append(keys, n.Meta.ID)
		}
	}
	return keys
}

// ready tells whether a network has what it takes to be on it.
func ready(n *v1.Network) bool {
	return n.Desired != nil && n.Desired.VNI != 0 && len(n.Desired.Subnets) > 0
}

func gaveUp(before, after *v1.Network) bool {
	if before == nil || before.Desired == nil {
		return false
	}
	return after == nil || after.Desired == nil || before.Desired.VNI != after.Desired.VNI ||
		!slices.Equal(before.Desired.Subnets, after.Desired.Subnets)
}

// Decide implements reconcile.Rule. What a network was given it keeps.
func (Rule) Decide(_ time.Time, s *store.Snapshot, key string) reconcile.Plan {
	n, ok := store.Get(s, v1.Networks, key)
	if !ok || !n.Meta.Deleting.IsZero() {
		return reconcile.Plan{}
	}
	var before v1.NetworkDesired
	if n.Desired != nil {
		before = *n.Desired
	}
	next := before
	var problems []string
	if len(next.Subnets) == 0 {
		subnets, problem := subnetsFor(s, n)
		if problem != "" {
			problems = append(problems, problem)
		} else {
			next.Subnets = subnets
		}
	}
	if !keepsVNI(s, n) {
		vni, problem := vniFor(s, n)
		if problem != "" {
			problems = append(problems, problem)
		}
		next.VNI = vni
	}
	next.Problem = strings.Join(problems, "; ")
	if n.Desired != nil && reflect.DeepEqual(before, next) {
		return reconcile.Plan{}
	}
	return reconcile.Plan{Ops: []store.Op{{Kind: v1.KindNetwork, ID: key, Section: v1.SectionDesired, Value: &next,
		If: store.AtRevision(n.Meta.Revisions[v1.SectionDesired])}}}
}

// settings are those of the swarm that networks are made by.
type settings struct {
	pools   []netip.Prefix // of IP version 4
	size    int            // of a subnet, as the length of its prefix
	gateway netip.Prefix   // the gateway pool, which no network may have a part of
}

func settingsOf(s *store.Snapshot) settings {
	spec := v1.ClusterSpec{}
	if c, ok := store.Get(s, v1.Clusters, v1.ClusterName); ok && c.Spec != nil {
		spec = *c.Spec
	}
	is := settings{size: int(spec.SubnetSize), gateway: netip.MustParsePrefix(v1.DefaultGatewayPool)}
	if is.size == 0 {
		is.size = v1.DefaultSubnetSize
	}
	if p, err := netip.ParsePrefix(spec.GatewayPool); err == nil {
		is.gateway = p.Masked()
	}
	if len(spec.DefaultAddrPool) == 0 {
		spec.DefaultAddrPool = []string{v1.DefaultAddrPool}
	}
	for _, text := range spec.DefaultAddrPool {
		if p, err := netip.ParsePrefix(text); err == nil && p.Addr().Is4() && p.Bits() <= is.size {
			is.pools = append(is.pools, p.Masked())
		}
	}
	return is
}
