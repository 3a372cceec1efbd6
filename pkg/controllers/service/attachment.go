package service

import (
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/store"
)

// attach decides about the one task of an attachment. It is made once: what it is of, a namespace of somebody's, is not the swarm's to make
// again. A drain leaves it where it is, for it can be nowhere else, and so does the loss of its node, where it may go on.
func attach(now time.Time, s *store.Snapshot, a *v1.Attachment) reconcile.Plan {
	v := view{now: now, snapshot: s}
	id := v1.AttachmentTask(a.Meta.ID)
	t, made := store.Get(s, v1.Tasks, id)
	_, there := store.Get(s, v1.Nodes, a.Spec.Node)
	switch {
	case !made && there:
		d := &v1.TaskDesired{Service: a.Meta.ID, ServiceName: a.Meta.Name, Slot: 1, Attempt: 1, State: v1.TaskRunning,
			Attachment: &v1.TaskAttachment{Node: a.Spec.Node, Namespace: a.Spec.Namespace, Networks: a.Spec.Networks, Aliases: a.Spec.Aliases}}
		v.plan.Ops = append(v.plan.Ops, store.Op{Kind: v1.KindTask, ID: id, Section: v1.SectionDesired, Value: d,
			Meta: &v1.Meta{ID: id, Labels: a.Meta.Labels, CreatedAt: now, UpdatedAt: now}, If: store.Absent()})
	case !made:
	case !there:
		v.stop(t, v1.TaskRemove, reasonRemoved)
	case v1.Live(t) && reconcile.Displaced(s, t) != "":
		v.stop(t, v1.TaskShutdown, reasonAddress+reconcile.Displaced(s, t))
	}
	return v.plan
}
