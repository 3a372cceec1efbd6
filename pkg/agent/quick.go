package agent

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/swarmd/swarmd/pkg/netplugin"
)

// To make a task's link takes the kernel some ten milliseconds, and a hundred where it is busy; to follow a task of another node takes it one.
// So what others do does not wait for this node's own links: where there are both, it is applied alone at first, with the links as they
// are, and while others change an Apply makes a few links only.

// linksAtOnce is how many links one Apply makes while others change: the kernel makes one after the other, whoever asks, and to wait for four
// doubled how long it took to follow others at worst. They do until they have not for othersRest.
const (
	linksAtOnce = 1
	othersRest  = time.Second
)

func byID(a, b netplugin.TaskLink) int { return strings.Compare(a.ID, b.ID) }

// quick is the config with the links that there are, if others changed and there are links to make or to remove; else nil.
func (l *links) quick(c netplugin.Config) *netplugin.Config {
	have := l.applied
	if have == nil || len(l.told.came) == 0 || slices.EqualFunc(have.Tasks, c.Tasks, sameLink) || have.Gateway != c.Gateway {
		return nil
	}
	c.Tasks = slices.Clone(have.Tasks)
	c.Overlays = slices.DeleteFunc(slices.Clone(c.Overlays), func(o *netplugin.Overlay) bool { return overlayOf(have.Overlays, o.ID) == nil })
	for _, o := range have.Overlays {
		if overlayOf(c.Overlays, o.ID) == nil {
			c.Overlays = append(c.Overlays, o)
		}
	}
	slices.SortFunc(c.Overlays, func(a, b *netplugin.Overlay) int { return strings.Compare(a.ID, b.ID) })
	return &c
}

// giveUp has tasks that have ended be on no network where a service has one of their addresses by now: those are free from when a task is said to have
// ended, and its link goes a moment later.
func giveUp(c *netplugin.Config, ended func(task string) bool) {
	given := func(at netplugin.Attachment) bool {
		o := overlayOf(c.Overlays, at.Overlay)
		return o != nil && slices.ContainsFunc(o.VIPs, func(v netplugin.VIP) bool { return slices.Contains(at.Addresses, v.Address) })
	}
	for i, t := range c.Tasks {
		if ended(t.ID) && slices.ContainsFunc(t.Networks, given) {
			c.Tasks[i].Networks = nil
		}
	}
}

// hasEnded tells whether a task that has a link is over.
func (a *Agent) hasEnded(id string) bool {
	t := a.tasks[id]
	return t == nil || !t.linked || t.phase >= phaseEnded
}

// sameLink tells whether a task's link is the same in two configs.
func sameLink(a, b netplugin.TaskLink) bool {
	return a.ID == b.ID && a.Guest == b.Guest && a.Address == b.Address && a.Internal == b.Internal && a.Administers == b.Administers && maps.Equal(a.Sysctls, b.Sysctls) &&
		slices.EqualFunc(a.Networks, b.Networks, func(a, b netplugin.Attachment) bool {
			return a.Overlay == b.Overlay && slices.Equal(a.Addresses, b.Addresses)
		})
}

func overlayOf(all []*netplugin.Overlay, id string) *netplugin.Overlay {
	for _, o := range all {
		if o.ID == id {
			return o
		}
	}
	return nil
}

// fewLinks leaves links that there are too many of for one Apply to the next.
func (a *Agent) fewLinks(c *netplugin.Config) {
	l := &a.links
	if l.applied == nil {
		return
	}
	made := 0
	c.Tasks = slices.DeleteFunc(c.Tasks, func(t netplugin.TaskLink) bool {
		if _, there := slices.BinarySearchFunc(l.applied.Tasks, t, byID); there {
			return false
		}
		if made++; made <= linksAtOnce {
			return false
		}
		if task := a.tasks[t.ID]; task != nil {
			task.config = l.touch()
		}
		return true
	})
}
