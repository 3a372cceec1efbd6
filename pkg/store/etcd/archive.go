package etcd

import (
	"archive/tar"
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
)

// A backup is a tar of these files, the manifest first:
//
//	manifest.json   what is in there, with sizes and checksums
//	etcd.db         etcd's snapshot; every value in it is sealed
//	keyring.json    the data keys, wrapped
//	keyring.key     what they are wrapped by, unless an operator has that
const (
	manifestName = "manifest.json"
	dbName       = "etcd.db"
	ringName     = "keyring.json"
	wrapName     = "keyring.key"

	archiveFormat = 1
	// maxManifest, maxRing and maxDB bound what is read of an archive. etcd refuses to grow beyond its quota, and needs some space
	// around it.
	maxManifest = 64 << 10
	maxRing     = 1 << 20
	maxDB       = memberQuota + 2<<30
)

// manifest describes a backup.
type manifest struct {
	Format int `json:"format"`
	// Kind tells a backup from other archives that have a manifest.
	Kind    string    `json:"kind"`
	Created time.Time `json:"created"`
	// Etcd is the version that wrote the database.
	Etcd string `json:"etcd"`
	// Revision is at least what was committed when the backup began.
	Revision  int64         `json:"revision"`
	WrappedBy wrapper       `json:"wrappedBy"`
	Files     []archiveFile `json:"files"`
}

const archiveKind = "swarmd backup"

// archiveFile is one file in a backup.
type archiveFile struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// check refuses manifests that no swarmd writes.
func (m *manifest) check() error {
	if m.Kind != archiveKind {
		return errors.New("it is no backup of a swarm")
	}
	if m.Format != archiveFormat {
		return fmt.Errorf("it is of format %d, and this swarmd reads format %d", m.Format, archiveFormat)
	}
	limits := map[string]int64{dbName: maxDB, ringName: maxRing}
	switch m.WrappedBy {
	case byNode:
		limits[wrapName] = keySize
	case byOperator:
	default:
		return fmt.Errorf("its keys are wrapped by %q", m.WrappedBy)
	}
	for _, f := range m.Files {
		limit, ok := limits[f.Name]
		if !ok || f.Size < 0 || f.Size > limit {
			return fmt.Errorf("its manifest names the file %q with %d bytes", f.Name, f.Size)
		}
		delete(limits, f.Name)
	}
	if len(limits) > 0 {
		return errors.New("its manifest does not name all files")
	}
	return nil
}

// unpack writes the files of a backup to a directory, each held against the manifest, and returns that.
func unpack(archive io.Reader, dir string) (*manifest, error) {
	t := tar.NewReader(archive)
	m, err := readManifest(t)
	if err != nil {
		return nil, err
	}
	missing := slices.Clone(m.Files)
	for {
		head, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, cutOff(err)
		}
		i := slices.IndexFunc(missing, func(f archiveFile) bool { return f.Name == head.Name })
		if i < 0 || head.Typeflag != tar.TypeReg || head.Size != missing[i].Size {
			return nil, fmt.Errorf("its file %q is not what the manifest says", head.Name)
		}
		if err := unpackFile(t, filepath.Join(dir, head.Name), missing[i]); err != nil {
			return nil, err
		}
		missing = slices.Delete(missing, i, i+1)
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("its end is missing: there is no %s", missing[0].Name)
	}
	return m, nil
}

// readManifest reads the beginning of a backup.
func readManifest(t *tar.Reader) (*manifest, error) {
	head, err := t.Next()
	if err != nil || head.Name != manifestName || head.Size > maxManifest || head.Typeflag != tar.TypeReg {
		return nil, errors.Join(errors.New("it is no backup of a swarm, or its beginning is missing"), err)
	}
	m := new(manifest)
	if err := json.NewDecoder(t).Decode(m); err != nil {
		return nil, fmt.Errorf("its manifest: %w", err)
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	return m, nil
}

func unpackFile(r io.Reader, path string, want archiveFile) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	hash := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, hash), io.LimitReader(r, want.Size))
	if err = errors.Join(err, f.Close()); err != nil {
		return cutOff(err)
	}
	if hex.EncodeToString(hash.Sum(nil)) != want.SHA256 {
		return fmt.Errorf("its file %s is damaged: the checksum differs", want.Name)
	}
	return nil
}

func cutOff(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("its end is missing: %w", err)
	}
	return err
}
