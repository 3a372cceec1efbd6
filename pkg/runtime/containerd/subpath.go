package containerd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/runtime"
)

// A part of a volume is mounted by what its path leads to, not by the path: whoever writes to the volume could put a link to a folder
// of this machine in its place before runc gets there. So it is mounted at a place of its own below Root/subpaths, in a folder for each
// container, until the container is made.

// subpaths is the folder of the parts of volumes that a container is being made with.
func (p paths) subpaths(id string) string { return p.in("subpaths", id) }

// makeSubpath mounts what is at a path of a volume, which must be there, and says where.
func (r *Runtime) makeSubpath(id string, n int, data string, m v1.Mount) (string, error) {
	held, err := beneath(data, m.Volume.Subpath)
	switch {
	case errors.Is(err, unix.EXDEV):
		return "", fmt.Errorf("subpath %q of volume %q leads out of the volume: %w", m.Volume.Subpath, m.Source, runtime.ErrInvalid)
	case err != nil:
		return "", fmt.Errorf("cannot access subpath %q of volume %q: %w: %w", m.Volume.Subpath, m.Source, err, runtime.ErrInvalid)
	}
	defer held.Close()
	info, err := held.Stat()
	if err != nil {
		return "", err
	}
	at := filepath.Join(r.paths.subpaths(id), strconv.Itoa(n))
	if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
		return "", err
	}
	if info.IsDir() {
		err = os.Mkdir(at, 0o700)
	} else {
		err = os.WriteFile(at, nil, 0o600)
	}
	if err != nil {
		return "", err
	}
	if err := unix.Mount(byDescriptor(held), at, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return "", fmt.Errorf("mount subpath %q of volume %q: %w", m.Volume.Subpath, m.Source, err)
	}
	return at, nil
}

// beneath holds what is at a path below a folder. The kernel resolves it, and refuses what leads out of the folder, by .. or by a link,
// with EXDEV.
func beneath(dir, name string) (*os.File, error) {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(root) }()
	return openAt(root, name, unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS})
}

// dropSubpaths unmounts the parts of volumes that a container was made with; the container keeps its own mounts of them.
func (r *Runtime) dropSubpaths(id string) error {
	dir := r.paths.subpaths(id)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		at := filepath.Join(dir, e.Name())
		if e := dropMounts(at); e != nil {
			err = errors.Join(err, e)
			continue
		}
		err = errors.Join(err, os.Remove(at)) // not all that is in it: what is still mounted there is the volume's
	}
	return errors.Join(err, os.Remove(dir))
}

// sweepSubpaths unmounts those that an earlier process left.
func (r *Runtime) sweepSubpaths() error {
	entries, err := os.ReadDir(r.paths.in("subpaths"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		err = errors.Join(err, r.dropSubpaths(e.Name()))
	}
	return err
}

// partly are the names of the volumes that a container has a part of.
func partly(mounts []v1.Mount) (names []string) {
	for _, m := range mounts {
		if m.Volume != nil && m.Volume.Subpath != "" && !slices.Contains(names, m.Source) {
			names = append(names, m.Source)
		}
	}
	return names
}
