package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/swarmd/swarmd/pkg/runtime"
)

// The files that a container has from memory are in a tmpfs of its own below Root/files, which nobody but root enters. It stays
// when this process ends, and goes with the machine's memory. Beside the files is an index that says what they are.

const (
	// filesSize bounds one such tmpfs, in bytes.
	filesSize = 64 << 20
	indexName = "index"
	// moveMountBeneath is MOVE_MOUNT_BENEATH of linux/mount.h.
	moveMountBeneath = 0x200
)

// fileIndex is what one tmpfs holds.
type fileIndex struct {
	// Next names the next file.
	Next  uint64     `json:"next"`
	Files []keptFile `json:"files"`
	// Mounted are the names of those that are not live and that the container was made with, which it has for as long as it is there.
	Mounted []string `json:"mounted,omitempty"`
}

// keptFile is one of them, without its content.
type keptFile struct {
	runtime.File
	// Name is the file's in the tmpfs.
	Name string `json:"name"`
	// At is where a live file is mounted, for containers to see what is mounted there later on.
	At string `json:"at,omitempty"`
	// Changed is a live file that is mounted over the one that the container was made with.
	Changed bool `json:"changed,omitempty"`
}

// files is the folder of a container's files.
func (p paths) files(id string) string { return p.in("files", id) }

// KeepFiles implements runtime.Runtime.
func (r *Runtime) KeepFiles(_ context.Context, id string, files []runtime.File) error {
	if err := validID(id); err != nil {
		return err
	}
	if err := runtime.CheckFiles(files); err != nil {
		return err
	}
	dir := r.paths.files(id)
	if len(files) == 0 && !isMount(dir) {
		return nil
	}
	if err := r.keepFiles(dir, files); err != nil {
		return fmt.Errorf("containerd: files of %s: %w", id, err)
	}
	return nil
}

func (r *Runtime) keepFiles(dir string, files []runtime.File) error {
	if err := mountFiles(dir); err != nil {
		return err
	}
	index, err := readIndex(dir)
	if err != nil {
		return err
	}
	next := fileIndex{Next: index.Next, Mounted: index.Mounted}
	var shown []keptFile
	covered := map[string]bool{}
	for _, f := range files {
		if i := slices.IndexFunc(index.Files, func(k keptFile) bool { return k.Same(f) }); i >= 0 {
			next.Files = append(next.Files, index.Files[i])
			continue
		}
		var k keptFile
		err := error(unix.EBUSY) // one is mounted over where a daemon was killed halfway
		for errors.Is(err, unix.EBUSY) {
			k.Name = strconv.FormatUint(next.Next, 10)
			next.Next++
			err = putFile(filepath.Join(dir, k.Name), f)
		}
		if err != nil {
			return err
		}
		if f.Live {
			k.At = "at-" + k.Name
			if i := slices.IndexFunc(index.Files, func(old keptFile) bool { return old.Target == f.Target && old.At != "" }); i >= 0 {
				k.At, k.Changed = index.Files[i].At, true
				covered[k.At] = index.Files[i].Changed
			}
		}
		f.Data, k.File = nil, f
		next.Files, shown = append(next.Files, k), append(shown, k)
	}
	for _, k := range shown {
		if k.At == "" {
			continue
		}
		if err := showFile(filepath.Join(dir, k.Name), filepath.Join(dir, k.At), covered[k.At]); err != nil {
			return err
		}
	}
	if err := writeIndex(dir, next); err != nil {
		return err
	}
	return sweepFiles(dir, next, index)
}

// showFile mounts a file, read-only, over what is at a path, which containers that have the path mounted see at once: mounts there are
// told to theirs, and not the other way round. A container has the first that was there itself, so it stays; one over that is covered, and
// goes, so that there are never more than two. Kernels before 6.5 cannot put one below another: there each stays until the container ends.
func showFile(file, at string, covered bool) error {
	f, err := os.OpenFile(at, os.O_CREATE|os.O_RDONLY, 0o400)
	if err != nil {
		return err
	}
	f.Close()
	tree, err := unix.OpenTree(unix.AT_FDCWD, file, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("mount %s: %w", file, err)
	}
	defer func() { _ = unix.Close(tree) }()
	attributes := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC,
		Propagation: unix.MS_SHARED}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attributes); err != nil {
		return fmt.Errorf("mount %s: %w", file, err)
	}
	if covered {
		err := unix.MoveMount(tree, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH|moveMountBeneath)
		if err == nil {
			err = unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		}
		if !errors.Is(err, unix.EINVAL) {
			return wrapMount(err, file, at)
		}
	}
	return wrapMount(unix.MoveMount(tree, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH), file, at)
}

func wrapMount(err error, file, at string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("mount %s at %s: %w", file, at, err)
}

// putFile writes a file that was not there, or was left half written.
func putFile(name string, f runtime.File) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return err
	}
	_, err = file.Write(f.Data)
	err = errors.Join(err, file.Chown(int(f.UID), int(f.GID)))
	// By the system call: the mode may have bits that os.FileMode has elsewhere. After the owner, whose change clears some of them.
	err = errors.Join(err, unix.Fchmod(int(file.Fd()), f.Mode&0o7777))
	return errors.Join(err, file.Close())
}

// sweepFiles removes what neither index names. The one before is left, for somebody may be reading, and what a container has mounted; what
// is older gives its memory back, also where its name has to stay.
func sweepFiles(dir string, indexes ...fileIndex) error {
	named := map[string]bool{indexName: true}
	for _, index := range indexes {
		for _, name := range index.Mounted {
			named[name] = true
		}
		for _, k := range index.Files {
			named[k.Name], named[k.At] = true, true
		}
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		if named[e.Name()] || isMount(name) {
			continue
		}
		err = errors.Join(err, os.Truncate(name, 0))
		if gone := os.Remove(name); !errors.Is(gone, unix.EBUSY) { // the next version is mounted over it
			err = errors.Join(err, gone)
		}
	}
	return err
}

// mountFiles makes the tmpfs, unless it is there. Its pages are kept out of swap where the kernel can (6.4 and later).
func mountFiles(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if isMount(dir) {
		return nil
	}
	options := "mode=0700,size=" + strconv.Itoa(filesSize)
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	err := unix.Mount("swarmd-files", dir, "tmpfs", flags, options+",noswap")
	if errors.Is(err, unix.EINVAL) {
		err = unix.Mount("swarmd-files", dir, "tmpfs", flags, options)
	}
	if err == nil { // what is mounted in it concerns the containers of its files alone
		err = unix.Mount("", dir, "", unix.MS_PRIVATE, "")
	}
	if err != nil {
		return fmt.Errorf("mount a tmpfs at %s: %w", dir, err)
	}
	return nil
}

// isMount tells whether something is mounted at a path.
func isMount(at string) bool {
	var s unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, at, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, 0, &s)
	return err == nil && s.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}

// readIndex reads what a tmpfs holds; of a new one that is nothing.
func readIndex(dir string) (fileIndex, error) {
	var index fileIndex
	data, err := os.ReadFile(filepath.Join(dir, indexName))
	if errors.Is(err, fs.ErrNotExist) {
		return index, nil
	}
	if err != nil {
		return index, err
	}
	return index, json.Unmarshal(data, &index)
}

func writeIndex(dir string, index fileIndex) error {
	data, err := json.Marshal(index)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, indexName), data)
}

// index is that of a container, of which there may be nothing.
func (r *Runtime) index(id string) (fileIndex, error) {
	dir := r.paths.files(id)
	if !isMount(dir) {
		return fileIndex{}, nil
	}
	index, err := readIndex(dir)
	if err != nil {
		return fileIndex{}, fmt.Errorf("containerd: files of %s: %w", id, err)
	}
	return index, nil
}

// KeptFiles implements runtime.Runtime.
func (r *Runtime) KeptFiles(_ context.Context, id string) ([]runtime.File, error) {
	if err := validID(id); err != nil {
		return nil, err
	}
	index, err := r.index(id)
	files := make([]runtime.File, len(index.Files))
	for i, k := range index.Files {
		files[i] = k.File
	}
	return files, err
}

// DropFiles implements runtime.Runtime.
func (r *Runtime) DropFiles(_ context.Context, id string) error {
	if err := validID(id); err != nil {
		return err
	}
	if err := dropFiles(r.paths.files(id)); err != nil {
		return fmt.Errorf("containerd: files of %s: %w", id, err)
	}
	return nil
}

// dropMounts unmounts what is mounted at a path.
func dropMounts(at string) error {
	for isMount(at) {
		if err := unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount %s: %w", at, err)
		}
	}
	return nil
}

func dropFiles(dir string) error {
	if err := dropMounts(dir); err != nil {
		return err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// sweepEmptyFiles removes the folders of files that went with the machine's memory.
func (r *Runtime) sweepEmptyFiles() error {
	entries, err := os.ReadDir(r.paths.in("files"))
	for _, e := range entries {
		if dir := r.paths.files(e.Name()); !isMount(dir) {
			err = errors.Join(err, os.Remove(dir))
		}
	}
	return err
}

// fileMounts are the mounts of the files of a container that is made.
func (r *Runtime) fileMounts(id string) ([]specs.Mount, error) {
	index, err := r.index(id)
	if err != nil || len(index.Files) == 0 {
		return nil, err
	}
	dir := r.paths.files(id)
	index.Mounted = nil
	mounts := make([]specs.Mount, len(index.Files))
	for i, k := range index.Files {
		name, propagation := k.At, "slave"
		if name == "" {
			name, propagation = k.Name, "rprivate"
			index.Mounted = append(index.Mounted, name)
		}
		mounts[i] = specs.Mount{Destination: path.Clean(k.Target), Source: filepath.Join(dir, name), Type: "bind",
			Options: []string{"bind", "ro", "nosuid", "nodev", "noexec", propagation}}
	}
	if err := writeIndex(dir, index); err != nil {
		return nil, fmt.Errorf("containerd: files of %s: %w", id, err)
	}
	return mounts, nil
}
