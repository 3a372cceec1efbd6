package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/swarmd/swarmd/pkg/runtime"
)

// pullFromPeers has an image with a digest from other nodes. Containerd takes each part for what its digest says, or not at all.
func (r *Runtime) pullFromPeers(ctx context.Context, named reference.Digested, ask peers) (images.Image, error) {
	var mu sync.Mutex
	asked := make(map[string]bool)
	counted := func(ctx context.Context, digest string) (io.ReadCloser, error) {
		mu.Lock()
		asked[digest] = true
		mu.Unlock()
		return ask(ctx, digest)
	}
	pulled, err := r.client.Pull(ctx, named.String(), client.WithPullUnpack, client.WithPullSnapshotter(r.snapshotter),
		client.WithResolver(peerResolver{named.Digest(), counted}), client.WithPlatformMatcher(platforms.Default()),
		client.WithMaxConcurrentDownloads(1))
	if err != nil {
		mu.Lock()
		defer mu.Unlock()
		return images.Image{}, errors.Join(err, r.abort(ctx, asked))
	}
	return pulled.Metadata(), nil
}

// abort forgets what came of parts that are not whole. Whoever asks for one next, the registry too, would go on from there: a node that
// sent something else would spoil it for good.
func (r *Runtime) abort(ctx context.Context, digests map[string]bool) error {
	store := r.client.ContentStore()
	left, err := store.ListStatuses(ctx)
	for _, s := range left {
		_, of, _ := strings.Cut(s.Ref, "-") // such as layer-sha256:…
		if digests[of] {
			if gone := store.Abort(ctx, s.Ref); !errdefs.IsNotFound(gone) {
				err = errors.Join(err, gone)
			}
		}
	}
	return err
}

// peers reads a part of an image as another node has it.
type peers func(ctx context.Context, digest string) (io.ReadCloser, error)

// peerResolver is a remotes.Resolver for one image.
type peerResolver struct {
	target digest.Digest
	ask    peers
}

// Resolve implements remotes.Resolver. What kind of manifest the digest is of is in the manifest.
func (p peerResolver) Resolve(ctx context.Context, ref string) (string, ocispec.Descriptor, error) {
	body, err := p.ask(ctx, p.target.String())
	if err != nil {
		return "", ocispec.Descriptor{}, err
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, maxManifest+1))
	if err != nil {
		return "", ocispec.Descriptor{}, err
	}
	if len(data) > maxManifest || p.target.Algorithm().FromBytes(data) != p.target {
		return "", ocispec.Descriptor{}, fmt.Errorf("%s is not what the other node sends", p.target)
	}
	var head struct {
		MediaType string            `json:"mediaType"`
		Manifests []json.RawMessage `json:"manifests"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return "", ocispec.Descriptor{}, fmt.Errorf("%s cannot be read: %w", p.target, err)
	}
	switch {
	case head.MediaType != "":
	case head.Manifests != nil:
		head.MediaType = ocispec.MediaTypeImageIndex
	default:
		head.MediaType = ocispec.MediaTypeImageManifest
	}
	return ref, ocispec.Descriptor{MediaType: head.MediaType, Digest: p.target, Size: int64(len(data))}, nil
}

// Fetcher implements remotes.Resolver.
func (p peerResolver) Fetcher(context.Context, string) (remotes.Fetcher, error) {
	return remotes.FetcherFunc(func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
		return p.ask(ctx, d.Digest.String())
	}), nil
}

// Pusher implements remotes.Resolver.
func (peerResolver) Pusher(context.Context, string) (remotes.Pusher, error) {
	return nil, errdefs.ErrNotImplemented
}

// errFound ends a walk.
var errFound = errors.New("found")

// Content implements runtime.Images.
func (r *Runtime) Content(ctx context.Context, name, part string) (io.ReadCloser, error) {
	named, err := normalize(name)
	if err != nil {
		return nil, err
	}
	wanted, err := digest.Parse(part)
	if err != nil {
		return nil, fmt.Errorf("%q is no digest: %w", part, runtime.ErrInvalid)
	}
	ctx = r.namespaced(ctx)
	record, err := r.client.ImageService().Get(ctx, named.String())
	if err != nil {
		return nil, notHere(name, part, err)
	}
	store := r.client.ContentStore()
	var found ocispec.Descriptor
	err = images.Walk(ctx, images.HandlerFunc(func(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		if d.Digest == wanted {
			found = d
			return nil, errFound
		}
		children, err := images.Children(ctx, store, d)
		if errdefs.IsNotFound(err) { // of another platform
			return nil, nil
		}
		return children, err
	}), record.Target)
	if !errors.Is(err, errFound) {
		return nil, notHere(name, part, errors.Join(err, errdefs.ErrNotFound))
	}
	at, err := store.ReaderAt(ctx, found)
	if err != nil {
		return nil, notHere(name, part, err)
	}
	return struct {
		io.Reader
		io.Closer
	}{content.NewReader(at), at}, nil
}

// notHere is runtime.ErrNotFound where that is what containerd says.
func notHere(name, part string, err error) error {
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("%s is no part of the image %s that is here: %w", part, name, runtime.ErrNotFound)
	}
	return fmt.Errorf("containerd: read %s of %s: %w", part, name, err)
}
