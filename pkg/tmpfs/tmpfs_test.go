package tmpfs_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/swarmd/swarmd/pkg/tmpfs"
)

func TestMount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts")
	}
	// Something else than a tmpfs below, whatever the machine's folder for temporary files is.
	below := t.TempDir()
	must(t, unix.Mount("ramfs", below, "ramfs", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(below, unix.MNT_DETACH)) })
	at := filepath.Join(below, "tasks")
	if err := tmpfs.Mount(at, ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder that is not there: %v", err)
	}
	must(t, os.Mkdir(at, 0o700))
	old := filepath.Join(at, "old")
	must(t, os.WriteFile(old, nil, 0o400))
	must(t, tmpfs.Mount(at, "size=1m"))
	if _, err := os.Stat(old); err != nil || inMemory(t, at) {
		t.Errorf("what was there is hidden: %v", err)
	}
	must(t, os.Remove(old))
	for range 2 {
		must(t, tmpfs.Mount(at, "mode=0711,size=1m"))
	}
	info, err := os.Stat(at)
	must(t, err)
	if !inMemory(t, at) || info.Mode().Perm() != 0o711 {
		t.Errorf("in memory: %v, mode %v", inMemory(t, at), info.Mode())
	}
	if err := os.WriteFile(filepath.Join(at, "large"), make([]byte, 2<<20), 0o400); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("more than its size: %v", err)
	}
	for range 2 { // it was mounted once
		must(t, tmpfs.Unmount(at))
		if inMemory(t, at) {
			t.Fatal("it is mounted still")
		}
	}
	must(t, os.Remove(at))
	must(t, tmpfs.Unmount(at))
}

func inMemory(t *testing.T, dir string) bool {
	t.Helper()
	var s unix.Statfs_t
	must(t, unix.Statfs(dir, &s))
	return s.Type == unix.TMPFS_MAGIC
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
