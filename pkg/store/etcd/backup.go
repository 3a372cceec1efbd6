package etcd

import (
	"context"
	"io"
)

func (s *Store) Backup(ctx context.Context, w io.Writer) error { return ErrNotReady }

func Restore(ctx context.Context, c Config, archive io.Reader) error { return ErrNotReady }

func (s *Store) SnapshotTo(ctx context.Context, dir string, keep int) (path string, err error) {
	return "", ErrNotReady
}
