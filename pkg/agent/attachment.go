package agent

import (
	"cmp"
	"os"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// An attachment is a task without a container: its namespace is somebody's own, which is given links and lets go of them when it ends. It is
// linked, found by its names, and left alone; it goes with its namespace.

// lookEvery is how often it is looked whether an attachment's namespace is still there: nobody is told when one goes.
const lookEvery = time.Second

// attachment is what an attachment's task is for; nil for a task with a container.
func (t *task) attachment() *v1.TaskAttachment {
	if t.assigned == nil {
		return nil
	}
	return t.assigned.Desired.Attachment
}

// attached tells whether an attachment has its links, or is about to.
func (t *task) attached() bool {
	return t.attachment() != nil && t.phase >= phaseLinked && t.phase < phaseEnded
}

// adoptAttachment takes over an attachment of an earlier process of the agent. One that had its links and whose namespace is not the one that
// they are in has ended meanwhile.
func (a *Agent) adoptAttachment(t *task) {
	switch {
	case t.phase != phaseNew || t.status.State < v1.TaskRunning:
	case a.o.Network == nil:
		t.phase = phaseLinked
	case a.state.rebooted || !sameFile(t.attachment().Namespace, a.o.Network.Namespace(t.id)):
		a.vanished(t)
	default:
		t.phase = phaseLinked
	}
}

// lookAfter has it looked whether an attachment's namespace is still there.
func (a *Agent) lookAfter(t *task) {
	now := a.o.Now()
	if !t.attached() || a.o.Network == nil || t.looking || now.Before(t.look) {
		return
	}
	t.looking = true
	path, ours := t.attachment().Namespace, a.o.Network.Namespace(t.id)
	a.workers.Go(func() {
		there := sameFile(path, ours)
		a.post(func() {
			if t.looking, t.look = false, a.o.Now().Add(lookEvery); a.tasks[t.id] != t {
				return
			}
			a.timers.add(t.look, t.id)
			if !there && t.attached() && !t.stop() {
				a.vanished(t)
			}
			a.advance(t)
		})
	})
}

// sameFile tells whether two paths lead to one file, which for files of namespaces is to one namespace: the one that is mounted at ours cannot
// be another's while it is.
func sameFile(path, ours string) bool {
	is, err := os.Stat(path)
	was, ourErr := os.Stat(ours)
	return cmp.Or(err, ourErr) == nil && os.SameFile(is, was)
}

// vanished is the end of an attachment whose namespace is gone.
func (a *Agent) vanished(t *task) {
	a.end(t, v1.TaskComplete, "the network namespace "+t.attachment().Namespace+" is gone", "")
}
