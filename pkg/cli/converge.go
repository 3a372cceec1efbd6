package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// settle is how long the tasks of a service have to keep running before it counts as converged, where there is nothing that
// calls for more care: what cannot start at all is found within it. Tasks that replace others, or failed before, are
// watched for the service's monitor period, as Docker does with all.
const settle = time.Second

// maxFailures is how often in a row a slot's task may fail before waiting for the service is given up. The swarm itself goes
// on trying.
const maxFailures = 3

// view is what is known of a service that is being waited for.
type view struct {
	service *v1.Service
	tasks   map[string]*v1.Task
	// revisions are what the service said, by their IDs: tasks of some of them need no replacement.
	revisions map[string]*v1.ServiceRevisionSpec
	// before is the state of the service's latest rollout when waiting began: not news.
	before *v1.UpdateStatus
	goal   goal
	// asked is, of a service of mode cron, the runNow whose run is waited for, and slot that run's number once it is known.
	asked uint64
	slot  uint64
	// rollback is why the service was rolled back while it was waited for.
	rollback string
}

// goal is what is waited for of a service that is no job; a job has to complete.
type goal int

const (
	// toRun: its tasks run.
	toRun goal = iota
	// toRunOrEnd: its tasks run, or have ended well where that is not to start them again.
	toRunOrEnd
	// toEnd: its tasks have ended well, and are not started again.
	toEnd
)

// verdict is what a view means.
type verdict struct {
	running, wanted int
	// slots are the service's slots in order, without those that have no task yet.
	slots []slotView
	// done tells that everything runs as the service says; it still has to stay so for the monitor period.
	done    bool
	monitor time.Duration
	// over tells that there is nothing to be watched: a job is complete.
	over     bool
	note     string // what there is to say in the end
	rollback bool
	// err is why the service will not get there as it is.
	err error
}

// slotView is a slot, the task that stands for it, and the one that failed there last, if any.
type slotView struct {
	name         string
	task, failed *v1.Task
}

// judge derives from the objects alone how far a service is.
func judge(v view) verdict {
	s := v.service
	if !s.Meta.Deleting.IsZero() {
		return verdict{err: fmt.Errorf("service %s is being removed", s.Meta.Name)}
	}
	if v1.Cron(s) {
		return v.judgeCron()
	}
	out := verdict{monitor: settle, slots: v.slots()}
	out.wanted = len(out.slots)
	global := s.Spec.Mode == v1.ModeGlobal || s.Spec.Mode == v1.ModeGlobalJob
	job := s.Spec.Mode == v1.ModeReplicatedJob || s.Spec.Mode == v1.ModeGlobalJob
	if !global {
		out.wanted = replicas(s.Spec)
	}
	for _, slot := range out.slots {
		state := v1.Observed(slot.task)
		runs := v1.Serves(slot.task) && !v1.Refitting(slot.task) && !job && v.goal != toEnd
		ended := state == v1.TaskComplete && (job || v.goal != toRun && endsForGood(s))
		if runs || ended {
			out.running++
		}
		if slot.failed != nil {
			out.monitor = monitor(s.Spec)
		}
		if err := hopeless(s, slot); err != nil && !ended && out.err == nil && !v.mayGoBack() {
			out.err = fmt.Errorf("task %s %w", slot.name, err)
		}
	}
	out.done = out.running == out.wanted && len(out.slots) == out.wanted
	out.over = job && out.done
	if global && out.wanted == 0 { // of one that is new its tasks are on the way, which is seen within the monitor period
		out.over, out.monitor, out.note = false, max(settle, monitor(s.Spec)), "no node takes a task of it"
	}
	v.judgeUpdate(&out)
	return out
}

// endsForGood tells whether a task that ended well is not started again.
func endsForGood(s *v1.Service) bool {
	p := s.Spec.Task.RestartPolicy
	return p != nil && (p.Condition == v1.RestartNone || p.Condition == v1.RestartOnFailure)
}

func replicas(s *v1.ServiceSpec) int {
	if s.Replicas == nil {
		return 1
	}
	return int(min(*s.Replicas, 1<<31))
}

// judgeUpdate heeds the state of a rollout, where it is news.
func (v view) judgeUpdate(out *verdict) {
	if v.outdated() {
		out.monitor = monitor(v.service.Spec)
	}
	if v.service.Desired == nil || v.service.Desired.Update == nil {
		return
	}
	u := v.service.Desired.Update
	if b := v.before; b != nil && b.State == u.State && b.StartedAt.Equal(u.StartedAt) && u.State != v1.UpdateUpdating {
		return
	}
	switch u.State {
	case v1.UpdateUpdating:
		out.done = false
	case v1.UpdatePaused:
		out.err = fmt.Errorf("service update paused: %s", u.Message)
	case v1.UpdateRollbackStarted:
		out.rollback, out.done = true, false
	case v1.UpdateRollbackPaused:
		out.err = fmt.Errorf("service rollback paused: %s", u.Message)
	case v1.UpdateRollbackCompleted:
		asked := v.service.Spec.RollbackTo
		if out.monitor = settle; asked == "" || asked != u.Revision {
			out.err = fmt.Errorf("service rolled back: %s", cmp.Or(v.rollback, u.Message))
		}
	case v1.UpdateCompleted:
		// The tasks were watched for the monitor period already.
		out.monitor = settle
	}
}

// mayGoBack tells whether the swarm rolls an update that fails back: then it is not for the waiter to give it up.
func (v view) mayGoBack() bool {
	d, u := v.service.Desired, v.service.Spec.Update
	return u != nil && u.FailureAction == v1.FailureRollback && (v.outdated() && d == nil ||
		d != nil && d.Update != nil && (d.Update.State == v1.UpdateUpdating || d.Update.State == v1.UpdateRollbackStarted))
}

// outdated tells whether tasks of another revision are, or were, in the service's slots: an update, not a first start.
func (v view) outdated() bool {
	revision := v1.RevisionID(v1.Effective(v.service))
	for _, t := range v.tasks {
		if t.Desired.Revision != revision {
			return true
		}
	}
	return false
}

func monitor(s *v1.ServiceSpec) time.Duration {
	if s.Update != nil && s.Update.Monitor != nil && *s.Update.Monitor > 0 {
		return time.Duration(*s.Update.Monitor)
	}
	return 5 * time.Second
}

// hopeless tells why the task that stands for a slot will not be replaced by one that runs, or not soon; nil where it may.
func hopeless(s *v1.Service, slot slotView) error {
	t, state := slot.task, v1.Observed(slot.task)
	if r := t.Desired.Restarts; r != nil && r.Failures >= maxFailures && state != v1.TaskRunning {
		return fmt.Errorf("keeps failing (%d times in a row)%s", r.Failures, because(slot.failed))
	}
	p := s.Spec.Task.RestartPolicy
	if p == nil || !state.Terminal() {
		return nil
	}
	exhausted := p.MaxAttempts > 0 && t.Desired.Restarts != nil && uint64(len(t.Desired.Restarts.Times)) >= p.MaxAttempts
	switch {
	case p.Condition == v1.RestartNone, p.Condition == v1.RestartOnFailure && state == v1.TaskComplete:
		return fmt.Errorf("ended (%s), and the restart condition %q does not start it again%s", state, p.Condition, because(t))
	case exhausted:
		return fmt.Errorf("ended (%s), and its %d restarts are used up%s", state, p.MaxAttempts, because(t))
	}
	return nil
}

func because(t *v1.Task) string {
	if t != nil && t.Status != nil && t.Status.Err != "" {
		return ": " + t.Status.Err
	}
	return ""
}

// current tells which revisions' tasks are as the service says now. Where they are is for the swarm to judge, which replaces those that
// are in a wrong place.
func (v view) current() func(revision string) bool {
	effective := v1.Effective(v.service)
	known := map[string]bool{v1.RevisionID(effective): true}
	return func(revision string) bool {
		is, ok := known[revision]
		if !ok {
			r := v.revisions[revision]
			is = r != nil && v1.SameButPlacement(r, effective.Spec) && v1.SameFiles(r, effective.Spec)
			known[revision] = is
		}
		return is
	}
}

// slots are the service's slots in order, each with the current task that stands for it: the latest.
func (v view) slots() []slotView {
	current := v.current()
	bySlot := make(map[string]*slotView)
	for _, t := range v.tasks {
		if v.slot == 0 && !current(t.Desired.Revision) || v.slot != 0 && t.Desired.Slot != v.slot {
			continue
		}
		key := strings.TrimPrefix(v1.TaskName(t.Desired), t.Desired.ServiceName+".")
		slot := bySlot[key]
		if slot == nil {
			slot = &slotView{name: v.service.Meta.Name + "." + key}
			bySlot[key] = slot
		}
		if slot.task == nil || t.Desired.Attempt > slot.task.Desired.Attempt {
			slot.task = t
		}
		if failed(t) && (slot.failed == nil || t.Desired.Attempt > slot.failed.Desired.Attempt) {
			slot.failed = t
		}
	}
	var all []slotView
	for _, slot := range bySlot {
		// A slot whose latest task is to go, when a service shrinks, is none any more. One whose task ended by itself is.
		state := slot.task.Desired.State
		if state <= v1.TaskComplete || state != v1.TaskRemove && (failed(slot.task) || v1.Observed(slot.task) == v1.TaskComplete) {
			all = append(all, *slot)
		}
	}
	slices.SortFunc(all, func(x, y slotView) int { return naturalCompare(x.name, y.name) })
	return all
}

func failed(t *v1.Task) bool {
	return t.Status != nil && (t.Status.State == v1.TaskFailed || t.Status.State == v1.TaskRejected)
}

// stateNumbers are how far along its life a task's bar is drawn, of stateSteps.
var stateNumbers = map[v1.TaskState]int{v1.TaskNew: 1, v1.TaskPending: 3, v1.TaskAssigned: 4, v1.TaskAccepted: 5, v1.TaskPreparing: 6,
	v1.TaskReady: 7, v1.TaskStarting: 8, v1.TaskRunning: 9}

const stateSteps = 9

// text is what is told of a slot: why it has no node, why its task failed, or its state. Steps are 0 where it is an error.
func (s slotView) text() (text string, steps int) {
	state := v1.Observed(s.task)
	switch {
	case state < v1.TaskAssigned && s.task.Desired.Pending != "":
		return s.task.Desired.Pending, 0
	case s.task.Status != nil && s.task.Status.Err != "":
		return s.task.Status.Err, 0
	case state < v1.TaskRunning && s.failed != nil && s.failed.Status.Err != "":
		return s.failed.Status.Err, 0
	case state.Terminal():
		return state.String(), 0
	}
	return state.String(), stateNumbers[state]
}
