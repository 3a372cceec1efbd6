package v1

// NodeItself is what a tunnel leads to that leads to no task of a node.
const NodeItself = "-"

// DoctorStart has a node examine its part of the swarm's network. The answer is an Examination as JSON, in one frame of output or several,
// in which findings add up.
type DoctorStart struct {
	// Network is the ID of the network to examine; empty is all, and what they share.
	Network string `json:"network,omitempty"`
}

// Examination is what a node found.
type Examination struct {
	// Checks is how many things were looked at.
	Checks   int       `json:"checks"`
	Findings []Finding `json:"findings,omitempty"`
}

// The kinds of what is examined.
const (
	CheckNode      = "node"      // it can be asked
	CheckUnderlay  = "underlay"  // the other nodes are reached, outside of all networks
	CheckMTU       = "mtu"       // packets as large as the networks' come through
	CheckLink      = "link"      // tasks and routers elsewhere are reached, inside a network
	CheckEncrypted = "encrypted" // there is a session with the other nodes
	CheckNetwork   = "network"   // a network could be made, and all that the node shares
	CheckRules     = "rules"     // the kernel has the links, routes and rules that it should
	CheckNames     = "names"     // tasks are answered
)

// Finding is something that is not as it should be.
type Finding struct {
	// Check is one of the kinds above.
	Check string `json:"check"`
	// Node is the ID of the node that found it, Network that of the network that it is about, Peer that of the other node; each may be empty.
	Node    string `json:"node,omitempty"`
	Network string `json:"network,omitempty"`
	Peer    string `json:"peer,omitempty"`
	// At is the address on the network of the task or attachment that it is about, several with commas between; empty where it is about none.
	At string `json:"at,omitempty"`
	// Text says in a sentence what is wrong and what to do, for who knows the three above.
	Text string `json:"text"`
}
