//go:build !linux

package archive

import (
	"io/fs"
	"os"
)

// openRegular opens a regular file that info was found of.
func openRegular(root *os.Root, name string, info fs.FileInfo) (*os.File, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	if now, err := f.Stat(); err != nil || !now.Mode().IsRegular() || !os.SameFile(now, info) {
		f.Close()
		return nil, errReplaced
	}
	return f, nil
}
