package v1

import (
	"cmp"
	"net"
	"net/netip"
	"time"
)

// NodeSpec is what the user wants of a node. The labels of its Meta are what constraints call node.labels.
type NodeSpec struct {
	Role         NodeRole         `json:"role,omitempty"`
	Availability NodeAvailability `json:"availability,omitempty"`
	// Index is a small number unique among the nodes, from 1, given when the node joins and kept for its life. Addresses
	// are derived from it.
	Index uint32 `json:"index,omitempty"`
}

// NodeRole is manager or worker.
type NodeRole string

// The node roles.
const (
	RoleWorker  NodeRole = "worker"
	RoleManager NodeRole = "manager"
)

// NodeAvailability says whether a node takes tasks.
type NodeAvailability string

// The node availabilities.
const (
	AvailabilityActive NodeAvailability = "active"
	AvailabilityPause  NodeAvailability = "pause" // keeps its tasks, takes no new ones
	AvailabilityDrain  NodeAvailability = "drain" // gives its tasks up
)

// NodeDesired is what the rules decided about a node.
type NodeDesired struct {
	// Down is since when the node is taken for lost; its tasks are replaced.
	Down time.Time `json:"down,omitzero"`
	// Since is since when the node takes tasks: it joined then, came back, or was made active again. Zero while it takes none.
	Since time.Time `json:"since,omitzero"`
}

// NodeStatus is what the node's agent says of itself.
type NodeStatus struct {
	State   NodeState `json:"state,omitempty"`
	Message string    `json:"message,omitempty"`
	// Addr is the address that the node is reached at, without a port.
	Addr        string          `json:"addr,omitempty"`
	Description NodeDescription `json:"description"`
	// At is when the state last changed.
	At time.Time `json:"at,omitzero"`
}

// DataAddress is the address at which others reach a node's tasks, without a port; "" where it has not told. One address is written in one
// way.
func DataAddress(n *Node) string {
	if n == nil || n.Status == nil {
		return ""
	}
	d := &n.Status.Description
	address := cmp.Or(d.DataAddr, d.Addr, n.Status.Addr)
	if host, _, err := net.SplitHostPort(address); err == nil {
		address = host
	}
	if ip, err := netip.ParseAddr(address); err == nil {
		return ip.Unmap().String()
	}
	return address
}

// NodeState is whether a node can be worked with.
type NodeState string

// The node states.
const (
	NodeUnknown      NodeState = "unknown"
	NodeReady        NodeState = "ready"
	NodeDown         NodeState = "down"
	NodeDisconnected NodeState = "disconnected"
)

// NodeDescription is what a node is.
type NodeDescription struct {
	// Addr is the address that others reach the node at, where its agent knows better than the connection tells; DataAddr is that
	// of its tasks' traffic, where it is another.
	Addr     string `json:"addr,omitempty"`
	DataAddr string `json:"dataAddr,omitempty"`
	// TLS is the certificate that the node has.
	TLS *NodeTLS `json:"tls,omitempty"`
	// DataKey is the public key, in base64, that encrypted networks reach the node with: the public halves of its lasting key pair and of
	// the one that changes every twelve hours, 64 bytes.
	DataKey string `json:"dataKey,omitempty"`
	// IPv6 tells that the node's tasks have IPv6 gateway addresses, by which clients of published ports come.
	IPv6      bool          `json:"ipv6,omitempty"`
	Hostname  string        `json:"hostname"`
	Platform  Platform      `json:"platform"`
	Resources NodeResources `json:"resources"`
	Engine    Engine        `json:"engine"`
	// Volumes are the names of the volumes that the node has, sorted, nameless ones left out.
	Volumes []string `json:"volumes,omitempty"`
}

// MaxNodeVolumes is how long the names of volumes may be together that a node tells of, in bytes.
const MaxNodeVolumes = 12 << 10

// NodeResources are what a node has in all.
type NodeResources struct {
	CPUs    CPUs              `json:"cpus"`
	Memory  Bytes             `json:"memory"`
	Generic []GenericResource `json:"generic,omitempty"`
}

// Engine is the software on a node. Labels are what constraints call engine.labels.
type Engine struct {
	Version string            `json:"version"`
	Runtime string            `json:"runtime,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
}

// NodeTLS is a node's certificate.
type NodeTLS struct {
	// Issuer is the digest of the root that signed it, Roots those of the roots that the node trusts.
	Issuer string   `json:"issuer"`
	Roots  []string `json:"roots,omitempty"`
	// Expires is when the certificate ends.
	Expires time.Time `json:"expires,omitzero"`
}
