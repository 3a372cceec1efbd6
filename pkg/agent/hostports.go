package agent

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/netplugin"
)

// The ports that a node gives where a service leaves it the choice: Linux's default of those for outgoing connections, as Docker
// takes.
const (
	firstFreePort = 32768
	lastFreePort  = 60999
)

// chooseHostPorts gives a task the ports in host mode that are its own for its life, and tells them in its status.
func (a *Agent) chooseHostPorts(t *task) error {
	if t.status.Ports != nil {
		return nil
	}
	ports := hostPorts(t.ports())
	var used map[portKey]bool
	for i := range ports {
		p := &ports[i]
		if p.Published != 0 {
			if err := a.portInUse(*p); err != nil {
				return err
			}
			continue
		}
		if used == nil {
			used = a.usedPorts()
		}
		if p.Published = a.freePort(*p, used); p.Published == 0 {
			return fmt.Errorf("target port %d is to be published on any free port, and none of %d to %d is free", p.Target, firstFreePort, lastFreePort)
		}
		used[keyOf(*p)] = true
	}
	t.status.Ports = ports
	return nil
}

// portInUse refuses a port at which a program of this machine listens, as Docker does: the task would take it away from the program. It is
// looked at once, before the port leads to the task.
func (a *Agent) portInUse(p v1.PortConfig) error {
	if a.o.Network == nil {
		return nil
	}
	key := keyOf(p)
	port := netplugin.PublishedPort{Protocol: string(key.protocol), Port: key.port}
	if at, all := placeOf(p); !all {
		port.Places = []netplugin.Place{at}
	}
	at, err := a.o.Network.Listener(port)
	if err != nil {
		a.log.Warn("whether another program has a port is not known", "port", key.port, "err", err)
		return nil
	}
	if !at.IsValid() {
		return nil
	}
	return fmt.Errorf("port %d/%s is in use on this node by another program, which listens at %s: end that, publish another port, or keep the task from this node with a constraint",
		key.port, key.protocol, at)
}

// usedPorts are those that this machine answers on for tasks, its own and, in the mesh, others'.
func (a *Agent) usedPorts() map[portKey]bool {
	used := make(map[portKey]bool)
	for _, s := range a.peers.services {
		for _, p := range s.Ports {
			used[keyOf(p)] = true
		}
	}
	for _, other := range a.tasks {
		for _, p := range a.ports(other) {
			used[keyOf(p)] = true
		}
	}
	return used
}

// freePort is the next port that nobody uses, or 0. They are given in turn, so that one rests before it is given again.
func (a *Agent) freePort(p v1.PortConfig, used map[portKey]bool) uint16 {
	l := &a.links
	for range lastFreePort - firstFreePort + 1 {
		if l.nextPort++; l.nextPort < firstFreePort || l.nextPort > lastFreePort {
			l.nextPort = firstFreePort
		}
		p.Published = l.nextPort
		if key := keyOf(p); !used[key] && !a.o.PortTaken(key.protocol, key.port) {
			return p.Published
		}
	}
	return 0
}

// portTaken tells whether a program of this machine listens on a port.
func portTaken(protocol v1.Protocol, port uint16) bool {
	var socket io.Closer
	var err error
	switch address := ":" + strconv.Itoa(int(port)); protocol {
	case v1.TCP:
		socket, err = net.Listen("tcp", address)
	case v1.UDP:
		socket, err = net.ListenPacket("udp", address)
	default:
		return false
	}
	return err != nil || socket.Close() != nil
}

// chosen is the port that a task was given for one that its service leaves to the node, or 0.
func (t *task) chosen(p v1.PortConfig) uint16 {
	i := slices.IndexFunc(t.status.Ports, func(s v1.PortConfig) bool {
		return s.Mode == v1.PublishHost && keyOf(s).protocol == keyOf(p).protocol && sameTarget(s, p)
	})
	if i < 0 {
		return 0
	}
	return t.status.Ports[i].Published
}
