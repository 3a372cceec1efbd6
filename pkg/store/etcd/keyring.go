package etcd

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

const keySize = 32

// keyring holds the data keys. etcd holds only the IDs of the keys: what wraps them can move from the node to the
// operator, and keys can be added, without a change of what etcd holds.
type keyring struct {
	file   string // for errors
	active uint32 // seals
	keys   map[uint32]dataKey
}

type dataKey struct {
	key     []byte
	created time.Time
}

// keyringFile is the keyring as JSON: each key sealed with AES-256-GCM under a key derived from the wrapping key.
type keyringFile struct {
	Version int `json:"version"`
	// WrappedBy says who has the wrapping key. Earlier versions did not say.
	WrappedBy wrapper      `json:"wrappedBy,omitempty"`
	Active    string       `json:"active"`
	Keys      []wrappedKey `json:"keys"`
}

// wrapper is who has the wrapping key.
type wrapper string

const (
	byNode     wrapper = "node"     // in a file beside the keyring's
	byOperator wrapper = "operator" // given at each start
)

type wrappedKey struct {
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	Wrapped []byte    `json:"wrapped"` // nonce, ciphertext, tag; the additional data is the ID
}

// newKeyring has one new random key.
func newKeyring(file string) *keyring {
	key := make([]byte, keySize)
	rand.Read(key)
	var id [4]byte
	rand.Read(id[:])
	r := &keyring{file: file, active: binary.BigEndian.Uint32(id[:]), keys: map[uint32]dataKey{}}
	r.keys[r.active] = dataKey{key, time.Now().UTC().Truncate(time.Second)}
	return r
}

// cipher is that of a data key and an epoch.
func (r *keyring) cipher(id uint32, epoch []byte) (cipher.AEAD, error) {
	k, ok := r.keys[id]
	if !ok {
		return nil, fmt.Errorf("it is sealed with the data key %08x, which is not in %s", id, r.file)
	}
	return deriveCipher(k.key, epoch)
}

// readKeyring reads the file, still wrapped. An error that is fs.ErrNotExist says that there is none.
func readKeyring(file string) (*keyringFile, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("store: etcd: read the data keys: %w", err)
	}
	stored, err := parseKeyring(data)
	if err != nil {
		return nil, fmt.Errorf("store: etcd: data keys in %s: %w", file, err)
	}
	return stored, nil
}

func parseKeyring(data []byte) (*keyringFile, error) {
	stored := new(keyringFile)
	if err := json.Unmarshal(data, stored); err != nil {
		return nil, err
	}
	if stored.Version != 1 || stored.WrappedBy != "" && stored.WrappedBy != byNode && stored.WrappedBy != byOperator {
		return nil, fmt.Errorf("version %d, wrapped by %q, is unknown to this swarmd", stored.Version, stored.WrappedBy)
	}
	return stored, nil
}

// open unwraps the keys.
func (stored *keyringFile) open(file string, wrapKey []byte) (*keyring, error) {
	bad := func(err error) (*keyring, error) {
		return nil, fmt.Errorf("store: etcd: data keys in %s: %w", file, err)
	}
	r := &keyring{file: file, keys: make(map[uint32]dataKey, len(stored.Keys))}
	for _, w := range stored.Keys {
		id, err := strconv.ParseUint(w.ID, 16, 32)
		if err != nil {
			return bad(err)
		}
		key, err := unwrap(wrapKey, w)
		if err != nil {
			return bad(err)
		}
		r.keys[uint32(id)] = dataKey{key, w.Created}
	}
	active, err := strconv.ParseUint(stored.Active, 16, 32)
	if _, ok := r.keys[uint32(active)]; err != nil || !ok {
		return bad(fmt.Errorf("the active key %q is not there", stored.Active))
	}
	r.active = uint32(active)
	return r, nil
}

// wrap is the keyring as a file.
func (r *keyring) wrap(wrapKey []byte, by wrapper) ([]byte, error) {
	stored := keyringFile{Version: 1, WrappedBy: by, Active: keyName(r.active)}
	for _, id := range slices.Sorted(maps.Keys(r.keys)) {
		k := r.keys[id]
		w, err := wrap(wrapKey, wrappedKey{ID: keyName(id), Created: k.created}, k.key)
		if err != nil {
			return nil, err
		}
		stored.Keys = append(stored.Keys, w)
	}
	data, err := json.MarshalIndent(&stored, "", "  ")
	return append(data, '\n'), err
}

// write replaces the file, durably.
func (r *keyring) write(wrapKey []byte, by wrapper) error {
	data, err := r.wrap(wrapKey, by)
	if err != nil {
		return err
	}
	return writeSecret(r.file, data)
}

func keyName(id uint32) string { return fmt.Sprintf("%08x", id) }

// share is the keys as they go to another manager.
func (r *keyring) share() (keys map[string][]byte, active string) {
	keys = make(map[string][]byte, len(r.keys))
	for id, k := range r.keys {
		keys[keyName(id)] = k.key
	}
	return keys, keyName(r.active)
}

// takenKeyring is what another manager shared.
func takenKeyring(file string, keys map[string][]byte, active string) (*keyring, error) {
	r := &keyring{file: file, keys: make(map[uint32]dataKey, len(keys))}
	now := time.Now().UTC().Truncate(time.Second)
	for name, key := range keys {
		id, err := strconv.ParseUint(name, 16, 32)
		if err != nil || len(key) != keySize {
			return nil, fmt.Errorf("store: etcd: the data key %q that was shared is none", name)
		}
		r.keys[uint32(id)] = dataKey{key, now}
		if name == active {
			r.active = uint32(id)
		}
	}
	if _, ok := keys[active]; !ok {
		return nil, fmt.Errorf("store: etcd: the active key %q is not among those that were shared", active)
	}
	return r, nil
}

func wrapping(wrapKey []byte) (cipher.AEAD, error) {
	derived, err := hkdf.Key(sha256.New, wrapKey, nil, "swarmd keyring v1", keySize)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func wrap(wrapKey []byte, w wrappedKey, key []byte) (wrappedKey, error) {
	aead, err := wrapping(wrapKey)
	if err != nil {
		return w, err
	}
	w.Wrapped = aead.Seal(nil, nil, key, []byte(w.ID))
	return w, nil
}

func unwrap(wrapKey []byte, w wrappedKey) ([]byte, error) {
	aead, err := wrapping(wrapKey)
	if err != nil {
		return nil, err
	}
	key, err := aead.Open(nil, nil, w.Wrapped, []byte(w.ID))
	if err != nil || len(key) != keySize {
		return nil, fmt.Errorf("%w: key %s does not open", ErrWrongKey, w.ID)
	}
	return key, nil
}

// nodeWrapKey reads the wrapping key that lives with the node, and makes it where it is missing and create says so.
func nodeWrapKey(file string, create bool) ([]byte, error) {
	key, err := os.ReadFile(file)
	switch {
	case err == nil && len(key) == keySize:
		return key, nil
	case err == nil:
		return nil, fmt.Errorf("store: etcd: wrapping key %s: %d bytes instead of %d", file, len(key), keySize)
	case !errors.Is(err, fs.ErrNotExist) || !create:
		return nil, fmt.Errorf("store: etcd: read the wrapping key: %w", err)
	}
	key = make([]byte, keySize)
	rand.Read(key)
	return key, writeSecret(file, key)
}

// writeSecret writes a file for this user alone, durably, whole or not at all.
func writeSecret(file string, data []byte) error {
	fail := func(err error) error { return fmt.Errorf("store: etcd: write %s: %w", file, err) }
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fail(err)
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".new-*") // 0600
	if err != nil {
		return fail(err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fail(err)
	}
	if err := os.Rename(f.Name(), file); err != nil {
		return fail(err)
	}
	if err := syncDir(filepath.Dir(file)); err != nil {
		return fail(err)
	}
	return nil
}

// syncDir makes what was created, renamed and removed in a directory durable.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// removeSecret removes a file, durably; where there is none, that is fine.
func removeSecret(file string) error {
	err := os.Remove(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = syncDir(filepath.Dir(file))
	}
	if err != nil {
		return fmt.Errorf("store: etcd: remove %s: %w", file, err)
	}
	return nil
}
