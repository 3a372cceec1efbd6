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
	"os"
	"path/filepath"
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
	Version int          `json:"version"`
	Active  string       `json:"active"`
	Keys    []wrappedKey `json:"keys"`
}

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

// readKeyring reads the file. An error that is fs.ErrNotExist says that there is none.
func readKeyring(file string, wrapKey []byte) (*keyring, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("store: etcd: read the data keys: %w", err)
	}
	bad := func(err error) (*keyring, error) {
		return nil, fmt.Errorf("store: etcd: data keys in %s: %w", file, err)
	}
	var stored keyringFile
	if err := json.Unmarshal(data, &stored); err != nil {
		return bad(err)
	}
	if stored.Version != 1 {
		return bad(fmt.Errorf("version %d is unknown to this swarmd", stored.Version))
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

// write replaces the file, durably.
func (r *keyring) write(wrapKey []byte) error {
	stored := keyringFile{Version: 1, Active: fmt.Sprintf("%08x", r.active)}
	for id, k := range r.keys {
		w, err := wrap(wrapKey, wrappedKey{ID: fmt.Sprintf("%08x", id), Created: k.created}, k.key)
		if err != nil {
			return err
		}
		stored.Keys = append(stored.Keys, w)
	}
	data, err := json.MarshalIndent(&stored, "", "  ")
	if err != nil {
		return err
	}
	return writeSecret(r.file, append(data, '\n'))
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
		return nil, fmt.Errorf("key %s does not open: the wrapping key is another one", w.ID)
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
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return fail(err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fail(err)
	}
	return nil
}
