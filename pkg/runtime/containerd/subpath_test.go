package containerd

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/runtime"
)

// TestSubpaths: a container sees the part of a volume that it asked for, a folder or a file, and never anything outside of the volume,
// whatever links are in it.
func TestSubpaths(t *testing.T) {
	r := start(t, nil)
	load(t, r)
	part := func(subpath string) v1.Mount {
		return v1.Mount{Type: v1.MountVolume, Source: "parts", Target: "/v", Volume: &v1.VolumeOptions{Subpath: subpath}}
	}
	refused := func(subpath, want string) {
		t.Helper()
		c := container("forever")
		c.Spec.Mounts = []v1.Mount{part(subpath)}
		if err := r.Create(t.Context(), c); !errors.Is(err, runtime.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("subpath %s: %v, want ErrInvalid with %q", subpath, err, want)
		}
	}
	refused("below", "no such file or directory") // the volume is there from now on, and nobody makes up what is asked of it
	data := filepath.Join(r.paths.volume("parts"), volumeData)
	if empty, err := isEmpty(data); err != nil || !empty {
		t.Errorf("the volume has something in it: %v", err)
	}
	outside := t.TempDir()
	if err := errors.Join(os.MkdirAll(filepath.Join(data, "below", "deep"), 0o755), os.WriteFile(filepath.Join(data, "below", "file"), []byte("of a part"), 0o644),
		os.WriteFile(filepath.Join(outside, "secret"), nil, 0o644), os.Symlink("below/deep", filepath.Join(data, "inner")), os.Symlink(outside, filepath.Join(data, "outer")),
		os.Symlink("../../../..", filepath.Join(data, "up")), os.Symlink("/proc/self/root", filepath.Join(data, "magic"))); err != nil {
		t.Fatal(err)
	}
	for _, subpath := range []string{"outer", "outer/secret", "up", "up/etc", "below/../../x", "magic", "/etc"} {
		refused(subpath, "leads out of the volume")
	}
	for subpath, args := range map[string][]string{"below": {"cat", "/v/file", "write", "/v/deep/x"}, "inner": {"write", "/v/y"}, "below/file": {"cat", "/v"}} {
		c := container(args...)
		c.Spec.Mounts = []v1.Mount{part(subpath)}
		if s := run(t, r, c); s.ExitCode != 0 || !strings.Contains(output(t, r, c.ID), map[bool]string{true: "wrote ", false: "of a part"}[subpath == "inner"]) {
			t.Errorf("subpath %s: exit code %d: %s", subpath, s.ExitCode, output(t, r, c.ID))
		}
		if err := r.Remove(t.Context(), c.ID); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"x", "y"} {
		if _, err := os.Stat(filepath.Join(data, "below", "deep", name)); err != nil {
			t.Error(err)
		}
	}
	user := container("forever")
	user.Spec.Mounts = []v1.Mount{part("below")}
	create(t, r, user)
	if left, err := os.ReadDir(r.paths.in("subpaths")); err != nil || len(left) > 0 {
		t.Errorf("mounts for making containers are left: %v, %v", left, err)
	}
	if err := r.RemoveVolume(t.Context(), "parts"); err == nil || !strings.Contains(err.Error(), "volume is in use") {
		t.Errorf("removing a volume of which a part is in use: %v", err)
	}
	if err := r.Remove(t.Context(), user.ID); err != nil {
		t.Error(err)
	}
	// What a process that was killed left mounted goes, and what is in the volume does not.
	at, err := r.makeSubpath("killed", 0, data, part("below"))
	if err != nil || !isMount(at) {
		t.Fatalf("%s is no mount: %v", at, err)
	}
	if err := r.sweepSubpaths(); err != nil || isMount(at) {
		t.Errorf("it is still mounted: %v", err)
	}
	if body, err := os.ReadFile(filepath.Join(data, "below", "file")); string(body) != "of a part" {
		t.Errorf("the volume has lost it: %q, %v", body, err)
	}
	if err := r.RemoveVolume(t.Context(), "parts"); err != nil {
		t.Error(err)
	}
}

// TestBindRecursive: what is mounted below a bind comes with it, read-only where the bind is, unless something else is asked for.
func TestBindRecursive(t *testing.T) {
	r := start(t, nil)
	load(t, r)
	// A volume of type tmpfs is a mount of this machine's: the folder that has it has one below it.
	first := container("write", "/v/x")
	first.Spec.Mounts = []v1.Mount{{Type: v1.MountVolume, Source: "memory", Target: "/v", Volume: &v1.VolumeOptions{
		Driver: &v1.Driver{Options: map[string]string{"type": "tmpfs", "device": "tmpfs"}}}}}
	run(t, r, first)
	for n, test := range []struct {
		readOnly  bool
		recursive string
		want      string
	}{
		{false, "", "wrote "}, {true, "", "read-only file system"}, {true, "readonly", "read-only file system"}, {true, "writable", "wrote "}, {false, "disabled", "wrote "},
	} {
		c := container("write", "/b/_data/y"+strconv.Itoa(n))
		c.Spec.Mounts = []v1.Mount{{Type: v1.MountBind, Source: r.paths.volume("memory"), Target: "/b", ReadOnly: test.readOnly,
			Bind: &v1.BindOptions{Propagation: "rprivate", Recursive: test.recursive}}}
		run(t, r, c)
		if out := output(t, r, c.ID); !strings.Contains(out, test.want) {
			t.Errorf("read-only %t, recursive %q: %q, want %q", test.readOnly, test.recursive, out, test.want)
		}
		_, err := os.Stat(filepath.Join(r.paths.volume("memory"), volumeData, "y"+strconv.Itoa(n)))
		if written := err == nil; written != (test.want == "wrote " && test.recursive != "disabled") {
			t.Errorf("read-only %t, recursive %q: the mount below was written to: %t", test.readOnly, test.recursive, written)
		}
	}
}
