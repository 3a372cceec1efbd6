package netplugin

import (
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// A node has two key pairs for encrypted networks. WireGuard knows it by the lasting one. What two nodes make of both their turning
// ones is mixed into each handshake (WireGuard's preshared key), so that who has stolen a lasting key alone is nobody. Turning the
// second one over disturbs no connection: sessions go on with the keys that they have until their next handshake, two minutes later at most.

// PublicKey is what other nodes need of a node for encrypted networks: the public halves of its lasting and its turning key pair. The
// zero value is none.
type PublicKey [2 * wgtypes.KeyLen]byte

func (k PublicKey) lasting() wgtypes.Key { return wgtypes.Key(k[:wgtypes.KeyLen]) }
func (k PublicKey) turning() wgtypes.Key { return wgtypes.Key(k[wgtypes.KeyLen:]) }

// check refuses keys that make the same secret with any other, which is none.
func (k PublicKey) check() error {
	any, err := ecdh.X25519().NewPrivateKey(make([]byte, wgtypes.KeyLen))
	if err != nil {
		return err
	}
	for _, half := range []wgtypes.Key{k.lasting(), k.turning()} {
		public, err := ecdh.X25519().NewPublicKey(half[:])
		if err != nil {
			return err
		}
		if _, err := any.ECDH(public); err != nil {
			return err
		}
	}
	return nil
}

// keyAge is how long a turning key is used, as Docker's.
const keyAge = 12 * time.Hour

// keyring has this node's own keys, and the file that they are in. It is for any goroutine.
type keyring struct {
	path string

	mu    sync.Mutex
	k     *keyFile // nil until it was read
	found bool     // an earlier start had made them
}

// older tells whether an earlier start of the node had the keys that are in use.
func (r *keyring) older() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.found
}

// keyFile is what is in the file.
type keyFile struct {
	Lasting privateKey `json:"lasting"`
	Turning privateKey `json:"turning"`
	// Next is told, and used once the managers tell it.
	Next *privateKey `json:"next,omitempty"`
	// Since is when Turning was made.
	Since time.Time `json:"since"`
}

// privateKey is one of Curve25519.
type privateKey []byte

// newPrivateKey makes one as WireGuard reads it back.
func newPrivateKey() (privateKey, error) {
	k, err := wgtypes.GeneratePrivateKey()
	return k[:], err
}

func (k privateKey) public() (wgtypes.Key, error) {
	private, err := ecdh.X25519().NewPrivateKey(k)
	if err != nil {
		return wgtypes.Key{}, err
	}
	return wgtypes.Key(private.PublicKey().Bytes()), nil
}

// tell is the public key that the others are to use. When the turning one is old, it is a new one's.
func (r *keyring) tell(now time.Time) (PublicKey, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.load(now); err != nil {
		return PublicKey{}, err
	}
	if r.k.Next == nil && now.Sub(r.k.Since) >= keyAge {
		if err := r.begin(); err != nil {
			return PublicKey{}, err
		}
	}
	if r.k.Next != nil {
		return r.k.public(*r.k.Next)
	}
	return r.k.public(r.k.Turning)
}

// begin makes the next turning key.
func (r *keyring) begin() error {
	next, err := newPrivateKey()
	if err != nil {
		return err
	}
	k := *r.k
	k.Next = &next
	return r.save(&k)
}

// follow takes the next turning key into use if it is what the others were told.
func (r *keyring) follow(told PublicKey, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.load(now); err != nil || r.k.Next == nil {
		return err
	}
	next, err := r.k.public(*r.k.Next)
	if err != nil || next != told {
		return err
	}
	return r.save(&keyFile{Lasting: r.k.Lasting, Turning: *r.k.Next, Since: now})
}

// current are the keys in use, with their public halves. They are not to be changed.
func (r *keyring) current(now time.Time) (*keyFile, PublicKey, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.load(now); err != nil {
		return nil, PublicKey{}, err
	}
	public, err := r.k.public(r.k.Turning)
	return r.k, public, err
}

// load reads the file, or makes keys where there are none that can be used.
func (r *keyring) load(now time.Time) error {
	if r.k != nil {
		return nil
	}
	data, err := os.ReadFile(r.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var k keyFile
	if err == nil && json.Unmarshal(data, &k) == nil && k.usable() {
		r.k, r.found = &k, true
		return nil
	}
	k = keyFile{Since: now}
	if k.Lasting, err = newPrivateKey(); err == nil {
		k.Turning, err = newPrivateKey()
	}
	if err != nil {
		return err
	}
	return r.save(&k)
}

func (k *keyFile) usable() bool {
	all := []privateKey{k.Lasting, k.Turning}
	if k.Next != nil {
		all = append(all, *k.Next)
	}
	return !slices.ContainsFunc(all, func(one privateKey) bool { _, err := one.public(); return err != nil })
}

// save has keys in the file before anybody hears of them.
func (r *keyring) save(k *keyFile) error {
	data, err := json.Marshal(k)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(r.path), 0o700); err != nil {
		return err
	}
	made := r.path + ".new"
	f, err := os.OpenFile(made, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(made, r.path)
	}
	if err != nil {
		return fmt.Errorf("keep the keys of encrypted networks: %w", err)
	}
	r.k = k
	return nil
}

// forget removes the keys.
func (r *keyring) forget() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.k, r.found = nil, false
	if err := os.Remove(r.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (k *keyFile) public(turning privateKey) (p PublicKey, err error) {
	for i, one := range []privateKey{k.Lasting, turning} {
		public, err := one.public()
		if err != nil {
			return PublicKey{}, err
		}
		copy(p[i*wgtypes.KeyLen:], public[:])
	}
	return p, nil
}

// shared is the secret that this node and another one mix into the handshakes of a network. Both make the same.
func (k *keyFile) shared(own, other PublicKey, vni uint32) (secret wgtypes.Key, err error) {
	private, err := ecdh.X25519().NewPrivateKey(k.Turning)
	if err != nil {
		return secret, err
	}
	theirs := other.turning()
	public, err := ecdh.X25519().NewPublicKey(theirs[:])
	if err != nil {
		return secret, err
	}
	common, err := private.ECDH(public)
	if err != nil {
		return secret, err
	}
	pair := []PublicKey{own, other}
	slices.SortFunc(pair, func(a, b PublicKey) int { return slices.Compare(a[:], b[:]) })
	info := binary.BigEndian.AppendUint32([]byte("swarmd encrypted network "), vni)
	info = append(append(info, pair[0][:]...), pair[1][:]...)
	made, err := hkdf.Key(sha256.New, common, nil, string(info), len(secret))
	copy(secret[:], made)
	return secret, err
}
