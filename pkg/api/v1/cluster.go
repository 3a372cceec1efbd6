package v1

import (
	"crypto/sha256"
	"net/netip"
	"time"
)

// ClusterName is the name, and the ID, of the one Cluster object.
const ClusterName = "default"

// ClusterSpec are the settings of the swarm.
type ClusterSpec struct {
	// TaskHistoryLimit is how many tasks of a slot are kept, the running one included; default 5; negative keeps all.
	TaskHistoryLimit *int64 `json:"taskHistoryLimit,omitempty"`
	// GatewayPool is what the nodes' gateway blocks are cut from, a /24 for each node index; default 100.64.0.0/10.
	GatewayPool string `json:"gatewayPool,omitempty"`
	// HeartbeatPeriod is the least time between two heartbeats of a node; default 1 s. See HeartbeatPeriod for what it grows to.
	HeartbeatPeriod *Duration `json:"heartbeatPeriod,omitempty"`
	// NodeCertExpiry is how long certificates of nodes are good for; default 90 days, at least an hour.
	NodeCertExpiry *Duration `json:"nodeCertExpiry,omitempty"`
	// ExternalCAs sign certificates in place of the swarm's managers.
	ExternalCAs []ExternalCA `json:"externalCAs,omitempty"`
	// AutoLock keeps managers that restart locked until somebody brings the unlock key.
	AutoLock bool `json:"autoLock,omitempty"`
	// DefaultAddrPool are the ranges that networks' subnets are cut from, SubnetSize the length of their prefix, and DataPathPort
	// the UDP port of the traffic between tasks. They are set when the swarm is made, and stay.
	DefaultAddrPool []string `json:"defaultAddrPool,omitempty"`
	SubnetSize      uint32   `json:"subnetSize,omitempty"`
	DataPathPort    uint32   `json:"dataPathPort,omitempty"`
	// Raft are settings of the managers' log. A manager reads them when it starts.
	Raft *RaftSettings `json:"raft,omitempty"`
	// Images says when nodes remove images that no task needs.
	Images *ImageMarks `json:"images,omitempty"`
	// Snapshots are the copies of the state that each manager keeps on its disk.
	Snapshots *SnapshotSchedule `json:"snapshots,omitempty"`
}

// ExternalCA is a signer outside of the swarm.
type ExternalCA struct {
	// Protocol is cfssl.
	Protocol string            `json:"protocol"`
	URL      string            `json:"url"`
	Options  map[string]string `json:"options,omitempty"`
	// CACert is the certificate, in PEM, of the CA that it signs for; the swarm's root where it is empty.
	CACert string `json:"caCert,omitempty"`
}

// RaftSettings are Docker's.
type RaftSettings struct {
	// SnapshotInterval is how many entries of the log are between two snapshots; default 10,000.
	SnapshotInterval uint64 `json:"snapshotInterval,omitempty"`
	// KeepOldSnapshots is how many snapshots are kept beside the newest.
	KeepOldSnapshots uint64 `json:"keepOldSnapshots,omitempty"`
}

// SnapshotSchedule says how often a manager copies the state, and how many copies it keeps.
type SnapshotSchedule struct {
	// Every is the time between two copies; default 12 h, at least a minute; negative makes none.
	Every *Duration `json:"every,omitempty"`
	// Keep is how many copies are kept; default 5.
	Keep *uint64 `json:"keep,omitempty"`
}

// ImageMarks say how full the disk of a node's images may get, in percent: above High images that no task of the node needs are
// removed, those first that were used the longest ago, until it is not above Low.
type ImageMarks struct {
	// High is 85 where it is 0; 100 is never.
	High uint32 `json:"high,omitempty"`
	// Low is 80 where it is 0, or High where that is less.
	Low uint32 `json:"low,omitempty"`
}

// OrDefault is the marks with the defaults filled in.
func (m *ImageMarks) OrDefault() ImageMarks {
	marks := ImageMarks{}
	if m != nil {
		marks = *m
	}
	orElse(&marks.High, DefaultImagesHigh)
	orElse(&marks.Low, min(DefaultImagesLow, marks.High))
	return marks
}

// ClusterDesired is what the rules decided about the swarm.
type ClusterDesired struct{}

// DefaultGatewayPool is the shared address space of RFC 6598.
const DefaultGatewayPool = "100.64.0.0/10"

// GatewayPrefix6 is what the IPv6 addresses of a swarm's gateway network begin with: a /96 of a unique local /48 (RFC 4193) whose global
// ID follows from the swarm's own.
func GatewayPrefix6(clusterID string) netip.Prefix {
	sum := sha256.Sum256([]byte("swarmd gateway " + clusterID))
	b := [16]byte{0: 0xfd}
	copy(b[1:6], sum[:])
	return netip.PrefixFrom(netip.AddrFrom16(b), 96)
}

// Defaults of the swarm's settings; all but the heartbeat, the snapshots' and the images' are Docker Swarm's.
const (
	DefaultTaskHistoryLimit = 5
	DefaultHeartbeatPeriod  = time.Second
	DefaultNodeCertExpiry   = 90 * 24 * time.Hour
	MinNodeCertExpiry       = time.Hour
	DefaultSubnetSize       = 24
	DefaultSnapshotInterval = 10_000
	DefaultSnapshotEvery    = 12 * time.Hour
	DefaultSnapshotKeep     = 5
	// The disk of images, in percent.
	DefaultImagesHigh = 85
	DefaultImagesLow  = 80
)

// DefaultAddrPool is what networks' subnets are cut from unless the swarm was made with other ranges.
const DefaultAddrPool = "10.0.0.0/8"

// How a node is missed.
const (
	// HeartbeatGrace is how many periods a node may be silent before it is down.
	HeartbeatGrace = 3
	// HeartbeatsPerSecond bounds what all nodes together send: the period grows with the nodes beyond it.
	HeartbeatsPerSecond = 200
)

// HeartbeatPeriod is how often each of so many nodes says that it is there: the swarm's period, or more where that would be
// more than HeartbeatsPerSecond in all. A node is down after HeartbeatGrace times as long.
func HeartbeatPeriod(s *ClusterSpec, nodes int) time.Duration {
	least := DefaultHeartbeatPeriod
	if s != nil && s.HeartbeatPeriod != nil && *s.HeartbeatPeriod > 0 {
		least = time.Duration(*s.HeartbeatPeriod)
	}
	return max(least, time.Duration(nodes)*time.Second/HeartbeatsPerSecond)
}
