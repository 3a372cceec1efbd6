package etcd

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// The names of the copies that SnapshotTo makes, which sort by age, and of what is on its way to be one or another file: a crash
// leaves such.
const (
	snapshots   = "swarm-*Z-*.tar"
	copyTemp    = ".new-*"
	backupTemp  = ".backup-*"
	restoreTemp = ".restore-*"
)

// errRewrapped says that the data keys were wrapped anew while a copy was made, which holds the keyring from before.
var errRewrapped = errors.New("the data keys were wrapped anew meanwhile")

// SnapshotTo writes a backup to a new file in the directory, for this user alone, and then removes all but the newest of those that
// it wrote there; keep is at least 1. It returns the file's path. No copy with a keyring from before a Rewrap appears after that.
func (s *Store) SnapshotTo(ctx context.Context, dir string, keep int) (path string, err error) {
	const tries = 3
	for range tries {
		path, err = s.copyTo(ctx, dir, max(keep, 1))
		if !errors.Is(err, errRewrapped) {
			break
		}
	}
	if err != nil {
		return "", fmt.Errorf("store: etcd: copy the state to %s: %w", dir, err)
	}
	return path, nil
}

func (s *Store) copyTo(ctx context.Context, dir string, keep int) (path string, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	f, err := os.CreateTemp(dir, copyTemp) // 0600
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name())
	m, err := s.backup(ctx, f)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", err
	}
	path = filepath.Join(dir, fmt.Sprintf("swarm-%s-%d.tar", time.Now().UTC().Format("20060102T150405.000Z"), s.history.Newest().Revision()))
	if err := s.keepCopy(m, f.Name(), path); err != nil {
		return "", err
	}
	return path, errors.Join(prune(dir, path, keep), syncDir(dir))
}

// keepCopy gives a copy its name, unless it was overtaken by a Rewrap.
func (s *Store) keepCopy(m *manifest, from, to string) error {
	s.ringFile.Lock()
	defer s.ringFile.Unlock()
	now, err := ringOf(s.cfg.KeyFile)
	if err != nil {
		return err
	}
	if !slices.Contains(m.Files, now) {
		return errRewrapped
	}
	return os.Rename(from, to)
}

// prune never removes the newest, whatever a clock that was set back makes of its name.
func prune(dir, newest string, keep int) error {
	names, err := filepath.Glob(filepath.Join(dir, snapshots))
	if err != nil {
		return err
	}
	slices.Sort(names)
	names = slices.DeleteFunc(names, func(name string) bool { return name == newest })
	for _, name := range names[:max(0, len(names)+1-keep)] {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

// DropCopies removes, durably, all that SnapshotTo wrote to the directory before the data keys were last wrapped: such a copy opens
// with the key from before, and may hold it. It needs no key, and must not run beside a Rewrap; repeating it is fine. Where there are
// no data keys on the disk, nothing is removed: the copies may be all that is left of the state.
func DropCopies(c Config, dir string) error {
	if err := c.complete(); err != nil {
		return err
	}
	now, err := ringOf(c.KeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("store: etcd: remove copies from before the data keys were wrapped: %w", err)
	}
	copies, _ := filepath.Glob(filepath.Join(dir, snapshots))
	rest, _ := filepath.Glob(filepath.Join(dir, copyTemp))
	for _, name := range copies {
		old, failed := before(name, now)
		if old {
			rest = append(rest, name)
		}
		err = errors.Join(err, failed)
	}
	if len(rest) == 0 {
		return err
	}
	for _, name := range rest {
		if failed := os.Remove(name); !errors.Is(failed, fs.ErrNotExist) { // one that was on its way has gone itself
			err = errors.Join(err, failed)
		}
	}
	return errors.Join(err, syncDir(dir))
}

// before tells whether a copy holds another keyring than the one that is there now. What is no copy does.
func before(name string, now archiveFile) (bool, error) {
	f, err := os.Open(name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	m, err := readManifest(tar.NewReader(f))
	return err != nil || !slices.Contains(m.Files, now), nil
}

// ringOf is the keyring on the disk as a part of a backup: as every wrapping is another, it tells them apart.
func ringOf(keyFile string) (archiveFile, error) {
	ring, err := os.ReadFile(keyFile)
	if err != nil {
		return archiveFile{}, err
	}
	return partOf(ringName, ring).archiveFile, nil
}
