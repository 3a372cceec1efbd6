package etcd_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/swarmd/swarmd/pkg/store/etcd"
)

// TestDamaged: a member whose files are damaged says so, at once, and nothing is written over.
func TestDamaged(t *testing.T) {
	whole := t.TempDir()
	fill(t, whole)
	wal := func(dir string) string {
		names, err := filepath.Glob(filepath.Join(dir, "etcd/member/wal/*.wal"))
		if err != nil || len(names) == 0 {
			t.Fatal(err)
		}
		return slices.Max(names)
	}
	db := func(dir string) string { return filepath.Join(dir, "etcd/member/snap/db") }
	for name, damage := range map[string]func(dir string) error{
		"the log is gone":                func(dir string) error { return os.Remove(wal(dir)) },
		"the log is cut off":             func(dir string) error { return os.Truncate(wal(dir), 2000) },
		"the log is cut off in a record": func(dir string) error { return os.Truncate(wal(dir), 2005) },
		"the log is empty":               func(dir string) error { return os.Truncate(wal(dir), 0) },
		"the log holds something else":   func(dir string) error { return spoil(wal(dir), 100, 1000) },
		"a byte of the log is another":   func(dir string) error { return spoil(wal(dir), 1000, 1) },
		"the database is gone":           func(dir string) error { return os.Remove(db(dir)) },
		"the database is empty":          func(dir string) error { return os.Truncate(db(dir), 0) },
		"the database is cut off":        func(dir string) error { return os.Truncate(db(dir), 9000) },
		"the database is cut off late":   func(dir string) error { return os.Truncate(db(dir), pagesOf(t, db(dir))-1) },
		"the database is something else": func(dir string) error { return spoil(db(dir), 0, 10000) },
	} {
		dir := filepath.Join(t.TempDir(), "copy")
		copyDir(t, whole, dir)
		if err := damage(dir); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			s, err := etcd.Start(t.Context(), etcd.Config{Dir: dir, Log: slog.New(slog.DiscardHandler)})
			if err == nil {
				s.Close()
			}
			if !errors.Is(err, etcd.ErrDamaged) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	dir := filepath.Join(t.TempDir(), "copy")
	copyDir(t, whole, dir)
	start(t, dir)
}

// TestTornLog: what was being written when the power went is no damage.
func TestTornLog(t *testing.T) {
	dir := t.TempDir()
	want, revision := fill(t, dir)
	names, err := filepath.Glob(filepath.Join(dir, "etcd/member/wal/*.wal"))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	// A record of 2048 bytes begins where the last one ends, at a multiple of 8, and the rest of it never reached the disk.
	if err := overwrite(names[0], (lastByte(t, names[0])/8+1)*8, []byte{0, 8}); err != nil {
		t.Fatal(err)
	}
	if got := render(t, start(t, dir), revision); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// pagesOf is how long a database is at least.
func pagesOf(t *testing.T, path string) (size int64) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	err = db.View(func(tx *bolt.Tx) error {
		size = tx.Size()
		return nil
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return size
}

// spoil changes every bit of n bytes.
func spoil(path string, at, n int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	data := make([]byte, n)
	_, err = f.ReadAt(data, at)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	for i := range data {
		data[i] = ^data[i]
	}
	return overwrite(path, at, data)
}

func overwrite(path string, at int64, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, at)
	return errors.Join(err, f.Close())
}

func lastByte(t *testing.T, path string) int64 {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return int64(len(bytes.TrimRight(data, "\x00")) - 1)
}
