package etcd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"

	clientv3 "go.etcd.io/etcd/client/v3"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// nodeKeyFile holds the wrapping key of a node that is not locked.
func nodeKeyFile(keyFile string) string { return keyFile + ".key" }

// openKeyring reads the data keys, and holds them against the check value: what is sealed with the active key of whoever
// came first. Where there is no check value yet, the keys are made, and written before anything can be sealed with them.
func (s *Store) openKeyring(ctx context.Context) error {
	got, err := s.client.Get(ctx, checks)
	if err != nil {
		return fmt.Errorf("store: etcd: read %s: %w", checks, err)
	}
	fresh := len(got.Kvs) == 0
	ring, err := s.cfg.unlock(fresh)
	if errors.Is(err, fs.ErrNotExist) && fresh {
		ring = newKeyring(s.cfg.KeyFile)
		err = s.cfg.wrapNew(ring)
	}
	if err != nil {
		return err
	}
	s.seal = newSealer(ring)
	if fresh {
		return s.putCheck(ctx)
	}
	_, err = s.seal.open(checks, got.Kvs[0].Value)
	return err
}

// unlock opens the keyring with the key of whoever wrapped it. An error that is fs.ErrNotExist says that a file is missing.
func (c *Config) unlock(fresh bool) (*keyring, error) {
	stored, err := readKeyring(c.KeyFile)
	if err != nil {
		return nil, err
	}
	byOther := stored.WrappedBy == byOperator
	if _, err := os.Stat(nodeKeyFile(c.KeyFile)); stored.WrappedBy == "" && errors.Is(err, fs.ErrNotExist) {
		byOther = c.WrapKey != nil
	}
	switch {
	case byOther && c.WrapKey == nil:
		return nil, fmt.Errorf("%w: the key that opens %s is needed", ErrLocked, c.KeyFile)
	case byOther:
		ring, err := stored.open(c.KeyFile, c.WrapKey)
		if err != nil {
			return nil, err
		}
		return ring, removeSecret(nodeKeyFile(c.KeyFile)) // what a rewrapping left that was cut short
	}
	wrapKey, err := nodeWrapKey(nodeKeyFile(c.KeyFile), false)
	if err != nil {
		if fresh { // not to be taken for a keyring that was never made
			return nil, fmt.Errorf("%w: %v", ErrWrongKey, err)
		}
		return nil, err
	}
	return stored.open(c.KeyFile, wrapKey)
}

// wrapNew writes the keyring where there was none.
func (c *Config) wrapNew(ring *keyring) error {
	if c.WrapKey != nil {
		return ring.write(c.WrapKey, byOperator)
	}
	wrapKey, err := nodeWrapKey(nodeKeyFile(c.KeyFile), true)
	if err != nil {
		return err
	}
	return ring.write(wrapKey, byNode)
}

// takeKeys writes the keyring of a member that joins.
func (c *Config) takeKeys(m *v1.Membership) error {
	ring, err := takenKeyring(c.KeyFile, m.DataKeys, m.ActiveKey)
	if err != nil {
		return err
	}
	return c.wrapNew(ring)
}

// putCheck writes the check value; where another process was faster, its is the one that counts.
func (s *Store) putCheck(ctx context.Context) error {
	sealed, err := s.seal.sealAll([]string{checks}, [][]byte{[]byte("swarm")})
	if err != nil {
		return err
	}
	resp, err := s.client.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(checks), "=", 0)).
		Then(clientv3.OpPut(checks, sealed[0])).Else(clientv3.OpGet(checks)).Commit()
	if err != nil {
		return fmt.Errorf("store: etcd: write %s: %w", checks, err)
	}
	if !resp.Succeeded {
		_, err = s.seal.open(checks, resp.Responses[0].GetResponseRange().Kvs[0].Value)
	}
	return err
}

// Rewrap wraps the data keys with another key, of 32 bytes, that an operator keeps and Config.WrapKey brings; nil wraps them with
// one in a file beside them, so that the node starts without anybody. It returns once that is durable, and the key before it opens
// nothing any more. Wherever it is cut short, either the key before or the new one opens the keyring. Repeating it is fine.
func (s *Store) Rewrap(wrapKey []byte) error {
	s.ringFile.Lock()
	defer s.ringFile.Unlock()
	if err := s.Err(); err != nil {
		return err
	}
	file := nodeKeyFile(s.cfg.KeyFile)
	if wrapKey != nil {
		if len(wrapKey) != keySize {
			return fmt.Errorf("store: etcd: the wrapping key must have %d bytes", keySize)
		}
		if err := s.seal.ring.write(wrapKey, byOperator); err != nil {
			return err
		}
		return removeSecret(file)
	}
	stored, err := readKeyring(s.cfg.KeyFile)
	if err != nil {
		return err
	}
	if stored.WrappedBy == byNode {
		if _, err := s.cfg.unlock(false); err == nil {
			return nil // another key must not take the place of the one that opens it
		}
	}
	wrapKey = make([]byte, keySize)
	rand.Read(wrapKey)
	if err := writeSecret(file, wrapKey); err != nil {
		return err
	}
	return s.seal.ring.write(wrapKey, byNode)
}
