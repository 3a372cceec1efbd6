package agent

import (
	"net/netip"
	"strings"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// task is what the agent remembers of one task. Only the loop touches it.
type task struct {
	id       string
	assigned *v1.Task            // nil for a container that nobody told us of
	revision *v1.ServiceRevision // nil until it is known
	phase    phase
	status   v1.TaskStatus
	version  uint64    // of status
	told     uint64    // the version that the manager has confirmed
	turn     uint64    // of its latest report
	hold     time.Time // not to be reported before

	gone     bool      // no longer assigned
	other    bool      // what is assigned is another task of the same ID: only the end of this one is told
	wanted   bool      // to run, as the manager said last
	lacking  bool      // waits for a manager to send its secrets and configs
	fitted   string    // the revision whose secrets and configs its container is known to have
	unheard  bool      // its process could not be told of those
	stopAt   time.Time // when it became known that it is to stop
	ended    *engine.State
	lost     bool      // nobody knows how it ended
	again    time.Time // when it is to be started again in place; zero where that is not decided
	late     time.Time // when what was asked of it last has taken too long
	pause    time.Time // no attempt before
	attempts int
	busy     bool    // queued, or with a worker
	health   *health // nil where it is not checked
	image    string  // as pulled
	pulling  *pull

	addr      netip.Addr
	linked    bool // it has a link in the network's config
	published bool // its ports and names lead to it in the network's config
	config    uint64
	reached   bool        // ports or names led to it until it was to stop
	withdrawn time.Time   // when nothing here led to it any more
	released  time.Time   // when it became known that nobody else sends to it any more; zero before
	shown     own         // what others of this node see of it
	parsed    attachments // see onNetworks
	saved     uint64      // the state file that must have been written before it goes on
	look      time.Time   // when it is to be looked whether its namespace is there
	looking   bool
}

// known tells whether there is enough to run the task by.
func (t *task) known() bool { return t.assigned != nil && t.revision != nil }

// stop tells whether the task is to stop. That is never taken back.
func (t *task) stop() bool { return !t.stopAt.IsZero() }

func (t *task) spec() *v1.TaskSpec { return &t.revision.Spec.Task }

func (t *task) ports() []v1.PortConfig {
	if t.revision == nil || t.revision.Spec.Endpoint == nil {
		return nil
	}
	return t.revision.Spec.Endpoint.Ports
}

func (t *task) service() string {
	if t.assigned == nil {
		return ""
	}
	return t.assigned.Desired.Service
}

func (t *task) grace() time.Duration {
	if t.revision != nil && t.spec().Container.StopGracePeriod != nil {
		return max(0, time.Duration(*t.spec().Container.StopGracePeriod))
	}
	return stopGrace
}

// view is what step needs to know of a task.
func (a *Agent) view(t *task, now time.Time) view {
	v := view{phase: t.phase, bare: t.attachment() != nil, stop: t.stop() || t.status.Unhealthy && t.ended == nil, unproven: t.unproven(), gone: t.gone, ended: t.ended != nil,
		late: !t.late.IsZero() && !now.Before(t.late), pause: now.Before(t.pause), linger: now.Before(a.lingers(t))}
	if t.assigned != nil {
		d := t.assigned.Desired
		v.start = (d.State == v1.TaskRunning || d.State == v1.TaskComplete) && !now.Before(d.StartAfter)
	}
	v.refit = a.complete && t.known() && t.phase >= phaseCreated && t.phase < phaseEnded && t.misfit() && hasLive(&t.spec().Container)
	if from, ok := a.again(t, now); ok {
		v.again, v.await = true, now.Before(from)
	}
	return v
}

// advance takes a task as far as it can go now. It may be called at any time, for any reason.
func (a *Agent) advance(t *task) {
	a.checkHealth(t)
	defer a.lookAfter(t)
	for a.adopted && !t.busy && a.tasks[t.id] == t {
		now := a.o.Now()
		before := t.phase
		switch act := step(a.view(t, now)); act {
		case actRest:
			a.rest(t, now)
		case actAwait:
			a.await(t)
		case actPull:
			a.pullFor(t)
		case actLink:
			a.link(t)
		case actPublish:
			a.publish(t)
		case actWithdraw:
			a.withdraw(t)
		case actSettle:
			a.settle(t)
		case actUnlink:
			a.unlink(t)
		default:
			a.enqueue(t, act)
		}
		if t.phase == before {
			return
		}
		t.attempts = 0
	}
}

// rest is when a task needs nothing now: it says where it rests, and when it is to be looked at again.
func (a *Agent) rest(t *task, now time.Time) {
	if t.phase == phaseCreated && t.assigned != nil {
		a.observe(t, v1.TaskReady, "prepared", "")
		if after := t.assigned.Desired.StartAfter; now.Before(after) {
			a.timers.add(after, t.id)
		}
	}
	if now.Before(t.pause) {
		a.timers.add(t.pause, t.id)
	}
	if until := a.lingers(t); now.Before(until) {
		a.timers.add(until, t.id)
	}
}

// forPeople leaves out of an error the marks by which programs tell errors apart.
var forPeople = strings.NewReplacer(": "+engine.ErrInvalid.Error(), "", ": "+engine.ErrNotFound.Error(), "")

// observe sets a task's state, which never goes back, and has it reported.
func (a *Agent) observe(t *task, state v1.TaskState, message, err string) {
	err = forPeople.Replace(err)
	if len(err) > maxError {
		err = strings.ToValidUTF8(err[:maxError-3], "") + "…"
	}
	s := &t.status
	if state < s.State || state == s.State && (state.Terminal() || message == s.Message && err == s.Err) {
		return
	}
	if state != s.State {
		s.At = a.o.Now().UTC()
	}
	s.State, s.Message, s.Err = state, message, err
	a.tell(t)
	if state >= v1.TaskRunning {
		t.saved = a.dirty()
	}
}

// failed handles an attempt that failed: it is made again a moment later, or, if it never can succeed or has not for too
// long, the task ends in the state.
func (a *Agent) failed(t *task, state v1.TaskState, doing string, err error) {
	t.attempts++
	if a.engineUp && (final(err) || t.attempts >= maxAttempts) {
		a.log.Warn("task failed", "task.id", t.id, "state", state, "doing", doing, "err", err)
		a.end(t, state, t.status.Message, doing+": "+err.Error())
		return
	}
	a.log.Debug("trying again", "task.id", t.id, "doing", doing, "attempt", t.attempts, "err", err)
	a.observe(t, t.status.State, t.status.Message, doing+": "+err.Error()+"; trying again")
	a.backOff(t)
}

// backOff keeps a task from its next attempt for a while that doubles.
func (a *Agent) backOff(t *task) {
	t.pause = a.o.Now().Add(min(retryDelay<<min(max(t.attempts, 1)-1, 10), retryMost))
	a.advance(t)
}

// end is when a task will never run, again or at all.
func (a *Agent) end(t *task, state v1.TaskState, message, err string) {
	if !t.status.State.Terminal() {
		t.status.Ran = t.ran()
	}
	if state == v1.TaskRejected && t.status.State >= v1.TaskRunning {
		state = v1.TaskFailed // it ran, and was to be started again in place
	}
	a.observe(t, state, message, err)
	t.phase, t.pause, t.late, t.attempts = phaseEnded, time.Time{}, time.Time{}, 0
	if t.published {
		t.published = false
		a.links.touch()
	}
	a.forgetData()
	a.beginStreams(t.id)
}
