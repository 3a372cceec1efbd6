package e2e

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/test/e2e/lab"
)

// payload is a secret's, long and odd enough that it is nowhere by chance.
const payload = "correct-horse-battery-staple-4711-zebra"

// TestAutolock locks the managers: one that restarts is good for nothing until it is unlocked, but its containers run on.
func TestAutolock(t *testing.T) {
	s := form(t, 3, 0)
	first := s.Hosts[0]
	s.serve(first, "web", 6)
	if r := first.CtlInput(payload, "secret", "create", "hidden", "-"); r.Err != nil {
		t.Fatal(r.Err)
	}
	for _, h := range s.Hosts {
		holdsNo(t, h, "without autolock", payload)
	}
	if r := first.Ctl("swarm", "unlock-key"); r.Code != 1 || !strings.Contains(r.Stderr, "no unlock key is set") {
		t.Errorf("unlock-key without autolock: exit %d, %q", r.Code, r.Stderr)
	}
	out := first.Must("swarm", "update", "--autolock=true")
	key := regexp.MustCompile(`SWMKEY-1-\S+`).FindString(out)
	if key == "" || !strings.Contains(out, "swarmctl swarm unlock") {
		t.Fatalf("swarm update --autolock prints\n%s", out)
	}
	backup := filepath.Join(t.TempDir(), "backup")
	s.Host("manager2").Must("swarm", "backup", backup)
	if names, err := exec.Command("tar", "tf", backup).CombinedOutput(); err != nil || strings.Contains(string(names), "keyring.key") {
		t.Errorf("a backup made at once after that has the key that opens it: %s, %v", names, err)
	}
	if again := strings.TrimSpace(first.Must("swarm", "unlock-key", "-q")); again != key {
		t.Errorf("unlock-key tells %q, was %q", again, key)
	}
	s.Eventually(generous, "every manager has locked its disk", func() error {
		for _, h := range s.Hosts {
			if err := lockedDisk(h); err != nil {
				return err
			}
		}
		return nil
	})
	third := s.Host("manager3")
	before := s.untouched(nil)
	third.Kill()
	third.Start()
	s.isLocked(third)
	s.stillRun("a locked manager", before)
	other := ca.NewUnlockKey()
	for _, c := range []struct{ key, want string }{{other, "invalid key"}, {"SWMKEY-1-short", "invalid"}, {"", ""}} {
		if r := third.CtlInput(c.key+"\n", "swarm", "unlock"); r.Code == 0 || !strings.Contains(r.Stderr, c.want) {
			t.Errorf("unlocking with %q: exit %d, %q", c.key, r.Code, r.Stderr)
		}
	}
	s.isLocked(third)
	s.unlock(third, key)
	s.managersAre(first, "manager1", "manager2", "manager3")

	// Another key: the old one is good for nothing, for a manager that was away meanwhile too once it has heard.
	out = first.Must("swarm", "unlock-key", "--rotate")
	next := regexp.MustCompile(`SWMKEY-1-\S+`).FindString(out)
	if next == "" || next == key {
		t.Fatalf("unlock-key --rotate prints\n%s", out)
	}
	s.Eventually(generous, "the new key unlocks a restarted manager, and the old one does not", func() error {
		third.Kill()
		third.Start()
		if r := third.CtlInput(key+"\n", "swarm", "unlock"); r.Code == 0 {
			return fmt.Errorf("the old key unlocks still")
		}
		s.unlock(third, next)
		return nil
	})
	for _, h := range s.Hosts {
		holdsNo(t, h, "with autolock", payload, key, next)
	}
	if r := first.CtlInput(next+"\n", "swarm", "unlock"); r.Code == 0 || !strings.Contains(r.Stderr, "not locked") {
		t.Errorf("unlocking what is not locked: exit %d, %q", r.Code, r.Stderr)
	}
	first.Must("swarm", "update", "--autolock=false")
	// One that goes down before it has heard is unlocked once more, and then never again.
	s.Eventually(generous, "a manager restarts unlocked", func() error {
		third.Kill()
		third.Start()
		if third.Must("info", "--format", "{{.Swarm.LocalNodeState}}") == "locked\n" {
			s.unlock(third, next)
			return errors.New("it is locked")
		}
		return third.Ctl("node", "ls").Err
	})
	delete(before, third.Name) // while it was locked, its tasks were replaced elsewhere
	s.stillRun("locked and unlocked", before)
	s.settled(first, generous, "web")
}

// isLocked holds a locked manager to answering so to everything but what may be asked of it.
func (s *swarm) isLocked(h *lab.Host) {
	s.t.Helper()
	const want = `Swarm is encrypted and needs to be unlocked before it can be used. Please use "swarmctl swarm unlock" to unlock it.`
	s.Eventually(generous, h.Name+" is locked", func() error {
		if out := h.Must("info", "--format", "{{.Swarm.LocalNodeState}}"); strings.TrimSpace(out) != "locked" {
			return fmt.Errorf("the node is %s", out)
		}
		return nil
	})
	for _, args := range [][]string{{"service", "ls"}, {"node", "ls"}, {"swarm", "join-token", "worker"}, {"service", "create", "hello:1"}, {"swarm", "unlock-key"}} {
		if r := h.Ctl(args...); r.Code == 0 || !strings.Contains(r.Stderr, want) {
			s.t.Errorf("%v on a locked manager: exit %d, %q", args, r.Code, r.Stderr)
		}
	}
	h.Must("version")
}

func (s *swarm) unlock(h *lab.Host, key string) {
	s.t.Helper()
	if r := h.CtlInput(key+"\n", "swarm", "unlock"); r.Err != nil {
		s.t.Fatal(r.Err)
	}
	s.Eventually(generous, h.Name+" is unlocked", func() error { return h.Ctl("node", "ls").Err })
}

// lockedDisk tells whether a manager's private keys lie on its disk encrypted, all of them.
func lockedDisk(h *lab.Host) error {
	return walkDisk(h, func(path string, data []byte) error {
		if bytes.Contains(data, []byte("PRIVATE KEY")) && !bytes.Contains(data, []byte("ENCRYPTED")) {
			return fmt.Errorf("%s has a key in the clear", path)
		}
		return nil
	})
}

// holdsNo searches every file of a host's data directory, the database and its log included, for texts and their base64.
func holdsNo(t *testing.T, h *lab.Host, when string, texts ...string) {
	t.Helper()
	files := 0
	err := walkDisk(h, func(path string, data []byte) error {
		files++
		for _, text := range texts {
			for shift := range 3 { // base64 of what begins at each place of a group of three
				encoded := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("x", shift) + text))
				// Without the first and the last group, which hold what is before and after the text.
				if bytes.Contains(data, []byte(encoded[4:len(encoded)-4])) {
					t.Errorf("%s, %s: %s holds a secret as base64", h.Name, when, path)
				}
			}
			if bytes.Contains(data, []byte(text)) {
				t.Errorf("%s, %s: %s holds a secret in the clear", h.Name, when, path)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 5 {
		t.Errorf("%s: only %d files were searched", h.Name, files)
	}
}

// walkDisk reads every file of a host's data directory but those of its container runtime.
func walkDisk(h *lab.Host, see func(path string, data []byte) error) error {
	return filepath.WalkDir(h.Root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case os.IsNotExist(err):
			return nil // it went while we looked
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "containerd" || d.Name() == "network"):
			return filepath.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		data, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil {
			return err
		}
		return see(path, data)
	})
}
