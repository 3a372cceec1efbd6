package runtime

import (
	"context"
	"time"
)

// Volumes are folders of a machine that outlive the containers that have them mounted. Create makes one when a container that names
// it is made; one without a name goes with its container.
type Volumes interface {
	// Volumes are those that are here, sorted by name; nameless ones are left out.
	Volumes(ctx context.Context) ([]Volume, error)
	// CheckVolume is the error that RemoveVolume would be for a volume that a container has, and removes nothing.
	CheckVolume(ctx context.Context, name string) error
	// RemoveVolume removes a volume and all that is in it. One that a container has is an error; one that is not there is not.
	RemoveVolume(ctx context.Context, name string) error
}

// Volume is one that is on this machine.
type Volume struct {
	Name string `json:"name"`
	// Options are those of Docker's local driver: type, o and device of what is mounted there; none for a plain folder.
	Options map[string]string `json:"options,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	Created time.Time         `json:"created"`
	// Mountpoint is where it is on this machine.
	Mountpoint string `json:"-"`
}
