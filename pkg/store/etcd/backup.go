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
	_, err := s.backup(ctx, w)
	return err
}

// backup is Backup, and returns what it wrote.
func (s *Store) backup(ctx context.Context, w io.Writer) (*manifest, error) {
	ctx, cancel, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	select {
	case s.backing <- struct{}{}:
		defer func() { <-s.backing }()
	case <-ctx.Done():
		return nil, s.readError(ctx, "back up", context.Cause(ctx))
	}
	revision, err := s.Sync(ctx)
	if err != nil {
		return nil, err
	}
	m := &manifest{Format: archiveFormat, Kind: archiveKind, Created: time.Now().UTC(), Etcd: version.Version, Revision: revision}
	parts, err := s.keyParts(m)
	if err != nil {
		return nil, err
	}
	db, err := s.dbPart(ctx)
	if err != nil {
		return nil, s.readError(ctx, "back up", err)
	}
	defer db.content.(io.Closer).Close()
	if err := writeArchive(w, m, append([]part{db}, parts...)); err != nil {
		return nil, fmt.Errorf("store: etcd: write the backup: %w", err)
	}
	return m, nil
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
	f, err := os.CreateTemp(filepath.Dir(s.cfg.KeyFile), backupTemp) // 0600
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
