package lab

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// store is the file descriptor store of a host's init system, as systemd has one for a unit with FileDescriptorStoreMax: what the daemon gives it
// stays open, and the next daemon gets it (sd_notify(3), sd_listen_fds(3)).
type store struct {
	path string
	conn *net.UnixConn

	mu    sync.Mutex
	files map[string]*os.File
}

// KeepSockets has the host's init system keep what its daemons give it, from the next start on, until the lab goes.
func (h *Host) KeepSockets() {
	h.lab.T.Helper()
	s := &store{path: filepath.Join(h.lab.Dir, h.Name+".notify"), files: map[string]*os.File{}}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.path, Net: "unixgram"})
	if err != nil {
		h.lab.T.Fatalf("lab: %v", err)
	}
	s.conn, h.store = conn, s
	h.lab.T.Cleanup(s.close)
	go s.listen()
}

// Kept are the names of what the host's init system keeps.
func (h *Host) Kept() []string {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	var names []string
	for name := range h.store.files {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (s *store) listen() {
	message, rights := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*64))
	for {
		n, with, _, _, err := s.conn.ReadMsgUnix(message, rights)
		if err != nil {
			return // closed
		}
		s.take(string(message[:n]), received(rights[:with]))
	}
}

// take does what a message asks for.
func (s *store) take(message string, files []*os.File) {
	name, does := "stored", ""
	for line := range strings.Lines(message) {
		switch key, value, _ := strings.Cut(strings.TrimSpace(line), "="); {
		case key == "FDNAME":
			name = value
		case value == "1":
			does = key
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case does == "FDSTORE" && len(files) == 1:
		files, s.files[name] = []*os.File{s.files[name]}, files[0]
	case does == "FDSTOREREMOVE":
		files = append(files, s.files[name])
		delete(s.files, name)
	}
	for _, f := range files {
		_ = f.Close() // of none it is an error
	}
}

func received(rights []byte) (files []*os.File) {
	messages, _ := unix.ParseSocketControlMessage(rights)
	for _, m := range messages {
		descriptors, _ := unix.ParseUnixRights(&m)
		for _, fd := range descriptors {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "stored"))
		}
	}
	return files
}

// wrap makes a command line one that a shell fills its own process ID into, which is the daemon's: systemd's way to say whom files are for.
func (s *store) wrap(line []string) []string {
	return append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$@"`, "sh"}, line...)
}

// pass are the variables and files for a daemon that starts.
func (s *store) pass() (env []string, files []*os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name, f := range s.files {
		names, files = append(names, name), append(files, f)
	}
	return []string{"NOTIFY_SOCKET=" + s.path, fmt.Sprintf("LISTEN_FDS=%d", len(files)), "LISTEN_FDNAMES=" + strings.Join(names, ":")}, files
}

func (s *store) close() {
	_ = s.conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.files {
		_ = f.Close()
	}
}
