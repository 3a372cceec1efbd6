package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/swarmd/swarmd/test/e2e/lab"
)

// TestSecrets is step 20 of Docker's tutorial on three machines: a secret is in the containers of the service that needs it, as a file
// that nobody can write, and on no disk; only nodes that run such a task were told it; it cannot be removed while it is used; and it is
// changed by an update. Daemons that are restarted, managers gone or not, change nothing.
func TestSecrets(t *testing.T) {
	s := form(t, 1, 2)
	manager, worker := s.Hosts[0], s.Host("worker1")
	const old, fresh = "planted-0ld-passw0rd-of-the-test", "planted-n3w-passw0rd-of-the-test"
	s.secret("my_secret_data", old)
	if out := manager.Must("secret", "ls", "--format", "{{.Name}}"); out != "my_secret_data\n" {
		t.Errorf("secret ls: %q", out)
	}
	if out := manager.Must("secret", "inspect", "my_secret_data") + manager.Must("get", "secrets", "-o", "yaml"); strings.Contains(out, old) || !strings.Contains(out, "my_secret_data") {
		t.Errorf("the secret is shown:\n%s", out)
	}
	conf := filepath.Join(t.TempDir(), "conf")
	if err := os.WriteFile(conf, []byte("setting: on\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	manager.Must("config", "create", "conf", conf)
	s.serve(manager, "redis", 2, "--constraint", "node.hostname==worker1", "--secret", "my_secret_data",
		"--secret", "source=my_secret_data,target=other/pass,uid=7,gid=8,mode=0400", "--config", "conf", "--config", "source=conf,target=/etc/app/app.yaml")
	for _, pid := range containersOf(t, worker) {
		s.has(pid, "/run/secrets/my_secret_data", old, 0o444, 0, 0)
		s.has(pid, "/run/secrets/other/pass", old, 0o400, 7, 8)
		s.has(pid, "/conf", "setting: on\n", 0o444, 0, 0)
		s.has(pid, "/etc/app/app.yaml", "setting: on\n", 0o444, 0, 0)
		if err := os.WriteFile(inContainer(pid, "/run/secrets/my_secret_data"), []byte("x"), 0o600); !errors.Is(err, syscall.EROFS) {
			t.Errorf("writing a secret in a container: %v, want a read-only file system", err)
		}
	}
	s.onNoDisk("with tasks that have it", old, fresh)

	// Removal is refused in Docker's words.
	if r := manager.Ctl("secret", "rm", "my_secret_data"); r.Code == 0 || !strings.Contains(r.Stderr, "secret 'my_secret_data' is in use by the following service: redis") {
		t.Errorf("secret rm of one in use: %+v", r)
	}
	if r := manager.Ctl("service", "create", "--secret", "nobody", "hello:1"); r.Code == 0 || !strings.Contains(r.Stderr, "secret not found: nobody") {
		t.Errorf("a service with a secret that is not there: %+v", r)
	}

	// Without managers: the daemon restarts, and a container fails and is started again with its secrets.
	before := containersOf(t, worker)
	if err := manager.PowerOff(); err != nil {
		t.Fatal(err)
	}
	worker.Kill()
	worker.Start()
	for id, pid := range before {
		s.has(pid, "/run/secrets/my_secret_data", old, 0o444, 0, 0)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		s.Eventually(generous, "a container that failed is started again", func() error {
			now := containersOf(t, worker)[id]
			if now == 0 || now == pid {
				return fmt.Errorf("task %s runs in process %d", id, now)
			}
			s.has(now, "/run/secrets/other/pass", old, 0o400, 7, 8)
			return nil
		})
		break
	}
	s.onNoDisk("without managers", old, fresh)
	manager.Start()
	s.Settled(manager, 1)
	s.settled(manager, generous, "redis")

	// Rotation, as the tutorial does it: the new one takes the old one's place.
	s.secret("my_secret_data_v2", fresh)
	manager.Must("service", "update", "--quiet", "--update-monitor", "100ms", "--secret-rm", "my_secret_data",
		"--secret-add", "source=my_secret_data_v2,target=my_secret_data", "redis")
	s.settled(manager, generous, "redis")
	for _, pid := range containersOf(t, worker) {
		s.has(pid, "/run/secrets/my_secret_data", fresh, 0o444, 0, 0)
		if _, err := os.Stat(inContainer(pid, "/run/secrets/other/pass")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a secret that was taken away: %v", err)
		}
	}
	manager.Must("secret", "rm", "my_secret_data")
	manager.Must("service", "update", "--quiet", "--update-monitor", "100ms", "--secret-rm", "my_secret_data_v2", "--config-rm", "conf", "redis")
	s.settled(manager, generous, "redis")
	for _, pid := range containersOf(t, worker) {
		if _, err := os.Stat(inContainer(pid, "/run/secrets/my_secret_data")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a secret that was taken away: %v", err)
		}
	}
	s.changesUnderTasks(fresh)
	manager.Must("secret", "rm", "my_secret_data_v2")
	manager.Must("config", "rm", "conf")
	manager.Must("service", "rm", "redis")
	s.onNoDisk("afterwards", old, fresh)
	for _, h := range s.Hosts {
		if log := h.WholeLog(); strings.Contains(log, old) || strings.Contains(log, fresh) {
			t.Errorf("%s logged a secret", h.Name)
		}
		s.Eventually(generous, "no file is kept on "+h.Name, func() error {
			left, err := os.ReadDir(filepath.Join(h.Root, "containerd", "files"))
			if err == nil && len(left) > 0 {
				err = fmt.Errorf("%v are left", left)
			}
			return err
		})
	}
}

// changesUnderTasks puts another secret under a task that goes on, as its service asks for.
func (s *swarm) changesUnderTasks(first string) {
	s.t.Helper()
	manager, worker := s.Hosts[0], s.Host("worker2")
	s.serve(manager, "live", 1, "--constraint", "node.hostname==worker2", "--secret", "source=my_secret_data_v2,target=pass,on-change=none")
	pid := s.onlyProcess(worker)
	s.has(pid, "/run/secrets/pass", first, 0o444, 0, 0)
	source := "my_secret_data_v2"
	for i := range 3 {
		next, text := fmt.Sprintf("rotated-%d", i), fmt.Sprintf("planted-rotated-secret-%d", i)
		s.secret(next, text)
		manager.Must("service", "update", "--quiet", "--secret-rm", source, "--secret-add", "source="+next+",target=pass,on-change=none", "live")
		s.Eventually(generous, "the task sees the other secret", func() error {
			if data, err := os.ReadFile(inContainer(pid, "/run/secrets/pass")); string(data) != text {
				return fmt.Errorf("it has %q, %v", data, err)
			}
			return nil
		})
		s.has(pid, "/run/secrets/pass", text, 0o444, 0, 0)
		s.onNoDisk("changed under a task", text)
		source = next
		if i > 0 {
			manager.Must("secret", "rm", fmt.Sprintf("rotated-%d", i-1))
		}
	}
	if now := s.onlyProcess(worker); now != pid {
		s.t.Errorf("the container was started again: process %d, was %d", now, pid)
	}
	manager.Must("service", "rm", "live")
}

// secret makes a secret as the tutorial does.
func (s *swarm) secret(name, text string) {
	s.t.Helper()
	if r := s.Hosts[0].CtlInput(text, "secret", "create", name, "-"); r.Code != 0 {
		s.t.Fatalf("secret create: %+v", r)
	}
}

// inContainer is the path of a container's file, as its processes have it.
func inContainer(pid int, path string) string { return fmt.Sprintf("/proc/%d/root%s", pid, path) }

// has asserts a file of a container.
func (s *swarm) has(pid int, path, content string, mode os.FileMode, uid, gid uint32) {
	s.t.Helper()
	name := inContainer(pid, path)
	data, err := os.ReadFile(name)
	if err != nil || string(data) != content {
		s.t.Errorf("%s in process %d: %q, %v, want %q", path, pid, data, err, content)
		return
	}
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil || st.Mode&0o7777 != uint32(mode) || st.Uid != uid || st.Gid != gid {
		s.t.Errorf("%s in process %d: mode %o of %d:%d, %v, want %o of %d:%d", path, pid, st.Mode&0o7777, st.Uid, st.Gid, err, mode, uid, gid)
	}
}

// onNoDisk searches all that is on the disks of all hosts, what is mounted there aside: that is memory, or the same once more.
func (s *swarm) onNoDisk(when string, texts ...string) {
	s.t.Helper()
	for _, h := range s.Hosts {
		files := 0
		if err := walkWholeDisk(h, func(path string, data []byte) {
			files++
			for _, text := range texts {
				if bytes.Contains(data, []byte(text)) {
					s.t.Errorf("%s, %s: %s holds a secret in the clear", h.Name, when, path)
				}
			}
		}); err != nil {
			s.t.Error(err)
		}
		if files < 20 {
			s.t.Errorf("%s, %s: only %d files were searched", h.Name, when, files)
		}
		holdsNo(s.t, h, when, texts...)
	}
}

// walkWholeDisk reads every file on the file system of a host's data directory.
func walkWholeDisk(h *lab.Host, see func(path string, data []byte)) error {
	var root unix.Stat_t
	if err := unix.Stat(h.Root, &root); err != nil {
		return err
	}
	return filepath.WalkDir(h.Root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return goneIsFine(err)
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return goneIsFine(err)
		}
		switch {
		case d.IsDir() && st.Dev != root.Dev:
			return filepath.SkipDir
		case st.Dev != root.Dev || !d.Type().IsRegular():
			return nil
		}
		data, err := os.ReadFile(path)
		if err == nil {
			see(path, data)
		}
		return goneIsFine(err)
	})
}

// goneIsFine is for what went while we looked.
func goneIsFine(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}
