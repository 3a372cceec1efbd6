package network

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// chosenPorts is how many numbers there are to choose from.
const chosenPorts = v1.LastChosenPort - v1.FirstChosenPort + 1

// ports are all that the service publishes, with numbers for those of the mesh that ask for any; nil where none does. A number
// that was chosen stays.
func (d *decision) ports() []v1.PortConfig {
	if d.service.Spec.Endpoint == nil || !slices.ContainsFunc(d.service.Spec.Endpoint.Ports, v1.AnyPort) {
		return nil
	}
	asked := d.service.Spec.Endpoint.Ports
	ports := slices.Clone(v1.PublishedPorts(d.service))
	for i := range ports {
		p := &ports[i]
		if !v1.AnyPort(asked[i]) || p.Published != 0 && d.keepsPort(*p) && !doubled(ports, i) {
			continue
		}
		if p.Published = d.choose(*p, ports); p.Published == 0 {
			d.portless = fmt.Sprintf("no port is free for %d/%s: every number from %d to %d is published",
				p.Target, cmp.Or(p.Protocol, v1.TCP), v1.FirstChosenPort, v1.LastChosenPort)
		}
	}
	return ports
}

// doubled tells whether another port of the list, that was asked for or comes earlier, has the same number.
func doubled(ports []v1.PortConfig, at int) bool {
	for i, p := range ports {
		if i != at && samePort(p, ports[at]) && i < at {
			return true
		}
	}
	return false
}

func samePort(a, b v1.PortConfig) bool {
	return a.Published == b.Published && cmp.Or(a.Protocol, v1.TCP) == cmp.Or(b.Protocol, v1.TCP)
}

// keepsPort tells whether a number that was chosen is still the service's own. A user who asks for that very number gets it; of
// services for which the same one was chosen, which no rule would have done, the first by ID keeps it.
func (d *decision) keepsPort(p v1.PortConfig) bool {
	for other := range d.snapshot.ServicesPublishing(p.Protocol, p.Published) {
		if other.Meta.ID != d.key && (asksForPort(other, p) || other.Meta.ID < d.key) {
			return false
		}
	}
	return true
}

// asksForPort tells whether the number is in the service's spec.
func asksForPort(s *v1.Service, p v1.PortConfig) bool {
	s = v1.Effective(s)
	return s.Spec.Endpoint != nil && slices.ContainsFunc(s.Spec.Endpoint.Ports, func(asked v1.PortConfig) bool { return samePort(asked, p) })
}

// choose is a number that no service publishes, in whatever mode; 0 where there is none. It is the first from where the service's
// ID and the target lead, so that a number rests before it is given again.
func (d *decision) choose(p v1.PortConfig, own []v1.PortConfig) uint16 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(d.key + "\x00" + strconv.Itoa(int(p.Target)) + "\x00" + string(p.Protocol) + "\x00" + p.Name))
	start := h.Sum32() % chosenPorts
	for i := range uint32(chosenPorts) {
		p.Published = uint16(v1.FirstChosenPort + (start+i)%chosenPorts)
		if !slices.ContainsFunc(own, func(o v1.PortConfig) bool { return samePort(o, p) }) &&
			!publishes(d.snapshot, p) && !publishes(d.snapshot.Stored(), p) {
			return p.Published
		}
	}
	return 0
}

func publishes(s *store.Snapshot, p v1.PortConfig) bool {
	for range s.ServicesPublishing(p.Protocol, p.Published) {
		return true
	}
	return false
}

// wokenByPorts are the services that a change of one concerns by its ports: those that have a number which it asks for, and where it
// gives up a number those that wait for one.
func wokenByPorts(s *store.Snapshot, before, after *v1.Service) []string {
	var was, is []v1.PortConfig
	if before != nil {
		was = v1.PublishedPorts(before)
	}
	if after != nil {
		is = v1.PublishedPorts(after)
	}
	var keys []string
	for _, p := range is {
		if p.Published >= v1.FirstChosenPort && p.Published <= v1.LastChosenPort && !slices.ContainsFunc(was, func(o v1.PortConfig) bool { return samePort(o, p) }) {
			for other := range s.ServicesPublishing(p.Protocol, p.Published) {
				keys = append(keys, other.Meta.ID)
			}
		}
	}
	for _, p := range was {
		if p.Published >= v1.FirstChosenPort && p.Published <= v1.LastChosenPort && !slices.ContainsFunc(is, func(o v1.PortConfig) bool { return samePort(o, p) }) {
			return append(keys, portless(s)...)
		}
	}
	return keys
}

// portless are the services that wait for a number.
func portless(s *store.Snapshot) []string {
	var keys []string
	for o := range store.All(s, v1.Services) {
		if o.Meta.Deleting.IsZero() && v1.WaitsForPorts(o) {
			keys = append(keys, o.Meta.ID)
		}
	}
	return keys
}
