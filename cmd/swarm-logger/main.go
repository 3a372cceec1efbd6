// Swarm-logger keeps one container's output. A containerd shim starts it for each container, as a "binary://" logger: with
// the container's stdout and stderr to read on descriptors 3 and 4, and a pipe on 5 on which it says that it is ready. It
// lives as long as the container has its output open, whatever becomes of swarmd and containerd, and it never makes a
// container wait for anything but the disk.
//
// There is one for each container, so it is one thread of work, a few fixed buffers, and no library.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/swarmd/swarmd/pkg/runtime/containerd/logfile"
)

// Descriptors that a shim passes.
const (
	stdout = 3
	stderr = 4
	ready  = 5
)

// defaultIdle is how long the beginning of a line waits for its end before it is written as a part: a prompt, or the last words
// of a container that ended without a newline, must not stay unseen.
const defaultIdle = time.Second

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "swarm-logger:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	options, err := parse(args)
	if err != nil {
		return err
	}
	// The shim sends SIGTERM when it closes the streams; their end is what we stop at, so that nothing is lost.
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
	w, err := logfile.Open(options.dir, options.maxSize, options.maxFiles)
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }() // everything is written, or counted as lost
	p, err := newPoller(stdout, stderr)
	if err != nil {
		return err
	}
	if _, err := syscall.Write(ready, []byte{0}); err != nil {
		return fmt.Errorf("tell the shim: %w", err)
	}
	if err := syscall.Close(ready); err != nil {
		return fmt.Errorf("tell the shim: %w", err)
	}
	return copyAll(p, w, options.idle)
}

type options struct {
	dir      string
	maxSize  int64
	maxFiles int
	idle     time.Duration
}

// parse reads pairs of key and value, in the order in which the shim happened to put them.
func parse(args []string) (o options, err error) {
	o.idle = defaultIdle
	for len(args) >= 2 && err == nil {
		switch key, value := args[0], args[1]; key {
		case "dir":
			o.dir = value
		case "size":
			o.maxSize, err = strconv.ParseInt(value, 10, 64)
		case "files":
			o.maxFiles, err = strconv.Atoi(value)
		case "idle": // in milliseconds
			var n int
			n, err = strconv.Atoi(value)
			o.idle = time.Duration(n) * time.Millisecond
		default:
			err = fmt.Errorf("unknown option %q: want dir, size, files or idle", key)
		}
		args = args[2:]
	}
	if err == nil && (o.dir == "" || len(args) > 0) {
		err = fmt.Errorf("want pairs of option and value, with dir among them; a containerd shim starts this program, not people")
	}
	return o, err
}

// copyAll copies both streams until they end.
func copyAll(p *poller, w *logfile.Writer, idle time.Duration) error {
	streams := map[int32]*logfile.Splitter{stdout: logfile.NewSplitter("stdout"), stderr: logfile.NewSplitter("stderr")}
	out := make([]byte, 0, 4*logfile.MaxLine)
	for len(streams) > 0 {
		wait := -1
		for _, s := range streams {
			if s.Pending() {
				wait = int(idle / time.Millisecond)
			}
		}
		fds, err := p.wait(wait)
		if err != nil {
			return err
		}
		now := time.Now()
		out = out[:0]
		if len(fds) == 0 {
			for _, s := range streams {
				out = s.Flush(now, out)
			}
		}
		for _, fd := range fds {
			n, err := syscall.Read(int(fd), streams[fd].Space())
			switch {
			case n > 0:
				out = streams[fd].Advance(n, now, out)
			case err == syscall.EAGAIN || err == syscall.EINTR:
			default: // the end, or a stream that cannot be read any more, which is the same to us
				out = streams[fd].Flush(now, out)
				p.remove(fd)
				delete(streams, fd)
			}
		}
		if len(out) > 0 {
			w.Write(out)
		}
	}
	return nil
}
