package v1

// VolumeSpec is what the user wants of a volume.
type VolumeSpec struct {
	// Driver is local by default.
	Driver  string            `json:"driver,omitempty"`
	Options map[string]string `json:"options,omitempty"`
}

// VolumeStatus is what an agent observed of a volume.
type VolumeStatus struct {
	Node       string `json:"node,omitempty"`
	Mountpoint string `json:"mountpoint,omitempty"`
}
