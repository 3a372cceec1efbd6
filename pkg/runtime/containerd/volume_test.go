package containerd

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/runtime"
)

// TestVolumes: a volume is made at its first use, with what the image has there, and outlives its containers; a nameless one does not.
func TestVolumes(t *testing.T) {
	r := start(t, nil)
	load(t, r)
	mounted := func(args []string, mounts ...v1.Mount) string {
		t.Helper()
		c := container(args...)
		c.Spec.Mounts = mounts
		if s := run(t, r, c); s.ExitCode != 0 {
			t.Fatalf("exit code %d: %s", s.ExitCode, output(t, r, c.ID))
		}
		out := output(t, r, c.ID)
		if err := r.Remove(t.Context(), c.ID); err != nil {
			t.Fatal(err)
		}
		return out
	}
	volume := func(source, target string, o *v1.VolumeOptions) v1.Mount {
		return v1.Mount{Type: v1.MountVolume, Source: source, Target: target, Volume: o}
	}
	labelled := &v1.VolumeOptions{Labels: map[string]string{"a": "b"}}
	if out := mounted([]string{"cat", "/etc/group", "write", "/etc/mine"}, volume("etc", "/etc", labelled)); !strings.Contains(out, "staff:x:1002") || !strings.Contains(out, "wrote /etc/mine") {
		t.Errorf("a new volume over /etc: %q", out)
	}
	if out := mounted([]string{"cat", "/v/mine", "cat", "/v/group"}, volume("etc", "/v", nil)); !strings.Contains(out, "written") || !strings.Contains(out, "staff:x:1002") {
		t.Errorf("the volume in another container: %q", out)
	}
	readOnly := volume("etc", "/v", nil)
	readOnly.ReadOnly = true
	if out := mounted([]string{"write", "/v/x"}, readOnly); !strings.Contains(out, "read-only file system") {
		t.Errorf("a volume that is read-only: %q", out)
	}
	if out := mounted([]string{"cat", "/etc/group"}, volume("bare", "/etc", &v1.VolumeOptions{NoCopy: true})); !strings.Contains(out, "no such file") {
		t.Errorf("a volume with nocopy: %q", out)
	}
	mounted([]string{"write", "/v/x"}, volume("", "/v", nil))
	if left, err := os.ReadDir(r.paths.in("anonymous")); err != nil || len(left) > 0 {
		t.Errorf("nameless volumes are left: %v, %v", left, err)
	}
	// What is on a device is the device's.
	shelf := t.TempDir()
	bound := &v1.VolumeOptions{Driver: &v1.Driver{Options: map[string]string{"type": "none", "o": "bind", "device": shelf}}}
	mounted([]string{"write", "/v/x"}, volume("shelf", "/v", bound))
	memory := &v1.VolumeOptions{Driver: &v1.Driver{Options: map[string]string{"type": "tmpfs", "o": "size=1m,uid=7", "device": "tmpfs"}}}
	if out := mounted([]string{"stat", "/v", "cat", "/proc/mounts"}, volume("memory", "/v", memory)); !strings.Contains(out, " 7 0\n") || !strings.Contains(out, "tmpfs /v tmpfs rw,relatime,size=1024k,uid=7") {
		t.Errorf("a volume of type tmpfs: %q", out)
	}
	names := func() (names []string) {
		all, err := r.Volumes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range all {
			names = append(names, v.Name)
		}
		return names
	}
	if got := names(); !slices.Equal(got, []string{"bare", "etc", "memory", "shelf"}) {
		t.Errorf("volumes: %q", got)
	}
	user := container("forever")
	user.Spec.Mounts = []v1.Mount{volume("etc", "/v", nil)}
	create(t, r, user)
	if err := r.CheckVolume(t.Context(), "etc"); err == nil || !strings.Contains(err.Error(), "volume is in use") {
		t.Errorf("asked about a volume in use: %v", err)
	}
	if err := errors.Join(r.CheckVolume(t.Context(), "shelf"), r.CheckVolume(t.Context(), "nobody")); err != nil {
		t.Errorf("asked about volumes that nobody has: %v", err)
	}
	if err := r.RemoveVolume(t.Context(), "etc"); err == nil || !strings.Contains(err.Error(), "volume is in use") {
		t.Errorf("removing a volume in use: %v", err)
	}
	for _, name := range []string{"shelf", "memory", "bare", "bare"} {
		if err := r.RemoveVolume(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
	if got := names(); !slices.Equal(got, []string{"etc"}) {
		t.Errorf("volumes that are left: %q", got)
	}
	if data, err := os.ReadFile(filepath.Join(shelf, "x")); string(data) != "written" {
		t.Errorf("what was on the device: %q, %v", data, err)
	}
}

// TestBadVolumes: what can never work says why, and leaves nothing.
func TestBadVolumes(t *testing.T) {
	r := theRuntime(t)
	for _, test := range []struct {
		name  string
		mount v1.Mount
		want  string
	}{
		{"name", v1.Mount{Type: v1.MountVolume, Source: "../x", Target: "/v"}, "../x"},
		{"option", v1.Mount{Type: v1.MountVolume, Source: "bad", Target: "/v",
			Volume: &v1.VolumeOptions{Driver: &v1.Driver{Options: map[string]string{"luck": "1"}}}}, `invalid option: "luck"`},
		{"no device", v1.Mount{Type: v1.MountVolume, Source: "bad", Target: "/v",
			Volume: &v1.VolumeOptions{Driver: &v1.Driver{Options: map[string]string{"type": "nfs"}}}}, `missing required option: "device"`},
		{"nameless with options", v1.Mount{Type: v1.MountVolume, Target: "/v",
			Volume: &v1.VolumeOptions{Driver: &v1.Driver{Options: map[string]string{"type": "tmpfs", "device": "tmpfs"}}}}, "needs a name"},
	} {
		c := container()
		c.Spec.Mounts = []v1.Mount{test.mount}
		if err := r.Create(context.Background(), c); !errors.Is(err, runtime.ErrInvalid) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want ErrInvalid with %q", test.name, err, test.want)
		}
		if _, err := r.State(t.Context(), c.ID); !errors.Is(err, runtime.ErrNotFound) {
			t.Errorf("%s: a container is left: %v", test.name, err)
		}
	}
	// A device that is not there may come: it is no lasting error.
	c := container()
	c.Spec.Mounts = []v1.Mount{{Type: v1.MountVolume, Source: "gone", Target: "/v",
		Volume: &v1.VolumeOptions{Driver: &v1.Driver{Options: map[string]string{"type": "none", "o": "bind", "device": "/no/such"}}}}}
	if err := r.Create(context.Background(), c); err == nil || errors.Is(err, runtime.ErrInvalid) || !strings.Contains(err.Error(), "error while mounting volume") {
		t.Errorf("a device that is not there: %v", err)
	}
	if all, err := r.Volumes(t.Context()); err != nil || slices.ContainsFunc(all, func(v runtime.Volume) bool { return v.Name == "gone" || v.Name == "bad" }) {
		t.Errorf("volumes are left: %+v, %v", all, err)
	}
}
