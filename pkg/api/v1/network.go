package v1

// NetworkSpec is what the user wants of a network.
type NetworkSpec struct {
	// Driver is overlay.
	Driver string `json:"driver,omitempty"`
	// Options are those of the driver; "encrypted" is one.
	Options    map[string]string `json:"options,omitempty"`
	Attachable bool              `json:"attachable,omitempty"`
	Internal   bool              `json:"internal,omitempty"`
	Ingress    bool              `json:"ingress,omitempty"`
	IPv6       bool              `json:"ipv6,omitempty"`
	Subnets    []SubnetSpec      `json:"subnets,omitempty"`
}

// SubnetSpec is one address range of a network.
type SubnetSpec struct {
	Subnet  string `json:"subnet,omitempty"`
	Gateway string `json:"gateway,omitempty"`
	IPRange string `json:"ipRange,omitempty"`
}

// NetworkDesired is what the rules decided about a network.
type NetworkDesired struct {
	// VNI tells the network's packets between nodes from those of others. It is unique among networks, from FirstVNI.
	VNI uint32 `json:"vni,omitempty"`
	// Subnets are those of the spec, or cut from the swarm's pool where it has none, each with its gateway. No task and no service
	// has the gateway's address.
	Subnets []SubnetSpec `json:"subnets,omitempty"`
	// Problem is why the network has no subnet or VNI, for the user to read.
	Problem string `json:"problem,omitempty"`
}

// FirstVNI is the lowest VNI that is given; Docker Swarm's. GatewayVNI is that of the gateway network.
const (
	FirstVNI   = 4096
	GatewayVNI = 1
)

// LastEncryptedVNI is the highest VNI of an encrypted network: each has the UDP port that is as far above FirstEncryptedPort as its VNI
// is above FirstVNI.
const (
	FirstEncryptedPort = 61000
	LastEncryptedVNI   = FirstVNI + 65535 - FirstEncryptedPort
)

// EncryptedPort is the UDP port of the encrypted network with a VNI, 0 where none can have that VNI.
func EncryptedPort(vni uint32) uint16 {
	if vni < FirstVNI || vni > LastEncryptedVNI {
		return 0
	}
	return uint16(FirstEncryptedPort + vni - FirstVNI)
}

// Encrypted tells whether the network's packets between nodes are encrypted: the option is there, whatever its value, as with Docker.
func (n *NetworkSpec) Encrypted() bool {
	_, is := n.Options[OptionEncrypted]
	return is
}

// NetworkAddress is where a task, or a service, is on a network.
type NetworkAddress struct {
	// Network is the network's ID.
	Network string `json:"network"`
	// Addresses have their subnet's length, such as 10.0.1.5/24; at most one of each IP version.
	Addresses []string `json:"addresses"`
}
