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
)

// fileIndex is what one tmpfs holds.
type fileIndex struct {
	// Next names the next file.
	Next  uint64     `json:"next"`
	Files []keptFile `json:"files"`
}

// keptFile is one of them, without its content.
type keptFile struct {
	runtime.File
	// Name is the file's in the tmpfs.
	Name string `json:"name"`
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
	next := fileIndex{Next: index.Next}
	for _, f := range files {
		if i := slices.IndexFunc(index.Files, func(k keptFile) bool { return k.Same(f) }); i >= 0 {
			next.Files = append(next.Files, index.Files[i])
			continue
		}
		name := strconv.FormatUint(next.Next, 10)
		next.Next++
		if err := putFile(filepath.Join(dir, name), f); err != nil {
			return err
		}
		f.Data = nil
		next.Files = append(next.Files, keptFile{f, name})
	}
	if err := writeIndex(dir, next); err != nil {
		return err
	}
	return sweepFiles(dir, next)
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

// sweepFiles removes what the index does not name.
func sweepFiles(dir string, index fileIndex) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if e.Name() != indexName && !slices.ContainsFunc(index.Files, func(k keptFile) bool { return k.Name == e.Name() }) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
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

// kept is what is kept for a container.
func (r *Runtime) kept(id string) ([]keptFile, error) {
	dir := r.paths.files(id)
	if !isMount(dir) {
		return nil, nil
	}
	index, err := readIndex(dir)
	if err != nil {
		return nil, fmt.Errorf("containerd: files of %s: %w", id, err)
	}
	return index.Files, nil
}

// KeptFiles implements runtime.Runtime.
func (r *Runtime) KeptFiles(_ context.Context, id string) ([]runtime.File, error) {
	if err := validID(id); err != nil {
		return nil, err
	}
	kept, err := r.kept(id)
	if err != nil {
		return nil, err
	}
	files := make([]runtime.File, len(kept))
	for i, k := range kept {
		files[i] = k.File
	}
	return files, nil
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

// fileMounts are the mounts of a container's files.
func (r *Runtime) fileMounts(id string) ([]specs.Mount, error) {
	kept, err := r.kept(id)
	if err != nil {
		return nil, err
	}
	mounts := make([]specs.Mount, len(kept))
	for i, k := range kept {
		mounts[i] = specs.Mount{Destination: path.Clean(k.Target), Source: filepath.Join(r.paths.files(id), k.Name), Type: "bind",
			Options: []string{"bind", "ro", "nosuid", "nodev", "noexec", "rprivate"}}
	}
	return mounts, nil
}
