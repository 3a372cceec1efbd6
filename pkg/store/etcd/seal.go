package etcd

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// An envelope is what etcd holds as a value:
//
//	version 1 byte · data key ID 4 · epoch 8 · nonce 12 · AES-256-GCM of the content, tag included
//
// The additional data is the header (version to epoch) and the value's path, so that a value cannot be moved to another
// key. The key of the cipher is derived from the data key and the epoch, which is random and new for every process and
// every 2²⁴ values: random nonces are safe for some 2³² values under one key, and a busy swarm writes more than that.
const (
	envelopeVersion = 1
	headerSize      = 1 + 4 + 8
	nonceSize       = 12
	sealedOverhead  = headerSize + nonceSize + 16
	epochLimit      = 1 << 24
	knownEpochs     = 1024
)

// sealer seals with the newest data key and opens with any that it has.
type sealer struct {
	ring *keyring

	mu     sync.Mutex
	header []byte // of the current epoch
	aead   cipher.AEAD
	left   int
	known  map[[headerSize]byte]cipher.AEAD
}

func newSealer(ring *keyring) *sealer {
	return &sealer{ring: ring, known: make(map[[headerSize]byte]cipher.AEAD)}
}

// current is the cipher to seal n more values with.
func (s *sealer) current(n int) ([]byte, cipher.AEAD, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left < n {
		header := make([]byte, headerSize)
		header[0] = envelopeVersion
		binary.BigEndian.PutUint32(header[1:], s.ring.active)
		rand.Read(header[5:])
		aead, err := s.ring.cipher(s.ring.active, header[5:])
		if err != nil {
			return nil, nil, err
		}
		s.header, s.aead, s.left = header, aead, epochLimit
	}
	s.left -= n
	return s.header, s.aead, nil
}

// sealAll seals contents for paths, with one call for randomness.
func (s *sealer) sealAll(paths []string, contents [][]byte) ([]string, error) {
	header, aead, err := s.current(len(paths))
	if err != nil {
		return nil, err
	}
	nonces := make([]byte, nonceSize*len(paths))
	rand.Read(nonces)
	sealed := make([]string, len(paths))
	var buf, ad []byte
	for i, path := range paths {
		nonce := nonces[i*nonceSize : (i+1)*nonceSize]
		ad = append(append(ad[:0], header...), path...)
		buf = append(append(buf[:0], header...), nonce...)
		buf = aead.Seal(buf, nonce, contents[i], ad)
		sealed[i] = string(buf)
	}
	return sealed, nil
}

// open is the content of an envelope. It does not say what was in there.
func (s *sealer) open(path string, envelope []byte) ([]byte, error) {
	if len(envelope) < sealedOverhead {
		return nil, fmt.Errorf("store: etcd: value of key %q is not sealed by swarmd (%d bytes)", path, len(envelope))
	}
	if envelope[0] != envelopeVersion {
		return nil, fmt.Errorf("store: etcd: value of key %q is of version %d, and this swarmd reads version %d; was it written by a newer one?",
			path, envelope[0], envelopeVersion)
	}
	aead, err := s.knownCipher([headerSize]byte(envelope))
	if err != nil {
		return nil, fmt.Errorf("store: etcd: value of key %q cannot be opened: %w", path, err)
	}
	ad := append(append(make([]byte, 0, headerSize+len(path)), envelope[:headerSize]...), path...)
	content, err := aead.Open(nil, envelope[headerSize:headerSize+nonceSize], envelope[headerSize+nonceSize:], ad)
	if err != nil {
		return nil, fmt.Errorf("store: etcd: value of key %q cannot be opened: it was changed, moved, or sealed with another key", path)
	}
	return content, nil
}

func (s *sealer) knownCipher(header [headerSize]byte) (cipher.AEAD, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if aead, ok := s.known[header]; ok {
		return aead, nil
	}
	aead, err := s.ring.cipher(binary.BigEndian.Uint32(header[1:]), header[5:])
	if err != nil {
		return nil, err
	}
	if len(s.known) >= knownEpochs {
		clear(s.known)
	}
	s.known[header] = aead
	return aead, nil
}

// deriveCipher makes the cipher of one epoch.
func deriveCipher(key, epoch []byte) (cipher.AEAD, error) {
	derived, err := hkdf.Key(sha256.New, key, epoch, "swarmd value v1", keySize)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// encode is a value's content: the length of the meta's JSON, that JSON (only in an object's home section), and the
// section's.
func encode(meta *v1.Meta, value any) ([]byte, error) {
	section, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	if meta == nil {
		return append([]byte{0}, section...), nil
	}
	stored := *meta
	stored.ID, stored.Revisions = "", v1.Revisions{} // known from the key
	head, err := json.Marshal(&stored)
	if err != nil {
		return nil, err
	}
	content := binary.AppendUvarint(make([]byte, 0, len(head)+len(section)+2), uint64(len(head)))
	return append(append(content, head...), section...), nil
}

// decode is the inverse of encode.
func decode(d v1.Descriptor, id string, s v1.Section, content []byte) (*v1.Meta, any, error) {
	size, n := binary.Uvarint(content)
	if n <= 0 || size > uint64(len(content)-n) || (size > 0) != (s == d.Home()) {
		return nil, nil, errors.New("the content is malformed")
	}
	head, section := content[n:n+int(size)], content[n+int(size):]
	if bytes.Equal(section, []byte("null")) {
		return nil, nil, errors.New("the content is null")
	}
	value, err := d.DecodeSection(s, section)
	if err != nil {
		return nil, nil, describe(err)
	}
	if size == 0 {
		return nil, value, nil
	}
	meta := new(v1.Meta)
	if err := json.Unmarshal(head, meta); err != nil {
		return nil, nil, describe(err)
	}
	meta.ID = id
	return meta, value, nil
}

// describe says where a value does not decode, without quoting it: it may be a secret.
func describe(err error) error {
	var wrongType *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &wrongType):
		return fmt.Errorf("field %q holds a wrong type at byte %d", wrongType.Field, wrongType.Offset)
	case errors.As(err, &syntax):
		return fmt.Errorf("the content is malformed at byte %d", syntax.Offset)
	}
	return errors.New("the content does not decode")
}
