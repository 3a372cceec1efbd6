package archive

import (
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// openRegular opens a regular file that info was found of. Somebody may have put something else in its place that must not be opened,
// such as a device: it is looked at first.
func openRegular(root *os.Root, name string, info fs.FileInfo) (*os.File, error) {
	held, err := root.OpenFile(name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer held.Close()
	now, err := held.Stat()
	if err != nil {
		return nil, err
	}
	if !now.Mode().IsRegular() || !os.SameFile(now, info) {
		return nil, errReplaced
	}
	return Reopen(held)
}

// Reopen opens a regular file that is held by O_PATH, for reading.
func Reopen(held *os.File) (*os.File, error) {
	return os.Open(fmt.Sprintf("/proc/self/fd/%d", held.Fd()))
}
