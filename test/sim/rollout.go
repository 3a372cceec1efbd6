package sim

import v1 "github.com/swarmd/swarmd/pkg/api/v1"

// rollout checks a step of a service's rollout: slots that may move may for as long as it lasts, what fails goes back to where it was
// said that it would, and a rollback never does.
func (c *checks) rollout(w *World, before, after *v1.Service) {
	if before == nil || after == nil || before.Desired == nil || after.Desired == nil || before.Desired.Update == nil || after.Desired.Update == nil {
		return
	}
	was, is := before.Desired.Update, after.Desired.Update
	if was.Revision == is.Revision && was.StartedAt.Equal(is.StartedAt) && is.Admitted < was.Admitted {
		w.fail("the rollout of %s takes back slots, from %d to %d", after.Meta.Name, was.Admitted, is.Admitted)
	}
	if now, then := after.Desired.RolledBack, before.Desired.RolledBack; now == nil || then != nil && then.From == now.From {
		return
	}
	w.stats.Rollbacks++
	switch {
	case is.Revision != was.Previous:
		w.fail("%s is rolled back to %.8s, and was to be to %.8s", after.Meta.Name, is.Revision, was.Previous)
	case was.State != v1.UpdateUpdating:
		w.fail("%s is rolled back while it is %s", after.Meta.Name, was.State)
	case is.State != v1.UpdateRollbackStarted:
		w.fail("%s is rolled back, and is %s", after.Meta.Name, is.State)
	}
}
