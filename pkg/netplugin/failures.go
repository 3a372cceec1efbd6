package netplugin

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// What the latest Apply could not do is told by an examination as well: it is not compared, for there is nothing of it.

// broken is what is found where the latest Apply failed as a whole, or there was none.
func (l *Linux) broken() Finding {
	f := Finding{About: AboutWhole, Text: "the network is not made yet: ask again in a few seconds"}
	if l.failed != nil {
		f.Text = fmt.Sprintf("the network is not whole (%v): it is tried again and again", l.failed)
	}
	return f
}

// failures are what single tasks, ports, nodes and networks lack; with only, a network's ID, those of that one. That a task is not on a network that is
// not there is no news.
func (l *Linux) failures(want *desired, only string) (found []Finding) {
	say := func(about, task string, err error, text string) {
		for _, one := range single(err) {
			f := Finding{About: about}
			switch e := one.(type) {
			case *OverlayError:
				f.Overlay, one, f.At = e.Overlay, e.Err, want.addressesOn(e.Overlay, task)
			case *PeerError:
				f.Node, one = e.Node, e.Err
			}
			f.Text = fmt.Sprintf(text, one)
			if !errors.Is(one, errNoOverlay) && (only == "" || f.Overlay == only) {
				found = append(found, f)
			}
		}
	}
	for _, err := range single(l.failed) {
		if one, is := err.(*TaskError); !is {
			say(l.concerns(err), "", err, "%v: it is tried again and again")
		} else if l.have.unrepaired[one.Task] == nil {
			say(AboutRules, one.Task, one.Err, want.whose(one.Task)+" cannot be put on its networks (%v): it is tried again and again")
		}
	}
	for _, id := range slices.Sorted(maps.Keys(l.have.unrepaired)) {
		if _, there := want.tasks[id]; there {
			say(AboutRules, id, l.have.unrepaired[id], "something in the network namespace of "+want.whose(id)+" keeps its links from being put right (%v): replace the task, or undo it")
		}
	}
	return found
}

// addressesOn are a task's on a network, with commas between.
func (d *desired) addressesOn(network, task string) string {
	var all []string
	if w := d.overlays[network]; w != nil {
		for _, a := range w.members[task].addresses {
			all = append(all, a.String())
		}
	}
	return strings.Join(all, ",")
}

// concerns is what a finding of an error is about.
func (l *Linux) concerns(err error) string {
	if network, is := err.(*OverlayError); is {
		if o := l.overlays[network.Overlay]; o == nil || !o.synced {
			return AboutWhole
		}
	}
	return AboutRules
}

// whose is the task for people.
func (d *desired) whose(task string) string {
	if d.tasks[task].guest() {
		return "attachment " + task
	}
	return "task " + task
}
