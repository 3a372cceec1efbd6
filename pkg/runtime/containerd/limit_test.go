package containerd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/runtime"
)

// group reads a file of the container's control group, by its name in version 1 or 2.
func group(t *testing.T, r *Runtime, id, controller, name1, name2 string) string {
	t.Helper()
	file := filepath.Join(cgroupRoot, controller, r.cgroup.path(id), name1)
	if r.cgroup.unified {
		file = filepath.Join(cgroupRoot, r.cgroup.path(id), name2)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

func TestLimits(t *testing.T) {
	r := theRuntime(t)
	c := container("forever")
	c.Limits = v1.ResourceLimits{CPUs: 5e8, Memory: 64 << 20, PIDs: 50}
	swappiness := int64(10)
	c.MemorySwappiness = &swappiness
	create(t, r, c)
	if _, err := r.Start(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	if got := group(t, r, c.ID, "memory", "memory.limit_in_bytes", "memory.max"); got != "67108864" {
		t.Errorf("memory: %s", got)
	}
	if got := group(t, r, c.ID, "pids", "pids.max", "pids.max"); got != "50" {
		t.Errorf("pids: %s", got)
	}
	quota := "50000"
	if r.cgroup.unified {
		quota = "50000 100000"
	} else {
		if got := group(t, r, c.ID, "cpu", "cpu.cfs_period_us", ""); got != "100000" {
			t.Errorf("cpu period: %s", got)
		}
		if got := group(t, r, c.ID, "memory", "memory.swappiness", ""); got != "10" {
			t.Errorf("swappiness: %s", got)
		}
	}
	if got := group(t, r, c.ID, "cpu", "cpu.cfs_quota_us", "cpu.max"); got != quota {
		t.Errorf("cpu quota: %s", got)
	}
	if r.cgroup.swap {
		want := map[bool]string{false: "134217728", true: "67108864"} // with memory, and without it
		if got := group(t, r, c.ID, "memory", "memory.memsw.limit_in_bytes", "memory.swap.max"); got != want[r.cgroup.unified] {
			t.Errorf("swap: %s", got)
		}
	}
}

func TestSwapLimit(t *testing.T) {
	r := theRuntime(t)
	for _, test := range []struct {
		memory v1.Bytes
		swap   int64
		ok     bool
	}{{0, 1 << 20, false}, {64 << 20, -1, true}, {64 << 20, 64 << 20, true}, {64 << 20, 32 << 20, !r.cgroup.swap}} {
		c := container("forever")
		swap := v1.Bytes(test.swap)
		c.Limits.Memory, c.MemorySwap = test.memory, &swap
		if err := r.Create(t.Context(), c); (err == nil) != test.ok {
			t.Errorf("memory %d, swap %d: %v", test.memory, test.swap, err)
		}
		if err := r.Remove(t.Context(), c.ID); err != nil {
			t.Error(err)
		}
	}
}

// TestOOM tells a container that the kernel killed from one that was killed, and from one whose child was.
func TestOOM(t *testing.T) {
	r := theRuntime(t)
	limited := func(args ...string) runtime.Container {
		c := container(args...)
		c.Limits.Memory = 32 << 20
		none := v1.Bytes(32 << 20) // no swap beside it
		c.MemorySwap = &none
		return c
	}
	if s := run(t, r, limited("eat", "200")); s.ExitCode != 137 || !s.OOMKilled {
		t.Errorf("ate too much: %+v", s)
	}
	if s := run(t, r, limited("eat", "2", "exit", "137")); s.ExitCode != 137 || s.OOMKilled {
		t.Errorf("says 137 itself: %+v", s)
	}
	c := limited("child", "eat 200", "exit", "0")
	if s := run(t, r, c); s.ExitCode != 0 || s.OOMKilled {
		t.Errorf("survived its child: %+v: %s", s, output(t, r, c.ID))
	}
	killed := limited("forever")
	create(t, r, killed)
	if _, err := r.Start(t.Context(), killed.ID); err != nil {
		t.Fatal(err)
	}
	if err := r.Signal(t.Context(), killed.ID, "SIGKILL"); err != nil {
		t.Fatal(err)
	}
	if s := waitEnd(t, r, killed.ID); s.ExitCode != 137 || s.OOMKilled {
		t.Errorf("killed: %+v", s)
	}
}

func TestSignals(t *testing.T) {
	r := theRuntime(t)
	for _, test := range []struct{ stop, name, want string }{
		{"", "SIGTERM", "terminated"}, {"", "USR1", "user defined signal 1"}, {"", "2", "interrupt"},
		{"SIGHUP", "", "hangup"}, {"", "", "user defined signal 1"}, // the spec's, and the image's
	} {
		name, want := test.name, test.want
		c := container("trap")
		c.Spec.StopSignal = test.stop
		create(t, r, c)
		if _, err := r.Start(t.Context(), c.ID); err != nil {
			t.Fatal(err)
		}
		waitLine(t, r, c.ID, "ready")
		if err := r.Signal(t.Context(), c.ID, name); err != nil {
			t.Error(err)
		}
		waitEnd(t, r, c.ID)
		if got := output(t, r, c.ID); got != fmt.Sprintf("ready\ngot %s\n", want) {
			t.Errorf("%s: %q", name, got)
		}
	}
}
