package cli

import "time"

type dockerTask struct {
	ID string
	dockerMeta
	Name         string            `json:",omitempty"`
	Labels       map[string]string `json:",omitempty"`
	Spec         dockerTaskSpec
	ServiceID    string `json:",omitempty"`
	Slot         uint64 `json:",omitempty"`
	NodeID       string `json:",omitempty"`
	Status       dockerTaskStatus
	DesiredState string `json:",omitempty"`
	// NetworksAttachments are in Docker's plural.
	NetworksAttachments []dockerAttachment `json:",omitempty"`
	GenericResources    []dockerGeneric    `json:",omitempty"`
}

type dockerTaskStatus struct {
	Timestamp       time.Time              `json:",omitzero"`
	State           string                 `json:",omitempty"`
	Message         string                 `json:",omitempty"`
	Err             string                 `json:",omitempty"`
	ContainerStatus *dockerContainerStatus `json:",omitempty"`
	PortStatus      dockerPortStatus
}

type dockerContainerStatus struct {
	ContainerID string
	PID         int
	ExitCode    int
}

type dockerPortStatus struct {
	Ports []dockerPort `json:",omitempty"`
}

type dockerNode struct {
	ID string
	dockerMeta
	Spec          dockerNodeSpec
	Description   dockerDescription
	Status        dockerNodeStatus
	ManagerStatus *dockerManagerStatus `json:",omitempty"`
}

type dockerNodeSpec struct {
	dockerAnnotations
	Role         string `json:",omitempty"`
	Availability string `json:",omitempty"`
}

type dockerDescription struct {
	Hostname  string `json:",omitempty"`
	Platform  dockerPlatform
	Resources dockerReservations
	Engine    dockerEngine
	TLSInfo   *dockerTLSInfo `json:",omitempty"`
}

type dockerTLSInfo struct {
	TrustRoot           string `json:",omitempty"`
	CertIssuerSubject   []byte `json:",omitempty"`
	CertIssuerPublicKey []byte `json:",omitempty"`
}

type dockerEngine struct {
	EngineVersion string            `json:",omitempty"`
	Labels        map[string]string `json:",omitempty"`
}

type dockerNodeStatus struct {
	State   string `json:",omitempty"`
	Message string `json:",omitempty"`
	Addr    string `json:",omitempty"`
}

type dockerManagerStatus struct {
	Leader       bool   `json:",omitempty"`
	Reachability string `json:",omitempty"`
	Addr         string `json:",omitempty"`
}

type dockerData struct {
	ID string
	dockerMeta
	Spec dockerDataSpec
}

type dockerDataSpec struct {
	dockerAnnotations
	Data       []byte        `json:",omitempty"`
	Driver     *dockerDriver `json:",omitempty"`
	Templating *dockerDriver `json:",omitempty"`
}
