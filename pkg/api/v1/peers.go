package v1

import "time"

// Peers is what a node has to know of others for its tasks to reach them, for names to be answered, and for published ports to lead
// to tasks elsewhere: what is new or changed, whole, and what is gone. A node is told of
//
//   - the networks that its own tasks are on,
//   - the services and tasks on those networks, wherever they are, its own included,
//   - the services that publish ports through the routing mesh, and their tasks, wherever they are,
//   - every node, itself included: that tells it which of its keys the others know.
//
// Nothing in it is secret, and it says nothing of networks that the node has no task on.
type Peers struct {
	Nodes    []PeerNode    `json:"nodes,omitempty"`
	Networks []PeerNetwork `json:"networks,omitempty"`
	Services []PeerService `json:"services,omitempty"`
	Tasks    []PeerTask    `json:"tasks,omitempty"`
	// Gone are the IDs of those that the node need not know of any more, by kind. IDs are unique over all kinds.
	Gone []string `json:"gone,omitempty"`
	// DataPort is the UDP port of the traffic between nodes, where Peers is complete; 0 is DefaultDataPort.
	DataPort uint16 `json:"dataPort,omitempty"`
	// Stamps are when tasks of other nodes became ready, or ceased to be, which this message tells: by the stamps of those states in the
	// store, so that a node can measure how long it takes until its network follows. Not in a message that is complete.
	Stamps []time.Time `json:"stamps,omitempty"`
	// Number asks for SessionLine.Followed once the node's network and names follow this message, which tells of others that are to be
	// left alone. It is unique over all sessions and without an order. 0 asks for nothing.
	Number uint64 `json:"number,omitempty"`
}

// DefaultDataPort is VXLAN's, and Docker Swarm's.
const DefaultDataPort = 4789

// PeerNode is a node, as the traffic between tasks reaches it.
type PeerNode struct {
	ID       string `json:"id"`
	Hostname string `json:"hostname,omitempty"`
	// Index is the node's; its gateway block follows from it.
	Index uint32 `json:"index"`
	// Addr is the IP address of its data path; empty while it is not known.
	Addr string `json:"addr,omitempty"`
	// DataKey is its public key for encrypted networks, and IPv6 that its tasks have IPv6 gateway addresses, as in NodeDescription.
	DataKey string `json:"dataKey,omitempty"`
	IPv6    bool   `json:"ipv6,omitempty"`
}

// PeerNetwork is a network that the node has a task on.
type PeerNetwork struct {
	ID      string            `json:"id"`
	Name    string            `json:"name"`
	Options map[string]string `json:"options,omitempty"`
	// Internal networks have no way out.
	Internal bool         `json:"internal,omitempty"`
	VNI      uint32       `json:"vni"`
	Subnets  []SubnetSpec `json:"subnets"`
}

// PeerService is a service as others reach it.
type PeerService struct {
	ID string `json:"id"`
	// Name and Networks are empty where it is being deleted: it is found no more, and its ports are told for the connections that its tasks
	// keep until they end.
	Name     string               `json:"name"`
	Networks []PeerServiceNetwork `json:"networks,omitempty"`
	// Ports are those published through the routing mesh, with their numbers.
	Ports []PortConfig `json:"ports,omitempty"`
	// HostPorts are those published by the nodes of its tasks alone, without their numbers and places, which are each task's own. They are
	// told where Networks are, for names; the mesh has nothing to do with them.
	HostPorts []PortConfig `json:"hostPorts,omitempty"`
}

// PeerServiceNetwork is a service on one network.
type PeerServiceNetwork struct {
	Network string `json:"network"`
	// VIPs are the service's addresses there, without a length; none in the endpoint mode dnsrr, where the name leads to the tasks.
	VIPs []string `json:"vips,omitempty"`
	// Aliases are the other names that the service has there.
	Aliases []string `json:"aliases,omitempty"`
}

// PeerTask is a task as others reach it: from when it has addresses until it is observed to have ended.
type PeerTask struct {
	ID      string `json:"id"`
	Service string `json:"service"`
	// Name is such as web.1.
	Name string `json:"name"`
	// Hostname is the one that its container has, where the spec gives one.
	Hostname string `json:"hostname,omitempty"`
	// Aliases are other names that an attachment is found by while it is ready.
	Aliases []string `json:"aliases,omitempty"`
	Node    string   `json:"node"`
	// Gateway is its address on the gateway network, which published ports lead to; empty until its node has told.
	Gateway  string           `json:"gateway,omitempty"`
	Networks []NetworkAddress `json:"networks,omitempty"`
	// Ports are those of the routing mesh that it was made with, without names: while its service is updated, the service's may have other
	// targets by now, or may not lead to it. Nil says nothing, as managers of earlier versions do: then its service's lead to it.
	Ports []PortConfig `json:"ports,omitzero"`
	// Ready tasks run, are healthy, and are not to be stopped: only they are in DNS and take new connections.
	Ready bool `json:"ready,omitempty"`
}
