package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/swarmd/swarmd/pkg/archive"
	"github.com/swarmd/swarmd/pkg/runtime"
)

// maxLinks is how many links in a row are followed, the kernel's.
const maxLinks = 40

// CopyFrom implements runtime.Runtime.
func (r *Runtime) CopyFrom(ctx context.Context, id, name string, follow bool, to, notes io.Writer) error {
	root, err := r.rootOf(ctx, id)
	if err != nil {
		return err
	}
	defer root.Close()
	from, err := inside(root, name, follow || isFolderName(name))
	if err != nil {
		return copyError(name, err)
	}
	defer from.Close()
	source, err := sourceOf(from)
	if err != nil {
		return copyError(name, err)
	}
	defer func() { _ = source.Close() }()
	base := path.Base(path.Clean("/" + name))
	if base == "/" {
		base = "."
	}
	if err := archive.Pack(ctx, to, base, source, &archive.Notes{To: notes}); err != nil {
		return copyError(name, err)
	}
	return nil
}

// sourceOf is what to pack of something that is held by O_PATH.
func sourceOf(held *os.File) (s archive.Source, err error) {
	if s.Info, err = held.Stat(); err != nil {
		return s, err
	}
	switch mode := s.Info.Mode(); {
	case mode.IsDir():
		s.Root, err = os.OpenRoot(byDescriptor(held))
	case mode.IsRegular():
		s.File, err = archive.Reopen(held)
	case mode&fs.ModeSymlink != 0:
		s.Link, err = linkOf(held)
	default:
		err = fmt.Errorf("it is %s", archive.Kind(mode))
	}
	return s, err
}

// CopyTo implements runtime.Runtime.
func (r *Runtime) CopyTo(ctx context.Context, id, name string, o archive.Options, from io.Reader, notes io.Writer) error {
	root, err := r.rootOf(ctx, id)
	if err != nil {
		return err
	}
	defer root.Close()
	target, err := targetOf(root, name)
	if err != nil {
		return copyError(name, err)
	}
	defer func() { _ = target.Root.Close() }()
	if o.Plain && target.Name != "" {
		return copyError(name, errors.New("it is no folder"))
	}
	if err := archive.Unpack(ctx, from, target, o, &archive.Notes{To: notes}); err != nil {
		return copyError(name, err)
	}
	return nil
}

// targetOf finds the folder that is written to: that of the name, or the one that is to hold it.
func targetOf(root *os.File, name string) (archive.Target, error) {
	t := archive.Target{Slash: isFolderName(name)}
	for range maxLinks {
		held, err := inside(root, name, t.Slash)
		if errors.Is(err, fs.ErrNotExist) {
			return parentOf(root, name, t)
		}
		if err != nil {
			return t, err
		}
		defer held.Close()
		info, err := held.Stat()
		switch {
		case err != nil:
			return t, err
		case info.IsDir():
			t.Root, err = os.OpenRoot(byDescriptor(held))
			return t, err
		case info.Mode()&fs.ModeSymlink == 0:
			t.Exists = true
			return parentOf(root, name, t)
		}
		link, err := linkOf(held)
		if err != nil {
			return t, err
		}
		if !path.IsAbs(link) { // not cleaned: what .. is of a link the kernel knows
			link = path.Dir(strings.TrimRight(name, "/")) + "/" + link
		}
		name = link
	}
	return t, unix.ELOOP
}

// parentOf is the folder that a name is in.
func parentOf(root *os.File, name string, t archive.Target) (archive.Target, error) {
	dir, base := path.Split(strings.TrimRight(strings.TrimSuffix(name, "/."), "/"))
	if base == "" || base == "." || base == ".." {
		return t, fs.ErrNotExist
	}
	held, err := inside(root, dir, true)
	if err != nil {
		return t, fmt.Errorf("its folder: %w", err)
	}
	defer held.Close()
	t.Name = base
	t.Root, err = os.OpenRoot(byDescriptor(held))
	return t, err
}

// isFolderName tells whether a path says that it is a folder's.
func isFolderName(name string) bool {
	return strings.HasSuffix(name, "/") || strings.HasSuffix(name, "/.")
}

// inside holds what is at a path of a container, without opening it. The kernel resolves it below the root, whatever links there are and
// whoever changes them meanwhile, and follows none of those of /proc that lead elsewhere.
func inside(root *os.File, name string, follow bool) (*os.File, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	if !follow {
		how.Flags |= unix.O_NOFOLLOW
	}
	return openAt(int(root.Fd()), "/"+name, how)
}

// openAt is openat2, until nothing comes in between.
func openAt(root int, name string, how unix.OpenHow) (*os.File, error) {
	for {
		fd, err := unix.Openat2(root, name, &how)
		switch err {
		case nil:
			return os.NewFile(uintptr(fd), name), nil
		case unix.EINTR, unix.EAGAIN: // somebody renames something on the way
		default:
			return nil, err
		}
	}
}

// byDescriptor is a path to what is held, and to nothing that may take its place.
func byDescriptor(held *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", held.Fd()) }

// linkOf is where a link leads that is held.
func linkOf(held *os.File) (string, error) {
	buffer := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(held.Fd()), "", buffer)
	return string(buffer[:max(n, 0)]), err
}

// rootOf holds the root of a container that runs, as its first process sees it.
func (r *Runtime) rootOf(ctx context.Context, id string) (*os.File, error) {
	if err := validID(id); err != nil {
		return nil, err
	}
	state, err := r.State(ctx, id)
	if err != nil {
		return nil, err
	}
	if state.Status != runtime.Running || state.PID == 0 {
		return nil, fmt.Errorf("containerd: container %s does not run: %w", id, runtime.ErrNotFound)
	}
	process := fmt.Sprintf("/proc/%d", state.PID)
	fd, err := unix.Open(process+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("containerd: the root of container %s: %w", id, err)
	}
	root := os.NewFile(uintptr(fd), "the root of "+id)
	// Its process ID may be another's by now. It was not if the container still runs; and never may it be a process of this machine.
	if err := differs(process+"/ns/mnt", "/proc/self/ns/mnt"); err != nil {
		root.Close()
		return nil, fmt.Errorf("containerd: the root of container %s: %w", id, err)
	}
	again, err := r.State(ctx, id)
	if err == nil && (again.Status != runtime.Running || again.PID != state.PID) {
		err = fmt.Errorf("containerd: container %s does not run: %w", id, runtime.ErrNotFound)
	}
	if err != nil {
		root.Close()
		return nil, err
	}
	return root, nil
}

// differs fails unless two files are different ones.
func differs(a, b string) error {
	x, err := os.Stat(a)
	if err != nil {
		return err
	}
	y, err := os.Stat(b)
	if err == nil && os.SameFile(x, y) {
		err = fmt.Errorf("its process is in the machine's own mount namespace")
	}
	return err
}

// copyError is for the user to read: the path, and why not.
func copyError(name string, err error) error {
	reason := err
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		reason = fmt.Errorf("%s: %w", path.Base(p.Path), p.Err)
		if strings.HasPrefix(p.Path, "/proc/") || p.Path == "." {
			reason = p.Err
		}
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &refusal{fmt.Sprintf("%s: %s", name, reason)}
}
