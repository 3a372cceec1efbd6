package etcd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/etcdutl/v3/snapshot"
)

// revisionBump is how far a restored store's revision is beyond the backup's. What was committed between the backup and the loss
// had revisions too, and those who saw them, agents above all, would take the restored state for an old one.
const revisionBump = 1 << 30

// Restore makes the directory of a new member, the only one of a new cluster, from a backup; Start starts it. c is what Start gets.
// Members of the cluster that the backup is of can never be part of the new one.
//
// It fails, and leaves nothing behind, where there is a member or a keyring already, where the archive is damaged, cut off or
// something else, with ErrLocked where the backup's keys are wrapped by an operator's key and c has none, and with ErrWrongKey where
// it is another one. The archive is read once, with bounds.
func Restore(ctx context.Context, c Config, archive io.Reader) (err error) {
	shrinkWAL()
	if err := c.complete(); err != nil {
		return err
	}
	if c.Dir == "" {
		return errors.New("store: etcd: restore: a data directory is needed; an etcd of your own has its own way")
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("store: etcd: restore: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	for _, path := range []string{filepath.Join(dir, "etcd"), c.KeyFile, nodeKeyFile(c.KeyFile)} {
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("store: etcd: restore: %s is there already; a backup is restored where there is none", path)
		}
	}
	work, err := os.MkdirTemp(dir, restoreTemp)
	if err != nil {
		return fmt.Errorf("store: etcd: restore: %w", err)
	}
	defer os.RemoveAll(work)
	if err := c.restore(ctx, dir, work, archive); err != nil {
		return fmt.Errorf("store: etcd: restore the backup: %w", err)
	}
	return nil
}

func (c *Config) restore(ctx context.Context, dir, work string, archive io.Reader) (err error) {
	m, err := unpack(contextReader{ctx, archive}, work)
	if err != nil {
		return err
	}
	ring, err := c.unlockArchive(m, work)
	if err != nil {
		return err
	}
	data := filepath.Join(work, "etcd")
	if err := c.restoreDB(filepath.Join(work, dbName), data); err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, removeSecret(c.KeyFile), removeSecret(nodeKeyFile(c.KeyFile)))
		}
	}()
	wrapped := *c
	if m.WrappedBy == byNode {
		wrapped.WrapKey = nil // nobody was locked; what the state says counts once it is there
	}
	if err := wrapped.wrapNew(ring); err != nil {
		return err
	}
	if err := os.Rename(data, filepath.Join(dir, "etcd")); err != nil {
		return err
	}
	return syncDir(dir)
}

// unlockArchive opens the data keys of a backup.
func (c *Config) unlockArchive(m *manifest, work string) (*keyring, error) {
	file := filepath.Join(work, ringName)
	stored, err := readKeyring(file)
	if err != nil {
		return nil, err
	}
	wrapKey := c.WrapKey
	switch {
	case m.WrappedBy == byNode:
		if wrapKey, err = os.ReadFile(filepath.Join(work, wrapName)); err != nil {
			return nil, err
		}
	case wrapKey == nil:
		return nil, fmt.Errorf("%w: the backup's keys are wrapped by the unlock key, which is needed", ErrLocked)
	}
	ring, err := stored.open(file, wrapKey)
	if err != nil {
		return nil, err
	}
	ring.file = c.KeyFile
	return ring, nil
}

// restoreDB makes a member's directory of etcd's snapshot, with IDs of its own.
func (c *Config) restoreDB(db, data string) (err error) {
	state := new(logging)
	state.closing.Store(true) // what a failing restore says is in its error
	state.starting.Store(true)
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("its database is damaged: %v", r)
		}
	}()
	url := alone.String()
	if c.Peer != nil {
		url = c.Peer.URL
	}
	err = snapshot.NewV3(newLogger(c.Log, state)).Restore(snapshot.RestoreConfig{
		SnapshotPath: db, Name: c.Name, OutputDataDir: data, PeerURLs: []string{url}, InitialCluster: c.Name + "=" + url,
		InitialClusterToken: rand.Text(), RevisionBump: revisionBump, MarkCompacted: true,
	})
	if err != nil {
		return fmt.Errorf("its database: %w", err)
	}
	return nil
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

// Read implements io.Reader.
func (r contextReader) Read(data []byte) (int, error) {
	if err := context.Cause(r.ctx); err != nil {
		return 0, err
	}
	return r.r.Read(data)
}
