package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// Target is where a stream goes to.
type Target struct {
	// Root is an open folder, which stays the caller's.
	Root *os.Root
	// Name is what is meant in it; nothing is the folder itself.
	Name string
	// Exists tells that Name is there, and no folder; Slash that the user wants one.
	Exists, Slash bool
}

// Options say how to unpack.
type Options struct {
	// Contents puts what is in a folder into the target, not the folder itself.
	Contents bool
	// Owners gives files the owners of the stream, and keeps the bits that run a program as its owner.
	Owners bool
	// Plain takes the names of the stream as they are: the target is a folder.
	Plain bool
}

// Unpack makes files of a tar stream, as docker cp does: a file or a folder into a folder that is there, or else under the target's name; a
// folder takes the place of nothing else, and nothing else that of a folder. Devices, pipes and whatever else is no file, folder or link
// are left out. The stream is read to its end. What was unpacked before an error stays.
func Unpack(ctx context.Context, r io.Reader, t Target, o Options, notes *Notes) error {
	from := contextReader{ctx, r}
	u := &unpacker{tar: tar.NewReader(from), options: o, notes: notes, buffer: make([]byte, 64<<10)}
	err := u.run(t)
	if closeErr := u.leave(0); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, from)
	return err
}

type unpacker struct {
	tar     *tar.Reader
	options Options
	notes   *Notes
	buffer  []byte
	// base is the name in the stream of what is unpacked, and single whether that is no folder.
	base   string
	single bool
	// open are the folders on the way to the latest entry, the outermost first.
	open []folder
}

// folder is one that was entered, and what becomes of it when everything in it is there.
type folder struct {
	root   *os.Root
	name   string
	header *tar.Header // nil where the stream says nothing of it
	ours   bool        // to close
}

func (u *unpacker) run(t Target) error {
	for first := true; ; {
		h, err := u.tar.Next()
		if errors.Is(err, io.EOF) {
			if first && !u.options.Plain {
				return errors.New("there is nothing to unpack")
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the tar stream: %w", err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue // it is about the stream, and no entry
		}
		h.Name = path.Clean(h.Name)
		if u.options.Plain {
			h.Name = path.Clean(strings.TrimLeft(h.Name, "/")) // as tar does
		}
		switch {
		case first && u.options.Plain:
			u.open = []folder{{root: t.Root}}
			err = u.entry(h, h.Name)
		case first:
			err = u.first(h, t)
		case u.options.Plain:
			err = u.entry(h, h.Name)
		default:
			rest, below := strings.CutPrefix(h.Name, u.base+"/")
			if u.base == "." {
				rest, below = h.Name, true
			}
			if !below || u.single {
				return fmt.Errorf("the tar stream has %q, which is not in %q", h.Name, u.base)
			}
			err = u.entry(h, rest)
		}
		if err != nil {
			return err
		}
		first = false
	}
}

// first is the entry by which it is decided what is called how.
func (u *unpacker) first(h *tar.Header, t Target) error {
	u.base = h.Name
	name := t.Name
	if h.Typeflag != tar.TypeDir {
		u.single = true
		if name == "" {
			name = path.Base(h.Name)
		} else if t.Slash {
			return errors.New("the destination folder must exist")
		}
		u.open = []folder{{root: t.Root}}
		return u.put(t.Root, name, h)
	}
	if t.Exists {
		return errors.New("cannot copy a folder to a file")
	}
	if name == "" && (u.options.Contents || h.Name == "." || h.Name == "/") {
		u.base = strings.TrimSuffix(u.base, "/")
		u.open = []folder{{root: t.Root}}
		return nil
	}
	if name == "" {
		name = path.Base(h.Name)
	}
	root, err := enter(t.Root, name)
	if err != nil {
		return err
	}
	u.open = []folder{{root: root, header: h, ours: true}}
	return nil
}

// enter opens a folder, which is made where it is not there. It never goes by a link.
func enter(root *os.Root, name string) (*os.Root, error) {
	if err := root.Mkdir(name, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	info, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("cannot overwrite %q, which is no folder, with a folder", name)
	}
	below, err := root.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	if now, err := below.Stat("."); err != nil || !os.SameFile(now, info) {
		_ = below.Close()
		return nil, fmt.Errorf("%q was replaced meanwhile", name)
	}
	return below, nil
}

// entry unpacks what has a name below the outermost folder.
func (u *unpacker) entry(h *tar.Header, name string) error {
	if name == "." && h.Typeflag == tar.TypeDir {
		return nil
	}
	if !filepath.IsLocal(name) || name == "." {
		return fmt.Errorf("the tar stream has %q, which leads out of its folder", h.Name)
	}
	parts := strings.Split(name, "/")
	folders, last := parts[:len(parts)-1], parts[len(parts)-1]
	if h.Typeflag == tar.TypeDir {
		folders = parts
	}
	if len(folders) > MaxDepth {
		return fmt.Errorf("%q: more than %d folders inside each other", last, MaxDepth)
	}
	same := 0
	for same < len(folders) && same+1 < len(u.open) && u.open[same+1].name == folders[same] {
		same++
	}
	if err := u.leave(same + 1); err != nil {
		return err
	}
	for _, f := range folders[same:] {
		root, err := enter(u.open[len(u.open)-1].root, f)
		if err != nil {
			return err
		}
		u.open = append(u.open, folder{root: root, name: f, ours: true})
	}
	if h.Typeflag == tar.TypeDir {
		u.open[len(u.open)-1].header = h
		return nil
	}
	return u.put(u.open[len(u.open)-1].root, last, h)
}

// leave closes the folders that are further inside than n, and gives them their modes and times.
func (u *unpacker) leave(n int) error {
	var errs []error
	for len(u.open) > n {
		f := u.open[len(u.open)-1]
		u.open = u.open[:len(u.open)-1]
		if f.header != nil {
			errs = append(errs, u.dress(f.root, ".", f.header))
		}
		if f.ours {
			errs = append(errs, f.root.Close())
		}
	}
	return errors.Join(errs...)
}

// put makes one entry that is no folder.
func (u *unpacker) put(root *os.Root, name string, h *tar.Header) error {
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeSymlink, tar.TypeLink:
	default:
		u.notes.leave(h.Name, Kind(h.FileInfo().Mode()))
		return nil
	}
	info, err := root.Lstat(name)
	switch {
	case err == nil && info.IsDir():
		return fmt.Errorf("cannot overwrite the folder %q with a file", name)
	case err == nil:
		err = root.Remove(name)
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	}
	if err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeSymlink:
		if err := root.Symlink(h.Linkname, name); err != nil {
			return err
		}
		if u.options.Owners {
			return root.Lchown(name, h.Uid, h.Gid)
		}
		return nil
	case tar.TypeLink:
		return u.link(name, h)
	}
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(onlyWriter{f}, u.tar, u.buffer)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return u.dress(root, name, h)
}

// link makes a second name of a file of this stream.
func (u *unpacker) link(name string, h *tar.Header) error {
	if u.single {
		return fmt.Errorf("the tar stream has nothing but %q, a second name of another file", h.Name)
	}
	old := strings.TrimLeft(path.Clean(h.Linkname), "/")
	if !u.options.Plain && u.base != "." {
		old = strings.TrimPrefix(old, u.base+"/")
	}
	for _, f := range u.open[1:] {
		name = path.Join(path.Dir(name), f.name, path.Base(name))
	}
	return u.open[0].root.Link(old, name)
}

// dress gives a file or a folder its owner, mode and time.
func (u *unpacker) dress(root *os.Root, name string, h *tar.Header) error {
	mode := h.FileInfo().Mode() & (fs.ModePerm | fs.ModeSticky)
	if u.options.Owners {
		mode = h.FileInfo().Mode() & (fs.ModePerm | fs.ModeSticky | fs.ModeSetuid | fs.ModeSetgid)
		if err := root.Lchown(name, h.Uid, h.Gid); err != nil {
			return err
		}
	}
	if err := root.Chmod(name, mode); err != nil {
		return err
	}
	if h.ModTime.IsZero() {
		return nil
	}
	return root.Chtimes(name, time.Time{}, h.ModTime)
}
