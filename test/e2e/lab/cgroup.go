package lab

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// removeCgroups removes the control groups that a killed daemon's containers left. Each daemon has one parent, named after
// the folder of its container runtime.
func removeCgroups(dir string) error {
	for _, group := range cgroups(dir) {
		// A group is busy for a moment after the last process in it has ended.
		err := Await(5*time.Second, func() error {
			if err := os.Remove(group); !errors.Is(err, syscall.ENOENT) {
				return err
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("remove control group: %w", err)
		}
	}
	return nil
}

// removeEngine removes what the container runtime in a folder has outside of it, once its processes have ended: control groups, and the
// sockets that a long path keeps from being in the folder.
func removeEngine(dir string) error {
	return errors.Join(removeCgroups(dir), os.RemoveAll(socketDir(dir)))
}

// socketDir is where the sockets of the container runtime in a folder are, if not in there.
func socketDir(dir string) string { return filepath.Join("/run", engineName(dir)) }

// engineName is what the container runtime in a folder calls what it has outside of it.
func engineName(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return "swarmd-" + hex.EncodeToString(sum[:4])
}

// cgroups are the control groups of the container runtime in a folder, the inner before the outer.
func cgroups(dir string) []string {
	name := engineName(dir)
	tops, _ := filepath.Glob("/sys/fs/cgroup/*/" + name)
	var all []string
	for _, top := range append(tops, "/sys/fs/cgroup/"+name) {
		_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				all = append(all, path)
			}
			return nil
		})
	}
	slices.Reverse(all)
	return all
}
