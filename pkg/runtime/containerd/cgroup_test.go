package containerd

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// makeGroups makes the container's groups in every hierarchy that has one of ours, as a runc does that is cut off then.
func makeGroups(t *testing.T, r *Runtime, id string) (dirs []string) {
	t.Helper()
	for _, top := range r.cgroup.groups() {
		if filepath.Base(top) != filepath.Base(r.cgroup.parent) {
			continue
		}
		dir := filepath.Join(top, id)
		if err := os.MkdirAll(filepath.Join(dir, "inner"), 0o755); err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, dir)
	}
	if len(dirs) == 0 {
		t.Fatal("there are no groups of ours to be made in")
	}
	return dirs
}

// none fails if one of the folders is there.
func none(t *testing.T, dirs []string) {
	t.Helper()
	for _, dir := range dirs {
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", dir, err)
		}
	}
}

// intruder is a process in the group of that folder.
func intruder(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have been killed before
		_ = cmd.Wait()
	})
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// TestRemoveGroups: what runc knows nothing of goes with the container, its processes too.
func TestRemoveGroups(t *testing.T) {
	r := theRuntime(t)
	run(t, r, container("exit", "0")) // after which our parent groups are there
	id := v1.NewID()
	dirs := makeGroups(t, r, id)
	cmd := intruder(t, filepath.Join(dirs[0], "inner"))
	if err := r.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	none(t, dirs)
	if t.Failed() {
		return // the process may live as long as it wants to
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the process in it: %v, want it killed", err)
	}
}

// TestRemoveGroupsBounded: a group that does not go is told, not waited for without end.
func TestRemoveGroupsBounded(t *testing.T) {
	r := theRuntime(t)
	run(t, r, container("exit", "0"))
	id := v1.NewID()
	dirs := makeGroups(t, r, id)
	cmd := intruder(t, dirs[0])
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := removeGroups(ended, r.cgroup.path(id)); err == nil || !strings.Contains(err.Error(), id) {
		t.Errorf("with process %d in it: %v", cmd.Process.Pid, err)
	}
	if err := r.Remove(t.Context(), id); err != nil {
		t.Error(err)
	}
	none(t, dirs)
}

// TestSweepGroups: the groups of containers that are gone are gone after the next start; those with processes are not.
func TestSweepGroups(t *testing.T) {
	root := t.TempDir()
	r := start(t, func(c *Config) { c.Root = root })
	load(t, r)
	whole := container("forever")
	if err := r.Create(t.Context(), whole); err != nil {
		t.Fatal(err)
	}
	pid, err := r.Start(t.Context(), whole.ID)
	if err != nil {
		t.Fatal(err)
	}
	gone, used := makeGroups(t, r, v1.NewID()), makeGroups(t, r, v1.NewID())
	cmd := intruder(t, used[0])
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = start(t, func(c *Config) { c.Root = root })
	none(t, gone)
	if got := len(groupsBelow(r.cgroup.path(whole.ID))); got == 0 {
		t.Error("the groups of a container that runs are gone")
	}
	for _, pid := range []int{int(pid), cmd.Process.Pid} {
		if _, err := startTime(pid); err != nil {
			t.Errorf("process %d: %v", pid, err)
		}
	}
}
