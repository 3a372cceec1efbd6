package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/swarmd/swarmd/pkg/runtime"
)

// Limits of what an image may make us read into memory.
const (
	maxManifest = 4 << 20
	maxConfig   = 8 << 20
	maxPasswd   = 4 << 20
	maxCached   = 128
)

// loadedLabel marks images that came by Load; they are never asked a registry for.
const loadedLabel = "swarmd.loaded"

// image is what a container needs to know of one, read once.
type image struct {
	config ocispec.ImageConfig
	// health is its HEALTHCHECK, nil for none, and shell its SHELL: Docker's own, which OCI has no word for.
	health *imageHealth
	shell  []string
	// chain is the snapshot with all layers.
	chain string
	// passwd and group are the image's files, nil where it has none.
	passwd, group []byte
}

// imageCache holds images by the digest of what their name refers to.
type imageCache struct {
	mu     sync.Mutex
	images map[digest.Digest]*image
}

func (c *imageCache) get(d digest.Digest) *image {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.images[d]
}

func (c *imageCache) put(d digest.Digest, i *image) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.images == nil {
		c.images = make(map[digest.Digest]*image)
	}
	for old := range c.images {
		if len(c.images) < maxCached {
			break
		}
		delete(c.images, old)
	}
	c.images[d] = i
}

func (c *imageCache) drop(d digest.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.images, d)
}

// image finds an image that is here, unpacks it where it is not yet, and reads it.
func (r *Runtime) image(ctx context.Context, name string) (images.Image, *image, error) {
	record, err := r.client.ImageService().Get(ctx, name)
	if errdefs.IsNotFound(err) {
		return record, nil, fmt.Errorf("containerd: image %s is not here: %w", name, runtime.ErrNotFound)
	}
	if err != nil {
		return record, nil, fmt.Errorf("containerd: get image %s: %w", name, err)
	}
	if i := r.images.get(record.Target.Digest); i != nil {
		return record, i, nil
	}
	// Thirty replicas start together: one of them reads and unpacks.
	read, err, _ := r.flights.Do("image "+record.Target.Digest.String(), func() (any, error) {
		i, err := r.readImage(ctx, record)
		if err == nil {
			r.images.put(record.Target.Digest, i)
		}
		return i, err
	})
	if err != nil {
		if errors.Is(err, runtime.ErrInvalid) { // for the user to read
			return record, nil, fmt.Errorf("image %s: %w", name, err)
		}
		return record, nil, fmt.Errorf("containerd: image %s: %w", name, err)
	}
	return record, read.(*image), nil
}

// readImage reads the image's configuration, unpacks it and reads its users. The configuration comes first: what unpacks
// reads it too, and does not say whose fault it is.
func (r *Runtime) readImage(ctx context.Context, record images.Image) (*image, error) {
	handle := client.NewImageWithPlatform(r.client, record, platforms.Default())
	descriptor, err := handle.Config(ctx)
	if err != nil {
		return nil, explainPlatform(err)
	}
	if descriptor.Size > maxConfig {
		return nil, fmt.Errorf("its configuration has %d bytes, more than the %d that are read: %w", descriptor.Size, maxConfig, runtime.ErrInvalid)
	}
	data, err := content.ReadBlob(ctx, r.client.ContentStore(), descriptor)
	if err != nil {
		return nil, err
	}
	var parsed ocispec.Image
	if err := json.Unmarshal(data, &parsed); err != nil {
		return nil, fmt.Errorf("its configuration cannot be read: %w: %w", err, runtime.ErrInvalid)
	}
	var docker struct {
		Config struct {
			Healthcheck *imageHealth
			Shell       []string
		} `json:"config"`
	}
	if err := json.Unmarshal(data, &docker); err != nil {
		return nil, fmt.Errorf("its health check cannot be read: %w: %w", err, runtime.ErrInvalid)
	}
	if err := handle.Unpack(ctx, r.snapshotter); err != nil {
		return nil, explainUnpack(err)
	}
	i := &image{config: parsed.Config, health: docker.Config.Healthcheck, shell: docker.Config.Shell, chain: identity.ChainID(parsed.RootFS.DiffIDs).String()}
	return i, r.readUsers(ctx, i)
}

// readUsers reads the image's passwd and group files.
func (r *Runtime) readUsers(ctx context.Context, i *image) error {
	return r.withImage(ctx, i.chain, func(dir string) (err error) {
		root, err := os.OpenRoot(dir) // a link in the image must not lead out of it
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, root.Close()) }() // before the unmount
		i.passwd, i.group = readRegular(root, "etc/passwd"), readRegular(root, "etc/group")
		return nil
	})
}

// withImage does something with an image's files, through a mount that is gone afterwards.
func (r *Runtime) withImage(ctx context.Context, chain string, do func(dir string) error) (err error) {
	ctx, done, err := r.client.WithLease(ctx, leases.WithRandomID())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done(context.WithoutCancel(ctx))) }()
	dir, err := os.MkdirTemp(r.paths.in("tmp"), "image-")
	if err != nil {
		return err
	}
	defer os.Remove(dir)
	snapshots := r.client.SnapshotService(r.snapshotter)
	key := r.paths.name + dir
	mounts, err := snapshots.View(ctx, key, chain)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, snapshots.Remove(context.WithoutCancel(ctx), key)) }()
	if err := mount.All(mounts, dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, mount.UnmountAll(dir, 0)) }()
	return do(dir)
}

// readRegular is the content of a regular file of moderate size; of anything else, nothing.
func readRegular(root *os.Root, name string) []byte {
	if info, err := root.Stat(name); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	f, err := root.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxPasswd))
	if err != nil {
		return nil
	}
	return data
}

// explainPlatform turns containerd's "not found" of a manifest into what a user understands.
func explainPlatform(err error) error {
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("no matching manifest for %s: %w", platforms.Format(platforms.DefaultSpec()), runtime.ErrInvalid)
	}
	return err
}
