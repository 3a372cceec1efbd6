package etcd

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/version"
)

// part is one file of a backup on its way.
type part struct {
	archiveFile
	content io.Reader
}

// Backup writes the whole state and what opens it, as it was at some moment during the call and with everything that was committed
// before. Unless an operator has the wrapping key, whoever has the backup has all secrets. One is made at a time.
func (s *Store) Backup(ctx context.Context, w io.Writer) error {
	ctx, cancel, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	select {
	case s.backing <- struct{}{}:
		defer func() { <-s.backing }()
	case <-ctx.Done():
		return s.readError(ctx, "back up", context.Cause(ctx))
	}
	revision, err := s.Sync(ctx)
	if err != nil {
		return err
	}
	m := &manifest{Format: archiveFormat, Kind: archiveKind, Created: time.Now().UTC(), Etcd: version.Version, Revision: revision}
	parts, err := s.keyParts(m)
	if err != nil {
		return err
	}
	db, err := s.dbPart(ctx)
	if err != nil {
		return s.readError(ctx, "back up", err)
	}
	defer db.content.(io.Closer).Close()
	if err := writeArchive(w, m, append([]part{db}, parts...)); err != nil {
		return fmt.Errorf("store: etcd: write the backup: %w", err)
	}
	return nil
}

// keyParts are the keyring's files as they are on the disk, of one moment.
func (s *Store) keyParts(m *manifest) ([]part, error) {
	s.ringFile.Lock()
	defer s.ringFile.Unlock()
	ring, err := os.ReadFile(s.cfg.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("store: etcd: back up the data keys: %w", err)
	}
	stored, err := parseKeyring(ring)
	if err != nil {
		return nil, fmt.Errorf("store: etcd: back up the data keys: %w", err)
	}
	wrapKey, err := os.ReadFile(nodeKeyFile(s.cfg.KeyFile))
	if m.WrappedBy = stored.WrappedBy; m.WrappedBy == "" {
		m.WrappedBy = byNode
		if errors.Is(err, os.ErrNotExist) {
			m.WrappedBy = byOperator
		}
	}
	parts := []part{partOf(ringName, ring)}
	if m.WrappedBy == byOperator {
		return parts, nil
	}
	if err != nil {
		return nil, fmt.Errorf("store: etcd: back up the data keys: %w", err)
	}
	return append(parts, partOf(wrapName, wrapKey)), nil
}

func partOf(name string, content []byte) part {
	sum := sha256.Sum256(content)
	return part{archiveFile{name, int64(len(content)), hex.EncodeToString(sum[:])}, bytes.NewReader(content)}
}

// dbPart is etcd's snapshot in a file without a name: a tar wants to know its size first.
func (s *Store) dbPart(ctx context.Context) (part, error) {
	f, err := os.CreateTemp(filepath.Dir(s.cfg.KeyFile), ".backup-*") // 0600
	if err != nil {
		return part{}, err
	}
	hash := sha256.New()
	size, err := s.copySnapshot(ctx, io.MultiWriter(f, hash))
	if err = errors.Join(os.Remove(f.Name()), err); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return part{}, errors.Join(err, f.Close())
	}
	return part{archiveFile{dbName, size, hex.EncodeToString(hash.Sum(nil))}, f}, nil
}

func (s *Store) copySnapshot(ctx context.Context, w io.Writer) (int64, error) {
	r, err := s.client.Snapshot(ctx)
	if err != nil {
		return 0, err
	}
	size, err := io.Copy(w, r)
	return size, errors.Join(err, r.Close())
}

func writeArchive(w io.Writer, m *manifest, parts []part) error {
	for _, p := range parts {
		m.Files = append(m.Files, p.archiveFile)
	}
	head, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	t := tar.NewWriter(w)
	for _, p := range append([]part{partOf(manifestName, append(head, '\n'))}, parts...) {
		if err := t.WriteHeader(&tar.Header{Name: p.Name, Size: p.Size, Mode: 0o600, ModTime: m.Created, Format: tar.FormatPAX}); err != nil {
			return err
		}
		if _, err := io.Copy(t, p.content); err != nil {
			return err
		}
	}
	return t.Close()
}

// snapshots are the names of the copies that SnapshotTo makes. They sort by age.
const snapshots = "swarm-*Z-*.tar"

// SnapshotTo writes a backup to a new file in the directory, for this user alone, and then removes all but the newest of those that
// it wrote there; keep is at least 1. It returns the file's path.
func (s *Store) SnapshotTo(ctx context.Context, dir string, keep int) (path string, err error) {
	fail := func(err error) (string, error) {
		return "", fmt.Errorf("store: etcd: copy the state to %s: %w", dir, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fail(err)
	}
	f, err := os.CreateTemp(dir, ".new-*") // 0600
	if err != nil {
		return fail(err)
	}
	defer os.Remove(f.Name())
	err = s.Backup(ctx, f)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fail(err)
	}
	path = filepath.Join(dir, fmt.Sprintf("swarm-%s-%d.tar", time.Now().UTC().Format("20060102T150405.000Z"), s.history.Newest().Revision()))
	if err := os.Rename(f.Name(), path); err != nil {
		return fail(err)
	}
	if err := errors.Join(prune(dir, path, max(keep, 1)), syncDir(dir)); err != nil {
		return fail(err)
	}
	return path, nil
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
