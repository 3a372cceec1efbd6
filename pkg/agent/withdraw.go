package agent

import (
	"slices"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// A task that is to stop leaves the ports and names of this node, and others are told that it does at the same time. Its stop signal waits until
// its manager says that each of them has, or has gone, and then for what the task has in hand.

// withdraw has no port and no name lead to a task any more, before it is told to stop.
func (a *Agent) withdraw(t *task) {
	// A process of the agent that takes over goes on waiting where the earlier one did.
	t.reached = t.reached || t.published || t.status.State == v1.TaskRunning
	if t.published {
		t.published, t.config = false, a.links.touch()
	}
	if !drains || a.links.down || a.links.have >= t.config { // a network that fails does not keep a task from stopping
		t.phase, t.withdrawn = phaseWithdrawn, a.o.Now()
		return
	}
	a.links.waiting = addTo(a.links.waiting, t)
}

// reach says who may go on sending to a task once nothing here leads to it any more.
type reach struct {
	others bool // other nodes, until they know better
	names  bool // whoever remembers the answer to its name
	served bool // it may have connections, through a network or a port
}

func (a *Agent) reach(t *task) reach {
	var r reach
	service := a.peers.services[t.service()]
	for _, n := range t.networks() {
		if service != nil && slices.ContainsFunc(service.Networks, func(s v1.PeerServiceNetwork) bool {
			return s.Network == n.Network && len(s.VIPs) == 0
		}) {
			r.names = true
		}
	}
	ingress := slices.ContainsFunc(t.ports(), func(p v1.PortConfig) bool { return p.Mode != v1.PublishHost })
	r.others = len(a.peers.nodes) > 0 && (ingress || len(t.networks()) > 0)
	r.served = len(t.ports())+len(t.networks()) > 0
	return r
}

// lingers is until when a task that was withdrawn gets no stop signal; zero where it need not wait.
func (a *Agent) lingers(t *task) time.Time {
	if !drains || t.phase != phaseWithdrawn || !t.reached {
		return time.Time{}
	}
	r, alone := a.reach(t), t.withdrawn
	switch {
	case !r.others:
	case !t.released.IsZero():
		alone = latest(alone, t.released)
	case t.stop() && !t.gone:
		alone = latest(alone, t.stopAt.Add(v1.WithdrawWithin))
	default: // that it is unhealthy is told by itself, and what nobody asks for is in no table: nobody says so
		alone = latest(alone, t.stopsSince().Add(othersDelay))
	}
	if r.names {
		alone = alone.Add(namesDelay)
	}
	return alone.Add(t.drain(r.served))
}

// drain is how long a task that nobody sends to any more goes on with what it has.
func (t *task) drain(served bool) time.Duration {
	switch {
	case t.revision != nil && t.spec().Container.StopDrainDelay != nil:
		return max(0, time.Duration(*t.spec().Container.StopDrainDelay))
	case served:
		return drainDelay
	}
	return 0
}

// released takes note of tasks that nobody else sends to any more.
func (a *Agent) released(ids []string) {
	for _, id := range ids {
		if t := a.tasks[id]; t != nil && t.stop() && t.released.IsZero() {
			t.released = a.o.Now()
			a.advance(t)
		}
	}
}

// unconfirmed tells whether a task gets its stop signal though some may still send to it.
func (a *Agent) unconfirmed(t *task) bool {
	return t.reached && t.stop() && !t.gone && t.released.IsZero() && a.reach(t).others
}
