package cli

import "time"

// dockerNetworkResource is what docker network inspect prints. Problem is ours: why the network has no addresses to give.
type dockerNetworkResource struct {
	Name       string
	ID         string `json:"Id"`
	Created    time.Time
	Scope      string
	Driver     string
	EnableIPv4 bool
	EnableIPv6 bool
	IPAM       dockerIPAM
	Internal   bool
	Attachable bool
	Ingress    bool
	ConfigFrom dockerConfigFrom
	ConfigOnly bool
	Containers map[string]struct{} // Docker's word for what is on the network outside of services
	Options    map[string]string
	Labels     map[string]string
	Problem    string                          `json:",omitempty"`
	Peers      []dockerPeer                    `json:",omitempty"`
	Services   map[string]dockerNetworkService `json:",omitempty"`
}

type dockerConfigFrom struct{ Network string }

type dockerIPAM struct {
	Driver  string
	Options map[string]string
	Config  []dockerIPAMConfig
}

type dockerIPAMConfig struct {
	Subnet  string `json:",omitempty"`
	IPRange string `json:",omitempty"`
	Gateway string `json:",omitempty"`
}

type dockerPeer struct {
	Name string
	IP   string
}

type dockerNetworkService struct {
	VIP          string
	Ports        []string
	LocalLBIndex int
	Tasks        []dockerNetworkTask
}

type dockerNetworkTask struct {
	Name       string
	EndpointID string
	EndpointIP string
	Info       map[string]string
}

// dockerAttachment is a network that a task is on, as docker inspect prints it of a task.
type dockerAttachment struct {
	Network   dockerTaskNetwork
	Addresses []string `json:",omitempty"`
}

type dockerTaskNetwork struct {
	ID string `json:",omitempty"`
	dockerMeta
	Spec        dockerNetworkSpec
	DriverState dockerDriver
	IPAMOptions *dockerIPAMOptions `json:",omitempty"`
}

type dockerNetworkSpec struct {
	dockerAnnotations
	DriverConfiguration *dockerDriver      `json:",omitempty"`
	IPv6Enabled         bool               `json:",omitempty"`
	Internal            bool               `json:",omitempty"`
	Attachable          bool               `json:",omitempty"`
	Ingress             bool               `json:",omitempty"`
	IPAMOptions         *dockerIPAMOptions `json:",omitempty"`
	Scope               string             `json:",omitempty"`
}

type dockerIPAMOptions struct {
	Driver  dockerDriver       `json:",omitzero"`
	Configs []dockerSubnetSpec `json:",omitempty"`
}

type dockerSubnetSpec struct {
	Subnet  string `json:",omitempty"`
	Range   string `json:",omitempty"`
	Gateway string `json:",omitempty"`
}
