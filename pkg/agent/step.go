package agent

// phase is how far a task has come on this machine. It only moves forward, but for a container that turns out not to be
// there though it was never started, and for one that is started again in place.
type phase uint8

const (
	phaseNew       phase = iota // nothing was done
	phasePulled                 // the image is here
	phaseLinked                 // address and link are there
	phaseCreated                // the container waits to be started
	phaseStarted                // the process runs
	phaseRunning                // and the published ports, and its names, lead to it
	phaseWithdrawn              // it is to stop; no port and no name leads to it any more
	phaseSignalled              // it got its stop signal
	phaseKilled                 // its grace was over
	phaseEnded                  // there is no process, and how it ended is known
	phaseRemoved                // the container is gone
	phaseUnlinked               // so are its link and address; its log and its name remain
)

var phaseNames = [...]string{"new", "pulled", "linked", "created", "started", "running", "withdrawn", "signalled", "killed",
	"ended", "removed", "unlinked"}

// String is the name of the phase, for logs and tests.
func (p phase) String() string { return phaseNames[p] }

// action is what a task needs next.
type action uint8

const (
	actRest     action = iota // nothing, until something changes
	actAwait                  // be started again in place, after a while
	actPull                   // get the image
	actLink                   // choose an address, have the link made
	actCreate                 // write its files, make the container
	actStart                  // start it
	actPublish                // have the published ports lead to it
	actWithdraw               // have them lead to it no longer
	actSignal                 // ask it to stop
	actKill                   // make it stop
	actSettle                 // write down how it ended
	actRemove                 // remove the container and its files
	actUnlink                 // remove the link, free the address
	actForget                 // remove the log, and forget the task
	actAgain                  // remove what is left of the container, and start it again in place
	actRefit                  // change its secrets and configs
)

var actionNames = [...]string{"rest", "await", "pull", "link", "create", "start", "publish", "withdraw", "signal", "kill", "settle",
	"remove", "unlink", "forget", "again", "refit"}

// String is the name of the action, for logs and tests.
func (a action) String() string { return actionNames[a] }

// view is all that step goes by.
type view struct {
	phase phase
	bare  bool // it has no container: it is linked, and that is all
	start bool // it is desired to run, now
	stop  bool // it is desired to stop, or nobody knows it any more
	gone  bool // it is no longer assigned
	ended bool // its process has ended
	// unproven says that its health check has not succeeded yet.
	unproven bool
	late     bool // what was asked of it last has taken too long
	pause    bool // the last attempt failed a moment ago
	again    bool // its process has ended, and nobody but this agent can start it again
	await    bool // but not yet
	refit    bool // its secrets and configs may be others than when it was made
	// linger says that others may still send to it, though nothing here leads to it any more, or that it goes on with what it has.
	linger bool
}

// step says what a task needs next. It is the whole life of a task: every action leads to the next phase, whatever the
// agent went through in between.
func step(v view) action {
	switch {
	case v.phase < phaseStarted:
		return stepUp(v)
	case v.phase < phaseEnded:
		return stepDown(v)
	case v.pause:
		return actRest
	case v.phase == phaseEnded && !v.bare:
		return actRemove
	case v.phase == phaseEnded:
		return actUnlink
	case v.phase == phaseRemoved:
		return actUnlink
	case v.gone:
		return actForget
	}
	return actRest
}

// stepUp is for a task whose process was never started.
func stepUp(v view) action {
	switch {
	case v.stop:
		return actSettle
	case v.pause:
		return actRest
	case v.bare && v.phase == phaseNew:
		return actLink
	case v.bare:
		return actPublish
	case v.phase == phaseNew:
		return actPull
	case v.phase == phasePulled:
		return actLink
	case v.phase == phaseLinked:
		return actCreate
	case v.refit:
		return actRefit
	case v.start:
		return actStart
	}
	return actRest
}

// stepDown is for a task whose process runs, or did a moment ago.
func stepDown(v view) action {
	switch {
	case v.again && !v.stop && v.await:
		return actAwait
	case v.again && !v.stop && v.pause:
		return actRest
	case v.again && !v.stop:
		return actAgain
	case v.ended, v.phase == phaseKilled && v.late:
		return actSettle
	case v.phase == phaseStarted && !v.stop && !v.unproven:
		return actPublish
	case v.refit && !v.stop && !v.pause:
		return actRefit
	case !v.stop || v.pause:
		return actRest
	case v.phase < phaseWithdrawn:
		return actWithdraw
	case v.phase == phaseWithdrawn && v.linger:
		return actRest
	case v.bare:
		return actSettle
	case v.phase == phaseWithdrawn:
		return actSignal
	case v.phase == phaseSignalled && v.late:
		return actKill
	}
	return actRest
}
