package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// disk is a data directory. A change that it made stays, whatever happens to the machine afterwards; one that a crash cut off
// happened, or did not happen.
type disk struct {
	root string
	// before, in tests only, is told each change before it is made.
	before func(change string)
}

func (d disk) path(name string) string { return filepath.Join(d.root, name) }

// exists tells whether there is a file or a folder of the name.
func (d disk) exists(name string) bool {
	_, err := os.Lstat(d.path(name))
	return err == nil
}

// read is a file's content; an error that is fs.ErrNotExist says that there is none.
func (d disk) read(name string) ([]byte, error) { return os.ReadFile(d.path(name)) }

// write makes or replaces a file, for root alone. There is one writer, the daemon that holds the lock of the directory, so the
// new file's name is always the same, and what a crash left under it is overwritten.
func (d disk) write(name string, data []byte) error { return d.copy(name, bytes.NewReader(data)) }

// copy is write for what is too large for memory.
func (d disk) copy(name string, from io.Reader) error {
	d.tell("write " + name)
	path := d.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	file, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, from)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(path+".new"))
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// rename replaces the file to by the file from, in the same folder.
func (d disk) rename(from, to string) error {
	d.tell("rename " + from + " " + to)
	if err := os.Rename(d.path(from), d.path(to)); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(d.path(to)))
}

// remove removes files, and folders with all that is in them. What is not there is no error.
func (d disk) remove(names ...string) error {
	var errs []error
	folders := map[string]bool{}
	for _, name := range names {
		d.tell("remove " + name)
		errs = append(errs, os.RemoveAll(d.path(name)))
		folders[filepath.Dir(d.path(name))] = true
	}
	for folder := range folders {
		if err := syncFolder(folder); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (d disk) tell(change string) {
	if d.before != nil {
		d.before(change)
	}
}

func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
