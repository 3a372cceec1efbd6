package v1

import "fmt"

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

// VolumeLocal is the driver whose volumes are on the node that uses them.
const VolumeLocal = "local"

// The options of the local driver.
const (
	volumeType, volumeMountOptions, volumeDevice = "type", "o", "device"
)

// CheckVolumeOptions refuses options that the local driver does not have, or that miss another, in Docker's words.
func CheckVolumeOptions(options map[string]string) error {
	for name := range options {
		switch name {
		case volumeType, volumeMountOptions, volumeDevice:
		default:
			return fmt.Errorf("invalid option: %q", cut(name))
		}
	}
	for _, needs := range []struct{ has, wants string }{
		{volumeDevice, volumeType}, {volumeType, volumeDevice}, {volumeMountOptions, volumeDevice}, {volumeMountOptions, volumeType},
	} {
		if options[needs.has] != "" && options[needs.wants] == "" {
			return fmt.Errorf("missing required option: %q", needs.wants)
		}
	}
	return nil
}
