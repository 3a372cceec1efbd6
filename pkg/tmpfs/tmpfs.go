// Package tmpfs keeps folders in the machine's memory, for files that come and go with each task: on a disk each costs a look for a free
// inode, and what a reboot leaves of them means nothing.
//
// It mounts, and unmounts what it mounted. It never hides what is in a folder already, and owns no folder.
package tmpfs

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Mount mounts a tmpfs at a folder: nosuid, nodev, noexec, and with options such as "mode=0711,size=1m". It does nothing where there is a
// tmpfs already, or where something is in the folder. It is idempotent.
func Mount(dir, options string) error {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return fmt.Errorf("mount a tmpfs at %s: %w", dir, err)
	}
	if s.Type == unix.TMPFS_MAGIC {
		return nil
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		return err
	}
	if err := unix.Mount("swarmd", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, options); err != nil {
		return fmt.Errorf("mount a tmpfs at %s: %w", dir, err)
	}
	return nil
}

// Unmount unmounts what is mounted at a folder, if anything is. What still has files of it open keeps them. It is idempotent.
func Unmount(dir string) error {
	err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err == nil || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return fmt.Errorf("unmount %s: %w", dir, err)
}
