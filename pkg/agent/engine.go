package agent

import (
	"context"
	"net/netip"
	"time"

	"github.com/swarmd/swarmd/pkg/netplugin"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// watchEngine learns of every container that ends. When the runtime is lost, the containers are not: it waits until the
// runtime is back and takes them over again.
func (a *Agent) watchEngine(ctx context.Context) {
	wait := backoff{first: 100 * time.Millisecond, most: 8 * time.Second}
	for ctx.Err() == nil {
		began := time.Now()
		err := a.followEngine(ctx)
		if ctx.Err() != nil {
			return
		}
		a.log.Error("the container runtime is lost; containers go on, trying again", "err", err)
		if !a.post(func() { a.engineUp = false }) {
			return
		}
		if time.Since(began) > wait.most {
			wait.reset()
		}
		sleep(ctx, wait.delay())
	}
}

// followEngine takes over what the runtime has, and then learns of every end, until the runtime is lost.
func (a *Agent) followEngine(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := a.o.Runtime.Events(ctx) // before List, so that nothing ends unnoticed between the two
	states, err := a.o.Runtime.List(ctx)
	if err != nil {
		return err
	}
	a.lookAtVolumes(ctx)
	var addresses map[string]netip.Addr
	if a.o.Network != nil {
		if addresses, err = a.o.Network.Addresses(ctx); err != nil {
			return err
		}
	}
	if !a.post(func() { a.adoptAll(states, addresses) }) {
		return ctx.Err()
	}
	for s, err := range events {
		if err != nil {
			return err
		}
		if !a.post(func() { a.exited(s) }) {
			break
		}
	}
	return ctx.Err()
}

// adoptAll takes over what is on the machine: at the beginning, and when the runtime was lost.
func (a *Agent) adoptAll(states []engine.State, addresses map[string]netip.Addr) {
	a.engineUp = true
	if !a.adopted {
		a.adoptLinks(addresses)
	}
	listed := make(map[string]engine.State, len(states))
	for _, s := range states {
		listed[s.ID] = s
		if a.tasks[s.ID] == nil {
			a.strays[s.ID] = s
		}
	}
	all := make(map[*task]bool, len(a.tasks))
	for id, t := range a.tasks {
		s, exists := listed[id]
		t.attempts, t.pause = 0, time.Time{}
		a.adopt(t, s, exists)
		if t.phase >= phaseLinked && t.phase < phaseEnded && !t.linked && t.addr.IsValid() {
			t.linked, t.config = true, a.links.touch() // its link has to be made again
		}
		all[t] = true
	}
	first := !a.adopted
	a.adopted, a.state.rebooted = true, false
	if a.complete {
		a.dropStrays(all)
	}
	for _, t := range sorted(all) {
		a.advance(t)
	}
	if first && len(a.tasks) > 0 {
		a.links.touch() // repair what is amiss, and remove the links of tasks that have ended
	}
}

// adoptLinks takes over the links that the machine has. Those that belong to no task that is known are left alone until
// a complete assignment says that nobody wants them.
func (a *Agent) adoptLinks(addresses map[string]netip.Addr) {
	a.links.foreign = make(map[string]netip.Addr)
	for id, addr := range addresses {
		a.links.foreign[id] = addr
		a.links.used[addr] = id
		if t := a.tasks[id]; t != nil {
			a.claimLink(t)
		}
	}
}

// claimLink gives a task the link that an earlier process of the agent made for it.
func (a *Agent) claimLink(t *task) {
	addr, ok := a.links.foreign[t.id]
	if !ok {
		return
	}
	if t.addr.IsValid() && t.addr != addr && a.links.used[t.addr] == t.id {
		delete(a.links.used, t.addr)
	}
	t.addr, t.linked, t.config = addr, true, a.links.want
	t.status.Address = addr.String()
	delete(a.links.foreign, t.id)
}

// dropStrays makes tasks to be stopped of the containers, and lets go of the links, that no assignment names.
func (a *Agent) dropStrays(changed map[*task]bool) {
	for id, s := range a.strays {
		a.log.Warn("removing a container that is not assigned to this node", "task.id", id, "status", string(s.Status))
		t := &task{id: id}
		a.tasks[id] = t
		a.drop(t, 0)
		a.adopt(t, s, true)
		a.claimLink(t)
		changed[t] = true
	}
	clear(a.strays)
	if a.links.foreign == nil {
		return
	}
	for _, addr := range a.links.foreign {
		delete(a.links.used, addr)
	}
	a.links.foreign = nil
	a.links.touch()
	a.removeStrayFiles()
}

// namespace is the path of a task's network namespace, "" where tasks have none.
func namespace(n netplugin.Network, task string) string {
	if n == nil {
		return ""
	}
	return n.Namespace(task)
}
