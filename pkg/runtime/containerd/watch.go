package containerd

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// watcher tells when something in a folder changes, without asking again and again.
type watcher struct{ file *os.File }

func watch(dir string) (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	w := &watcher{os.NewFile(uintptr(fd), "inotify")}
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MODIFY|unix.IN_CREATE|unix.IN_DELETE_SELF|unix.IN_MOVED_TO); err != nil {
		w.close()
		return nil, &os.PathError{Op: "watch", Path: dir, Err: err}
	}
	return w, nil
}

func (w *watcher) close() { w.file.Close() }

// wait returns when something may have changed, or with ctx's error.
func (w *watcher) wait(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = w.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := w.file.SetReadDeadline(time.Now().Add(lookAgain)); err != nil {
		return err
	}
	if ctx.Err() != nil { // ended before the deadline was set anew
		return ctx.Err()
	}
	var events [4096]byte
	_, err := w.file.Read(events[:])
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}
