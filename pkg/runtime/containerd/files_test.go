package containerd

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/runtime"
)

// TestFiles: a container has its files where they are wanted, as they are wanted and not to be written, and they are in memory that
// only root sees.
func TestFiles(t *testing.T) {
	r := theRuntime(t)
	c := container("cat", "/run/secrets/pass", "stat", "/run/secrets/pass", "stat", "/data/deep/conf", "cat", "/data/deep/conf", "write", "/data/deep/conf",
		"stat", "/run/secrets/locked", "cat", "/run/secrets/locked")
	c.Spec = v1.ContainerSpec{Image: imageName, Args: c.Spec.Args, User: "1001:1002"}
	files := []runtime.File{
		{Target: "/run/secrets/pass", Version: "1", Data: []byte("s3cr3t\n"), UID: 1001, GID: 1002, Mode: 0o400},
		{Target: "/data/deep/conf", Version: "1", Data: []byte("setting\n"), Mode: 0o444},
		{Target: "/run/secrets/locked", Version: "1", Data: []byte("unseen\n"), Mode: 0o600},
	}
	if err := r.KeepFiles(t.Context(), c.ID, files); err != nil {
		t.Fatal(err)
	}
	dir := r.paths.files(c.ID)
	t.Cleanup(func() {
		if err := r.DropFiles(t.Context(), c.ID); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("the folder of the files is left: %v", err)
		}
	})
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil || fs.Type != unix.TMPFS_MAGIC {
		t.Errorf("the files are on a file system of type %#x (%v), want tmpfs", fs.Type, err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder of the files: %v %v, want mode 0700", info, err)
	}
	if s := run(t, r, c); s.ExitCode != 0 {
		t.Errorf("exit code %d", s.ExitCode)
	}
	lines := strings.Split(output(t, r, c.ID), "\n")
	for _, want := range []string{"s3cr3t", "400 1001 1002", "setting", "444 0 0", "open /data/deep/conf: read-only file system", "600 0 0",
		"open /run/secrets/locked: permission denied"} {
		if !slices.Contains(lines, want) {
			t.Errorf("no line %q in %q", want, lines)
		}
	}
	if slices.Contains(lines, "unseen") {
		t.Error("a user read a file that is root's")
	}
}

// TestLiveFiles: a container that runs sees another version of a live file from one moment to the next, as often as that changes, and
// keeps what it has of the others.
func TestLiveFiles(t *testing.T) {
	r := theRuntime(t)
	signals := t.TempDir()
	args := []string{"cat", "/etc/live", "cat", "/fixed"}
	for i := range 6 {
		args = append(args, "wait", "/signals/"+strconv.Itoa(i+2), "cat", "/etc/live", "cat", "/fixed")
	}
	c := container(append(args, "stat", "/etc/live", "write", "/etc/live", "cat", "/proc/self/mountinfo")...)
	c.Spec.Mounts = []v1.Mount{{Type: v1.MountBind, Source: signals, Target: "/signals"}}
	keep := func(version string, mode uint32) {
		t.Helper()
		if err := r.KeepFiles(t.Context(), c.ID, []runtime.File{{Target: "/etc/live", Version: version, Data: []byte("live " + version + "\n"), Mode: mode, Live: true},
			{Target: "/fixed", Version: version, Data: []byte("fixed " + version + "\n"), Mode: 0o444}}); err != nil {
			t.Fatal(err)
		}
	}
	keep("1", 0o444)
	t.Cleanup(func() {
		if err := r.DropFiles(t.Context(), c.ID); err != nil {
			t.Error(err)
		}
		if left, err := r.paths.mounts(); err != nil || slices.ContainsFunc(left, func(at string) bool { return strings.Contains(at, c.ID) }) {
			t.Errorf("mounts are left: %v, %v", left, err)
		}
	})
	create(t, r, c)
	if _, err := r.Start(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	waitLine(t, r, c.ID, "fixed 1")
	want := []string{"live 1", "fixed 1"}
	for _, version := range []string{"2", "3", "4", "5", "6", "7"} {
		keep(version, 0o440)
		if err := os.WriteFile(signals+"/"+version, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		waitLine(t, r, c.ID, "live "+version)
		want = append(want, "live "+version, "fixed 1")
	}
	waitEnd(t, r, c.ID)
	lines := strings.Split(output(t, r, c.ID), "\n")
	want = append(want, "440 0 0", "open /etc/live: read-only file system")
	if !slices.Equal(lines[:min(len(want), len(lines))], want) {
		t.Errorf("the container saw %q, want %q", lines, want)
	}
	mounts := func(lines []string, at string) (n int) {
		for _, line := range lines {
			if fields := strings.Fields(line); len(fields) > 4 && strings.Contains(fields[4], at) {
				n++
			}
		}
		return n
	}
	// What the container was made with, and the newest: nothing piles up.
	if n := mounts(lines, "/etc/live"); n != 2 {
		t.Errorf("%d mounts at /etc/live in the container: %q", n, lines)
	}
	host, err := os.ReadFile("/proc/self/mountinfo")
	if n := mounts(strings.Split(string(host), "\n"), c.ID+"/at-"); n != 2 || err != nil {
		t.Errorf("%d mounts of the live file on the host, %v", n, err)
	}
}
