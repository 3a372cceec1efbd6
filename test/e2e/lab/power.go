package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// PowerOff cuts a host's power: its link falls silent, then every process ends and everything that is only in memory is lost: the
// network with its links and rules, mounts, control groups. The disk stays. It does nothing to a host that is off.
func (h *Host) PowerOff() error {
	if h.Namespace == nil {
		return nil
	}
	// The link first: nobody may hear the kernel close what the processes had open.
	err := h.lab.Delay(h, 0)
	err = errors.Join(err, h.lab.unplug(h.number), h.killAll())
	ns := h.Namespace
	h.Namespace, h.daemon = nil, nil
	if err = errors.Join(err, ns.close(), unmountBelow(h.Root, true), removeEngine(filepath.Join(h.Root, "containerd"))); err != nil {
		return fmt.Errorf("cut the power of %s: %w", h.Name, err)
	}
	return nil
}

// PowerOn gives a host its power again: it has a network, and nothing runs. It does nothing to a host that is on.
func (h *Host) PowerOn() error {
	if h.Namespace != nil {
		return nil
	}
	ns, err := h.lab.join(h.Name, h.number)
	if err != nil {
		return err
	}
	h.Namespace = ns
	return nil
}

// UseSmallDisk gives a host a disk of so many bytes. It must have nothing on its disk yet.
func (h *Host) UseSmallDisk(size int64) error {
	if err := unix.Mount("lab", h.Root, "tmpfs", 0, fmt.Sprintf("mode=0700,size=%d", size)); err != nil {
		return fmt.Errorf("disk of %s: %w", h.Name, err)
	}
	return nil
}

// FillDisk fills a small disk to the last byte. FreeDisk gives the room back.
func (h *Host) FillDisk() error {
	if !slices.Contains(mounts(h.Root), h.Root) {
		return fmt.Errorf("the disk of %s is this machine's: use UseSmallDisk first", h.Name)
	}
	f, err := os.Create(h.filler())
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 1<<16)
	for size := len(buf); size > 0; {
		_, err := f.Write(buf[:size])
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, io.ErrShortWrite) {
			size /= 2 // to the last byte
		} else if err != nil {
			return err
		}
	}
	return nil
}

// FreeDisk undoes FillDisk.
func (h *Host) FreeDisk() error { return os.Remove(h.filler()) }

func (h *Host) filler() string { return filepath.Join(h.Root, "filler") }

func (h *Host) unmountDisk() error { return unmountBelow(h.Root, false) }

// unmountBelow unmounts everything below a directory, and the directory unless it is to stay.
func unmountBelow(dir string, stays bool) error {
	for _, path := range mounts(dir) {
		if stays && path == dir {
			continue
		}
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
	return nil
}
