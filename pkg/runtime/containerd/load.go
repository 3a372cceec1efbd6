package containerd

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/swarmd/swarmd/pkg/runtime"
)

const (
	// maxArchive bounds what an archive may unpack to; larger images come from registries.
	maxArchive = 16 << 30
	// maxZstdWindow bounds the memory that an archive can ask for.
	maxZstdWindow = 128 << 20
)

// Load implements runtime.Images. Images are named as the archive names them, normalised; one without a name gets the name
// of its digest.
func (r *Runtime) Load(ctx context.Context, archive io.Reader) ([]runtime.Image, error) {
	ctx = r.namespaced(ctx)
	plain, err := decompress(archive)
	if err != nil {
		return nil, fmt.Errorf("containerd: load: %w: %w", err, runtime.ErrInvalid)
	}
	defer plain.Close()
	limited := &limitReader{from: plain, left: maxArchive}
	records, err := r.client.Import(ctx, limited,
		client.WithImageLabels(map[string]string{loadedLabel: "true"}),
		client.WithImageRefTranslator(func(name string) string { return name }),
		client.WithDigestRef(func(d digest.Digest) string { return "docker.io/library/loaded@" + d.String() }),
		client.WithSkipDigestRef(func(name string) bool { return name != "" }),
		client.WithImportPlatform(platforms.Default()),
		client.WithSkipMissing())
	if err != nil {
		return nil, fmt.Errorf("containerd: load: want an OCI or docker archive of an image for %s: %w: %w",
			platforms.Format(platforms.DefaultSpec()), err, runtime.ErrInvalid)
	}
	var loaded []runtime.Image
	for _, record := range records {
		if record, err = r.rename(ctx, record); err != nil {
			return nil, err
		}
		// Unpacked now, so that a broken archive is told to whoever loads it, not to the first task.
		if _, _, err := r.image(ctx, record.Name); err != nil {
			err = errors.Join(err, r.client.ImageService().Delete(ctx, record.Name))
			if errors.Is(err, runtime.ErrInvalid) {
				return nil, fmt.Errorf("load: %w", err)
			}
			return nil, fmt.Errorf("containerd: load: %w", err)
		}
		i, err := r.describe(ctx, record)
		if err != nil {
			return nil, err
		}
		loaded = append(loaded, i)
	}
	if len(loaded) == 0 {
		return nil, fmt.Errorf("containerd: load: the archive has no image for %s: %w", platforms.Format(platforms.DefaultSpec()), runtime.ErrInvalid)
	}
	return loaded, nil
}

// rename gives a loaded image its full name.
func (r *Runtime) rename(ctx context.Context, record images.Image) (images.Image, error) {
	service := r.client.ImageService()
	named, err := reference.ParseDockerRef(record.Name)
	if err != nil {
		return record, errors.Join(
			fmt.Errorf("containerd: load: the image's name %q: %w: %w", record.Name, err, runtime.ErrInvalid), service.Delete(ctx, record.Name))
	}
	if named.String() == record.Name {
		return record, nil
	}
	old := record.Name
	record.Name = named.String()
	if _, err := service.Update(ctx, record, "target", "labels"); err != nil {
		if _, err := service.Create(ctx, record); err != nil {
			return record, fmt.Errorf("containerd: load: name %s: %w", record.Name, err)
		}
	}
	return record, service.Delete(ctx, old)
}

// decompress undoes gzip or zstd, whichever it finds.
func decompress(archive io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(archive, 64<<10)
	magic, err := b.Peek(4)
	if len(magic) == 0 {
		if err == nil || errors.Is(err, io.EOF) {
			err = errors.New("the archive is empty")
		}
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		return gzip.NewReader(b)
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(b), nil
}

// limitReader fails when there is more than the limit, where io.LimitReader would pretend that it ended.
type limitReader struct {
	from io.Reader
	left int64
}

// Read implements io.Reader.
func (l *limitReader) Read(b []byte) (int, error) {
	n, err := l.from.Read(b)
	if l.left -= int64(n); l.left < 0 {
		return 0, fmt.Errorf("the archive is larger than %d bytes", int64(maxArchive))
	}
	return n, err
}
