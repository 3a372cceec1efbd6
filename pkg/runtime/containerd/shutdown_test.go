package containerd

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// left is what there is of a Runtime on the machine, but for files.
func left(t *testing.T, r *Runtime) (found []string) {
	t.Helper()
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range commands {
		line, err := os.ReadFile(file)
		if err == nil && (strings.Contains(string(line), r.paths.root) || strings.Contains(string(line), r.paths.run)) {
			found = append(found, file+" "+strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	mounts, err := r.paths.mounts()
	if err != nil {
		t.Fatal(err)
	}
	found = append(found, mounts...)
	found = append(found, r.cgroup.groups()...)
	sockets, err := filepath.Glob(filepath.Join(r.paths.run, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return append(found, sockets...)
}

// TestShutdown: whatever state containers and containerd are in, nothing is left.
func TestShutdown(t *testing.T) {
	for name, disturb := range map[string]func(*testing.T, *Runtime){
		"in order":          func(*testing.T, *Runtime) {},
		"containerd killed": func(t *testing.T, r *Runtime) { killDaemon(t, r) },
		"containerd killed and its state lost": func(t *testing.T, r *Runtime) {
			r.cancel() // so that it is not restarted yet
			r.work.Wait()
			killDaemon(t, r)
			if err := os.RemoveAll(r.paths.in("containerd", "io.containerd.metadata.v1.bolt")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			long := filepath.Join(t.TempDir(), strings.Repeat("long", 20)) // whose sockets are in /run
			r := start(t, func(c *Config) { c.Root = long })
			load(t, r)
			for _, c := range []string{"created", "running", "ended"} {
				made := container("forever")
				if c == "ended" {
					made = container("exit", "1")
				}
				if err := r.Create(t.Context(), made); err != nil {
					t.Fatal(err)
				}
				if c == "created" {
					continue
				}
				if _, err := r.Start(t.Context(), made.ID); err != nil {
					t.Fatal(err)
				}
			}
			if found := left(t, r); len(found) < 10 {
				t.Fatalf("the test does not see what runs: %q", found)
			}
			disturb(t, r)
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			if err := r.Shutdown(ctx); err != nil {
				t.Errorf("Shutdown: %v", err)
			}
			if found := left(t, r); len(found) > 0 {
				t.Errorf("left:\n%s", strings.Join(found, "\n"))
			}
			if _, err := os.Stat(r.paths.run); !os.IsNotExist(err) {
				t.Errorf("%s: %v", r.paths.run, err)
			}
			if err := r.Shutdown(ctx); err != nil { // again, as make down does when run twice
				t.Errorf("Shutdown again: %v", err)
			}
		})
	}
}

func killDaemon(t *testing.T, r *Runtime) {
	t.Helper()
	p, ok := r.daemon.running()
	if !ok {
		t.Fatal("containerd does not run")
	}
	if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "containerd is dead", func() bool { now, ok := r.daemon.running(); return !ok || now.PID != p.PID })
}

// TestReboot: what an earlier boot left of processes and sockets is cleared, images and records are not.
func TestReboot(t *testing.T) {
	root := t.TempDir()
	r := start(t, func(c *Config) { c.Root = root })
	load(t, r)
	if err := r.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	junk := []string{r.paths.in("state", "junk"), r.paths.in("runc", "swarmd", "junk"), r.paths.in("containerd.pid")}
	for _, file := range append(junk, r.paths.in("boot_id")) {
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(`{"pid":1,"started":"0"}`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r = start(t, func(c *Config) { c.Root = root })
	for _, file := range junk[:2] {
		if _, err := os.Stat(file); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", file, err)
		}
	}
	if s := run(t, r, container("exit", "4")); s.ExitCode != 4 {
		t.Errorf("ended as %+v", s)
	}
}

// TestCutLog: containerd's log does not grow for ever, though containerd holds it open.
func TestCutLog(t *testing.T) {
	d := &daemon{paths: paths{root: t.TempDir()}}
	name := d.paths.in("containerd.log")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size := func(name string) int64 {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	f.Write(make([]byte, maxLog))
	d.cutLog()
	if size(name) != maxLog {
		t.Errorf("cut at its limit to %d", size(name))
	}
	f.Write([]byte("x"))
	d.cutLog()
	f.Write([]byte("after"))
	if size(name) != 5 || size(name+".1") != maxLog+1 {
		t.Errorf("%d bytes and %d aside", size(name), size(name+".1"))
	}
}
