package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/swarmd/swarmd/test/e2e/lab"
)

// TestBackupRestore is the documented drill: a backup of a living swarm, the loss of every manager, and a new first manager made of the
// backup, at the address of an old one, so that the workers find it.
func TestBackupRestore(t *testing.T) {
	s := form(t, 3, 2)
	first := s.Hosts[0]
	s.serve(first, "web", 6, "--constraint", "node.role==worker")
	before := map[string]map[string]int{}
	for _, name := range []string{"worker1", "worker2"} {
		before[name] = containersOf(t, s.Host(name))
	}
	s.serve(first, "changed", 4, "--constraint", "node.role==worker", "--update-parallelism", "0")
	if r := first.CtlInput(payload, "secret", "create", "hidden", "-"); r.Err != nil {
		t.Fatal(r.Err)
	}
	file := filepath.Join(t.TempDir(), "swarm.backup")
	s.Host("manager2").Must("swarm", "backup", file)
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 || info.Size() == 0 {
		t.Fatalf("the backup is %v, %v, want a file for its owner alone", info, err)
	}
	first.Must("service", "create", "--quiet", "--name", "after-the-backup", "hello:1")
	first.Must("service", "update", "--quiet", "--force", "changed") // the backup knows none of the tasks that run now
	for _, h := range slices.Clone(s.Hosts[:3]) {
		if err := s.Discard(h); err != nil {
			t.Fatal(err)
		}
	}
	restored, err := s.Add("restored1") // gets the first address again
	if err != nil {
		t.Fatal(err)
	}
	restored.Start()
	if err := restored.LoadImages(); err != nil {
		t.Fatal(err)
	}
	damaged := filepath.Join(t.TempDir(), "damaged")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(damaged, append(data[:len(data)/2:len(data)/2], data[len(data)/2+1:]...), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := tree(t, restored)
	if r := restored.Ctl("swarm", "restore", "--advertise-addr", restored.Addr.String(), damaged); r.Code == 0 || len(r.Stderr) < 20 {
		t.Errorf("restoring a damaged backup: exit %d, %q", r.Code, r.Stderr)
	}
	if now := tree(t, restored); strings.Join(now, "\n") != strings.Join(empty, "\n") {
		t.Errorf("a refused restore left\n%s", strings.Join(now, "\n"))
	}
	restored.Must("swarm", "restore", "--advertise-addr", restored.Addr.String(), file)
	s.Eventually(generous, "the workers are back", func() error {
		return readyNodes(restored, "worker1", "worker2", "restored1")
	})
	s.stillRun("restored from a backup", before)
	if out := restored.Must("service", "ls", "--format", "{{.Name}}"); out != "changed\nweb\n" {
		t.Errorf("services of the restored swarm: %q", out)
	}
	if out := restored.Must("secret", "ls", "--format", "{{.Name}}"); strings.TrimSpace(out) != "hidden" {
		t.Errorf("secrets of the restored swarm: %q", out)
	}
	restored.Must("service", "scale", "web=8")
	s.settled(restored, generous, "web", "changed")
	restored.Must("service", "update", "--quiet", "--force", "changed")
	s.managers = 1
	// The managers that are no more are removed, and others join with the tokens that there were.
	for line := range strings.Lines(restored.Must("node", "ls", "--format", "{{.ID}} {{.Hostname}}")) {
		if id, name, _ := strings.Cut(line, " "); strings.HasPrefix(name, "manager") {
			restored.Must("node", "rm", "--force", id)
		}
	}
	again, err := s.Add("restored2")
	if err != nil {
		t.Fatal(err)
	}
	again.Start()
	again.Join(restored, "manager")
	s.learnNodes()
	s.managersAre(restored, "restored1", "restored2")
	s.settled(restored, generous, "web", "changed")
}

// readyNodes is an error unless all those hosts are ready nodes.
func readyNodes(h *lab.Host, names ...string) error {
	r := h.Ctl("node", "ls", "--format", "{{.Hostname}} {{.Status}}")
	for _, name := range names {
		if !strings.Contains(r.Stdout, name+" Ready\n") {
			return fmt.Errorf("node ls: %v\n%s", r.Err, r.Stdout)
		}
	}
	return r.Err
}

// TestForceNewCluster loses two of three managers for good, and has the last one go on alone with all that it knows: what the others did
// while it was cut off from them is undone.
func TestForceNewCluster(t *testing.T) {
	s := form(t, 3, 2)
	survivor := s.Host("manager3")
	s.serve(survivor, "web", 6, "--constraint", "node.role==worker")
	before := map[string]map[string]int{}
	for _, name := range []string{"worker1", "worker2"} {
		before[name] = containersOf(t, s.Host(name))
	}
	s.serve(survivor, "changed", 4, "--constraint", "node.role==worker", "--update-parallelism", "0")
	if err := s.Partition([]*lab.Host{survivor, s.Host("worker1")}, []*lab.Host{s.Host("manager1"), s.Host("manager2"), s.Host("worker2")}); err != nil {
		t.Fatal(err)
	}
	s.leader(s.Host("manager1"))
	s.Host("manager1").Must("service", "update", "--quiet", "--force", "changed")
	for _, name := range []string{"manager1", "manager2"} {
		if err := s.Host(name).PowerOff(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Heal(); err != nil {
		t.Fatal(err)
	}
	if r := survivor.CtlWithin(30*time.Second, "", "service", "create", "--detach", "--name", "nobody", "hello:1"); r.Code == 0 {
		t.Error("one of three managers takes writes")
	}
	survivor.Must("swarm", "init", "--force-new-cluster", "--advertise-addr", survivor.Addr.String())
	s.Eventually(generous, "the workers are back", func() error { return readyNodes(survivor, "manager3", "worker1", "worker2") })
	s.stillRun("forced to be a new cluster", before)
	survivor.Must("service", "scale", "web=8")
	s.settled(survivor, generous, "web", "changed")
	survivor.Must("service", "update", "--quiet", "--force", "changed")
	s.managers = 1
	for _, name := range []string{"manager1", "manager2"} {
		survivor.Must("node", "rm", "--force", name)
		if err := s.Discard(s.Host(name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"manager4", "manager5"} {
		h, err := s.Add(name)
		if err != nil {
			t.Fatal(err)
		}
		h.Start()
		h.Join(survivor, "manager")
	}
	s.learnNodes()
	s.managersAre(survivor, "manager3", "manager4", "manager5")
	s.settled(survivor, generous, "web", "changed")
}
