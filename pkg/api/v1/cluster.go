package v1

// ClusterName is the name, and the ID, of the one Cluster object.
const ClusterName = "default"

// ClusterSpec are the settings of the swarm.
type ClusterSpec struct {
	// TaskHistoryLimit is how many tasks of a slot are kept, the running one included; default 5; negative keeps all.
	TaskHistoryLimit *int64 `json:"taskHistoryLimit,omitempty"`
	// GatewayPool is what the nodes' gateway blocks are cut from, a /24 for each node index; default 100.64.0.0/10.
	GatewayPool string `json:"gatewayPool,omitempty"`
}

// ClusterDesired is what the rules decided about the swarm.
type ClusterDesired struct{}

// DefaultGatewayPool is the shared address space of RFC 6598.
const DefaultGatewayPool = "100.64.0.0/10"

// DefaultTaskHistoryLimit is Docker Swarm's.
const DefaultTaskHistoryLimit = 5
