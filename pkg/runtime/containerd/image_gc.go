package containerd

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/swarmd/swarmd/pkg/runtime"
)

// usedLabel is when an image was used last. What is read is the record's own time of change.
const usedLabel = "swarmd.used"

// usedEvery is how often that is written at most.
const usedEvery = time.Minute

// used takes note that a container was made of an image, or removed. Where that fails the image only looks older than it is.
func (r *Runtime) used(ctx context.Context, name string) {
	record, err := r.client.ImageService().Get(ctx, name)
	if err != nil || time.Since(record.UpdatedAt) < usedEvery {
		return
	}
	change := images.Image{Name: name, Target: record.Target, Labels: map[string]string{usedLabel: time.Now().UTC().Format(time.RFC3339)}}
	if _, err := r.client.ImageService().Update(ctx, change, "labels."+usedLabel); err != nil && !errdefs.IsNotFound(err) {
		r.log.Debug("containerd: note the use of an image", "image", name, "err", err)
	}
}

// RemoveImage implements runtime.Images. It waits for containerd's collector, so that ImageDisk tells what it was good for.
func (r *Runtime) RemoveImage(ctx context.Context, name string) error {
	ctx = r.namespaced(ctx)
	users, err := r.client.ContainerService().List(ctx, "image=="+strconv.Quote(name))
	if err != nil {
		return fmt.Errorf("containerd: remove image %s: %w", name, err)
	}
	if len(users) > 0 {
		return fmt.Errorf("containerd: image %s is in use by container %s", name, users[0].ID)
	}
	record, err := r.client.ImageService().Get(ctx, name)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err == nil {
		err = r.client.ImageService().Delete(ctx, name, images.SynchronousDelete())
		r.images.drop(record.Target.Digest)
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("containerd: remove image %s: %w", name, err)
	}
	return nil
}

// ImageDisk implements runtime.Images. What only root may write to counts as used, as df has it.
func (r *Runtime) ImageDisk(context.Context) (runtime.Disk, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(r.paths.in("."), &s); err != nil {
		return runtime.Disk{}, fmt.Errorf("containerd: the disk of %s: %w", r.paths.in("."), err)
	}
	used := int64(s.Blocks-s.Bfree) * s.Bsize
	return runtime.Disk{Used: used, Size: used + int64(s.Bavail)*s.Bsize}, nil
}
