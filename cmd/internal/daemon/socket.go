package daemon

import (
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxSocketPath is what the kernel takes for the path of a unix socket.
const maxSocketPath = 107

// listen opens a unix socket that only root can use. The daemon's lock is held, so that a socket that is there already is
// one that a killed daemon left.
func listen(path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("socket %s: the path is %d bytes long, the kernel takes %d: choose a shorter --root or --socket", path, len(path), maxSocketPath)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("socket %s: another daemon answers there: stop it, or choose another --socket", path)
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	defer unix.Umask(unix.Umask(0o177)) // so that there is no moment in which others could connect
	return net.Listen("unix", path)
}
