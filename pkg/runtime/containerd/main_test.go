package containerd

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	containerregistry "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sys/unix"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/runtime"
)

// timeout bounds what a test waits for. It is long: a test that fails may take its time.
const timeout = time.Minute

// imageName is what the test image is called.
const imageName = "docker.io/library/workload:1"

// binaries is the folder with containerd and the others, or skips the test.
func binaries(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("SWARM_RUNTIME_BIN")
	if dir == "" {
		dir = "../../../bin/runtime"
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"containerd", "containerd-shim-runc-v2", "runc", "swarm-logger", "init"} {
		if _, err := os.Stat(filepath.Join(dir, file)); err != nil {
			t.Skipf("%v: run make -C tools, or name the folder in SWARM_RUNTIME_BIN", err)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("containers need root")
	}
	return dir
}

// start starts a runtime of the test's own, which is shut down at its end.
func start(t testing.TB, change func(*Config)) *Runtime {
	t.Helper()
	c := Config{Root: t.TempDir(), Bin: binaries(t), Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	if change != nil {
		change(&c)
	}
	r, err := Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		if r.gone.Load() {
			return // the test has closed it, and started another or shut it down
		}
		if err := r.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	return r
}

// shared is one runtime with the test image for all tests that do not end it.
var shared struct {
	sync.Mutex
	runtime *Runtime
	root    string
}

// theRuntime is the shared runtime.
func theRuntime(t testing.TB) *Runtime {
	t.Helper()
	bin := binaries(t)
	shared.Lock()
	defer shared.Unlock()
	if shared.runtime != nil {
		return shared.runtime
	}
	root, err := os.MkdirTemp("", "swarmd-runtime-") // it outlives the test that happens to be the first
	if err != nil {
		t.Fatal(err)
	}
	r, err := Start(t.Context(), Config{Root: root, Bin: bin})
	if err != nil {
		t.Fatal(err)
	}
	shared.runtime, shared.root = r, root
	load(t, r)
	return r
}

func TestMain(m *testing.M) {
	if root := os.Getenv(clientRoot); root != "" {
		killMe(root)
	}
	code := m.Run()
	if r := shared.runtime; r != nil {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		if err := r.Shutdown(ctx); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
		os.RemoveAll(shared.root)
	}
	os.Exit(code)
}

// workload is the static program of the test image, built once.
var workload = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "workload-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "workload")
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", file, "./testdata/workload")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the workload: %w: %s", err, out)
	}
	return os.ReadFile(file)
})

// testImage is a small image: the workload, users, a configuration with something in each field.
func testImage(t testing.TB, change func(*containerregistry.Config)) containerregistry.Image {
	t.Helper()
	program, err := workload()
	if err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(layerTar(program))), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	config := containerregistry.Config{
		Entrypoint: []string{"/bin/workload"},
		Cmd:        []string{"forever"},
		Env:        []string{"PATH=/bin", "FROM=image", "BOTH=image"},
		StopSignal: "SIGUSR1",
	}
	if change != nil {
		change(&config)
	}
	file := &containerregistry.ConfigFile{Architecture: "amd64", OS: "linux", Config: config}
	file.RootFS.Type = "layers"
	digest, err := layer.DiffID()
	if err != nil {
		t.Fatal(err)
	}
	file.RootFS.DiffIDs = []containerregistry.Hash{digest}
	if image, err = mutate.ConfigFile(image, file); err != nil {
		t.Fatal(err)
	}
	return image
}

func layerTar(program []byte) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, dir := range []string{"bin/", "etc/", "tmp/", "data/"} {
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o1777})
	}
	for _, f := range []struct {
		name string
		mode int64
		data []byte
	}{
		{"bin/workload", 0o755, program},
		{"bin/plain", 0o644, []byte("no program")},
		{"etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\nanna:x:1001:1002::/data:/bin/sh\n")},
		{"etc/group", 0o644, []byte("root:x:0:\nstaff:x:1002:\nextra:x:1003:anna\nmore:x:1004:\n")},
	} {
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: f.mode, Size: int64(len(f.data))})
		w.Write(f.data)
	}
	w.Close()
	return b.Bytes()
}

// imageArchive is an image as docker save writes it.
func imageArchive(t testing.TB, ref string, image containerregistry.Image) []byte {
	t.Helper()
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := tarball.Write(tag, image, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func loadImage(t testing.TB, r *Runtime, ref string, image containerregistry.Image) {
	t.Helper()
	if _, err := r.Load(t.Context(), bytes.NewReader(imageArchive(t, ref, image))); err != nil {
		t.Fatal(err)
	}
}

func load(t testing.TB, r *Runtime) {
	t.Helper()
	images, err := r.Load(t.Context(), bytes.NewReader(imageArchive(t, "workload:1", testImage(t, nil))))
	if err != nil {
		t.Fatal(err)
	}
	if len(images) != 1 || images[0].Name != imageName || !images[0].Loaded || images[0].Size == 0 {
		t.Fatalf("Load: got %+v, want %s", images, imageName)
	}
}

// container is one of the test image, with arguments for the workload.
func container(args ...string) runtime.Container {
	return runtime.Container{ID: v1.NewID(), Image: imageName, Spec: v1.ContainerSpec{Image: imageName, Args: args}}
}

// create makes a container that is removed at the end of the test.
func create(t testing.TB, r *Runtime, c runtime.Container) {
	t.Helper()
	t.Cleanup(func() {
		if r.gone.Load() {
			return
		}
		if err := r.Remove(context.Background(), c.ID); err != nil {
			t.Error(err)
		}
	})
	if err := r.Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

// run creates, starts and waits for the end.
func run(t testing.TB, r *Runtime, c runtime.Container) runtime.State {
	t.Helper()
	create(t, r, c)
	if _, err := r.Start(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	return waitEnd(t, r, c.ID)
}

// waitEnd polls for the end: Events has a test of its own.
func waitEnd(t testing.TB, r *Runtime, id string) runtime.State {
	t.Helper()
	var s runtime.State
	eventually(t, "container "+id+" ends", func() bool {
		var err error
		if s, err = r.State(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		return s.Status == runtime.Ended
	})
	return s
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(timeout); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", timeout, what)
		}
	}
}

// output is all that the container wrote, one line each, once it has all been written.
func output(t testing.TB, r *Runtime, id string) string {
	t.Helper()
	if err := r.Remove(t.Context(), id); err != nil { // after which the log is whole
		t.Fatal(err)
	}
	var b bytes.Buffer
	for record, err := range r.Logs(t.Context(), id, v1.LogOptions{Stdout: true, Stderr: true, Follow: true, Tail: -1}) {
		if err != nil {
			t.Fatal(err)
		}
		b.Write(record.Line)
		if !record.Partial {
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// waitLine waits until the container has written the line.
func waitLine(t testing.TB, r *Runtime, id, line string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	for record, err := range r.Logs(ctx, id, v1.LogOptions{Stdout: true, Stderr: true, Follow: true, Tail: -1}) {
		if err != nil {
			t.Fatal(err)
		}
		if string(record.Line) == line {
			return
		}
	}
	t.Fatalf("the log ends without %q", line)
}

// namespace is the path of a new network namespace.
func namespace(t testing.TB) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "netns")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	made := make(chan error)
	go func() {
		goruntime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = unix.Mount(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), file, "", unix.MS_BIND, "")
		}
		made <- err
	}()
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(file, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return file
}

// mountTmpfs mounts a small file system for the time of the test.
func mountTmpfs(t testing.TB, dir, size string) {
	t.Helper()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) { // Shutdown may have
			t.Error(err)
		}
	})
}
