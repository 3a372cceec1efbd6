// Package archive makes a tar stream of a file or a folder's tree, and files of a stream.
//
// It owns what docker cp promises of names, modes and owners, and that neither side leads the other astray: whoever packs
// follows no link and opens nothing but folders and regular files, and whoever unpacks writes below one folder, through
// folders alone, whatever the stream says and whatever somebody else changes there meanwhile. A tree is never held in
// memory: what is kept is one entry of each level.
//
// It knows nothing of containers, and finds no paths: it is given open folders and files.
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
)

const (
	// MaxDepth is how many folders may be inside each other: each takes an open file.
	MaxDepth = 255
	// maxNotes is how many things a copy tells that it left out.
	maxNotes = 100
	// entries is how many entries of a folder are read at a time.
	entries = 256
)

// Source is what is packed: the tree of Root, or else File, or else a symbolic link.
type Source struct {
	// Root is a folder, File a regular file; both stay the caller's.
	Root *os.Root
	File *os.File
	// Info is what is known of a link, and Link where it leads.
	Info fs.FileInfo
	Link string
}

// Close closes what the source has open.
func (s *Source) Close() error {
	var errs []error
	if s.Root != nil {
		errs = append(errs, s.Root.Close())
	}
	if s.File != nil {
		errs = append(errs, s.File.Close())
	}
	return errors.Join(errs...)
}

// Notes tells people what is left out, a line each.
type Notes struct {
	To io.Writer
	n  int
}

func (n *Notes) leave(name, why string) {
	n.n++
	switch {
	case n.n <= maxNotes:
		_, _ = fmt.Fprintf(n.To, "not copied: %q: %s\n", name, why)
	case n.n == maxNotes+1:
		_, _ = fmt.Fprintln(n.To, "not copied: more of that")
	}
}

// Pack writes a source as a tar stream, in which it has that name, and what is inside it names below. Sockets, pipes and devices are left
// out, and so is what is replaced while it is read.
func Pack(ctx context.Context, w io.Writer, name string, s Source, notes *Notes) error {
	p := &packer{ctx, tar.NewWriter(w), notes, make([]byte, 64<<10)}
	var err error
	switch {
	case s.Root != nil:
		err = p.folder(s.Root, name, 0)
	case s.File != nil:
		err = p.file(s.File, name)
	default:
		err = p.header(s.Info, name, s.Link)
	}
	if err != nil {
		return err
	}
	return p.to.Close()
}

type packer struct {
	ctx    context.Context
	to     *tar.Writer
	notes  *Notes
	buffer []byte
}

func (p *packer) header(info fs.FileInfo, name, link string) error {
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	h.Name, h.Uname, h.Gname = name, "", "" // names mean nothing elsewhere
	if info.IsDir() {
		h.Name += "/"
	}
	return p.to.WriteHeader(h)
}

// folder packs a folder and what is in it.
func (p *packer) folder(root *os.Root, name string, depth int) error {
	if depth > MaxDepth {
		return fmt.Errorf("%s: more than %d folders inside each other", path.Base(name), MaxDepth)
	}
	list, err := root.Open(".")
	if err != nil {
		return err
	}
	defer list.Close()
	info, err := list.Stat()
	if err == nil {
		err = p.header(info, name, "")
	}
	for err == nil {
		var names []fs.DirEntry
		names, err = list.ReadDir(entries)
		for _, e := range names {
			if err := p.entry(root, e.Name(), path.Join(name, e.Name()), depth); err != nil {
				return err
			}
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// entry packs one entry of a folder.
func (p *packer) entry(root *os.Root, entry, name string, depth int) error {
	if err := p.ctx.Err(); err != nil {
		return context.Cause(p.ctx)
	}
	info, err := root.Lstat(entry)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it is gone since
	}
	if err != nil {
		return err
	}
	switch {
	case info.IsDir():
		below, err := root.OpenRoot(entry)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		defer func() { _ = below.Close() }()
		if now, err := below.Stat("."); err != nil || !os.SameFile(now, info) {
			p.notes.leave(name, "it was replaced meanwhile")
			return nil
		}
		return p.folder(below, name, depth+1)
	case info.Mode().IsRegular():
		f, err := openRegular(root, entry, info)
		if errors.Is(err, errReplaced) || errors.Is(err, fs.ErrNotExist) {
			p.notes.leave(name, "it was replaced meanwhile")
			return nil
		}
		if err != nil {
			return err
		}
		defer f.Close()
		return p.file(f, name)
	case info.Mode()&fs.ModeSymlink != 0:
		link, err := root.Readlink(entry)
		if err != nil {
			p.notes.leave(name, "it was replaced meanwhile")
			return nil
		}
		return p.header(info, name, link)
	}
	p.notes.leave(name, Kind(info.Mode()))
	return nil
}

// errReplaced says that a file is another one by now.
var errReplaced = errors.New("archive: replaced")

// Kind says what is no file, folder or link.
func Kind(mode fs.FileMode) string {
	switch {
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeNamedPipe != 0:
		return "a pipe"
	case mode&fs.ModeDevice != 0:
		return "a device"
	}
	return "no file or folder"
}

// file packs a regular file, as long as it is now.
func (p *packer) file(f *os.File, name string) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := p.header(info, name, ""); err != nil {
		return err
	}
	n, err := io.CopyBuffer(onlyWriter{p.to}, contextReader{p.ctx, io.LimitReader(f, info.Size())}, p.buffer)
	if err != nil {
		return err
	}
	if missing := info.Size() - n; missing > 0 {
		p.notes.leave(name, fmt.Sprintf("its last %d bytes: it became shorter meanwhile", missing))
		_, err = io.CopyBuffer(onlyWriter{p.to}, io.LimitReader(zeros{}, missing), p.buffer)
	}
	return err
}

// onlyWriter has io.CopyBuffer use the buffer.
type onlyWriter struct{ io.Writer }

type zeros struct{}

// Read implements io.Reader.
func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	io.Reader
}

// Read implements io.Reader.
func (c contextReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.Reader.Read(p)
}
