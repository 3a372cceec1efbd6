package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lock is held by the one daemon that a data directory has. The kernel lets go of it when the daemon ends, however that
// happens.
type lock struct{ file *os.File }

// acquire takes the lock of a data directory, or says who has it.
func acquire(root string) (*lock, error) {
	file, err := os.OpenFile(lockFile(root), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer file.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", file.Name(), err)
		}
		return nil, &lockedError{root, holder(file)}
	}
	if err := errors.Join(file.Truncate(0), writeAt(file, strconv.Itoa(os.Getpid()))); err != nil {
		file.Close()
		return nil, err
	}
	return &lock{file}, nil
}

func lockFile(root string) string { return filepath.Join(root, "swarmd.pid") }

func writeAt(file *os.File, text string) error {
	_, err := file.WriteAt([]byte(text+"\n"), 0)
	return err
}

func holder(file *os.File) int {
	data, _ := io.ReadAll(io.LimitReader(file, 32))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(data)))
	return pid
}

// release lets another daemon have the directory.
func (l *lock) release() { l.file.Close() }

// exitWithin is how long a daemon that was killed may take to be gone: the kernel lets it finish a write to the disk first.
const exitWithin = 3 * time.Second

// acquireSoon is acquire, but for a holder that is on its way out.
func acquireSoon(ctx context.Context, root string) (*lock, error) {
	for end := time.Now().Add(exitWithin); ; {
		l, err := acquire(root)
		var locked *lockedError
		if !errors.As(err, &locked) || time.Now().After(end) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(50 * time.Millisecond): // the lock has no way to be waited for with a context
		}
	}
}

// lockedError says that a daemon runs in the directory already.
type lockedError struct {
	root string
	pid  int
}

// Error implements error.
func (e *lockedError) Error() string {
	return fmt.Sprintf("swarmd (process %d) already runs with --root %s: stop it first, or choose another --root", e.pid, e.root)
}

// takeOver ends the daemon that has the directory, if there is one, and takes the lock.
func takeOver(ctx context.Context, root string) (*lock, error) {
	for first := true; ; first = false {
		l, err := acquire(root)
		var locked *lockedError
		if !errors.As(err, &locked) {
			return l, err
		}
		if first && locked.pid > 0 {
			if err := unix.Kill(locked.pid, unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
				return nil, fmt.Errorf("stop swarmd (process %d): %w", locked.pid, err)
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("swarmd (process %d) does not stop: %w", locked.pid, context.Cause(ctx))
		case <-time.After(50 * time.Millisecond): // the lock has no way to be waited for with a context
		}
	}
}
