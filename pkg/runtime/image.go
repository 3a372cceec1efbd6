package runtime

import (
	"context"
	"io"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// Images are those that a machine has.
type Images interface {
	// Pull makes sure that the image is here and returns it. A reference with a digest that is here already is not asked
	// for again; neither is an image that was loaded. If the registry cannot be reached, an image that is here will do. A registry
	// that does not let the login have the image is ErrInvalid.
	Pull(ctx context.Context, ref string, from Source) (Image, error)
	// Resolve finds what a reference means now: the reference with its digest, and the platforms that it runs on. A
	// reference to an image that was loaded is returned as it is.
	Resolve(ctx context.Context, ref string, login v1.RegistryLogin) (pinned string, platforms []v1.Platform, err error)
	// TryLogin tells whether the login's registry lets it in. An error is a registry that cannot be asked.
	TryLogin(ctx context.Context, login v1.RegistryLogin) (accepted bool, err error)
	// Load reads images from an OCI or docker archive, compressed or not.
	Load(ctx context.Context, archive io.Reader) ([]Image, error)
	// Images lists those that are here.
	Images(ctx context.Context) ([]Image, error)
	// Content reads a part of an image, a manifest, configuration or layer, by its digest; ErrNotFound for what is not here, or is no part of it.
	Content(ctx context.Context, name, digest string) (io.ReadCloser, error)
	// RemoveImage removes an image by its full name, and what it alone has on the disk. One that a container is made of is an
	// error; one that is not there is not.
	RemoveImage(ctx context.Context, name string) error
	// ImageDisk is the disk that images are on.
	ImageDisk(ctx context.Context) (Disk, error)
}

// Disk is a disk: what can be written to it in all, and how much of that was, in bytes.
type Disk struct{ Used, Size int64 }

// Source says from whom an image is had.
type Source struct {
	// Login is who asks the registry; the zero value is whoever the machine's own configuration says, or nobody.
	Login v1.RegistryLogin
	// Peers, unless nil, is asked for parts of an image with a digest, each by its own digest, where the registry cannot be reached.
	Peers func(ctx context.Context, digest string) (io.ReadCloser, error)
}

// Image is an image on this machine.
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
	// Loaded tells that it came by Load, not from a registry.
	Loaded bool `json:"loaded,omitempty"`
}
