package daemon

import (
	"fmt"
	"log/slog"
	"os"
	"sync"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// keptSockets are those that outlive the daemon: systemd has a copy of each in the unit's file descriptor store, and gives them to the daemon
// that it starts next (sd_notify(3), sd_pid_notify_with_fds). What comes in meanwhile waits in them. Without systemd, or with a unit that has
// no FileDescriptorStoreMax, there are none.
type keptSockets struct {
	notify string // where systemd listens; empty for nowhere
	log    *slog.Logger

	mu    sync.Mutex
	files map[string]*os.File
}

// inherit takes what the daemon before left. It is called once, before anything is started that would have the same descriptors.
func inherit(log *slog.Logger) *keptSockets {
	k := &keptSockets{notify: os.Getenv("NOTIFY_SOCKET"), log: log, files: map[string]*os.File{}}
	for _, f := range activation.Files(true) {
		if old := k.files[f.Name()]; old != nil {
			_ = old.Close()
		}
		k.files[f.Name()] = f
	}
	return k
}

// Kept implements dnsplugin.Keeper.
func (k *keptSockets) Kept(name string) *os.File {
	k.mu.Lock()
	defer k.mu.Unlock()
	copied, err := duplicate(k.files[name])
	if err != nil {
		k.log.Warn("a socket that was kept cannot be used", "socket", name, "err", err)
	}
	return copied
}

// Keep implements dnsplugin.Keeper.
func (k *keptSockets) Keep(name string, socket *os.File) {
	if k.notify == "" {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.drop(name) // first: systemd removes whatever has the name
	copied, err := duplicate(socket)
	if err == nil {
		err = k.tell("FDSTORE=1\nFDNAME="+name, copied)
	}
	if err != nil {
		k.log.Warn("a socket will not outlive this daemon", "socket", name, "err", err)
		return
	}
	k.files[name] = copied
}

// Drop implements dnsplugin.Keeper.
func (k *keptSockets) Drop(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.drop(name)
}

// dropAll lets go of all of them, where nothing is left to be asked.
func (k *keptSockets) dropAll() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for name := range k.files {
		k.drop(name)
	}
}

// drop is called with mu held.
func (k *keptSockets) drop(name string) {
	f := k.files[name]
	if f == nil {
		return
	}
	delete(k.files, name)
	_ = f.Close()
	if err := k.tell("FDSTOREREMOVE=1\nFDNAME="+name, nil); err != nil {
		k.log.Warn("systemd cannot be told to close a socket", "socket", name, "err", err)
	}
}

// tell sends systemd a message, with a file.
func (k *keptSockets) tell(message string, f *os.File) error {
	if k.notify == "" {
		return nil
	}
	var rights []byte
	if f != nil {
		var err error
		if rights, err = withDescriptor(f, func(fd int) ([]byte, error) { return unix.UnixRights(fd), nil }); err != nil {
			return err
		}
	}
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(s) }()
	if err := unix.Sendmsg(s, []byte(message), rights, &unix.SockaddrUnix{Name: k.notify}, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("send to %s: %w", k.notify, err)
	}
	return nil
}

// duplicate is another file of the same socket; nil of nil.
func duplicate(f *os.File) (*os.File, error) {
	if f == nil {
		return nil, nil
	}
	return withDescriptor(f, func(fd int) (*os.File, error) {
		copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return nil, fmt.Errorf("duplicate %s: %w", f.Name(), err)
		}
		return os.NewFile(uintptr(copied), f.Name()), nil
	})
}

// withDescriptor does something with a file's descriptor. Unlike Fd it does not make the socket block, which is so for all of its files.
func withDescriptor[T any](f *os.File, do func(fd int) (T, error)) (result T, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return result, err
	}
	controlErr := raw.Control(func(fd uintptr) { result, err = do(int(fd)) })
	if err == nil {
		err = controlErr
	}
	return result, err
}
