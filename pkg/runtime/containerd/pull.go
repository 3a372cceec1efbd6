package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/runtime"
)

// Pull implements runtime.Images. Those who ask for one image at the same time share one pull, which goes on for the
// others when one of them stops waiting.
func (r *Runtime) Pull(ctx context.Context, ref string, from runtime.Source) (runtime.Image, error) {
	named, err := normalize(ref)
	if err != nil {
		return runtime.Image{}, err
	}
	result := r.flights.DoChan("pull "+named.String(), func() (any, error) {
		return r.pull(r.namespaced(r.ctx), named, from)
	})
	select {
	case <-ctx.Done():
		return runtime.Image{}, ctx.Err()
	case done := <-result:
		if done.Err != nil {
			return runtime.Image{}, done.Err
		}
		return done.Val.(runtime.Image), nil
	}
}

// pull finds out whether the registry must be asked, asks it, and falls back to what is here.
func (r *Runtime) pull(ctx context.Context, named reference.Named, from runtime.Source) (runtime.Image, error) {
	here, err := r.client.ImageService().Get(ctx, named.String())
	switch {
	case err == nil:
		_, pinned := named.(reference.Digested)
		if (pinned || here.Labels[loadedLabel] != "") && r.complete(ctx, here) {
			return r.describe(ctx, here)
		}
	case !errdefs.IsNotFound(err):
		return runtime.Image{}, fmt.Errorf("containerd: get image %s: %w", named, err)
	default:
		if alias, ok := r.alias(ctx, named); ok {
			return r.describe(ctx, alias)
		}
	}
	isHere := err == nil
	select {
	case r.pulls <- struct{}{}:
		defer func() { <-r.pulls }()
	case <-ctx.Done():
		return runtime.Image{}, ctx.Err()
	}
	a, err := r.asker(named, from.Login)
	if err != nil {
		return runtime.Image{}, err
	}
	pulled, err := r.client.Pull(ctx, named.String(), client.WithPullUnpack, client.WithPullSnapshotter(r.snapshotter),
		client.WithResolver(a.resolver()), client.WithPlatformMatcher(platforms.Default()))
	if err == nil {
		return r.describe(ctx, pulled.Metadata())
	}
	unreachable, explained := a.explainPull(named.String(), a.explainMissing(ctx, named, err))
	if unreachable && isHere && r.complete(ctx, here) {
		r.log.Warn("containerd: using the image that is here", "image", named.String(), "error", explained)
		return r.describe(ctx, here)
	}
	if pinned, ok := named.(reference.Digested); ok && unreachable && from.Peers != nil {
		given, err := r.pullFromPeers(ctx, pinned, from.Peers)
		if err == nil {
			r.log.Info("containerd: another node gave the image", "image", named.String(), "registry", explained)
			return r.describe(ctx, given)
		}
		explained = fmt.Errorf("%w; and no other node gives the image: %v", explained, err)
	}
	return runtime.Image{}, explained
}

// explainMissing tells an image that has no build for this platform from one that does not exist: containerd calls both
// not found.
func (a *asker) explainMissing(ctx context.Context, named reference.Named, err error) error {
	if !errdefs.IsNotFound(err) {
		return err
	}
	if _, _, rerr := a.resolver().Resolve(ctx, named.String()); rerr != nil {
		return err
	}
	return explainPlatform(err)
}

// alias gives an image that is here under another name the pinned name too: the digest says that it is the same.
func (r *Runtime) alias(ctx context.Context, named reference.Named) (images.Image, bool) {
	pinned, ok := named.(reference.Digested)
	if !ok {
		return images.Image{}, false
	}
	same, err := r.client.ImageService().List(ctx, "target.digest=="+pinned.Digest().String())
	if err != nil || len(same) == 0 || !r.complete(ctx, same[0]) {
		return images.Image{}, false
	}
	same[0].Name = named.String()
	made, err := r.client.ImageService().Create(ctx, same[0])
	return made, err == nil
}

// complete tells whether everything that a container needs of the image is here.
func (r *Runtime) complete(ctx context.Context, i images.Image) bool {
	if r.images.get(i.Target.Digest) != nil {
		return true
	}
	ok, _, _, missing, err := images.Check(ctx, r.client.ContentStore(), i.Target, platforms.Default())
	return err == nil && ok && len(missing) == 0
}

// Resolve implements runtime.Images.
func (r *Runtime) Resolve(ctx context.Context, ref string, login v1.RegistryLogin) (string, []v1.Platform, error) {
	named, err := normalize(ref)
	if err != nil {
		return "", nil, err
	}
	ctx = r.namespaced(ctx)
	if here, err := r.client.ImageService().Get(ctx, named.String()); err == nil && here.Labels[loadedLabel] != "" {
		all, err := images.Platforms(ctx, r.client.ContentStore(), here.Target)
		if err != nil {
			return "", nil, fmt.Errorf("containerd: platforms of %s: %w", ref, err)
		}
		return ref, swarmPlatforms(all), nil
	}
	a, err := r.asker(named, login)
	if err != nil {
		return "", nil, err
	}
	name, target, err := a.resolver().Resolve(ctx, named.String())
	if err == nil {
		var all []ocispec.Platform
		if all, err = a.remotePlatforms(ctx, name, target); err == nil {
			pinned, perr := reference.WithDigest(named, target.Digest)
			if perr != nil {
				return "", nil, fmt.Errorf("containerd: resolve %s: %w", ref, perr)
			}
			return pinned.String(), swarmPlatforms(all), nil
		}
	}
	_, explained := a.explainPull(named.String(), err)
	return "", nil, explained
}

// remotePlatforms reads of a registry for what platforms an image is: of an index from itself, of a single image from its
// configuration.
func (a *asker) remotePlatforms(ctx context.Context, name string, target ocispec.Descriptor) ([]ocispec.Platform, error) {
	fetcher, err := a.resolver().Fetcher(ctx, name)
	if err != nil {
		return nil, err
	}
	if images.IsIndexType(target.MediaType) {
		var index ocispec.Index
		if err := fetchJSON(ctx, fetcher, target, maxManifest, &index); err != nil {
			return nil, err
		}
		var all []ocispec.Platform
		for _, m := range index.Manifests {
			if p := m.Platform; p != nil && p.OS != "unknown" { // attestations say that they are of no platform
				all = append(all, *p)
			}
		}
		return all, nil
	}
	var manifest ocispec.Manifest
	if err := fetchJSON(ctx, fetcher, target, maxManifest, &manifest); err != nil {
		return nil, err
	}
	var config ocispec.Image
	if err := fetchJSON(ctx, fetcher, manifest.Config, maxConfig, &config); err != nil {
		return nil, err
	}
	return []ocispec.Platform{config.Platform}, nil
}

// fetchJSON reads one object of a registry, up to a limit.
func fetchJSON(ctx context.Context, f remotes.Fetcher, d ocispec.Descriptor, limit int64, into any) error {
	if d.Size > limit {
		return fmt.Errorf("%s has %d bytes, more than the %d that are read: %w", d.Digest, d.Size, limit, runtime.ErrInvalid)
	}
	body, err := f.Fetch(ctx, d)
	if err != nil {
		return err
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, limit+1))
	if err != nil {
		return err
	}
	if int64(len(data)) > limit || d.Digest.Algorithm().FromBytes(data) != d.Digest {
		return fmt.Errorf("%s is not what the registry sends: %w", d.Digest, runtime.ErrInvalid)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%s cannot be read: %w: %w", d.Digest, err, runtime.ErrInvalid)
	}
	return nil
}

func swarmPlatforms(all []ocispec.Platform) []v1.Platform {
	var out []v1.Platform
	for _, p := range all {
		p = platforms.Normalize(p)
		out = append(out, v1.Platform{Architecture: p.Architecture, OS: p.OS})
	}
	return out
}

// Images implements runtime.Images.
func (r *Runtime) Images(ctx context.Context) ([]runtime.Image, error) {
	ctx = r.namespaced(ctx)
	records, err := r.client.ImageService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("containerd: list images: %w", err)
	}
	all := make([]runtime.Image, 0, len(records))
	for _, record := range records {
		i, err := r.describe(ctx, record)
		if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			return nil, err
		}
		all = append(all, i)
	}
	return all, nil
}

// describe is an image as callers know it. One of which a part is missing is described as far as it goes, with the error.
func (r *Runtime) describe(ctx context.Context, record images.Image) (runtime.Image, error) {
	i := runtime.Image{
		Name: record.Name, Digest: record.Target.Digest.String(), Created: record.CreatedAt, Used: record.UpdatedAt,
		Loaded: record.Labels[loadedLabel] != "",
	}
	size, err := record.Size(ctx, r.client.ContentStore(), platforms.Default())
	if err != nil {
		return i, fmt.Errorf("containerd: size of %s: %w", record.Name, err)
	}
	i.Size = size
	return i, nil
}
