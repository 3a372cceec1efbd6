// Package netplugin makes this machine's part of the swarm's network match a Config: router namespaces, links, addresses,
// routes, neighbours and nftables, by netlink alone.
//
// It owns what it creates, tells it by its names, adopts it after a restart, repairs it, and prunes what the Config no
// longer has. It never decides an address, never reads the store, and never touches a link, route or table of anybody
// else.
package netplugin

import (
	"context"
	"net"
	"net/netip"
)

// Config is the whole desired network of this machine. The Overlays and lists in it, and what they hold, are not changed once they were
// given to Apply: one that is the same pointer as before is taken to be the same without a look.
type Config struct {
	// Node is this node's index in the swarm, from 1.
	Node uint32
	// Gateway is this node's block of gateway addresses, and Pool what the blocks of all nodes are cut from. The first
	// usable address of the block is not given to tasks.
	Gateway netip.Prefix
	Pool    netip.Prefix
	// Prefix6 is the swarm's own /96 of IPv6: a gateway address is at the end of one of its addresses too, by which clients of published
	// ports come with IPv6. Where it is not valid, the gateway network has IPv4 alone.
	Prefix6 netip.Prefix
	// Underlay is this machine's address that the other nodes' traffic of tasks comes to, at the UDP port DataPort (0 is 4789). Where
	// it is not valid, the machine reaches no other node: its networks are its own tasks'.
	Underlay netip.Addr
	DataPort uint16
	// Peers are the other nodes.
	Peers []Peer
	// Key is the public key that the other nodes were told of this one, zero while that is not known. A new one (see Linux.PublicKey) is
	// used once they were.
	Key PublicKey
	// Overlays are the networks that tasks of this machine are on.
	Overlays []*Overlay
	// Tasks are those that need a link, in no order.
	Tasks []TaskLink
	// Published are the ports that this machine answers on. A port and protocol is there once.
	Published []PublishedPort
}

// Peer is another node.
type Peer struct {
	// Node is its index, Underlay its address, Gateway its block of gateway addresses.
	Node     uint32
	Underlay netip.Addr
	Gateway  netip.Prefix
	// IPv6 tells that its tasks have IPv6 gateway addresses.
	IPv6 bool
	// Key is its public key for encrypted networks; zero while it is not known.
	Key PublicKey
}

// Overlay is an overlay network: a router namespace of its own on each machine that has a task on it. Networks are apart, also
// where they have the same subnets.
type Overlay struct {
	// ID becomes a file's name.
	ID string
	// VNI is the network's on the wire.
	VNI     uint32
	Subnets []Subnet
	// MTU is that of the tasks' links, where it is to be less than what fits; 0 is what fits.
	MTU int
	// Encrypted networks never send a packet in the clear: what cannot be sent encrypted is not sent.
	Encrypted bool
	// Remote are the addresses of tasks on other nodes.
	Remote []RemoteAddress
	// VIPs are the virtual addresses of services. One without backends refuses connections.
	VIPs []VIP
}

// Subnet is an address range of a network, of either IP version. The gateway is the router's address, the same on every machine.
type Subnet struct {
	Prefix  netip.Prefix
	Gateway netip.Addr
}

// RemoteAddress is a task's address on another node.
type RemoteAddress struct {
	Address netip.Addr
	Node    uint32
}

// VIP leads to its backends, evenly, on every port and protocol. Backends are addresses of tasks of the network, here or elsewhere.
// Established connections stay with their backend for as long as it has its address.
type VIP struct {
	Address  netip.Addr
	Backends []netip.Addr
}

// TaskLink is one task's connection to the gateway network, with a default route out, and to overlay networks.
type TaskLink struct {
	// ID is the task's.
	ID string
	// Guest is the path of a network namespace of somebody's own, which gets links beside its own ones and no way out by them. Empty is a
	// namespace that is made for the task.
	Guest string
	// Address is the task's gateway address, in Config.Gateway.
	Address netip.Addr
	// Networks are the overlay networks that the task is on, the first as eth1, and so on.
	Networks []Attachment
	// Internal: the task begins no connections by its gateway address, and asks for names alone. It answers at published ports.
	Internal bool
	// Administers: the task may change its links itself, as it may with NET_ADMIN. What is changed there is put right when all is read back, and
	// not at once.
	Administers bool
	// Sysctls are net.* settings for the namespace.
	Sysctls map[string]string
}

// Attachment is a task's link to an overlay network.
type Attachment struct {
	// Overlay is the network's ID.
	Overlay string
	// Addresses are the task's there, one of each IP version at most, each in one of the network's subnets.
	Addresses []netip.Addr
}

// PublishedPort leads to the containers behind it, here or on other nodes, evenly, with the client's address kept.
type PublishedPort struct {
	// Protocol is tcp, udp or sctp.
	Protocol string
	Port     uint16
	// Backends are gateway addresses, of this node's block or a peer's, and ports in the containers.
	Backends []netip.AddrPort
	// Draining are those that take no new connections and keep what they have, but for flows of UDP, such as tasks that are being
	// stopped. One that was a backend and is in neither list is cut off, unless it is a task of this machine.
	Draining []netip.AddrPort
	// Places are where the port answers; none is everywhere.
	Places []Place
}

// Network is a machine's network, to be brought to a Config.
type Network interface {
	// Apply makes the machine match the Config and returns once it does. Called again with the same Config it does
	// nothing. On an error what could be done is done, and the next Apply goes on. Calls are made one after another.
	Apply(ctx context.Context, c Config) error
	// Resync makes the next Apply read back all that is there, and repair it, instead of trusting that it is as it was left.
	Resync()
	// Disturbed yields when something else than Apply changed what is ours, within a moment: the next Apply reads back and repairs,
	// as after Resync. What it does not notice, Resync finds. Nil where nothing is noticed.
	Disturbed() <-chan struct{}
	// Namespace is the path of a task's network namespace, which is there after an Apply that had the task.
	Namespace(task string) string
	// Dial connects to a port of a network, tcp or udp, as a program of the task would: address is a literal one with a port, such as 127.0.0.1:80.
	Dial(ctx context.Context, task, network, address string) (net.Conn, error)
	// Addresses are those of the tasks whose links this machine has, also from before a restart.
	Addresses(ctx context.Context) (map[string]netip.Addr, error)
	// Listener is the address at which a program of this machine listens where the port is to answer; not valid where none does.
	Listener(p PublishedPort) (netip.Addr, error)
	// Examine tells what is not as it should be, and changes nothing: see Linux.
	Examine(ctx context.Context, overlay string) (findings []Finding, checks int, err error)
	// Echo asks other nodes' tasks for echoes, a few times within two seconds, and tells whether each answered. Those on networks that
	// no task of this machine is on are left out, as are those that could not be asked for another reason: that is an error.
	Echo(ctx context.Context, of []Reach) (answered map[Reach]bool, err error)
	// Teardown removes all of it.
	Teardown(ctx context.Context) error
}
