package netplugin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Apply implements Network. The first one, those after Resync and those after an error read back what the kernel has, adopt what
// is right of it, repair the rest and remove what nobody wants; the others make only the difference to the Apply before.
//
// An error about single tasks or ports holds a TaskError or PortError for each of them: see TaskErrors.
//
// A backend that goes while its task stays keeps its connections; they are cut when the task goes, or at once where the port
// is published no more or the backend is no task of this machine. One of another machine keeps them while it is draining. Flows of
// UDP go to another backend, where there is one.
//
// The link of a task that is gone carries nothing any more when Apply returns, and goes a moment later; those of a guest are gone.
func (l *Linux) Apply(ctx context.Context, c Config) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lock < 0 {
		return errClosed
	}
	want, err := check(c, l.checked)
	if want == nil {
		return fmt.Errorf("netplugin: %w", err)
	}
	if followErr := l.keys.follow(c.Key, time.Now()); followErr != nil {
		err = errors.Join(err, fmt.Errorf("keys of encrypted networks in %s: %w", l.wiresDir(), followErr))
	}
	if l.unswept.Swap(false) {
		l.synced = false
	}
	l.checked = checked{want.blocks, want.ports, want.draining}
	if !slices.Equal(l.peers, c.Peers) || l.underlay != want.underlay {
		clear(l.plans)
		l.peers = slices.Clone(c.Peers)
	}
	err = errors.Join(err, want.addOverlays(c, l.plans), want.lasting(l.conflicts, time.Now()))
	again := !l.synced && l.last != nil && l.failed == nil && reflect.DeepEqual(*l.last, c)
	defer func() { l.settle(c, again, err) }()
	if applyErr := l.apply(ctx, want); applyErr != nil {
		err = errors.Join(err, applyErr)
		if _, alone := TaskErrors(applyErr); !alone {
			l.synced = false
			l.host.reset()
			l.router.reset()
		}
	}
	if err != nil {
		return fmt.Errorf("netplugin: %w", err)
	}
	return nil
}

// settle is the end of an Apply. Where that only read back what was there before, all that it did was to repair.
func (l *Linux) settle(c Config, again bool, err error) {
	did := l.settleWatch()
	if again && l.repaired != nil {
		for kind, n := range did {
			l.repaired(kind, n)
		}
	}
	l.last, l.failed = nil, err
	if _, alone := TaskErrors(err); alone {
		l.last = &c
	}
}

func (l *Linux) apply(ctx context.Context, want *desired) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var unrepaired error
	if !l.synced || l.have.base != want.base || l.underlay != want.underlay {
		unrepaired = l.resync(want)
		if _, alone := TaskErrors(unrepaired); !alone {
			return unrepaired
		}
	}
	gone, moved, missing := l.difference(want)
	if err := l.cutAll(linksOf(l.unlink(moved))); err != nil {
		return err
	}
	if err := l.admit(want); err != nil {
		return err
	}
	broken := l.prepareOverlays(want)
	made, err := l.link(ctx, want, missing)
	for _, t := range made {
		l.have.tasks[t.ID] = t
	}
	err = errors.Join(unrepaired, broken, err, l.attachTasks(want), l.confineTasks(want), l.applySettings(want))
	if _, alone := TaskErrors(err); !alone {
		return err
	}
	if reachErr := l.reach(want); reachErr != nil {
		return errors.Join(err, reachErr)
	}
	if yieldErr := l.yield(want); yieldErr != nil {
		return errors.Join(err, yieldErr)
	}
	before := [2]publication{l.have.publication, l.have.six}
	if publishErr := l.publish(want); publishErr != nil {
		return errors.Join(err, publishErr)
	}
	err = errors.Join(err, l.balanceOverlays(want), l.finishOverlays(want))
	for _, s := range l.hostSides(want.base) {
		old := l.forgotten(s, merged(before[s.v].ports, l.have.draining), want, gone, moved)
		err = errors.Join(err, l.host.forget(old), l.host.forgetUntranslated(s, before[s.v], *l.have.answers(s.v)),
			l.handOverPorts(s, before[s.v].ports, l.have.draining, want))
	}
	l.have.draining = want.draining
	return errors.Join(err, l.remove(gone), l.leave(want))
}

// difference is what the tasks that are there have to become. Those that are gone stay until no port leads to them; those that
// moved, or have the address that another one should have, lose their links at once.
func (l *Linux) difference(want *desired) (gone, moved map[string]TaskLink, missing []TaskLink) {
	gone, moved = map[string]TaskLink{}, map[string]TaskLink{}
	owner := make(map[netip.Addr]string, len(want.tasks))
	for id, t := range want.tasks {
		owner[t.Address] = id
		if l.have.tasks[id].Address != t.Address {
			missing = append(missing, t)
		}
	}
	for id, t := range l.have.tasks {
		w, wanted := want.tasks[id]
		switch {
		case wanted && w.Address != t.Address, owner[t.Address] != "" && owner[t.Address] != id:
			moved[id] = t
		}
		if !wanted && !want.refused[id] {
			gone[id] = t
		}
	}
	return gone, moved, missing
}

// unlink takes tasks to have no link any more, and returns those that are to go.
func (l *Linux) unlink(tasks map[string]TaskLink) (all []doomed) {
	for id, t := range tasks {
		if have, linked := l.have.tasks[id]; !linked || have.Address != t.Address {
			continue // its link went before, and the address may be another's by now
		}
		if one, err := l.router.LinkByName(linkName(t.Address)); err == nil {
			all = append(all, doomed{one, t.Address, []netip.Addr{t.Address}})
		}
		delete(l.have.tasks, id)
	}
	return all
}

func linksOf(all []doomed) []netlink.Link {
	list := make([]netlink.Link, 0, len(all))
	for _, d := range all {
		list = append(list, d.Link)
	}
	return list
}

// remove takes tasks' links out of use, which go soon, and removes their namespaces.
func (l *Linux) remove(tasks map[string]TaskLink) error {
	errs := []error{l.router.sweep(l.unlink(tasks), l.notSwept)}
	for id, t := range tasks {
		if t.guest() {
			errs = append(errs, l.leaveGuest(t))
		}
		errs = append(errs, unpin(l.Namespace(id)))
	}
	return errors.Join(errs...)
}

// applySettings writes the settings of linked tasks that have other ones than before.
func (l *Linux) applySettings(want *desired) error {
	var errs []error
	for id, t := range want.tasks {
		old, linked := l.have.tasks[id]
		if !linked || maps.Equal(old.Sysctls, t.Sysctls) {
			continue
		}
		inside, err := openNamespace("task "+id, l.Namespace(id))
		if err == nil {
			err = inside.within(func() error { return setSysctls(t.settings()...) })
			inside.close()
		}
		if err != nil {
			errs = append(errs, &TaskError{id, err})
			continue
		}
		l.have.tasks[id] = t
	}
	return errors.Join(errs...)
}

// publish makes the published ports those of want, of both IP versions in one transaction.
func (l *Linux) publish(want *desired) error {
	c, err := l.host.firewall()
	if err != nil {
		return err
	}
	var all transactions
	picks := false
	for _, s := range l.hostSides(want.base) {
		if have, next := l.have.answers(s.v), want.answers(s.v); !have.equal(next) {
			t := s.newTransaction(c)
			picks = t.addPicks(have.ports, next.ports) || picks
			all = append(all, t)
		}
	}
	if picks {
		if err := all.commit(); err != nil {
			return fmt.Errorf("make chains of published ports in table %s of %s: %w", tableName, l.host.name, err)
		}
	}
	for _, t := range all {
		t.change(*l.have.answers(t.side.v), want.answers(t.side.v))
	}
	if err := all.commit(); err != nil {
		return fmt.Errorf("change published ports in table %s of %s: %w", tableName, l.host.name, err)
	}
	for _, t := range all {
		*l.have.answers(t.side.v) = want.answers(t.side.v)
	}
	return nil
}

// equal tells whether two publications are the same.
func (p *publication) equal(other publication) bool {
	return maps.EqualFunc(p.ports, other.ports, sameBackends) && maps.EqualFunc(p.places, other.places, slices.Equal[[]Place])
}

// sameBackends tells whether two lists have the same in them, at once where they are one.
func sameBackends(a, b []netip.AddrPort) bool { return sameList(a, b) || slices.Equal(a, b) }

// forgotten are the flows that lead nowhere now.
func (l *Linux) forgotten(s side, before ports, want *desired, gone ...map[string]TaskLink) []flows {
	var all []flows
	lost := map[netip.Addr]bool{}
	for _, tasks := range gone {
		for _, t := range tasks {
			if t.Address.IsValid() && !lost[t.Address] {
				lost[t.Address] = true
				all = append(all, flows{to: s.of(t.Address)}, flows{from: s.of(t.Address)})
			}
		}
	}
	local := map[netip.Addr]bool{}
	for _, t := range want.tasks {
		local[t.Address] = true
	}
	stays := merged(want.answers(s.v).ports, want.draining)
	for k, old := range before {
		now, published := stays[k]
		if sameList(now, old) {
			continue
		}
		for _, b := range old {
			if _, there := slices.BinarySearchFunc(now, b, netip.AddrPort.Compare); there || lost[b.Addr()] {
				continue
			}
			if !published || !local[b.Addr()] {
				all = append(all, flows{to: s.of(b.Addr()), toPort: b.Port(), published: k})
				if k.protocol == unix.IPPROTO_UDP {
					all = append(all, flows{from: s.of(b.Addr())}) // see handOver
				}
			}
		}
	}
	return all
}

// merged are the backends of both, in order.
func merged(active, draining ports) ports {
	if len(draining) == 0 {
		return active
	}
	all := maps.Clone(active)
	for k, list := range draining {
		all[k] = slices.Concat(active[k], list)
		slices.SortFunc(all[k], netip.AddrPort.Compare)
	}
	return all
}
