package netplugin

import (
	"fmt"
	"maps"
	"slices"
)

// What the latest Apply could not do is told by an examination as well: it is not compared, for there is nothing of it.

// broken is what is found where the latest Apply failed as a whole, or there was none.
func (l *Linux) broken() Finding {
	f := Finding{About: AboutRules, Text: "the network is not made yet: ask again in a few seconds"}
	if l.failed != nil {
		f.Text = fmt.Sprintf("the network is not whole (%v): it is tried again and again", l.failed)
	}
	return f
}

// failures are what single tasks, ports, nodes and networks lack; with only, a network's ID, those of that one.
func (l *Linux) failures(want *desired, only string) (found []Finding) {
	say := func(err error, text string) {
		f := Finding{About: AboutRules}
		if all := single(err); len(all) == 1 {
			if network, is := all[0].(*OverlayError); is {
				f.Overlay, err = network.Overlay, network.Err
			}
		}
		f.Text = fmt.Sprintf(text, err)
		found = append(found, f)
	}
	for _, err := range single(l.failed) {
		if one, is := err.(*TaskError); !is {
			say(err, "%v: it is tried again and again")
		} else if _, linked := l.have.tasks[one.Task]; !linked || l.have.unrepaired[one.Task] == nil {
			say(one.Err, want.whose(one.Task)+" cannot be put on its networks (%v): it is tried again and again")
		}
	}
	for _, id := range slices.Sorted(maps.Keys(l.have.unrepaired)) {
		if _, there := want.tasks[id]; there {
			say(l.have.unrepaired[id], "something in the network namespace of "+want.whose(id)+" keeps its links from being put right (%v): replace the task, or undo it")
		}
	}
	return slices.DeleteFunc(found, func(f Finding) bool { return only != "" && f.Overlay != only })
}

// whose is the task for people.
func (d *desired) whose(task string) string {
	if d.tasks[task].guest() {
		return "attachment " + task
	}
	return "task " + task
}
