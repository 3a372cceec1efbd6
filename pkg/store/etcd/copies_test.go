package etcd

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/swarmd/swarmd/pkg/store"
)

// loot is what somebody finds who has the disk: keyrings, and what may be a key.
type loot struct {
	rings map[string]*keyringFile
	keys  map[string][]byte // by a place
}

// ransack looks through a directory, and through the backups in it.
func ransack(t *testing.T, dir string) *loot {
	t.Helper()
	l := &loot{make(map[string]*keyringFile), make(map[string][]byte)}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		l.take(path, data)
		for r := tar.NewReader(bytes.NewReader(data)); ; {
			head, err := r.Next()
			if err != nil {
				return nil
			}
			inner, err := io.ReadAll(r)
			if err != nil {
				return err
			}
			l.take(path+"/"+head.Name, inner)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *loot) take(place string, data []byte) {
	const small = 4096
	ring := new(keyringFile)
	if json.Unmarshal(data, ring) == nil && len(ring.Keys) > 0 {
		l.rings[place] = ring
	}
	for i := 0; i+keySize <= len(data) && len(data) <= small; i++ {
		l.keys[string(data[i:i+keySize])] = []byte(place)
	}
}

// opens are the keyrings that some key opens which is there in the clear.
func (l *loot) opens() (open []string) {
	for place, ring := range l.rings {
		for key, where := range l.keys {
			if _, err := ring.open(place, []byte(key)); err == nil {
				open = append(open, place+" by "+string(where))
			}
		}
	}
	return open
}

// TestLockedDiskOpensNothing: once the data keys are wrapped by an operator's key, no key on the disk opens any keyring there, not in
// a copy from before either, whichever crash came in between.
func TestLockedDiskOpensNothing(t *testing.T) {
	root := t.TempDir()
	c := Config{Dir: filepath.Join(root, "etcd")}
	copies := filepath.Join(root, "snapshots")
	s := open(t, c)
	commit(t, s, secret("a", "hidden", store.Absent()))
	snapshot := func() string {
		path, err := s.SnapshotTo(t.Context(), copies, 9)
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	drop := func() {
		if err := DropCopies(c, copies); err != nil {
			t.Fatal(err)
		}
	}
	snapshot()
	// What crashes left: a copy on its way, a restored backup, a copy that is cut off.
	old := snapshot()
	data, err := os.ReadFile(old)
	if err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string][]byte{
		filepath.Join(copies, ".new-1"): data, filepath.Join(c.Dir, ".restore-1", "restore.tar"): data, filepath.Join(c.Dir, ".backup-1"): data,
		filepath.Join(copies, "swarm-19700101T000000.000Z-1.tar"): data[:700],
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, data, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if len(ransack(t, root).opens()) < 4 {
		t.Fatal("nothing opens before: the test cannot fail")
	}
	first, second := bytes.Repeat([]byte{1}, keySize), bytes.Repeat([]byte{2}, keySize)
	if err := s.Rewrap(first); err != nil {
		t.Fatal(err)
	}
	s.Close() // a crash: the copies from before are still there
	drop()    // as at a start, without the key
	c.WrapKey = first
	s = open(t, c)
	if open := ransack(t, root).opens(); len(open) > 0 {
		t.Errorf("open: %q", open)
	}
	copied := snapshot()
	l := ransack(t, root)
	if open := l.opens(); len(open) > 0 || len(l.rings) != 2 {
		t.Errorf("after a copy, of %d keyrings are open: %q", len(l.rings), open)
	}
	drop()
	if _, err := os.Stat(copied); err != nil {
		t.Errorf("a copy of now: %v", err)
	}
	if err := s.Rewrap(second); err != nil {
		t.Fatal(err)
	}
	drop()
	l = ransack(t, root)
	l.keys[string(first)] = nil
	if open := l.opens(); len(open) > 0 {
		t.Errorf("with the operator's key from before: %q", open)
	}
	if err := s.Rewrap(nil); err != nil {
		t.Fatal(err)
	}
	drop()
	if l := ransack(t, root); len(l.rings) != 1 || len(l.opens()) != 1 {
		t.Errorf("unlocked again: %d keyrings, open: %q", len(l.rings), l.opens())
	}
}

// TestCopyAcrossRewrap: a copy that a rewrapping overtakes does not stay.
func TestCopyAcrossRewrap(t *testing.T) {
	c := Config{Dir: t.TempDir()}
	s := open(t, c)
	copies := t.TempDir()
	m, err := s.backup(t.Context(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	from, to := filepath.Join(copies, "from"), filepath.Join(copies, "to")
	if err := os.WriteFile(from, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Rewrap(bytes.Repeat([]byte{1}, keySize)); err != nil {
		t.Fatal(err)
	}
	if err := s.keepCopy(m, from, to); !errors.Is(err, errRewrapped) {
		t.Errorf("a copy with the keyring from before: %v", err)
	}
	path, err := s.SnapshotTo(t.Context(), copies, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// Where there are no data keys, the copies may be all that is left; what is not ours stays in any case.
	if err := errors.Join(os.Rename(c.Dir+"/keyring.json", c.Dir+"/away"), DropCopies(c, copies)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("without data keys: %v", err)
	}
	if err := errors.Join(os.WriteFile(c.Dir+"/keyring.json", []byte("another"), 0o600), DropCopies(c, copies)); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(copies); err != nil || len(left) != 1 || !strings.HasSuffix(left[0].Name(), "from") {
		t.Errorf("left: %v %v", left, err)
	}
}
