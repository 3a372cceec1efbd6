package store

import (
	"maps"
	"slices"

	"github.com/tidwall/btree"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// index finds objects by what they refer to, and counts them.
type index struct {
	names     lazy[*btree.Map[string, string]] // kind/name, zero byte, ID → ID; not of what is being deleted
	byService grouped[*v1.Task]
	byNode    grouped[*v1.Task]
	unplaced  grouped[*v1.Task] // tasks that wait for a node, by service
	revisions grouped[*v1.ServiceRevision]
	loads     lazy[*btree.Map[string, Load]]       // by node
	counts    lazy[*btree.Map[string, TaskCounts]] // by service
	network   networkIndex
	peers     peerIndex
	global    grouped[*v1.Service] // with tasks on every node, in one group
	balanced  grouped[*v1.Service] // whose tasks move to nodes that come, in one group
}

func newIndex() index {
	return index{
		names:     lazy[*btree.Map[string, string]]{tree: new(btree.Map[string, string])},
		byService: newGrouped[*v1.Task](),
		byNode:    newGrouped[*v1.Task](),
		unplaced:  newGrouped[*v1.Task](),
		revisions: newGrouped[*v1.ServiceRevision](),
		loads:     lazy[*btree.Map[string, Load]]{tree: new(btree.Map[string, Load])},
		counts:    lazy[*btree.Map[string, TaskCounts]]{tree: new(btree.Map[string, TaskCounts])},
		network:   newNetworkIndex(),
		peers:     newPeerIndex(),
		global:    newGrouped[*v1.Service](),
		balanced:  newGrouped[*v1.Service](),
	}
}

// shared is the same index for the next snapshot, where it is copied tree by tree when one is first written.
func (x *index) shared() index {
	return index{x.names.shared(), x.byService.shared(), x.byNode.shared(), x.unplaced.shared(), x.revisions.shared(),
		x.loads.shared(), x.counts.shared(), x.network.shared(), x.peers.shared(), x.global.shared(),
		x.balanced.shared()}
}

// change replaces what the index knows of an object; old is nil where it is new, next where it is gone.
func (x *index) change(old, next v1.Object) {
	object := next
	if next == nil {
		object = old
	}
	switch object.(type) {
	case *v1.Task:
		was, _ := old.(*v1.Task)
		is, _ := next.(*v1.Task)
		x.changeTask(was, is)
	case *v1.ServiceRevision:
		was, _ := old.(*v1.ServiceRevision)
		is, _ := next.(*v1.ServiceRevision)
		if was != nil && (is == nil || was.Spec.Service != is.Spec.Service) {
			x.revisions.remove(was.Spec.Service, was.Meta.ID)
		}
		if is != nil {
			x.revisions.set(is.Spec.Service, is.Meta.ID, is)
		}
	case *v1.Service:
		was, _ := old.(*v1.Service)
		is, _ := next.(*v1.Service)
		x.network.changeService(was, is)
		x.peers.changeService(was, is)
		changeMember(&x.global, was, is, v1.Global)
		changeMember(&x.balanced, was, is, rebalances)
		x.changeName(old, next)
	case *v1.Network:
		was, _ := old.(*v1.Network)
		is, _ := next.(*v1.Network)
		x.network.changeNetwork(was, is)
		x.changeName(old, next)
	case *v1.Node:
		was, _ := old.(*v1.Node)
		is, _ := next.(*v1.Node)
		x.peers.changeNode(was, is)
		x.changeName(old, next)
	default:
		x.changeName(old, next)
	}
}

// changeMember puts a service into the one group of those that are such, or takes it out.
func changeMember(group *grouped[*v1.Service], was, is *v1.Service, such func(*v1.Service) bool) {
	if such(is) {
		group.set("", is.Meta.ID, is)
	} else if such(was) {
		group.remove("", was.Meta.ID)
	}
}

func rebalances(s *v1.Service) bool { return v1.Rebalances(v1.Effective(s)) }

func (x *index) changeName(old, next v1.Object) {
	was, is := nameKey(old), nameKey(next)
	if was == is {
		return
	}
	if was != "" {
		x.names.edit().Delete(was)
	}
	if is != "" {
		x.names.edit().Set(is, next.GetMeta().ID)
	}
}

func namePrefix(kind v1.Kind, name string) string { return string(kind) + "/" + name + "\x00" }

func nameKey(o v1.Object) string {
	if o == nil {
		return ""
	}
	m := o.GetMeta()
	if m.Name == "" || !m.Deleting.IsZero() {
		return ""
	}
	switch o.(type) {
	case *v1.Service:
		return namePrefix(v1.KindService, m.Name) + m.ID
	case *v1.Network:
		return namePrefix(v1.KindNetwork, m.Name) + m.ID
	case *v1.Secret:
		return namePrefix(v1.KindSecret, m.Name) + m.ID
	case *v1.Config:
		return namePrefix(v1.KindConfig, m.Name) + m.ID
	case *v1.Volume:
		return namePrefix(v1.KindVolume, m.Name) + m.ID
	case *v1.Registry:
		return namePrefix(v1.KindRegistry, m.Name) + m.ID
	case *v1.Cluster:
		return namePrefix(v1.KindCluster, m.Name) + m.ID
	case *v1.User:
		return namePrefix(v1.KindUser, m.Name) + m.ID
	case *v1.Attachment:
		return namePrefix(v1.KindAttachment, m.Name) + m.ID
	}
	return ""
}

// changeTask replaces a task. Most changes are of the status alone: they only replace the pointers.
func (x *index) changeTask(was, is *v1.Task) {
	if was != nil && (is == nil || was.Desired.Service != is.Desired.Service) {
		x.byService.remove(was.Desired.Service, was.Meta.ID)
	}
	if is != nil {
		x.byService.set(is.Desired.Service, is.Meta.ID, is)
	}
	wasNode, isNode := nodeOf(was), nodeOf(is)
	if wasNode != "" && wasNode != isNode {
		x.byNode.remove(wasNode, was.Meta.ID)
	}
	if isNode != "" {
		x.byNode.set(isNode, is.Meta.ID, is)
	}
	waits := is != nil && v1.WaitsForNode(is)
	if was != nil && v1.WaitsForNode(was) && (!waits || was.Desired.Service != is.Desired.Service) {
		x.unplaced.remove(was.Desired.Service, was.Meta.ID)
	}
	if waits {
		x.unplaced.set(is.Desired.Service, is.Meta.ID, is)
	}
	x.changeLoads(was, is)
	x.changeCounts(was, is)
	x.network.changeTask(was, is)
}

func nodeOf(t *v1.Task) string {
	if t == nil {
		return ""
	}
	return v1.TaskNode(t)
}

// Load is what the tasks placed on a node hold of it, until they are observed to have ended.
type Load struct {
	Tasks  int
	CPUs   v1.CPUs
	Memory v1.Bytes
	// HostPorts counts the tasks that hold each host mode port, such as "tcp/8080".
	HostPorts map[string]int
	// Generic are the generic resources that they hold.
	Generic v1.Generic
}

func (x *index) changeLoads(was, is *v1.Task) {
	wasHeld, isHeld := holding(was), holding(is)
	if wasHeld == isHeld || wasHeld != nil && isHeld != nil && sameHold(wasHeld, isHeld) {
		return
	}
	if wasHeld != nil {
		x.changeLoad(wasHeld, -1)
	}
	if isHeld != nil {
		x.changeLoad(isHeld, +1)
	}
}

// holding is the placement that a task holds, or nil.
func holding(t *v1.Task) *v1.TaskPlacement {
	if t == nil || !v1.HoldsPlacement(t) {
		return nil
	}
	return t.Desired.Placement
}

func sameHold(a, b *v1.TaskPlacement) bool {
	return a.Node == b.Node && a.CPUs == b.CPUs && a.Memory == b.Memory && slices.Equal(a.HostPorts, b.HostPorts) && slices.Equal(a.Generic, b.Generic)
}

func (x *index) changeLoad(p *v1.TaskPlacement, by int) {
	loads := x.loads.edit()
	next, _ := loads.Get(p.Node)
	next.Tasks += by
	next.CPUs += p.CPUs * v1.CPUs(by)
	next.Memory += p.Memory * v1.Bytes(by)
	if len(p.HostPorts) > 0 {
		if next.HostPorts = maps.Clone(next.HostPorts); next.HostPorts == nil {
			next.HostPorts = make(map[string]int, len(p.HostPorts))
		}
		for _, port := range p.HostPorts {
			if next.HostPorts[port] += by; next.HostPorts[port] == 0 {
				delete(next.HostPorts, port)
			}
		}
		if len(next.HostPorts) == 0 {
			next.HostPorts = nil
		}
	}
	if len(p.Generic) > 0 {
		if next.Generic = maps.Clone(next.Generic); next.Generic == nil {
			next.Generic = make(v1.Generic, len(p.Generic))
		}
		if next.Generic.Add(p.Generic, int64(by)); len(next.Generic) == 0 {
			next.Generic = nil
		}
	}
	if next.Tasks == 0 {
		loads.Delete(p.Node)
		return
	}
	loads.Set(p.Node, next)
}

// TaskCounts are how many tasks of a service are in each observed state, and how many of those are wanted.
type TaskCounts struct {
	Total int
	// Running are observed running and desired to.
	Running int
	// Live are desired to run and have not ended.
	Live int
	// Complete are observed complete.
	Complete int
}

func (c TaskCounts) plus(o TaskCounts, by int) TaskCounts {
	return TaskCounts{c.Total + by*o.Total, c.Running + by*o.Running, c.Live + by*o.Live, c.Complete + by*o.Complete}
}

// countOf is what a task counts for.
func countOf(t *v1.Task) TaskCounts {
	c := TaskCounts{Total: 1}
	observed := v1.Observed(t)
	if v1.Live(t) {
		c.Live = 1
	}
	if observed == v1.TaskRunning && t.Desired.State <= v1.TaskComplete {
		c.Running = 1
	}
	if observed == v1.TaskComplete {
		c.Complete = 1
	}
	return c
}

func (x *index) changeCounts(was, is *v1.Task) {
	if was != nil && is != nil && was.Desired.Service == is.Desired.Service {
		if before, after := countOf(was), countOf(is); before != after {
			x.changeCount(is.Desired.Service, after.plus(before, -1), +1)
		}
		return
	}
	if was != nil {
		x.changeCount(was.Desired.Service, countOf(was), -1)
	}
	if is != nil {
		x.changeCount(is.Desired.Service, countOf(is), +1)
	}
}

func (x *index) changeCount(service string, c TaskCounts, by int) {
	counts := x.counts.edit()
	next, _ := counts.Get(service)
	if next = next.plus(c, by); next.Total == 0 {
		counts.Delete(service)
		return
	}
	counts.Set(service, next)
}
