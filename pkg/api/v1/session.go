package v1

import "time"

// A node's agent keeps one session with a manager: it sends SessionLines up and the manager streams Assignments down, one JSON
// object a line each. An empty line is a heartbeat, and each one that goes up is answered by one. Observations go up in separate
// requests as StatusReports. A manager never calls a node: what it wants of one, it says in the session.

// SessionLine is one line from an agent. The first of a session has a description; later ones have it where it changed.
type SessionLine struct {
	Description *NodeDescription `json:"description,omitempty"`
	// Startup comes with the description: how long the node's daemon took to be there when it was started last. It is waited for
	// accordingly where it is killed.
	Startup Duration `json:"startup,omitempty"`
	// Leaving says that the node goes on purpose and need not be waited for.
	Leaving bool `json:"leaving,omitempty"`
	// Followed is the number of the newest Peers of the session that the node's network and names follow.
	Followed uint64 `json:"followed,omitempty"`
}

// Assignment is one message of a manager to an agent. The first of a session is Complete: what it does not name is not
// wanted. Those after it are changes.
type Assignment struct {
	// Revision is the store's revision that the message brings the agent to. An agent refuses one older than it has.
	Revision int64 `json:"revision"`
	Complete bool  `json:"complete,omitempty"`
	// Node is the agent's own node, where it changed.
	Node *Node `json:"node,omitempty"`
	// GatewayPool is the cluster's, where it changed; the node's block follows from it and from the node's index.
	GatewayPool string `json:"gatewayPool,omitempty"`
	// GatewayPrefix6 is the swarm's /96 of IPv6, where it changed: each gateway address is at the end of one of its addresses too.
	GatewayPrefix6 string `json:"gatewayPrefix6,omitempty"`
	// Swarm is what a node has to know of the swarm to stay in it, where it changed.
	Swarm *SwarmNews `json:"swarm,omitempty"`
	// Tasks are the node's tasks that are new or changed. Only where Complete is set they have their status.
	Tasks []*Task `json:"tasks,omitempty"`
	// Removed are the IDs of tasks that are no longer in the store.
	Removed []string `json:"removed,omitempty"`
	// Services are the revisions that Tasks refer to and that this session has not sent yet.
	Services []*ServiceRevision `json:"services,omitempty"`
	// Secrets and Configs are those that tasks need which are to run, with their data, unless this session sent them before and a task
	// has needed them ever since. One that a task of the message needs and that is in no message does not exist.
	Secrets []*Secret `json:"secrets,omitempty"`
	Configs []*Config `json:"configs,omitempty"`
	// Logins are those for the registries of the images of tasks that are to run, all of them, where any is another than before; the longest
	// Server that an image's repository begins with is meant.
	Logins []RegistryLogin `json:"logins,omitzero"`
	// Peers is what changed of what the node has to know of others; all of it where Complete is set.
	Peers *Peers `json:"peers,omitempty"`
	// Streams are what the manager wants streamed to it.
	Streams []StreamRequest `json:"streams,omitempty"`
	// Released are the IDs of the node's tasks that are to stop and that no other node sends anything new to any more: each that did has
	// confirmed it. An agent waits for that before the stop signal, for WithdrawWithin at most.
	Released []string `json:"released,omitempty"`
}

// WithdrawWithin is how long a task that is to stop waits for the confirmation of other nodes that they send nothing new to it.
const WithdrawWithin = 5 * time.Second

// FollowQuery asks a manager which of the nodes, where they are connected to it, follow all that was written up to a revision.
type FollowQuery struct {
	Revision int64    `json:"revision"`
	Nodes    []string `json:"nodes"`
}

// FollowResult answers a FollowQuery, once all do or after a moment.
type FollowResult struct {
	// Nodes are those that do.
	Nodes []string `json:"nodes,omitempty"`
}

// SwarmNews is what a node has to know to stay in the swarm.
type SwarmNews struct {
	// Managers are where to find the swarm from now on.
	Managers []Peer `json:"managers"`
	// Heartbeat is how often the node says that it is there. Silence of HeartbeatGrace times as long ends the session; a node gives
	// a silent manager up a heartbeat earlier, to have the time for another session.
	Heartbeat Duration `json:"heartbeat"`
	// Images says when to remove images that no task needs.
	Images *ImageMarks `json:"images,omitempty"`
	// Roots are the roots to trust, in PEM.
	Roots []byte `json:"roots,omitempty"`
	// Issuer is the digest of the root that the node's certificate is to be of; where its own is of another, it asks for a new one.
	Issuer string `json:"issuer,omitempty"`
}

// StreamRequest asks an agent to open a stream (POST …/streams/{ID}) and to send a task's output down it, as LogRecords,
// one JSON object a line; or, with Tunnel, to open the other end of a user's tunnel to the task (POST …/tunnels/{ID}).
type StreamRequest struct {
	ID     string     `json:"id"`
	Task   string     `json:"task"`
	Logs   LogOptions `json:"logs"`
	Tunnel bool       `json:"tunnel,omitempty"`
	// Image asks for a tunnel too, to another node that wants the image of the task. Nothing but a Blob is to be given to it.
	Image bool `json:"image,omitempty"`
	// Volume is the one volume that the user of a tunnel to a node itself may have removed; empty is none.
	Volume string `json:"volume,omitempty"`
}

// LogOptions say which part of a task's output is wanted.
type LogOptions struct {
	Stdout bool `json:"stdout,omitempty"`
	Stderr bool `json:"stderr,omitempty"`
	Follow bool `json:"follow,omitempty"`
	// Since leaves out what is older.
	Since time.Time `json:"since,omitzero"`
	// Tail is how many of the last lines; negative is all.
	Tail int `json:"tail"`
}

// LogRecord is one line, or a part of a very long one, of a task's output.
type LogRecord struct {
	Time time.Time `json:"time"`
	// Stream is stdout or stderr.
	Stream string `json:"stream"`
	// Line holds the bytes without the newline; Partial tells that the line goes on in the next record.
	Line    []byte `json:"line"`
	Partial bool   `json:"partial,omitempty"`
}

// StatusReport is what an agent observed since its last report.
type StatusReport struct {
	// Revision is that of the agent's latest assignment: a manager that has not seen as much waits before it judges.
	Revision int64        `json:"revision,omitempty"`
	Tasks    []TaskReport `json:"tasks"`
}

// TaskReport is one task's observed status.
type TaskReport struct {
	ID     string     `json:"id"`
	Status TaskStatus `json:"status"`
}

// StatusResult answers a StatusReport.
type StatusResult struct {
	// Unknown are the tasks that the store does not have, or has on another node: their reports were dropped.
	Unknown []string `json:"unknown,omitempty"`
}
