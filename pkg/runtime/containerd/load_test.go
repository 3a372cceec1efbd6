package containerd

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
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

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
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
		{"docker", "docker.io/library/docker:1", imageArchive(t, "docker:1", marked(t, "docker"))},
		{"gzip", "docker.io/library/zipped:1", zipped(t, imageArchive(t, "zipped:1", marked(t, "gzip")))},
		{"zstd", "example.org/a/b:1", zstandard(t, imageArchive(t, "example.org/a/b:1", marked(t, "zstd")))},
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
				if i, err := r.Pull(t.Context(), images[0].Name, runtime.Source{}); err != nil || i.Digest != images[0].Digest {
					t.Errorf("Pull: %+v, %v", i, err)
				}
				if ref, platforms, err := r.Resolve(t.Context(), images[0].Name, v1.RegistryLogin{}); err != nil || ref != images[0].Name || len(platforms) != 1 {
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
	whole := imageArchive(t, "bad:1", marked(t, "bad"))
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
	link := tarOf(t, &tar.Header{Typeflag: tar.TypeLink, Name: "link", Linkname: "../../../../../../etc/hostname-of-nobody", Mode: 0o644})
	plain := tarOf(t, &tar.Header{Typeflag: tar.TypeDir, Name: "plain/", Mode: 0o755})
	for name, data := range map[string][]byte{
		"empty": nil, "text": []byte("this is no archive"), "short": {0x1f}, "cut": whole[:len(whole)/2], "cut gzip": zipped(t, whole)[:1000],
		"cut zstd": zstandard(t, whole)[:1000], "tar of nothing": make([]byte, 1024), "tar of something else": evil,
		"another platform": imageArchive(t, "arm:1", arm), "config that is none": dockerArchive(t, `{"architecture":"amd64","os":"linux","config":"zzz"`),
		"hard link out":       dockerArchive(t, `{"architecture":"amd64","os":"linux"`, link),
		"hard link out above": dockerArchive(t, `{"architecture":"amd64","os":"linux"`, plain, link),
		"layers that are not": dockerArchive(t, `{"architecture":"amd64","os":"linux"`, []byte("this is no layer")),
	} {
		images, err := r.Load(t.Context(), bytes.NewReader(data))
		if !errors.Is(err, runtime.ErrInvalid) {
			t.Errorf("%s: %+v, %v, want ErrInvalid", name, images, err)
		} else if text := err.Error(); strings.Contains(text, "containerd-mount") || strings.Contains(text, r.paths.root) || strings.Contains(text, "/snapshots/") {
			t.Errorf("%s: %s: a path of this machine", name, text)
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

// tarOf is a tar of one entry.
func tarOf(t *testing.T, h *tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := errors.Join(w.WriteHeader(h), w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// dockerArchive is an archive such as docker save writes, with that beginning of a configuration, and those layers.
func dockerArchive(t *testing.T, config string, layers ...[]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(name string, data []byte) {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	names, ids := []string{}, []string{}
	for i, data := range layers {
		names, ids = append(names, fmt.Sprintf("%d/layer.tar", i)), append(ids, fmt.Sprintf("sha256:%x", sha256.Sum256(data)))
		add(names[i], data)
	}
	rootfs, err := json.Marshal(map[string]any{"type": "layers", "diff_ids": ids})
	if err != nil {
		t.Fatal(err)
	}
	add("config.json", []byte(config+`,"rootfs":`+string(rootfs)+"}"))
	manifest, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{"made:1"}, "Layers": names}})
	if err != nil {
		t.Fatal(err)
	}
	add("manifest.json", manifest)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestExplainUnpack: trouble of this machine is not the image's fault.
func TestExplainUnpack(t *testing.T) {
	for text, want := range map[string]string{
		"failed to extract layer sha256:1: mount callback failed on /tmp/containerd-mount12: link /tmp/containerd-mount12/a /tmp/containerd-mount12/b: no such file or directory": "failed to extract layer sha256:1: link /a /b: no such file or directory",
		"failed to extract layer sha256:1: open /r/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/7/fs/x: not a directory":                                           "failed to extract layer sha256:1: open /x: not a directory",
		"failed to extract layer sha256:1: write /tmp/containerd-mount12/a: no space left on device":                                                                              "",
		"failed to extract layer sha256:1: rpc error: code = Unknown desc = context canceled":                                                                                     "",
		"connection refused": "",
	} {
		err := explainUnpack(errors.New(text))
		if want == "" {
			if errors.Is(err, runtime.ErrInvalid) || err.Error() != text {
				t.Errorf("%s: %v, want it as it is", text, err)
			}
		} else if !errors.Is(err, runtime.ErrInvalid) || err.Error() != want {
			t.Errorf("%s: %v, want ErrInvalid and %s", text, err, want)
		}
	}
	if err := explainUnpack(fmt.Errorf("failed to extract layer: %w", context.Canceled)); errors.Is(err, runtime.ErrInvalid) {
		t.Error(err)
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
