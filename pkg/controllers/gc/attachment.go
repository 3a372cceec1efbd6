package gc

import (
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/store"
)

// endedFor is how long an attachment that has ended is kept, for who asks what became of it.
const endedFor = 24 * time.Hour

// attachment removes what is over of an attachment: its task goes after it or with its node, and it itself a day after the end, or with its
// node. Its task is its memory that it had one, so that goes last.
func (d *decision) attachment(a *v1.Attachment) {
	t, made := store.Get(d.snapshot, v1.Tasks, v1.AttachmentTask(a.Meta.ID))
	if _, there := store.Get(d.snapshot, v1.Nodes, a.Spec.Node); !there {
		if !made || t.Desired.State == v1.TaskRemove {
			d.plan.Ops = append(d.plan.Ops, removeNamed(d.snapshot, v1.KindAttachment, &a.Meta)...)
		}
		return
	}
	if !made || !v1.Observed(t).Terminal() || t.Status == nil {
		return
	}
	over := t.Status.At.Add(endedFor)
	if d.now.Before(over) {
		d.plan.Again = reconcile.Sooner(d.plan.Again, over)
		return
	}
	d.plan.Ops = append(d.plan.Ops, removeNamed(d.snapshot, v1.KindAttachment, &a.Meta)...)
}
