package containerd

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	containerregistry "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/klauspost/compress/zstd"

	"github.com/swarmd/swarmd/pkg/runtime"
)

// ociArchive is an OCI layout as a tar, with the image's name where Docker puts it, or without any.
func ociArchive(t *testing.T, ref string, image containerregistry.Image) []byte {
	t.Helper()
	dir := t.TempDir()
	add := mutate.IndexAddendum{Add: image}
	if ref != "" {
		add.Annotations = map[string]string{"io.containerd.image.name": ref}
	}
	if _, err := layout.Write(dir, mutate.AppendManifests(empty.Index, add)); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	w.Close()
	return b.Bytes()
}

func zipped(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(data)
	w.Close()
	return b.Bytes()
}

func zstandard(t *testing.T, data []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(data, nil)
}

func TestLoad(t *testing.T) {
	r := theRuntime(t)
	for _, test := range []struct {
		name, want string
		archive    []byte
	}{
		{"docker", "docker.io/library/docker:1", archive(t, "docker:1", marked(t, "docker"))},
		{"gzip", "docker.io/library/zipped:1", zipped(t, archive(t, "zipped:1", marked(t, "gzip")))},
		{"zstd", "example.org/a/b:1", zstandard(t, archive(t, "example.org/a/b:1", marked(t, "zstd")))},
		{"oci", "example.org/oci:1", ociArchive(t, "example.org/oci:1", marked(t, "oci"))},
		{"oci short name", "docker.io/library/short:latest", ociArchive(t, "short", marked(t, "oci short name"))},
		{"nameless", "docker.io/library/loaded@sha256:", ociArchive(t, "", marked(t, "nameless"))},
	} {
		t.Run(test.name, func(t *testing.T) {
			for range 2 { // again is harmless
				images, err := r.Load(t.Context(), bytes.NewReader(test.archive))
				if err != nil {
					t.Fatal(err)
				}
				if len(images) != 1 || !strings.HasPrefix(images[0].Name, test.want) || !images[0].Loaded {
					t.Fatalf("loaded %+v, want %s", images, test.want)
				}
				// No registry is asked for what was loaded: there is none.
				if i, err := r.Pull(t.Context(), images[0].Name); err != nil || i.Digest != images[0].Digest {
					t.Errorf("Pull: %+v, %v", i, err)
				}
				if ref, platforms, err := r.Resolve(t.Context(), images[0].Name); err != nil || ref != images[0].Name || len(platforms) != 1 {
					t.Errorf("Resolve: %s, %v, %v", ref, platforms, err)
				}
				c := container("env", "MARK")
				c.Image = images[0].Name
				run(t, r, c)
				if got := output(t, r, c.ID); got != test.name+"\n" {
					t.Errorf("ran %q", got)
				}
			}
		})
	}
	all, err := r.Images(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if i.Name == "short" {
			t.Errorf("an image without its full name: %+v", i)
		}
	}
}

func TestLoadBad(t *testing.T) {
	r := theRuntime(t)
	before, err := r.Images(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	whole := archive(t, "bad:1", marked(t, "bad"))
	arm, err := mutate.ConfigFile(testImage(t, nil), &containerregistry.ConfigFile{Architecture: "arm64", OS: "linux",
		RootFS: containerregistry.RootFS{Type: "layers", DiffIDs: []containerregistry.Hash{{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}}}})
	if err != nil {
		t.Fatal(err)
	}
	evil := func() []byte { // a layer that climbs out of its folder
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "../../../../../../tmp/climbed", Mode: 0o644, Size: 1})
		w.Write([]byte("x"))
		w.Close()
		return b.Bytes()
	}()
	for name, data := range map[string][]byte{
		"empty": nil, "text": []byte("this is no archive"), "short": {0x1f}, "cut": whole[:len(whole)/2], "cut gzip": zipped(t, whole)[:1000],
		"cut zstd": zstandard(t, whole)[:1000], "tar of nothing": make([]byte, 1024), "tar of something else": evil,
		"another platform": archive(t, "arm:1", arm),
	} {
		images, err := r.Load(t.Context(), bytes.NewReader(data))
		if !errors.Is(err, runtime.ErrInvalid) {
			t.Errorf("%s: %+v, %v, want ErrInvalid", name, images, err)
		}
	}
	if _, err := os.Stat("/tmp/climbed"); err == nil {
		t.Error("an archive wrote outside of its folder")
	}
	after, err := r.Images(t.Context())
	if err != nil || len(after) != len(before) {
		t.Errorf("images before %d, after %d, %v", len(before), len(after), err)
	}
	left, err := filepath.Glob(r.paths.in("tmp", "*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestLimitReader(t *testing.T) {
	l := &limitReader{from: strings.NewReader("12345"), left: 4}
	if _, err := io.ReadAll(l); err == nil {
		t.Error("5 bytes were read, with a limit of 4")
	}
	l = &limitReader{from: strings.NewReader("1234"), left: 4}
	if b, err := io.ReadAll(l); err != nil || len(b) != 4 {
		t.Errorf("read %d bytes, %v", len(b), err)
	}
}

// TestNative runs on the snapshotter that is left where overlayfs does not work.
func TestNative(t *testing.T) {
	r := start(t, nil)
	if r.snapshotter != "overlayfs" {
		t.Logf("here it is %s anyway", r.snapshotter)
	}
	r.snapshotter = "native"
	load(t, r)
	c := container("write", "/data/x", "id")
	c.Spec.User = "anna"
	run(t, r, c)
	if got := output(t, r, c.ID); got != "wrote /data/x\n1001 1002 [1002 1003]\n" {
		t.Errorf("ran %q", got)
	}
}
