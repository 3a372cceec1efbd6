package dnsplugin

import "net/netip"

// Names are all the names that tasks of this machine may ask for. They are not changed once they were given to a Server; what did not
// change may be shared with the Names before.
type Names struct {
	// Askers tells by the source address of a question who asks: a task's gateway address.
	Askers map[netip.Addr]*Asker
	// Zones are the networks' names, by network ID.
	Zones map[string]*Zone
}

// Asker is a task that asks: it gets the names of its own networks, in their order, and nothing of others.
type Asker struct {
	// Task is the task's ID, for the log.
	Task string
	// Zones are the IDs of its networks.
	Zones []string
	// Internal: no name server outside is asked for it; what is no name of the swarm does not exist.
	Internal bool
	// Nameservers are those that the task's spec gives for names that are not the swarm's; the server's own where it gives none.
	Nameservers []netip.AddrPort
}

// Zone is the names of one network.
type Zone struct {
	// Name is the network's; each name is also answered with it appended, as in web.backend, whether Hosts has it so or not.
	Name string
	// Hosts are addresses by name, in lower case, without a dot at the end. A name without addresses is there and has none: it is
	// the swarm's, and not asked elsewhere.
	Hosts *Table[[]netip.Addr]
	// Reverse is the name of each address, by its text such as 10.0.1.2, without a dot at the end.
	Reverse *Table[string]
	// Ports are the services' ports, for SRV, by a service's name or alias in lower case: _http._tcp.web where the port has a name, and _80._tcp.web.
	// A record for tasks.web leads to the name that Reverse has for each address, where Hosts has that with the address.
	Ports map[string][]Port
}

// Port is a port of a service's tasks.
type Port struct {
	// Name is what the user calls it, such as http; Protocol is tcp, udp or sctp.
	Name     string
	Protocol string
	Port     uint16
}
