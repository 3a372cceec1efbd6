package agent

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/netplugin"
)

// pumpLinks applies the newest config if it can and must, and says when to try again.
func (a *Agent) pumpLinks(now time.Time) time.Time {
	l := &a.links
	if a.o.Network == nil {
		l.have = l.want
		return time.Time{}
	}
	if l.applying || !a.adopted || !l.block.IsValid() || !a.complete && a.blind() {
		return time.Time{}
	}
	if !l.again.IsZero() && !now.Before(l.again) {
		l.again = time.Time{}
		l.touch()
	}
	if !l.resyncAt.IsZero() && !now.Before(l.resyncAt) {
		l.resyncAt, l.resync = time.Time{}, true
		l.touch()
	}
	switch {
	case l.have >= l.want:
		return earliest(l.again, l.resyncAt)
	case now.Before(l.retry):
		return l.retry
	}
	number, resync, followed, first := l.want, l.resync, l.told, l.have == 0
	config, names := a.config()
	giveUp(&config, a.hasEnded)
	if quick := l.quick(config); quick != nil && !l.wasQuick {
		giveUp(quick, a.hasEnded)
		config, number, l.wasQuick = *quick, l.have, true
	} else {
		l.wasQuick = false // others may change without end
		if now.Sub(l.othersAt) < othersRest {
			a.fewLinks(&config)
		}
	}
	l.applying, l.resync, l.told, l.applied = true, false, told{}, nil
	a.workers.Go(func() {
		if a.at("before apply") {
			return
		}
		if resync {
			a.o.Network.Resync()
		}
		began, before := time.Now(), a.o.Spent()
		if names != nil && first {
			a.o.Names.Set(names) // the ways are there, of the daemon before this one
		}
		err := a.o.Network.Apply(a.ctx, config)
		if names != nil {
			a.o.Names.Set(names) // after the ways are there; and though some of them may not be
		}
		if a.at("after apply") {
			return
		}
		cost := min(a.o.Spent()-before, time.Since(began)) // the rest of this process works meanwhile
		a.post(func() {
			if resync {
				a.links.repairIsDone(a.o.Now(), cost)
			}
			if err == nil {
				a.links.applied = &config
			}
			a.applied(number, err, len(config.Tasks) > 0, cost, followed)
		})
	})
	return time.Time{}
}

// resyncEvery is how often the network is read back and repaired though nothing was noticed: of some of what others do the kernel
// tells nobody. Where that costs much it is done more rarely, to cost less than a hundredth of a core, but for resyncMost: an
// Apply also costs much where it makes many links, and repair must not wait for minutes then.
const (
	resyncEvery = 30 * time.Second
	resyncMost  = time.Minute
)

// What was noticed is repaired at once, and again after repairGap at the earliest. Where repairs cost more than repairBudget of a processor in the
// last minute, the next comes repairShare times as long after the one before as that cost, up to resyncMost: somebody else may never stop, and
// must not have this machine do nothing but repair. A repair that waits for a process that hangs costs nothing.
const (
	repairGap    = 100 * time.Millisecond
	repairBudget = 9 * time.Second
	repairShare  = 6
	// secondLook is how long after a repair of what was noticed another comes: what somebody did while the first went on may have been taken for
	// its own.
	secondLook = 500 * time.Millisecond
)

// watchNetwork has what others do to the network repaired.
func (a *Agent) watchNetwork() {
	if a.o.Network == nil {
		return
	}
	for {
		select {
		case <-a.o.Network.Disturbed():
			a.post(a.networkDisturbed)
		case <-a.ctx.Done():
			return
		}
	}
}

// networkDisturbed puts on a repair, and says so, once for each, where it has to wait.
func (a *Agent) networkDisturbed() {
	now, known := a.o.Now(), a.links.noticed
	if at := a.links.disturbed(now); !known && at.Sub(now) > repairGap {
		a.log.Warn("the network is not repaired at once, for repairs cost much of the last minute: find out what changes it", "in", at.Sub(now))
	}
}

// disturbed puts on a repair, and is when it may be.
func (l *links) disturbed(now time.Time) time.Time {
	l.noticed = true
	at := l.mayRepair(now)
	if l.resyncAt.IsZero() || at.Before(l.resyncAt) {
		l.resyncAt = at
	}
	return at
}

// repair is one that was done.
type repair struct {
	at   time.Time
	cost time.Duration // of a processor
}

// repairIsDone puts off what was put on while the repair went on, and puts on the second look.
func (l *links) repairIsDone(now time.Time, cost time.Duration) {
	l.repairs = slices.DeleteFunc(append(l.repairs, repair{now, cost}), func(r repair) bool { return now.Sub(r.at) > time.Minute })
	if l.noticed && l.resyncAt.IsZero() {
		l.resyncAt = now.Add(secondLook)
	}
	l.noticed = false
	if at := l.mayRepair(now); !l.resyncAt.IsZero() && l.resyncAt.Before(at) {
		l.resyncAt = at
	}
}

// mayRepair is when the next repair may be, from now on.
func (l *links) mayRepair(now time.Time) time.Time {
	if len(l.repairs) == 0 {
		return now
	}
	var spent time.Duration
	for _, r := range l.repairs {
		if now.Sub(r.at) < time.Minute {
			spent += r.cost
		}
	}
	last, gap := l.repairs[len(l.repairs)-1], repairGap
	if spent > repairBudget {
		gap = min(max(gap, repairShare*last.cost), resyncMost)
	}
	if at := last.at.Add(gap); at.After(now) {
		return at
	}
	return now
}

// applied takes note of what came of an Apply. What fails alone, one task's link or one port, holds up nobody else.
func (a *Agent) applied(number uint64, err error, inUse bool, cost time.Duration, followed told) {
	l := &a.links
	l.applying = false
	if a.ctx.Err() != nil {
		return
	}
	l.retry, l.again, l.brokenPorts, l.broken = time.Time{}, time.Time{}, nil, nil
	byTask, alone := netplugin.TaskErrors(err)
	a.programmed(followed, err != nil && !alone)
	if inUse && l.resyncAt.IsZero() && alone { // what fails as a whole is read back anyway
		l.resyncAt = a.o.Now().Add(min(max(resyncEvery, 100*cost), resyncMost))
	}
	if err == nil {
		l.failures, l.down, l.have, l.said = 0, false, number, ""
		a.noteAttachments()
		a.wakeLinks()
		return
	}
	l.failures++
	most := retryMost
	if alone {
		most = aloneMost
	}
	at := a.o.Now().Add(min(batchDelay<<min(l.failures-1, 10), most))
	lines := strings.Split(err.Error(), "\n") // what fails at once comes in any order
	slices.Sort(lines)
	if text := strings.Join(lines, "\n"); text != l.said {
		a.log.Error("the network is not as it should be; trying again", "err", err, "failures", l.failures)
		l.said = text
	}
	if l.down = !alone; alone {
		l.have, l.again, l.broken, l.brokenPorts = number, at, byTask, portErrors(err, nil)
		a.noteAttachments()
	} else {
		l.retry = at
	}
	for _, t := range sorted(l.waiting) {
		a.notLinked(t, err)
	}
	a.wakeLinks() // for those that stop, and those that are not at fault
}

// told is when messages about others came, and when the changes were stamped that they told of.
type told struct {
	came, stamped []time.Time
	number        uint64 // of the newest one that is to be confirmed; 0 for none
}

// maxTold bounds how much is measured at once.
const maxTold = 1024

func (t *told) add(came, stamped []time.Time) {
	t.came = append(t.came, came[:min(len(came), maxTold-len(t.came))]...)
	t.stamped = append(t.stamped, stamped[:min(len(stamped), maxTold-len(t.stamped))]...)
}

// programmed tells how long the network took to follow. What it does not follow yet, goes on counting.
func (a *Agent) programmed(followed told, failed bool) {
	if failed {
		followed.add(a.links.told.came, a.links.told.stamped)
		followed.number = cmp.Or(a.links.told.number, followed.number)
		a.links.told = followed
		return
	}
	if followed.number != 0 {
		a.o.Manager.Followed(followed.number)
	}
	now := a.o.Now()
	since := func(all []time.Time, tell func(time.Duration)) {
		for _, at := range all {
			if tell != nil {
				tell(max(0, now.Sub(at)))
			}
		}
	}
	since(followed.came, a.o.Applied)
	since(followed.stamped, a.o.Programmed)
}

// blind tells whether a link of an earlier process is on a network that this one knows nothing of yet. Nothing is touched until a
// manager has told.
func (a *Agent) blind() bool {
	for _, t := range a.tasks {
		if t.linked && a.unknownNetwork(t) != "" {
			return true
		}
	}
	return false
}

// notLinked tells a task that waits for the network why it has to, and gives it up if it alone is at fault for too long.
func (a *Agent) notLinked(t *task, err error) {
	l := &a.links
	if t.stop() || t.phase >= phaseRunning {
		return
	}
	if !l.down {
		if err = l.broken[t.id]; err == nil {
			for _, p := range a.ports(t) {
				if e := l.brokenPorts[keyOf(p)]; e != nil && t.published {
					err = e
				}
			}
		}
		if err == nil {
			return
		}
		if errors.Is(err, netplugin.ErrNoGuest) {
			a.end(t, v1.TaskRejected, t.status.Message, err.Error())
			return
		}
		if t.attempts++; l.broken[t.id] != nil && t.phase < phaseCreated && t.attempts >= maxAttempts {
			a.end(t, v1.TaskRejected, t.status.Message, linkFailure+named(err.Error(), a.name))
			return
		}
	}
	a.observe(t, t.status.State, t.status.Message, linkFailure+named(err.Error(), a.name)+"; trying again")
}

// linkFailure begins what is said of a task that cannot be linked.
const linkFailure = "setting up the network: "

// noteAttachments has attachments that run say what keeps a link that they lost from being made again, for as long as something does.
func (a *Agent) noteAttachments() {
	for _, t := range a.tasks {
		if !t.attached() || t.status.State != v1.TaskRunning {
			continue
		}
		note := ""
		if err := a.links.broken[t.id]; err != nil {
			note = linkFailure + named(err.Error(), a.name) + "; trying again"
		}
		a.observe(t, v1.TaskRunning, t.status.Message, note)
	}
}

// portErrors are the causes by port that an error of Apply holds.
func portErrors(err error, into map[portKey]error) map[portKey]error {
	switch e := err.(type) {
	case *netplugin.PortError:
		if into == nil {
			into = make(map[portKey]error)
		}
		into[portKey{v1.Protocol(e.Protocol), e.Port}] = e
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			into = portErrors(one, into)
		}
	case interface{ Unwrap() error }:
		into = portErrors(e.Unwrap(), into)
	}
	return into
}
