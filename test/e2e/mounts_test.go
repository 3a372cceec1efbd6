package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// TestMounts mounts every kind of thing into tasks on three machines, and has the replicas of a service come back to the volumes that
// they have, through crashes, drains and a service that is made anew.
func TestMounts(t *testing.T) {
	s := form(t, 1, 2)
	manager, worker := s.Hosts[0], s.Host("worker1")
	on := []string{"--constraint", "node.hostname==worker1"}
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "file"), []byte("of the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	manager.Must("volume", "create", "--label", "a=b", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=1m", "scratch")
	s.serve(manager, "web", 1, append(on, "--read-only", "--mount", "type=bind,source="+host+",target=/host,readonly", "--mount", "type=tmpfs,target=/memory,tmpfs-size=1m,tmpfs-mode=700",
		"--mount", "source=data,target=/data", "--mount", "source=scratch,target=/scratch", "--mount", "source={{.Service.Name}}-{{.Node.Hostname}},target=/named",
		"--mount", "type=volume,target=/nameless")...)
	pid := s.onlyProcess(worker)
	if data, err := os.ReadFile(inContainer(pid, "/host/file")); string(data) != "of the host" {
		t.Errorf("a bind mount: %q, %v", data, err)
	}
	for path, writable := range map[string]bool{"/host/x": false, "/x": false, "/memory/x": true, "/data/x": true, "/scratch/x": true, "/named/x": true, "/nameless/x": true} {
		if err := os.WriteFile(inContainer(pid, path), []byte("written"), 0o600); (err == nil) != writable {
			t.Errorf("writing %s: %v", path, err)
		}
	}
	data := filepath.Join(worker.Root, "volumes", "data", "_data", "x")
	if body, err := os.ReadFile(data); string(body) != "written" {
		t.Errorf("the volume on the node: %q, %v", body, err)
	}
	s.Eventually(generous, "volume ls tells of all", func() error {
		out := manager.Must("volume", "ls", "--format", "{{.Name}} {{.Nodes}}")
		if out != "data worker1\nscratch worker1\nweb-worker1 worker1\n" {
			return fmt.Errorf("volume ls:\n%s", out)
		}
		return nil
	})
	if r := manager.Ctl("volume", "rm", "scratch"); r.Code == 0 || !strings.Contains(r.Stderr, "volume is in use by service web") {
		t.Errorf("volume rm of one in use: %+v", r)
	}
	manager.Must("service", "update", "--quiet", "--update-monitor", "100ms", "--mount-rm", "/scratch", "--mount-add", "source=data,target=/again,readonly", "web")
	pid = s.onlyProcess(worker)
	if body, err := os.ReadFile(inContainer(pid, "/again/x")); string(body) != "written" {
		t.Errorf("a volume in the next task: %q, %v", body, err)
	}
	if _, err := os.Stat(inContainer(pid, "/nameless/x")); !os.IsNotExist(err) {
		t.Errorf("a nameless volume is another task's: %v", err)
	}
	manager.Must("volume", "rm", "scratch")
	manager.Must("service", "create", "--detach", "--name", "lost", "--restart-condition", "none", "--mount", "type=bind,source=/no/such/path,target=/x", "hello:1")
	s.Eventually(generous, "a bind of nothing says why", func() error {
		if out := manager.Must("service", "ps", "--no-trunc", "--format", "{{.CurrentState}} {{.Error}}", "lost"); !strings.Contains(out, "bind source path does not exist: /no/such/path") {
			return fmt.Errorf("service ps:\n%s", out)
		}
		return nil
	})
	manager.Must("service", "rm", "web", "lost")

	s.slotsComeBack()
}

// onlyProcess is that of the only container on a host.
func (s *swarm) onlyProcess(h interface {
	Containers() (map[string]int, error)
}) int {
	s.t.Helper()
	only := 0
	s.Eventually(generous, "one container runs", func() error {
		all, err := h.Containers()
		if err != nil {
			return err
		}
		if len(all) != 1 {
			return fmt.Errorf("%d containers", len(all))
		}
		for _, pid := range all {
			only = pid
		}
		return nil
	})
	return only
}

// slotsComeBack has three replicas with a volume each go back to where these are.
func (s *swarm) slotsComeBack() {
	manager := s.Hosts[0]
	create := func() {
		s.t.Helper()
		s.serve(manager, "db", 3, "--mount", "source=db-{{.Task.Slot}},target=/data", "--restart-delay", "0s", "--replicas-max-per-node", "1")
	}
	create()
	home := s.placesOf("db", 3)
	for _, task := range s.converged(manager, "db", 3, generous) {
		for _, h := range s.Hosts {
			if pid := containersOf(s.t, h)[task.Meta.ID]; pid != 0 {
				if err := os.WriteFile(inContainer(pid, "/data/slot"), fmt.Append(nil, task.Desired.Slot), 0o600); err != nil {
					s.t.Fatal(err)
				}
			}
		}
	}
	s.Eventually(generous, "the nodes tell of their volumes", func() error {
		if out := manager.Must("volume", "ls", "--format", "{{.Name}} {{.Nodes}}", "--filter", "name=db-"); strings.Count(out, "db-") != 3 {
			return fmt.Errorf("volume ls:\n%s", out)
		}
		return nil
	})
	manager.Must("service", "update", "--quiet", "--force", "--update-parallelism", "0", "--update-monitor", "100ms", "db")
	s.atHome("after an update", home)
	manager.Must("service", "rm", "db")
	s.Eventually(generous, "db is gone", func() error {
		for _, h := range s.Hosts {
			if n := len(containersOf(s.t, h)); n > 0 {
				return fmt.Errorf("%d containers on %s", n, h.Name)
			}
		}
		return nil
	})
	create()
	s.atHome("made anew", home)
	s.volumesGo()
}

// volumesGo removes the volumes of db: not while containers have them, and then with what is in them.
func (s *swarm) volumesGo() {
	manager := s.Hosts[0]
	if r := manager.Ctl("volume", "rm", "db-1"); r.Code != 1 || !strings.Contains(r.Stderr, "remove db-1: volume is in use by service db") {
		s.t.Errorf("volume rm of one in use: %+v", r)
	}
	manager.Must("volume", "prune", "--all", "--force")
	if n := len(s.volumesOnDisk("db-")); n != 3 {
		s.t.Errorf("after a prune there are %d volumes of a service that uses three", n)
	}
	manager.Must("service", "rm", "db")
	s.Eventually(generous, "a volume that no container has any more is removed", func() error { return manager.Ctl("volume", "rm", "db-1").Err })
	if left := s.volumesOnDisk("db-1"); len(left) > 0 {
		s.t.Errorf("after volume rm there is %s", left)
	}
	s.Eventually(generous, "prune removes the others", func() error { return manager.Ctl("volume", "prune", "--all", "--force").Err })
	if left := s.volumesOnDisk("db-"); len(left) > 0 {
		s.t.Errorf("after volume prune there is %s", left)
	}
	if r := manager.Ctl("volume", "rm", "nobody"); r.Code != 1 || !strings.Contains(r.Stderr, "no such volume: nobody") {
		s.t.Errorf("volume rm of none: %+v", r)
	}
}

// volumesOnDisk are the folders of volumes whose names begin so, on all hosts.
func (s *swarm) volumesOnDisk(prefix string) (all []string) {
	for _, h := range s.Hosts {
		there, err := filepath.Glob(filepath.Join(h.Root, "volumes", prefix+"*"))
		if err != nil {
			s.t.Fatal(err)
		}
		all = append(all, there...)
	}
	return all
}

// placesOf are the nodes of a service's tasks, by slot.
func (s *swarm) placesOf(service string, replicas int) map[uint64]string {
	s.t.Helper()
	places := make(map[uint64]string)
	for _, task := range s.converged(s.Hosts[0], service, replicas, generous) {
		places[task.Desired.Slot] = v1.TaskNode(task)
	}
	return places
}

// atHome asserts that each slot of db is where it was, with what it wrote.
func (s *swarm) atHome(when string, home map[uint64]string) {
	s.t.Helper()
	if now := s.placesOf("db", len(home)); fmt.Sprint(now) != fmt.Sprint(home) {
		s.t.Errorf("%s, db's slots are on %v, were on %v", when, now, home)
	}
	for _, task := range s.converged(s.Hosts[0], "db", len(home), generous) {
		for _, h := range s.Hosts {
			pid := containersOf(s.t, h)[task.Meta.ID]
			if pid == 0 {
				continue
			}
			if body, err := os.ReadFile(inContainer(pid, "/data/slot")); string(body) != fmt.Sprint(task.Desired.Slot) {
				s.t.Errorf("%s, slot %d finds %q in its volume, %v", when, task.Desired.Slot, body, err)
			}
		}
	}
}
