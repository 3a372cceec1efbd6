package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/store"
)

// What the user reads, in Docker's words where it has them.
const (
	messageUpdating    = "update in progress"
	messageCompleted   = "update completed"
	messagePaused      = "update paused due to "
	messageBack        = "update rolled back due to "
	messageManual      = "manually requested rollback"
	messageRollingBack = "rollback in progress"
	messageRolledBack  = "rollback completed"
	messageBackPaused  = "rollback paused due to "
	messageCrowded     = "; stop-first in "
	messageUnfit       = "; secrets and configs are not changed in "
	failedTask         = "failure or early termination of task "
	unfitTask          = "failure to change secrets and configs of task "
)

// fail is what becomes of a rollout that has failed: it is paused or rolled back. A rollback is never rolled back.
func (r *rollout) fail(u *v1.UpdateStatus, why string) *v1.UpdateStatus {
	if u.State == v1.UpdateRollbackStarted {
		u.State, u.Message = v1.UpdateRollbackPaused, messageBackPaused+why
		return u
	}
	if r.config.action == v1.FailureRollback {
		to, ok := store.Get(r.snapshot, v1.ServiceRevisions, u.Previous)
		if ok && u.Previous != r.target {
			return r.rollBack(to, u.Good, why)
		}
		why += "; there is no earlier revision to roll back to"
	}
	u.State, u.Message = v1.UpdatePaused, messagePaused+why
	return u
}

// rollBack starts the way back to a revision, in the place of what the spec asks for. Which are good it leaves as they were.
func (r *rollout) rollBack(to *v1.ServiceRevision, good []string, why string) *v1.UpdateStatus {
	r.rolledBack = &v1.RolledBack{From: r.target, Task: to.Spec.Task, Endpoint: to.Spec.Endpoint}
	next := &v1.UpdateStatus{State: v1.UpdateRollbackStarted, Revision: to.Meta.ID, Good: good, StartedAt: r.now,
		Message: messageBack + why, Generation: r.service.Meta.Generation}
	desired := v1.ServiceDesired{}
	if r.service.Desired != nil {
		desired = *r.service.Desired
	}
	desired.Update, desired.RolledBack = next, r.rolledBack
	as := *r.service
	as.Desired = &desired
	back := newRollout(r.now, r.snapshot, v1.Effective(&as))
	back.survey(next)
	next.Dirty = back.dirty(0)
	back.advance(next)
	back.progress(next)
	r.again = back.again
	return next
}

// good are the revisions that a rollout that begins finds to be good. One that was cut short by the next leaves them as they were, and one
// that goes back to one of them leads to it.
func (r *rollout) good(before *v1.UpdateStatus) []string {
	if before == nil {
		return inFront(r.mostRun(), nil)
	}
	good := before.Good
	if len(good) == 0 {
		good = inFront(before.Previous, nil) // of a status that knows only this one
	}
	back := before.State == v1.UpdateRollbackStarted || before.State == v1.UpdateRollbackPaused
	if completed(before.State) || back && slices.Contains(good, before.Revision) {
		return inFront(before.Revision, good)
	}
	return good
}

// inFront puts a revision before the others.
func inFront(id string, others []string) []string {
	if id == "" {
		return others
	}
	all := []string{id}
	for _, other := range others {
		if other != id && len(all) < v1.MaxUpdateGood {
			all = append(all, other)
		}
	}
	return all
}

// previous is the revision that a rollout that begins can be rolled back to: the last good one but that which it leads to.
func (r *rollout) previous(before *v1.UpdateStatus, good []string) string {
	if before != nil && before.Revision == r.target {
		return before.Previous
	}
	for _, id := range good {
		if id != r.target {
			return id
		}
	}
	return ""
}

// mostRun is the other revision that most tasks run.
func (r *rollout) mostRun() (most string) {
	for id, count := range r.former {
		if cmp.Or(cmp.Compare(count, r.former[most]), cmp.Compare(most, id)) > 0 {
			most = id
		}
	}
	return most
}

// progress takes note of slots that got on, and says why the rollout has failed where none did for too long.
func (r *rollout) progress(u *v1.UpdateStatus) (changed bool, stalled string) {
	if r.config.deadline == 0 || !active(u.State) {
		return false, ""
	}
	moving := r.moving(u.Admitted)
	admitted := u.AdmittedAt.After(u.ProgressAt)
	switch {
	case admitted, moving < u.Moving && r.now.Sub(u.ProgressAt) >= r.config.deadline/10:
		at := r.now
		if admitted {
			at = u.AdmittedAt
		}
		u.ProgressAt, u.Moving, changed = at, moving, true
	}
	if moving == 0 {
		return changed, ""
	}
	until := u.ProgressAt.Add(r.config.deadline)
	if r.now.Before(until) {
		r.again = reconcile.Sooner(r.again, until)
		return changed, ""
	}
	return true, fmt.Sprintf("no progress for %s: %s", v1.Duration(r.config.deadline), r.stuck(u.Admitted))
}

// stuck says what the first slot that is on its way waits for.
func (r *rollout) stuck(upTo uint64) string {
	for i := range r.slots {
		s := &r.slots[i]
		if s.number > upTo || !s.moves() {
			continue
		}
		t := s.latest
		state := v1.Observed(t)
		text := fmt.Sprintf("task %s is %s", v1.TaskName(t.Desired), state)
		switch {
		case t.Desired.Pending != "":
			text += ": " + t.Desired.Pending
		case state == v1.TaskReady && t.Desired.State == v1.TaskReady && !r.now.Before(t.Desired.StartAfter):
			text += ", and waits for the one before it to stop"
		case v1.Refitting(t) && t.Status.Err == "":
			text += ", and its node has not said that it has its secrets and configs"
		case t.Status != nil && cmp.Or(t.Status.Err, t.Status.Message) != "":
			text += ": " + cmp.Or(t.Status.Err, t.Status.Message)
		case state == v1.TaskRunning:
			text += ", and does not stop"
		}
		return text
	}
	return "no slot is on its way"
}

// say has the message tell what is not as the user asked, and tells whether that changed it.
func (r *rollout) say(u *v1.UpdateStatus) bool {
	crowded := 0
	for i := range r.slots {
		if r.slots[i].crowded {
			crowded++
		}
	}
	said, _ := withoutNotes(u.Message)
	if crowded > 0 {
		said += messageCrowded + count(crowded, "slot") + ", where there is no room for the new task beside the old one"
	}
	if len(r.unfit) > 0 {
		said += messageUnfit + count(len(r.unfit), "task")
	}
	changed := said != u.Message
	u.Message = said
	return changed
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return strconv.Itoa(n) + " " + what
}

// withoutNotes parts a message from what say has added to it.
func withoutNotes(message string) (said, notes string) {
	at := len(message)
	for _, note := range []string{messageCrowded, messageUnfit} {
		if i := strings.Index(message, note); i >= 0 {
			at = min(at, i)
		}
	}
	return message[:at], message[at:]
}
