package runtime

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// Pull implements Images: every reference is there to be pulled, unless the options fail it.
func (f *Fake) Pull(ctx context.Context, ref string, from Source) (Image, error) {
	f.mu.Lock()
	image, here := f.images[ref]
	lost := f.lost
	f.mu.Unlock()
	if here && lost == nil && (image.Loaded || strings.Contains(ref, "@")) {
		return image, context.Cause(ctx)
	}
	if err := f.enter(ctx, FakePull, ref); err != nil {
		return Image{}, err
	}
	defer f.mu.Unlock()
	if ref == "" {
		return Image{}, fmt.Errorf("%w: no image", ErrInvalid)
	}
	if f.o.Denied != nil && f.o.Denied(ref, from.Login) {
		return Image{}, fmt.Errorf("%w: pull access denied for %s", ErrInvalid, ref)
	}
	image = Image{Name: ref, Digest: fakeDigest(ref), Size: f.o.ImageSize, Used: f.o.Now()}
	f.images[ref] = image
	return image, nil
}

// Resolve implements Images.
func (f *Fake) Resolve(_ context.Context, ref string, login v1.RegistryLogin) (string, []v1.Platform, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.o.Denied != nil && f.o.Denied(ref, login) {
		return "", nil, fmt.Errorf("%w: pull access denied for %s", ErrInvalid, ref)
	}
	if f.images[ref].Loaded || strings.Contains(ref, "@") {
		return ref, nil, nil
	}
	return ref + "@" + fakeDigest(ref), nil, nil
}

// TryLogin implements Images: a registry refuses a login that it denies the image "SERVER/".
func (f *Fake) TryLogin(ctx context.Context, login v1.RegistryLogin) (bool, error) {
	return f.o.Denied == nil || !f.o.Denied(login.Server+"/", login), ctx.Err()
}

func fakeDigest(ref string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(ref))) }

// Load implements Images. A Fake's archive is a text with the name of an image on each line.
func (f *Fake) Load(_ context.Context, archive io.Reader) ([]Image, error) {
	var loaded []Image
	lines := bufio.NewScanner(archive)
	for lines.Scan() {
		if name := strings.TrimSpace(lines.Text()); name != "" {
			loaded = append(loaded, Image{Name: name, Digest: fakeDigest(name), Loaded: true})
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("runtime: load images: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, image := range loaded {
		f.images[image.Name] = image
	}
	return loaded, nil
}

// Images implements Images.
func (f *Fake) Images(context.Context) ([]Image, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	images := make([]Image, 0, len(f.images))
	for _, image := range f.images {
		images = append(images, image)
	}
	slices.SortFunc(images, func(a, b Image) int { return cmp.Compare(a.Name, b.Name) })
	return images, nil
}

// use takes note of an image's use. The caller holds the lock.
func (f *Fake) use(name string) {
	if image, ok := f.images[name]; ok {
		image.Used = f.o.Now()
		f.images[name] = image
	}
}

// RemoveImage implements Images.
func (f *Fake) RemoveImage(_ context.Context, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, c := range f.containers {
		if c.container.Image == name {
			return fmt.Errorf("runtime: image %s is in use by container %s", name, id)
		}
	}
	delete(f.images, name)
	return nil
}

// ImageDisk implements Images.
func (f *Fake) ImageDisk(context.Context) (Disk, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := Disk{Size: f.o.DiskSize}
	for _, image := range f.images {
		d.Used += image.Size
	}
	return d, nil
}

// Content implements Images: a Fake's images have none.
func (f *Fake) Content(_ context.Context, name, digest string) (io.ReadCloser, error) {
	return nil, fmt.Errorf("%w: %s of %s", ErrNotFound, digest, name)
}
