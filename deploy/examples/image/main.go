// Command image packs one static program into a docker archive that "swarmctl image load" reads. A first run of swarmd
// must need neither a registry nor another tool to build an image.
//
//	image PROGRAM NAME ARCHIVE [ARG…]     such as: image bin/hello hello:1 bin/hello-1.tar
//
// The program gets the arguments where a service says none.
package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func main() {
	if len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "usage: image PROGRAM NAME ARCHIVE [ARG…]")
		os.Exit(2)
	}
	if err := pack(os.Args[1], os.Args[2], os.Args[3], os.Args[4:]); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func pack(program, ref, archive string, args []string) error {
	tag, err := name.NewTag(ref)
	if err != nil {
		return err
	}
	entrypoint := "/" + filepath.Base(program)
	files, err := layer(program, entrypoint)
	if err != nil {
		return err
	}
	content, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files)), nil })
	if err != nil {
		return err
	}
	image, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		Architecture: runtime.GOARCH,
		OS:           "linux",
		RootFS:       v1.RootFS{Type: "layers"},
		Config:       v1.Config{Entrypoint: []string{entrypoint}, Cmd: args, Env: []string{"PATH=/"}, ExposedPorts: map[string]struct{}{"8080/tcp": {}}},
	})
	if err != nil {
		return err
	}
	image, err = mutate.AppendLayers(image, content)
	if err != nil {
		return err
	}
	return tarball.WriteToFile(archive, tag, image)
}

// layer holds the program and what programs expect of a root file system. Its times are fixed, so that equal programs give
// equal digests.
func layer(program, path string) ([]byte, error) {
	data, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	entries := []struct {
		tar.Header
		body []byte
	}{
		{tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755}, nil},
		{tar.Header{Name: "etc/passwd", Mode: 0o644}, []byte("root:x:0:0:root:/:/\nnobody:x:65534:65534:nobody:/:/\n")},
		{tar.Header{Name: "etc/group", Mode: 0o644}, []byte("root:x:0:\nnogroup:x:65534:\n")},
		{tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}, nil},
		{tar.Header{Name: path[1:], Mode: 0o755}, data},
	}
	for _, e := range entries {
		e.Size, e.ModTime = int64(len(e.body)), time.Unix(0, 0)
		if err := w.WriteHeader(&e.Header); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.body); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), w.Close()
}
