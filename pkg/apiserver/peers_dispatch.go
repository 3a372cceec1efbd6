package apiserver

import (
	"reflect"
	"slices"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// audience knows which sessions a change of somebody on a network concerns, so that a batch costs nothing where nobody listens.
// The lock of sessions guards it.
type audience struct {
	sessions map[string]map[*session]struct{} // by network ID, and by network name
	refs     map[*session][]string
	ingress  map[string]bool // services that publish ports on every node
	seen     int64           // the revision of the latest batch
}

func newAudience() audience {
	return audience{make(map[string]map[*session]struct{}), make(map[*session][]string), make(map[string]bool), 0}
}

// listenTo has a session marked from now on when somebody on the networks changes, and is the latest revision before that.
func (d *sessions) listenTo(se *session, refs []string) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	a := &d.audience
	if d.open[se.node] != se {
		return a.seen // it ends
	}
	if !slices.Equal(a.refs[se], refs) {
		a.forget(se)
		a.refs[se] = refs
		for _, ref := range refs {
			if a.sessions[ref] == nil {
				a.sessions[ref] = make(map[*session]struct{})
			}
			a.sessions[ref][se] = struct{}{}
		}
	}
	return a.seen
}

func (a *audience) forget(se *session) {
	for _, ref := range a.refs[se] {
		if delete(a.sessions[ref], se); len(a.sessions[ref]) == 0 {
			delete(a.sessions, ref)
		}
	}
	delete(a.refs, se)
}

// reset takes over what a snapshot says.
func (a *audience) reset(s *store.Snapshot) {
	clear(a.ingress)
	for service := range s.IngressServices() {
		a.ingress[service.Meta.ID] = true
	}
	a.seen = s.Revision()
}

// touchPeers marks in the sessions that a batch concerns who of others changed. The caller holds the lock.
func (d *sessions) touchPeers(batch store.Batch, touched map[*session]struct{}) {
	t := &peerTouch{d, batch.Revision, touched}
	for i := range batch.Changes {
		switch c := &batch.Changes[i]; c.Kind {
		case v1.KindTask:
			t.task(c)
		case v1.KindService:
			t.service(c)
		case v1.KindNetwork:
			t.network(c)
		case v1.KindNode:
			t.node(c)
		}
	}
	d.audience.seen = max(d.audience.seen, batch.Revision)
}

// peerTouch leaves the marks of one batch.
type peerTouch struct {
	d        *sessions
	revision int64
	touched  map[*session]struct{}
}

func (t *peerTouch) mark(se *session, m peerMark, own bool) {
	se.touchPeer(m, own, t.revision)
	t.touched[se] = struct{}{}
}

// tell marks in the sessions that listen to one of the networks, or in every one.
func (t *peerTouch) tell(m peerMark, own, all bool, refs ...string) {
	if all {
		for _, se := range t.d.open {
			t.mark(se, m, own)
		}
		return
	}
	for i, ref := range refs {
		if slices.Contains(refs[:i], ref) {
			continue
		}
		for se := range t.d.audience.sessions[ref] {
			t.mark(se, m, own)
		}
	}
}

func (t *peerTouch) task(c *store.Change) {
	old, _ := c.Old.(*v1.Task)
	now, _ := c.New.(*v1.Task)
	if sameTaskToPeers(old, now) {
		return
	}
	m := peerMark{kind: v1.KindTask, id: c.ID, at: stampOf(old, now)}
	var refs []string
	all := false
	for _, one := range []*v1.Task{old, now} {
		if one == nil || one.Desired == nil {
			continue
		}
		for _, n := range one.Desired.Networks {
			refs = append(refs, n.Network)
		}
		all = all || t.d.audience.ingress[one.Desired.Service]
		m.of = v1.TaskNode(one)
		if se := t.d.open[m.of]; se != nil {
			t.mark(se, m, true)
		}
	}
	t.tell(m, false, all, refs...)
}

// sameTaskToPeers tells whether a change of a task is none for others. Most are not: what they go by changes a few times in a
// task's life.
func sameTaskToPeers(old, now *v1.Task) bool {
	if old == nil || now == nil || old.Desired == nil || now.Desired == nil {
		return old == now
	}
	return v1.TaskNode(old) == v1.TaskNode(now) && gatewayOf(old) == gatewayOf(now) && unreachable(old) == unreachable(now) &&
		v1.Serves(old) == v1.Serves(now) && old.Desired.Revision == now.Desired.Revision &&
		reflect.DeepEqual(old.Desired.Networks, now.Desired.Networks)
}

// stampOf is when a task became ready, or ceased to be, as is written of it in the store: by its node's clock where it is observed, by
// the leader's where it is desired. It is zero for all other changes.
func stampOf(old, now *v1.Task) time.Time {
	if old == nil || now == nil || old.Desired == nil || now.Desired == nil || v1.Serves(old) == v1.Serves(now) {
		return time.Time{}
	}
	if v1.Observed(old) != v1.Observed(now) && now.Status != nil { // a status may be removed, too
		return now.Status.At
	}
	return now.Meta.UpdatedAt
}

func (t *peerTouch) service(c *store.Change) {
	old, _ := c.Old.(*v1.Service)
	now, _ := c.New.(*v1.Service)
	did, does := store.PublishesIngress(old), store.PublishesIngress(now)
	if does {
		t.d.audience.ingress[c.ID] = true
	} else {
		delete(t.d.audience.ingress, c.ID)
	}
	if sameServiceToPeers(old, now) {
		return
	}
	t.tell(peerMark{kind: v1.KindService, id: c.ID, tasks: did != does}, false, did || does,
		append(store.NetworkRefs(old), store.NetworkRefs(now)...)...)
}

// sameServiceToPeers tells whether a change of a service is none for others; that of a rollout's state is not.
func sameServiceToPeers(old, now *v1.Service) bool {
	if old == nil || now == nil || old.Spec == nil || now.Spec == nil {
		return old == now
	}
	var was, is v1.ServiceDesired
	if old.Desired != nil {
		was = *old.Desired
	}
	if now.Desired != nil {
		is = *now.Desired
	}
	old, now = v1.Effective(old), v1.Effective(now)
	return old.Meta.Name == now.Meta.Name && old.Meta.Deleting.Equal(now.Meta.Deleting) &&
		reflect.DeepEqual(old.Spec.Task.Networks, now.Spec.Task.Networks) && reflect.DeepEqual(old.Spec.Endpoint, now.Spec.Endpoint) &&
		reflect.DeepEqual(was.Ports, is.Ports) && reflect.DeepEqual(was.VIPs, is.VIPs)
}

// network is for a network, whose name is what services may call it: those are looked at again too.
func (t *peerTouch) network(c *store.Change) {
	refs := []string{c.ID}
	for _, o := range []v1.Object{c.Old, c.New} {
		if o != nil {
			refs = append(refs, o.GetMeta().Name)
		}
	}
	for i, ref := range refs {
		if slices.Contains(refs[:i], ref) {
			continue
		}
		for se := range t.d.audience.sessions[ref] {
			se.touchPeers(t.revision)
			t.touched[se] = struct{}{}
		}
	}
}

// touchPeers has a session compare all peers, and find out anew which networks are its node's.
func (se *session) touchPeers(revision int64) {
	se.mu.Lock()
	defer se.mu.Unlock()
	se.marks.revision = max(se.marks.revision, revision)
	se.marks.own, se.marks.allPeers, se.marks.peers = true, true, nil
}

func (t *peerTouch) node(c *store.Change) {
	old, _ := c.Old.(*v1.Node)
	now, _ := c.New.(*v1.Node)
	lost := v1.NodeLost(old) != v1.NodeLost(now)
	if old != nil && now != nil && !lost && reflect.DeepEqual(peerNode(old), peerNode(now)) {
		return
	}
	m := peerMark{kind: v1.KindNode, id: c.ID, tasks: lost || old == nil || now == nil, before: v1.DataAddress(old), after: v1.DataAddress(now)}
	t.tell(m, false, true)
}
