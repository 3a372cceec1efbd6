package containerd

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/runtime"
)

// TestPullFromPeers: an image comes from another node where its registry is away, and nothing is taken that is not what its digest says.
func TestPullFromPeers(t *testing.T) {
	first, second, h := start(t, nil), start(t, nil), newHub(t)
	h.push(t, "app:1", marked(t, "from a peer"))
	pinned, _, err := first.Resolve(t.Context(), h.ref("app:1"), v1.RegistryLogin{})
	if err != nil {
		t.Fatal(err)
	}
	had, err := first.Pull(t.Context(), pinned, runtime.Source{})
	if err != nil {
		t.Fatal(err)
	}
	h.Close()
	lies := func(context.Context, string) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader("{}")), nil
	}
	if _, err := second.Pull(t.Context(), pinned, runtime.Source{Peers: lies}); err == nil || errors.Is(err, runtime.ErrInvalid) ||
		!strings.Contains(err.Error(), "is not what the other node sends") {
		t.Errorf("a peer that lies: %v", err)
	}
	parts := 0
	layersLie := func(ctx context.Context, digest string) (io.ReadCloser, error) {
		if parts++; parts > 2 {
			return lies(ctx, digest)
		}
		return first.Content(ctx, pinned, digest)
	}
	if _, err := second.Pull(t.Context(), pinned, runtime.Source{Peers: layersLie}); err == nil {
		t.Error("a peer that lies about a layer is believed")
	}
	honest := func(ctx context.Context, digest string) (io.ReadCloser, error) {
		return first.Content(ctx, pinned, digest)
	}
	got, err := second.Pull(t.Context(), pinned, runtime.Source{Peers: honest})
	if err != nil || got.Digest != had.Digest {
		t.Fatalf("from a peer: %+v, %v, want %s", got, err, had.Digest)
	}
	c := container("env", "MARK")
	c.Image = got.Name
	if end := run(t, second, c); end.ExitCode != 0 || output(t, second, c.ID) != "from a peer\n" {
		t.Errorf("a container of it: %+v", end)
	}
	for _, part := range []string{"sha256:" + strings.Repeat("0", 64), "nonsense", ""} {
		if _, err := first.Content(t.Context(), pinned, part); err == nil {
			t.Errorf("%q is given away", part)
		}
	}
	if _, err := first.Content(t.Context(), h.ref("other:1"), had.Digest); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("a part of another image: %v", err)
	}
}
