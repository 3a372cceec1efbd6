package v1

import (
	"strconv"
	"time"
)

// Info is what a daemon says of its node and of the swarm that the node is part of. Field names and their JSON are
// Docker's, so that a template or a script written for "docker info" reads it.
type Info struct {
	// ID is the node's ID, or "" while the node is in no swarm.
	ID string
	// Name is the host's name.
	Name            string
	ServerVersion   string
	OperatingSystem string
	OSType          string
	Architecture    string
	KernelVersion   string
	NCPU            int
	// MemTotal is in bytes.
	MemTotal int64
	// DefaultRuntime is the container runtime, such as "containerd 2.4.2, runc 1.5.2".
	DefaultRuntime string
	// CgroupVersion is "1" or "2".
	CgroupVersion string
	// RootDir is the folder that the daemon keeps everything in.
	RootDir string `json:"DockerRootDir"`
	Images  int
	Labels  []string `json:",omitempty"`
	Swarm   SwarmInfo
	// Warnings are for the user to read.
	Warnings []string `json:",omitempty"`
}

// SwarmInfo is a node's place in the swarm, Docker's .Swarm of "docker info".
type SwarmInfo struct {
	NodeID           string
	NodeAddr         string
	LocalNodeState   LocalNodeState
	ControlAvailable bool
	Error            string
	RemoteManagers   []Peer
	Nodes            int          `json:",omitempty"`
	Managers         int          `json:",omitempty"`
	Cluster          *ClusterInfo `json:",omitempty"`
	Warnings         []string     `json:",omitempty"`
}

// LocalNodeState is whether a daemon takes part in a swarm, in Docker's words.
type LocalNodeState string

// The local node states.
const (
	LocalNodeInactive LocalNodeState = "inactive"
	LocalNodePending  LocalNodeState = "pending"
	LocalNodeActive   LocalNodeState = "active"
	LocalNodeError    LocalNodeState = "error"
	LocalNodeLocked   LocalNodeState = "locked"
)

// Peer is a manager that a node knows of.
type Peer struct {
	NodeID string
	Addr   string
}

// ClusterInfo names the swarm.
type ClusterInfo struct {
	ID        string
	CreatedAt time.Time
	UpdatedAt time.Time
	// TaskHistoryLimit is the cluster's setting.
	TaskHistoryLimit int64
	// GatewayPool is what the nodes' gateway blocks are cut from.
	GatewayPool string
	// TrustRoot is the root certificate, in PEM; RootRotationInProgress tells that nodes are moving to another.
	TrustRoot              string   `json:",omitempty"`
	RootRotationInProgress bool     `json:",omitempty"`
	AutoLock               bool     `json:",omitempty"`
	DefaultAddrPool        []string `json:",omitempty"`
	SubnetSize             uint32   `json:",omitempty"`
	DataPathPort           uint32   `json:",omitempty"`
	// HeartbeatPeriod is what nodes keep now, NodeCertExpiry the setting.
	HeartbeatPeriod Duration `json:",omitempty"`
	NodeCertExpiry  Duration `json:",omitempty"`
}

// VersionInfo is the version of a daemon. Field names and their JSON are Docker's.
type VersionInfo struct {
	Version string
	// APIVersion is that of manifests and of the HTTP API.
	APIVersion string `json:"ApiVersion"`
	GitCommit  string `json:",omitempty"`
	GoVersion  string
	Os         string
	Arch       string
	BuildTime  string `json:",omitempty"`
	// Components are the parts that the daemon is made of, such as etcd and containerd.
	Components []ComponentVersion `json:",omitempty"`
}

// ComponentVersion is the version of a part of the daemon.
type ComponentVersion struct {
	Name    string
	Version string
}

// InitRequest asks a daemon to make a new swarm and to be its first manager.
type InitRequest struct {
	// ListenAddr is host:port for other nodes; default 0.0.0.0:2377.
	ListenAddr string `json:"listenAddr,omitempty"`
	// AdvertiseAddr is how other nodes reach this one: an address or an interface, with an optional port.
	AdvertiseAddr string `json:"advertiseAddr,omitempty"`
	// DataPathAddr is the address or interface of tasks' traffic; default AdvertiseAddr.
	DataPathAddr string `json:"dataPathAddr,omitempty"`
	DataPathPort uint32 `json:"dataPathPort,omitempty"`
	// Availability of the node; default active.
	Availability    NodeAvailability `json:"availability,omitempty"`
	ForceNewCluster bool             `json:"forceNewCluster,omitempty"`
	AutoLock        bool             `json:"autoLock,omitempty"`
	// DefaultAddrPool are the ranges that networks' subnets are cut from, SubnetSize the length of their prefix.
	DefaultAddrPool []string `json:"defaultAddrPool,omitempty"`
	SubnetSize      uint32   `json:"subnetSize,omitempty"`
	// Spec are the swarm's settings.
	Spec *ClusterSpec `json:"spec,omitempty"`
}

// InitResult answers an InitRequest.
type InitResult struct {
	NodeID string `json:"nodeID"`
}

// Image is an image on the daemon's machine.
type Image struct {
	// Name is the full reference, such as docker.io/library/nginx:1.27.
	Name string `json:"name"`
	// Digest is that of the manifest or index that Name refers to.
	Digest string `json:"digest"`
	// Size is what it takes on disk, in bytes.
	Size    int64     `json:"size"`
	Created time.Time `json:"created,omitzero"`
	// Used is when a container was last made of it or removed, or it came; to the minute.
	Used time.Time `json:"used,omitzero"`
	// Loaded tells that it was loaded from an archive, not pulled from a registry.
	Loaded bool `json:"loaded,omitempty"`
}

// ServiceStatus counts the tasks of a service, Docker's ServiceStatus.
type ServiceStatus struct {
	RunningTasks   uint64 `json:"runningTasks"`
	DesiredTasks   uint64 `json:"desiredTasks"`
	CompletedTasks uint64 `json:"completedTasks"`
}

// TaskLogRecord is a LogRecord and whose it is. Where Error is set, it says why there is no more of that task's output,
// and the record has no line.
type TaskLogRecord struct {
	// Task is the task's ID, Name what people call it, such as web.1.
	Task string `json:"task"`
	Name string `json:"name"`
	Slot uint64 `json:"slot,omitempty"`
	// Service is the ID of the task's service.
	Service string `json:"service,omitempty"`
	// Node is the ID of the task's node.
	Node string `json:"node,omitempty"`
	LogRecord
	Error string `json:"error,omitempty"`
}

// NodeIndexClaim is the ID of the claim on a node's index, such as "NodeIndex/7".
func NodeIndexClaim(index uint32) string { return "NodeIndex/" + strconv.FormatUint(uint64(index), 10) }
