package etcd_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
	"github.com/swarmd/swarmd/pkg/store/etcd"
)

func backup(h *host) []byte {
	h.Helper()
	var b bytes.Buffer
	if err := h.store.Backup(h.ctx, &b); err != nil {
		h.Fatalf("backup: %v", err)
	}
	return b.Bytes()
}

// TestRestore: a backup of a cluster, made by any of its managers, is the state of a new cluster of one, whose revisions go on beyond
// all that were seen, and which others can join.
func TestRestore(t *testing.T) {
	l, a, b, _ := three(t)
	a.put("kept", hidden)
	archive := backup(b)
	last := a.put("lost", "written after the backup")
	for _, plain := range []string{hidden, "written after"} {
		if bytes.Contains(archive, []byte(plain)) {
			t.Errorf("the backup holds %q in the clear", plain)
		}
	}
	n := l.host("new")
	if err := etcd.Restore(l.ctx, n.config(), bytes.NewReader(archive)); err != nil {
		t.Fatal(err)
	}
	n.begin()
	n.sees("new*")
	if n.has("kept") != hidden || n.has("lost") != "" {
		t.Error("the restored state is not that of the backup")
	}
	snapshot, err := n.store.Snapshot(l.ctx, 0)
	if err != nil || snapshot.Revision() <= last {
		t.Errorf("the restored store is at %d, and others have seen %d: %v", snapshot.Revision(), last, err)
	}
	for _, err := range n.store.Watch(l.ctx, last) {
		if !errors.Is(err, store.ErrCompacted) {
			t.Errorf("a watch from before: %v", err)
		}
		break
	}
	lead, err := n.store.Campaign(l.ctx, "new")
	if err != nil {
		t.Fatal(err)
	}
	fence := lead.Fence()
	if _, err := n.store.Commit(l.ctx, store.Commit{Fence: &fence}); err != nil {
		t.Error(err)
	}
	d := l.host("d")
	d.join(n)
	if n.put("later", "1"); d.has("later") != "1" || d.has("kept") != hidden {
		t.Error("who joined a restored cluster does not have its state")
	}
	n.kill()
	n.begin(func(c *etcd.Config) {}) // as after any crash
	if n.has("kept") != hidden {
		t.Error("lost after a restart")
	}
}

// TestRestoreRefuses: what is no whole backup is refused with a reason, and nothing stays.
func TestRestoreRefuses(t *testing.T) {
	l := newLab(t)
	a := l.host("a")
	a.begin()
	a.put("kept", hidden)
	good := backup(a)
	flipped := bytes.Clone(good)
	flipped[len(good)/2] ^= 1
	entries := unpackAll(t, good)
	for name, test := range map[string]struct {
		archive []byte
		says    string
	}{
		"nothing":           {nil, "no backup"},
		"text":              {[]byte(strings.Repeat("hello ", 1000)), "no backup"},
		"another tar":       {packAll(t, entries[1:]), "no backup"},
		"a half":            {good[:len(good)/2], "end is missing"},
		"a manifest":        {packAll(t, entries[:1]), "end is missing"},
		"no keys":           {packAll(t, entries[:2]), "end is missing"},
		"a flipped bit":     {flipped, "checksum"},
		"a further file":    {packAll(t, append(slices.Clip(entries), entry{"../x", nil})), "not what the manifest says"},
		"a file twice":      {packAll(t, append(slices.Clip(entries), entries[1])), "not what the manifest says"},
		"a later format":    {packAll(t, edit(t, entries, func(m map[string]any) { m["format"] = 2 })), "format 2"},
		"a foreign archive": {packAll(t, edit(t, entries, func(m map[string]any) { delete(m, "kind") })), "no backup"},
		"a huge file": {packAll(t, edit(t, entries, func(m map[string]any) {
			m["files"].([]any)[0].(map[string]any)["size"] = 1 << 50
		})), "1125899906842624 bytes"},
		"no database": {packAll(t, replaceDB(t, entries)), "database"},
	} {
		dir := filepath.Join(t.TempDir(), "made")
		c := etcd.Config{Dir: dir, Name: "a", Log: a.config().Log}
		err := etcd.Restore(l.ctx, c, bytes.NewReader(test.archive))
		if err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v", name, err)
		}
		if left := files(t, dir); len(left) != 0 {
			t.Errorf("%s leaves %q", name, left)
		}
	}
	if err := etcd.Restore(l.ctx, a.config(), bytes.NewReader(good)); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("over a running member: %v", err)
	}
	a.kill()
	before := files(t, a.dir)
	if err := etcd.Restore(l.ctx, a.config(), bytes.NewReader(good)); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("over a member: %v", err)
	}
	if after := files(t, a.dir); !slices.Equal(before, after) {
		t.Errorf("before %q, after %q", before, after)
	}
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(l.ctx)
	cancel(why)
	dir := t.TempDir()
	if err := etcd.Restore(ctx, etcd.Config{Dir: dir}, bytes.NewReader(good)); !errors.Is(err, why) || len(files(t, dir)) != 0 {
		t.Errorf("canceled: %v, leaves %q", err, files(t, dir))
	}
}

// TestRestoreLocked: a backup of a locked swarm opens with the key that it was locked with, and with no other.
func TestRestoreLocked(t *testing.T) {
	l := newLab(t)
	a := l.host("a")
	a.begin()
	a.put("kept", hidden)
	key := bytes.Repeat([]byte{7}, 32)
	if err := a.store.Rewrap(key); err != nil {
		t.Fatal(err)
	}
	archive := backup(a)
	n := l.host("n")
	for wrong, want := range map[string]error{"": etcd.ErrLocked, strings.Repeat("x", 32): etcd.ErrWrongKey} {
		c := n.config()
		if wrong != "" {
			c.WrapKey = []byte(wrong)
		}
		if err := etcd.Restore(l.ctx, c, bytes.NewReader(archive)); !errors.Is(err, want) {
			t.Errorf("with the key %q: %v", wrong, err)
		}
	}
	if left := files(t, n.dir); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
	c := n.config()
	c.WrapKey = key
	if err := etcd.Restore(l.ctx, c, bytes.NewReader(archive)); err != nil {
		t.Fatal(err)
	}
	if err := n.try(); !errors.Is(err, etcd.ErrLocked) {
		t.Errorf("the restored one starts without the key: %v", err)
	}
	n.begin(func(c *etcd.Config) { c.WrapKey = key })
	if n.has("kept") != hidden {
		t.Error("not there")
	}
}

// TestSnapshots: so many copies are kept, the newest, and each can be restored.
func TestSnapshots(t *testing.T) {
	l := newLab(t)
	a := l.host("a")
	a.begin()
	dir := filepath.Join(t.TempDir(), "copies")
	last := ""
	for i := range 4 {
		a.put("n", fmt.Sprint(i))
		path, err := a.store.SnapshotTo(l.ctx, dir, 2)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 || path <= last {
			t.Errorf("%s, after %s: %v %v", path, last, info.Mode(), err)
		}
		last = path
		if i == 1 {
			if err := os.WriteFile(filepath.Join(dir, "mine.tar"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if left := files(t, dir); len(left) != 3 || left[0] != "mine.tar" || left[2] != filepath.Base(last) {
		t.Errorf("kept: %q", left)
	}
	if _, err := a.store.SnapshotTo(l.ctx, filepath.Join(last, "x"), 2); err == nil {
		t.Error("a file was taken for a directory")
	}
	f, err := os.Open(last)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := l.host("n")
	if err := etcd.Restore(l.ctx, n.config(), f); err != nil {
		t.Fatal(err)
	}
	if n.begin(); n.has("n") != "3" {
		t.Errorf("the copy has %q", n.has("n"))
	}
}

// TestRestoredLease: what lived under leases when the backup was made is gone soon, and not taken for living.
func TestRestoredLease(t *testing.T) {
	l := newLab(t)
	a := l.host("a")
	a.begin()
	lease, err := a.store.Grant(l.ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = a.store.Commit(l.ctx, store.Commit{Ops: []store.Op{{Kind: v1.KindPresence, ID: "x", Section: v1.SectionStatus, If: store.Absent(),
		Value: &v1.PresenceStatus{Session: "1"}, Lease: lease}}})
	if err != nil {
		t.Fatal(err)
	}
	archive := backup(a)
	n := l.host("n")
	if err := etcd.Restore(l.ctx, n.config(), bytes.NewReader(archive)); err != nil {
		t.Fatal(err)
	}
	n.begin()
	n.until("the lease has ended", func() bool {
		snapshot, err := n.store.Snapshot(l.ctx, 0)
		return err == nil && snapshot.Count(v1.KindPresence) == 0
	})
}

// files are the names of what is in a directory, but the lock.
func files(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		if e.Name() != "lock" {
			names = append(names, e.Name())
		}
	}
	return names
}

type entry struct {
	name string
	data []byte
}

func unpackAll(t *testing.T, archive []byte) (entries []entry) {
	t.Helper()
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		head, err := r.Next()
		if err == io.EOF {
			return entries
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, entry{head.Name, data})
	}
}

func packAll(t *testing.T, entries []entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if err := w.WriteHeader(&tar.Header{Name: e.name, Size: int64(len(e.data)), Mode: 0o600}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// edit changes the manifest.
func edit(t *testing.T, entries []entry, change func(map[string]any)) []entry {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(entries[0].data, &m); err != nil {
		t.Fatal(err)
	}
	change(m)
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return append([]entry{{entries[0].name, data}}, entries[1:]...)
}

// replaceDB puts something else where the database was, with the right checksum.
func replaceDB(t *testing.T, entries []entry) []entry {
	t.Helper()
	data := bytes.Repeat([]byte("x"), 8192)
	sum := fmt.Sprintf("%x", sha256.Sum256(data))
	next := edit(t, entries, func(m map[string]any) {
		f := m["files"].([]any)[0].(map[string]any)
		f["size"], f["sha256"] = len(data), sum
	})
	next = slices.Clone(next)
	next[1].data = data
	return next
}
