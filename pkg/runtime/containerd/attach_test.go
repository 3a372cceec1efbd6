package containerd

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/typeurl/v2"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/swarmd/swarmd/pkg/runtime"
)

// clientRoot makes the test program a client that is to be killed.
const clientRoot = "SWARM_TEST_CLIENT_ROOT"

// report is what that client says.
type report struct {
	Running, Ending       string
	RunningPID, EndingPID uint32
}

// killMe starts two containers, says so, and waits to be killed.
func killMe(root string) {
	must := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	ctx := context.Background()
	r, err := Start(ctx, Config{Root: root, Bin: os.Getenv("SWARM_RUNTIME_BIN")})
	must(err)
	archive, err := os.Open(filepath.Join(root, "image.tar"))
	must(err)
	_, err = r.Load(ctx, archive)
	must(err)
	running, ending := container("out", "before", "wait", "/data/go", "out", "after", "forever"), container("wait", "/data/go", "exit", "5")
	said := report{Running: running.ID, Ending: ending.ID}
	for c, pid := range map[*runtime.Container]*uint32{&running: &said.RunningPID, &ending: &said.EndingPID} {
		must(r.Create(ctx, *c))
		*pid, err = r.Start(ctx, c.ID)
		must(err)
	}
	must(json.NewEncoder(os.Stdout).Encode(said))
	time.Sleep(time.Hour)
}

// release lets a container that waits for /data/go go on.
func release(t *testing.T, pid uint32) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/root/data/go", pid), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestKilledClient kills the process that started containers, lets one of them end while nobody looks, and comes back.
func TestKilledClient(t *testing.T) {
	bin := binaries(t)
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "image.tar"), imageArchive(t, "workload:1", testImage(t, nil)), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), clientRoot+"="+root, "SWARM_RUNTIME_BIN="+bin)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	cmd.Process.Kill()
	cmd.Wait()
	if err != nil {
		t.Fatal(err)
	}
	var said report
	if err := json.Unmarshal(line, &said); err != nil {
		t.Fatal(err)
	}
	p := paths{root: root}
	before, ok := (&daemon{paths: p}).running()
	if !ok {
		t.Fatal("containerd ended with its client")
	}
	release(t, said.EndingPID)
	eventually(t, "the process is gone", func() bool { _, err := startTime(int(said.EndingPID)); return err != nil })
	release(t, said.RunningPID)

	r := start(t, func(c *Config) { c.Root = root })
	if after, ok := r.daemon.running(); !ok || after.PID != before.PID {
		t.Errorf("containerd was %d, is %d", before.PID, after.PID)
	}
	waitEnd(t, r, said.Ending) // its process is gone; its shim may not have seen it yet
	states, err := r.List(t.Context())
	if err != nil || len(states) != 2 {
		t.Fatalf("List: %+v, %v", states, err)
	}
	for _, s := range states {
		switch s.ID {
		case said.Running:
			if s.Status != runtime.Running || s.PID != said.RunningPID || s.Started.IsZero() {
				t.Errorf("%+v, want process %d", s, said.RunningPID)
			}
		case said.Ending:
			if s.Status != runtime.Ended || s.ExitCode != 5 || s.Ended.Before(s.Started) {
				t.Errorf("%+v, want exit code 5", s)
			}
		}
	}
	waitLine(t, r, said.Running, "after")
	if got := output(t, r, said.Running); got != "before\nafter\n" {
		t.Errorf("log %q", got)
	}
}

// TestContainerdDies: it is restarted, containers do not notice, and who reads events is told.
func TestContainerdDies(t *testing.T) {
	r := start(t, nil)
	load(t, r)
	c := container("wait", "/data/go", "exit", "6")
	create(t, r, c)
	pid, err := r.Start(t.Context(), c.ID)
	if err != nil {
		t.Fatal(err)
	}
	events := r.Events(t.Context())
	before, _ := r.daemon.running()
	if err := syscall.Kill(before.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for s, err := range events {
		if err == nil {
			t.Errorf("event %+v of a containerd that is dead", s)
		}
	}
	release(t, pid) // it ends while containerd is dead
	eventually(t, "containerd is back", func() bool {
		s, err := r.State(t.Context(), c.ID)
		return err == nil && s.Status == runtime.Ended && s.ExitCode == 6
	})
	if after, ok := r.daemon.running(); !ok || after.PID == before.PID {
		t.Errorf("containerd was %d, is %d", before.PID, after.PID)
	}
	if s := run(t, r, container("exit", "7")); s.ExitCode != 7 {
		t.Errorf("a new container: %+v", s)
	}
}

// TestShimDies: nobody knows how the container ended, but everybody that it did.
func TestShimDies(t *testing.T) {
	r := start(t, nil)
	load(t, r)
	c := container("forever")
	create(t, r, c)
	pid, err := r.Start(t.Context(), c.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(parent(t, pid), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if s := waitEnd(t, r, c.ID); s.ExitCode == 0 || s.OOMKilled {
		t.Errorf("ended as %+v", s)
	}
	eventually(t, "the process is gone", func() bool { _, err := startTime(int(pid)); return err != nil })
	if _, err := r.Start(t.Context(), c.ID); err == nil {
		t.Error("it was started again")
	}
}

// parent is the process that started this one.
func parent(t *testing.T, pid uint32) (ppid int) {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(string(data[strings.LastIndexByte(string(data), ')')+1:]), " %s %d", new(string), &ppid); err != nil {
		t.Fatal(err)
	}
	return ppid
}

// TestOtherBuild: another containerd binary replaces the one that runs; containers keep running.
func TestOtherBuild(t *testing.T) {
	bin := binaries(t)
	root, other := t.TempDir(), t.TempDir()
	r := start(t, func(c *Config) { c.Root = root })
	load(t, r)
	c := container("forever")
	if err := r.Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	pid, err := r.Start(t.Context(), c.ID)
	if err != nil {
		t.Fatal(err)
	}
	before, _ := r.daemon.running()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "runc", "swarm-logger", "init"} {
		if err := os.Symlink(filepath.Join(bin, name), filepath.Join(other, name)); err != nil {
			t.Fatal(err)
		}
	}
	r = start(t, func(c *Config) { c.Root, c.Bin = root, other })
	if after, ok := r.daemon.running(); !ok || after.PID == before.PID {
		t.Errorf("containerd was %d, is %d", before.PID, after.PID)
	}
	if s, err := r.State(t.Context(), c.ID); err != nil || s.Status != runtime.Running || s.PID != pid {
		t.Errorf("%+v, %v, want process %d", s, err, pid)
	}
}

// TestHalfMade: what a Create that was killed leaves is no container, and is not in the way.
func TestHalfMade(t *testing.T) {
	r := theRuntime(t)
	c := container("exit", "3")
	ctx := r.namespaced(t.Context())
	spec, err := typeurl.MarshalAny(&specs.Spec{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.client.ContainerService().Create(ctx, containers.Container{ID: c.ID, Spec: spec,
		Runtime: containers.RuntimeInfo{Name: "io.containerd.runc.v2"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.client.SnapshotService(r.snapshotter).Prepare(ctx, c.ID, ""); err != nil {
		t.Fatal(err)
	}
	if s, err := r.State(t.Context(), c.ID); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("State: %+v, %v", s, err)
	}
	if _, err := r.Start(t.Context(), c.ID); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("Start: %v", err)
	}
	if s := run(t, r, c); s.ExitCode != 3 {
		t.Errorf("made anew: %+v", s)
	}
}

// TestSweep: what was left half made, and wanted by nobody since, is gone after the next start, processes too.
func TestSweep(t *testing.T) {
	root := t.TempDir()
	r := start(t, func(c *Config) { c.Root = root })
	load(t, r)
	half, whole := container("forever"), container("forever")
	var pid uint32
	for _, c := range []runtime.Container{half, whole} {
		if err := r.Create(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	s, err := r.State(t.Context(), half.ID)
	if err != nil {
		t.Fatal(err)
	}
	pid = s.PID
	if err := os.Rename(r.paths.mark(half.ID), r.paths.mark("nothing")); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = start(t, func(c *Config) { c.Root = root })
	if states, err := r.List(t.Context()); err != nil || len(states) != 1 || states[0].ID != whole.ID {
		t.Errorf("List: %+v, %v, want %s alone", states, err, whole.ID)
	}
	eventually(t, "the process is gone", func() bool { _, err := startTime(int(pid)); return err != nil })
	if _, ok := r.paths.readMark("nothing"); ok {
		t.Error("a mark without a container is still there")
	}
}

// TestAddress uses a containerd that is there already, and leaves it there.
func TestAddress(t *testing.T) {
	first := theRuntime(t)
	r := start(t, func(c *Config) { c.Address, c.Namespace = first.paths.socket, "other" })
	load(t, r)
	if s := run(t, r, container("exit", "8")); s.ExitCode != 8 {
		t.Errorf("ended as %+v", s)
	}
	c := container("out", "logged", "forever")
	create(t, r, c)
	if _, err := r.Start(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	waitLine(t, r, c.ID, "logged")
	if states, err := first.List(t.Context()); err != nil || len(states) != 0 {
		t.Errorf("the first sees %+v, %v", states, err)
	}
	// A second Runtime in the same namespace sees nothing of it either, and cannot take it over.
	second := start(t, func(c *Config) { c.Address, c.Namespace = first.paths.socket, "other" })
	if states, err := second.List(t.Context()); err != nil || len(states) != 0 {
		t.Errorf("the second sees %+v, %v", states, err)
	}
	if err := second.Create(t.Context(), c); err == nil || !strings.Contains(err.Error(), r.paths.name) {
		t.Errorf("the second makes it too: %v", err)
	}
	if err := second.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if s, err := r.State(t.Context(), c.ID); err != nil || s.Status != runtime.Running {
		t.Errorf("after the second has gone: %+v, %v", s, err)
	}
	if err := r.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Info(t.Context()); err != nil {
		t.Errorf("it is gone: %v", err)
	}
}

func TestStartBad(t *testing.T) {
	bin := binaries(t)
	r := start(t, nil)
	for _, test := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.Root = "relative" }, `Config.Root is "relative": want an absolute path`},
		{func(c *Config) { c.Bin = t.TempDir() }, "make -C tools"},
		{func(c *Config) { c.Root = r.paths.root }, "another process uses it"},
		{func(c *Config) { c.Address = "/no/such.sock" }, "no such file"},
	} {
		c := Config{Root: t.TempDir(), Bin: bin}
		test.change(&c)
		if got, err := Start(t.Context(), c); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v, %v, want %q", c, got, err, test.want)
		}
	}
	// A binary that is none: its last words are in the error.
	broken := t.TempDir()
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "runc", "swarm-logger", "init"} {
		if err := os.WriteFile(filepath.Join(broken, name), []byte("#!/bin/sh\necho last words\nexit 1\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Start(t.Context(), Config{Root: t.TempDir(), Bin: broken}); err == nil || !strings.Contains(err.Error(), "last words") {
		t.Errorf("broken: %v", err)
	}
}

func TestInfo(t *testing.T) {
	i, err := theRuntime(t).Info(t.Context())
	if err != nil || !strings.Contains(i.Version, "containerd 2.") || !strings.Contains(i.Version, ", runc 1.") || i.Cgroup != 1 && i.Cgroup != 2 {
		t.Errorf("%+v, %v", i, err)
	}
}

// TestParallel starts thirty containers, and removes them, all at once.
func TestParallel(t *testing.T) {
	r := theRuntime(t)
	errs := make(chan error)
	const n = 30
	for range n {
		go func() {
			c := container("forever")
			err := r.Create(t.Context(), c)
			if err == nil {
				_, err = r.Start(t.Context(), c.ID)
			}
			errs <- errors.Join(err, r.Remove(t.Context(), c.ID), r.RemoveLog(t.Context(), c.ID))
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}
