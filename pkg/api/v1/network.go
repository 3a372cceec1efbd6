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
	VNI     uint32       `json:"vni,omitempty"`
	Subnets []SubnetSpec `json:"subnets,omitempty"`
}
