package etcd_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
	"github.com/swarmd/swarmd/pkg/store/etcd"
)

const hidden = "correct horse battery staple"

func fill(t *testing.T, dir string) (want string, revision int64) {
	t.Helper()
	s := start(t, dir)
	var ops []store.Op
	ids := []string{"0", "z", "zz", "~", "A", "!", "a/b", "%", "é", "9", "m/"} // at the bounds of the loaded ranges, and beyond
	for i := range 50 {
		ids = append(ids, fmt.Sprint("task", i))
	}
	for _, id := range ids {
		ops = append(ops, store.Op{Kind: v1.KindTask, ID: id, Section: v1.SectionDesired, Value: &v1.TaskDesired{Service: "web"}, If: store.Absent()},
			store.Op{Kind: v1.KindTask, ID: id, Section: v1.SectionStatus, Value: &v1.TaskStatus{State: v1.TaskRunning}, If: store.Always()})
	}
	ops = append(ops, store.Op{Kind: v1.KindSecret, ID: "a/b", Section: v1.SectionSpec, If: store.Absent(),
		Value: &v1.SecretSpec{Data: []byte(hidden)}, Meta: &v1.Meta{Name: "password-of-the-database"}})
	if _, err := s.Commit(t.Context(), store.Commit{Ops: ops}); err != nil {
		t.Fatal(err)
	}
	revision, err := s.Commit(t.Context(), store.Commit{Ops: []store.Op{{Kind: v1.KindTask, ID: "task7", Section: v1.SectionDesired}}})
	if err != nil {
		t.Fatal(err)
	}
	want = render(t, s, revision)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return want, revision
}

func render(t *testing.T, s *etcd.Store, revision int64) string {
	t.Helper()
	snapshot, err := s.Snapshot(t.Context(), revision)
	if err != nil {
		t.Fatal(err)
	}
	if snapshot.Revision() != revision {
		t.Errorf("at %d instead of %d", snapshot.Revision(), revision)
	}
	var b strings.Builder
	for _, d := range v1.Kinds {
		for o := range snapshot.Objects(d.Kind()) {
			fmt.Fprintf(&b, "%s %+v %+v\n", d.Kind(), *o.GetMeta(), d.Section(o, d.Home()))
		}
	}
	fmt.Fprintf(&b, "%+v", snapshot.CountsOf("web"))
	return b.String()
}

// TestRestart: what was committed is there after a restart, with every revision, and so are the keys.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	want, revision := fill(t, dir)
	for range 2 {
		s := start(t, dir)
		if got := render(t, s, revision); got != want {
			t.Errorf("after a restart:\n%s\nwant:\n%s", got, want)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestNoPlaintext: neither a secret, nor its name, nor the data key is in the clear in any file but the wrapping key's, and
// all files are this user's alone.
func TestNoPlaintext(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir)
	encoded := base64.StdEncoding.EncodeToString([]byte(hidden))
	found := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if path != dir && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		if d.IsDir() {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if bytes.Contains(data, []byte("/swarm/v1/Secret/a%2Fb/spec")) {
			found++
		}
		for _, plain := range []string{hidden, encoded[:len(encoded)-4], "password-of-the-database", `"service"`} {
			if bytes.Contains(data, []byte(plain)) {
				t.Errorf("%s holds %q", path, plain)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found < 2 {
		t.Errorf("the key is in %d files, want the log and the database: was everything flushed?", found)
	}
}

// TestKeys: with the wrong keys, or none, the state does not open, nothing is written over, and the error says what to do.
func TestKeys(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir)
	keyring, wrap := filepath.Join(dir, "keyring.json"), filepath.Join(dir, "keyring.json.key")
	fails := func(what, says string, c etcd.Config) {
		t.Helper()
		c.Dir, c.Log = dir, slog.New(slog.DiscardHandler)
		s, err := etcd.Start(t.Context(), c)
		if err == nil {
			s.Close()
			t.Fatalf("%s: starts", what)
		}
		if !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), hidden) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, file := range []string{keyring, wrap} {
		good, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		fails("without "+file, file, etcd.Config{})
		if _, err := os.Stat(file); err == nil {
			t.Errorf("a new %s was made over a state that it does not open", file)
		}
		for _, bad := range [][]byte{nil, good[:len(good)/2], bytes.Repeat([]byte("x"), len(good))} {
			if err := os.WriteFile(file, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			fails("broken "+file, "key", etcd.Config{})
		}
		if err := os.WriteFile(file, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fails("a short wrapping key", "32 bytes", etcd.Config{WrapKey: make([]byte, 31)})
	fails("a ring of another swarm", "no such file", etcd.Config{KeyFile: filepath.Join(t.TempDir(), "keys.json"), WrapKey: make([]byte, 32)})
	start(t, dir)
}

// TestOperatorKey: with a wrapping key of the operator's, none is on the disk.
func TestOperatorKey(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		s, err := etcd.Start(t.Context(), etcd.Config{Dir: dir, WrapKey: bytes.Repeat([]byte{7}, 32), Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "keyring.json.key")); err == nil {
		t.Error("a wrapping key is on the disk")
	}
}

// TestDirectoryInUse: a second store on the same directory is refused, not queued, and the first goes on.
func TestDirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	_, err := etcd.Start(t.Context(), etcd.Config{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second start: %v", err)
	}
	if _, err := s.Sync(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestBadConfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]etcd.Config{
		"nothing": {}, "both": {Dir: t.TempDir(), Endpoints: []string{"x:1"}}, "no key file": {Endpoints: []string{"x:1"}}, "a file": {Dir: file},
	} {
		c.Log = slog.New(slog.DiscardHandler)
		if s, err := etcd.Start(t.Context(), c); err == nil {
			s.Close()
			t.Errorf("%s: starts", name)
		}
	}
}

// TestKilled kills a process that writes and leads: what it was told is committed is there, and the next process leads at
// once, instead of waiting for the lease of the dead one.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("STORE_ETCD_TEST_DIR"); dir != "" {
		writeUntilKilled(t, dir)
		return
	}
	dir := t.TempDir()
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilled$")
	child.Env = append(os.Environ(), "STORE_ETCD_TEST_DIR="+dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	last := 0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if n, err := strconv.Atoi(lines.Text()); err == nil {
			last = n
		}
		if last == 50 {
			break
		}
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	child.Wait()
	s := start(t, dir)
	snapshot, err := s.Snapshot(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= last; i++ {
		if _, ok := snapshot.Lookup(v1.KindTask, fmt.Sprint(i)); !ok {
			t.Errorf("task %d of %d was committed and is lost", i, last)
		}
	}
	if last != 50 {
		t.Errorf("the process wrote %d of 50", last)
	}
	// The dead process's lease lasts an hour.
	if _, err := s.Campaign(t.Context(), "next"); err != nil {
		t.Error(err)
	}
}

func writeUntilKilled(t *testing.T, dir string) {
	s, err := etcd.Start(t.Context(), etcd.Config{Dir: dir, LeaseTTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	lead, err := s.Campaign(t.Context(), "first")
	if err != nil {
		t.Fatal(err)
	}
	fence := lead.Fence()
	for i := 1; ; i++ {
		op := store.Op{Kind: v1.KindTask, ID: fmt.Sprint(i), Section: v1.SectionDesired, Value: &v1.TaskDesired{}, If: store.Absent()}
		if _, err := s.Commit(t.Context(), store.Commit{Ops: []store.Op{op}, Fence: &fence}); err != nil {
			t.Fatal(err)
		}
		fmt.Println(i)
	}
}

// TestNoListener: the member opens no port and no socket.
func TestNoListener(t *testing.T) {
	before := sockets(t)
	start(t, t.TempDir())
	if after := sockets(t); after != before {
		t.Errorf("%d sockets before, %d after", before, after)
	}
}

// sockets counts this process's open sockets.
func sockets(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, fd := range fds {
		if target, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(target, "socket:") {
			n++
		}
	}
	return n
}

// TestSocketsAreCounted shows that TestNoListener can fail.
func TestSocketsAreCounted(t *testing.T) {
	before := sockets(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if sockets(t) <= before {
		t.Error("a listener is not counted")
	}
}

// TestQuiet: the start and the close of a healthy member tell nothing.
func TestQuiet(t *testing.T) {
	var log bytes.Buffer
	s, err := etcd.Start(t.Context(), etcd.Config{Dir: t.TempDir(), Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(log.String()) {
		if !strings.Contains(line, "too long") && !strings.Contains(line, "slow") { // a busy machine
			t.Errorf("logged: %s", line)
		}
	}
}
