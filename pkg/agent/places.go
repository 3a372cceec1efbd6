package agent

import (
	"cmp"
	"slices"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/netplugin"
)

// answering is where a port of this machine answers, which the service that has it says.
type answering struct {
	service string
	all     bool // everywhere
	at      []netplugin.Place
}

// add has a port of a service answer at one more place, and no more where another service has it answer.
func (a *answering) add(service string, p v1.PortConfig) {
	if a.service != service {
		*a = answering{service: service}
	}
	if place, all := placeOf(p); all {
		a.all = true
	} else if !slices.Contains(a.at, place) {
		a.at = append(a.at, place)
	}
}

// places are the places; nil is everywhere.
func (a *answering) places() []netplugin.Place {
	if a.all {
		return nil
	}
	return a.at
}

// placeOf is where a port answers, unless it is everywhere. One that cannot be made out is nowhere, which the network refuses.
func placeOf(p v1.PortConfig) (at netplugin.Place, all bool) {
	if p.Interface != "" {
		return netplugin.Place{Link: p.Interface}, false
	}
	if p.HostIP == "" {
		return at, true
	}
	if prefix, err := p.Range(); err == nil {
		at.Prefix = prefix
	}
	return at, false
}

// samePort tells whether a port of a task's spec is the one that its service publishes now, whose number may have been chosen.
func samePort(service, task v1.PortConfig) bool {
	return task.Mode != v1.PublishHost && cmp.Or(service.Protocol, v1.TCP) == cmp.Or(task.Protocol, v1.TCP) &&
		(service.Published == task.Published || task.Published == 0 && sameTarget(service, task))
}

// sameTarget tells whether two ports are the same but for their numbers and names.
func sameTarget(a, b v1.PortConfig) bool {
	return a.Target == b.Target && a.HostIP == b.HostIP && a.Interface == b.Interface
}
