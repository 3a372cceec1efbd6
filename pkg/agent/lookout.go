package agent

import (
	"maps"
	"slices"
	"time"

	"github.com/swarmd/swarmd/pkg/netplugin"
)

// While no manager can be reached nobody tells what becomes of other nodes' tasks. Then the agent asks them for echoes, and leaves those
// that do not answer out of names, virtual addresses and published ports, where others of their service are there.

const (
	// lookoutAfter is how long there has to be no session before others are asked, lookoutEvery how long it is until they are asked again,
	// and lookoutMost how many tasks are asked at once: the next ones are, the next time.
	lookoutAfter = time.Second
	lookoutEvery = time.Second
	lookoutMost  = 1024
)

// lookout is what the agent finds out about others by itself.
type lookout struct {
	asking bool
	next   time.Time       // when to ask again
	last   string          // the task that was asked last; "" for none
	silent map[string]bool // tasks that did not answer when they were asked last
}

// inquiry is by what addresses another node's task is asked for echoes.
type inquiry struct {
	task string
	at   []netplugin.Reach
}

// pumpLookout asks others if it is time, and says when to look again.
func (a *Agent) pumpLookout(now time.Time) time.Time {
	l := &a.lookout
	if a.session || l.asking || !a.adopted || a.o.Network == nil {
		return time.Time{}
	}
	if at := latest(a.aloneSince.Add(lookoutAfter), l.next); now.Before(at) {
		return at
	}
	whom := a.peers.inquiries(l.last)
	if l.last = ""; len(whom) == lookoutMost {
		l.last = whom[len(whom)-1].task
	}
	var at []netplugin.Reach
	for _, one := range whom {
		at = append(at, one.at...)
	}
	l.asking = true
	a.workers.Go(func() {
		answered, err := a.o.Network.Echo(a.ctx, at)
		a.post(func() { a.heard(whom, answered, err) })
	})
	return time.Time{}
}

// heard takes note of who answered.
func (a *Agent) heard(whom []inquiry, answered map[netplugin.Reach]bool, err error) {
	l := &a.lookout
	l.asking, l.next = false, a.o.Now().Add(lookoutEvery)
	if err != nil {
		a.log.Debug("cannot ask other nodes' tasks whether they are there", "err", err)
	}
	if a.session {
		return
	}
	silent := maps.Clone(l.silent)
	if silent == nil {
		silent = make(map[string]bool)
	}
	for _, one := range whom {
		if one.silent(answered) {
			silent[one.task] = true
		} else {
			delete(silent, one.task)
		}
	}
	l.silent = silent
	a.pass(a.peers.replaced(silent, a.offered()))
}

// silent tells whether a task was asked and did not answer at all.
func (q inquiry) silent(answered map[netplugin.Reach]bool) bool {
	asked := false
	for _, r := range q.at {
		answers, was := answered[r]
		if answers {
			return false
		}
		asked = asked || was
	}
	return asked
}

// offered are the services of which this node's tasks are led to.
func (a *Agent) offered() map[string]bool {
	services := make(map[string]bool)
	for _, t := range a.tasks {
		if t.published {
			services[t.service()] = true
		}
	}
	return services
}

// pass leaves tasks of others out of what leads to them, and those alone.
func (a *Agent) pass(over map[string]bool) {
	if maps.Equal(over, a.peers.passed) {
		return
	}
	a.log.Info("tasks of other nodes that do not answer are left out of names and load balancing, as no manager can be reached", "tasks", len(over), "before", len(a.peers.passed))
	a.peers.pass(over)
	a.links.touch()
}

// inquiries are what to ask the tasks that are said to be ready, lookoutMost at most, in order of their IDs: those after the last one
// that was asked, or from the first.
func (p *peers) inquiries(last string) []inquiry {
	var ids []string
	for id, t := range p.tasks {
		if t.Ready && t.Node != p.self && id > last && p.endpoints[id] != nil {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	var all []inquiry
	for _, id := range ids[:min(len(ids), lookoutMost)] {
		all = append(all, inquiry{id, p.endpoints[id].reaches()})
	}
	return all
}

// reaches are a task's addresses, one of each network.
func (e *endpoint) reaches() (at []netplugin.Reach) {
	if e.gateway.IsValid() {
		at = append(at, netplugin.Reach{Address: e.gateway})
	}
	for _, on := range e.networks {
		if len(on.addresses) > 0 {
			at = append(at, netplugin.Reach{Overlay: on.network, Address: on.addresses[0]})
		}
	}
	return at
}

// replaced are the silent tasks that others of their service answer in the place of, here or elsewhere. Where nobody does, nothing were
// gained by leaving them out, and it may be that this node hears nobody.
func (p *peers) replaced(silent, offered map[string]bool) map[string]bool {
	answers := maps.Clone(offered)
	for id, t := range p.tasks {
		if t.Ready && t.Node != p.self && !silent[id] {
			answers[t.Service] = true
		}
	}
	replaced := make(map[string]bool)
	for id := range silent {
		if t := p.tasks[id]; t != nil && t.Ready && t.Node != p.self && answers[t.Service] {
			replaced[id] = true
		}
	}
	return replaced
}

// pass has these tasks of others count as not ready, and no more the ones that did.
func (p *peers) pass(over map[string]bool) {
	before := p.passed
	p.passed = over
	for _, ids := range []map[string]bool{before, over} {
		for id := range ids {
			if t := p.tasks[id]; before[id] != over[id] && t != nil && t.Node != p.self {
				p.set(id, p.told(t))
			}
		}
	}
}
